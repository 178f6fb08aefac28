# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of a run: its size, its counts, and that nothing which nodes say is more than text in it."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import os
import re
import unicodedata

import pytest
from hypothesis import given, settings, strategies as st

from ansible_collections.orbit.imaging.plugins.module_utils import outcome as outcomes
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import page, result

from ..runkit import BEGAN, ended_run

FAILED = {"node1-1": "no_boot", "node2-2": "client_failed"}
EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x00\x1b\u2028\u202e{{ 7*7 }}"


class Parsed(html.parser.HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, data):
        super().__init__()
        self.tags = []
        self.text = ""
        self.parts = {"style": "", "script": ""}
        self._in = ""
        self.feed(data.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in = tag

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        if self._in in self.parts:
            self.parts[self._in] += data
        else:
            self.text += data

    def all(self, tag, name=None):
        return [attrs for found, attrs in self.tags if found == tag and (name is None or name in attrs)]

    def rows(self):
        return {a["data-name"]: a for a in self.all("li", "data-name")}


def stream(image, **told):
    """Return what result.json says of a stream; what a service does not tell is None."""
    known = dict.fromkeys(("blocks_sent", "blocks_repeated", "bandwidth"))
    return {"image": image, "domain": "grid", "address": "239.1.1.1", "port": 7000, **known, **told}


def many(nodes, *, evidence="", failing=0, tries=1, name="node{x}-{y}", groups=2):
    """Return the result of a run of so many nodes, each ``failing``-th of which has failed."""
    found = {}
    for i in range(nodes):
        bad = failing and i % failing == 0
        attempts = [
            {
                "number": n + 1,
                "power": "reset",
                "began_at": BEGAN + 3 + n,
                "ended_at": BEGAN + 4 + n,
                "cause": "no_boot" if bad or n + 1 < tries else None,
                "evidence": evidence,
            }
            for n in range(tries)
        ]
        steps = {
            "reset": {"at": BEGAN + 3},
            "client": {"booted_at": BEGAN + 40.123, "started_at": BEGAN + 41, "ended_at": BEGAN + 90 + i / 7},
            "boot": {"at": BEGAN + 160},
            "proof": {"up_at": BEGAN + 180},
        }
        found[name.format(x=i % 20 + 1, y=i // 20 + 1)] = {
            "group": f"g{i % groups}",
            "image": f"i{i % groups}.ndz",
            "domain": "grid",
            "control_ip": f"10.10.{i % 20 + 1}.{i // 20 + 1}",
            "outcome": "no_boot" if bad else "imaged",
            "evidence": evidence if bad else "",
            "bytes_written": 10**9,
            "bytes_covered": 2 * 10**9,
            "attempts": attempts,
            "steps": {"reset": steps["reset"]} if bad else steps,
        }
    listed = []
    for g in range(groups):
        names = [n for n, node in found.items() if node["group"] == f"g{g}"]
        common = {"quorum": "100%", "needed": len(names), "imaged": 1, "total": len(names), "passed": False}
        listed.append({"label": f"g{g}", "image": f"i{g}.ndz", "nodes": names, **common})
    return {
        "schema": 1,
        "run": "r1",
        "started_at": BEGAN,
        "ended_at": BEGAN + 200,
        "passed": False,
        "left_behind": [],
        "groups": listed,
        "streams": [stream(f"i{g}.ndz") for g in range(groups)],
        "timeline": [
            {"step": "client", "began_at": BEGAN + 3, "ended_at": BEGAN + 150, "cpu_seconds": 1.5},
        ],
        "nodes": found,
    }


def progress(document):
    return [
        {"event": "progress", "node": name, "at": BEGAN + 41 + percent * 0.49, "percent": percent}
        for name in document["nodes"]
        for percent in range(0, 101, 2)
    ]


@pytest.mark.parametrize(("nodes", "most"), [(1, 60_000), (40, 60_000), (400, 600_000)])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"failing": 1, "evidence": "<&>\"'\x1b" * 400, "tries": 9},
        {"failing": 2, "evidence": "a line\n" * 5000, "tries": 3},
        {"name": "<" * 90 + "node{x}-{y}", "tries": 5, "groups": 1},
    ],
)
def test_a_page_is_no_larger_than_it_may_be(nodes, most, more):
    document = many(nodes, **{"groups": min(nodes, 8), **more})
    if "name" in more:
        # Names of this length and kind take the place of all else.
        most *= 4
    data = page.make(document, events=progress(document))
    assert len(data) <= most
    assert len(Parsed(data).rows()) == len({page.name_of(name) for name in document["nodes"]})


def test_what_was_cut_is_said():
    text = Parsed(page.make(many(40, failing=1, evidence="first\n" + "line\n" * 5000))).text
    assert "(cut; all of it is in result.json)" in text
    assert "cut;" not in Parsed(page.make(many(4, failing=1, evidence="first\nsecond"))).text


def test_every_node_has_a_cell_a_row_and_its_outcome(tmp_path):
    found = Parsed(page.make(result.make(ended_run(tmp_path, causes=FAILED))))
    assert {name: row["data-o"] for name, row in found.rows().items()} == {
        "node1-1": "no_boot",
        "node1-2": "imaged",
        "node2-1": "imaged",
        "node2-2": "client_failed",
    }
    cells = found.all("a", "aria-label")
    assert cells[0]["aria-label"] == "node1-1 no_boot"
    assert [a.get("class") for a in cells] == ["f", None, None, "f"]
    assert sorted(a["data-count"] for a in found.all("li", "data-count")) == ["1", "1", "2"]
    assert len(found.all("details", "id")) == 2
    assert "2 of 4 nodes imaged" in found.text
    assert outcomes.OUTCOMES["no_boot"] in found.text
    assert "last line" in found.text


def test_each_outcome_has_a_sign_of_its_own():
    assert set(page.SIGNS) == set(outcomes.OUTCOMES)
    assert len(set(page.SIGNS.values())) == len(page.SIGNS)


def test_coordinates_make_the_grid():
    document = many(40)
    places = {name: tuple(map(int, name[4:].split("-"))) for name in document["nodes"]}
    (grid,) = Parsed(page.make(document, places=places)).all("svg", "aria-label")
    assert grid["viewbox"] == "0 0 20 2"
    # Two nodes in one place would hide each other.
    places = dict.fromkeys(places, (1, 1))
    (grid,) = Parsed(page.make(document, places=places)).all("svg", "aria-label")
    assert grid["viewbox"] == "0 0 20 2"


def test_where_the_time_went():
    document = many(3, groups=1)
    # 245 MB need 22 s of 49.
    document["streams"] = [stream("i0.ndz", bandwidth=1114 / 1024 * 90)]
    text = " ".join(Parsed(page.make(document, sizes={"i0.ndz": 245_000_000})).text.split())
    # Of 200 s: reset at 3, up at 40, writes from 41 for 49 s, boots from 160 to 180.
    assert "g0node3-1others, steps2 %0 %19 %0 %25 %0 %10 %45 %44 %" in text


def test_rates_come_from_what_nodes_say_of_their_progress():
    document = many(4)
    assert not any("chart" in a.get("class", "") for a in Parsed(page.make(document)).all("div"))
    found = Parsed(page.make(document, events=progress(document)))
    assert any("chart" in a.get("class", "") for a in found.all("div"))
    # 1 GB in 49 s.
    mean, most = re.search(r"g0: ([0-9.]+) on average, ([0-9.]+) at most", found.text).groups()
    assert 19.5 < float(mean) < 20.5
    assert 20 < float(most) < 21


@pytest.mark.parametrize(
    "last",
    [
        {"percent": 100, "bytes": 10**9},
        # The bytes of a client are seen up to a second later than its per cent.
        {"percent": 100, "bytes": 0},
        # Of a client of 2006 nothing else is known.
        {"bytes": 10**9},
        # The client reads the disk back, and is at the beginning of that.
        {"percent": 1, "bytes": 10**9, "msg": "verifying"},
        {"percent": 99, "bytes": 0, "msg": "verifying"},
    ],
)
def test_a_rate_is_what_was_written_in_the_time_that_it_took(last):
    document = many(1, groups=1)
    told = [{"event": "progress", "node": "node1-1", "at": BEGAN + 41.2, "bytes": 0}]
    told += [{"event": "progress", "node": "node1-1", "at": BEGAN + 89.9, **last}]
    text = Parsed(page.make(document, events=told)).text
    assert "g0: 20.4 on average" in text


def test_no_rate_is_taken_over_less_than_a_second():
    """Nodes are told of once a second, and of their end at once: a moment says nothing."""
    document = many(1, groups=1)
    client = document["nodes"]["node1-1"]["steps"]["client"]
    client["ended_at"] = client["started_at"] + 2.5
    steps = ((2.0, 10), (2.001, 100))
    told = [
        {"event": "progress", "node": "node1-1", "at": BEGAN + 41 + at, "percent": percent, "bytes": 0}
        for at, percent in steps
    ]
    most = re.search(r"on average, ([0-9.]+) at most", Parsed(page.make(document, events=told)).text)
    assert float(most[1]) <= 1000


def test_what_a_failed_node_wrote_counts_as_far_as_it_was_told():
    document = many(1, groups=1, failing=1)
    document["nodes"]["node1-1"]["bytes_written"] = None
    told = [
        {"event": "progress", "node": "node1-1", "at": BEGAN + 10 + i, "percent": i, "bytes": 10**7 * i}
        for i in range(5)
    ]
    assert "g0: 10.0 on average" in Parsed(page.make(document, events=told)).text


def test_repeated_blocks_are_those_of_all_streams_of_a_group():
    document = many(4)
    told = Parsed(page.make(document)).text
    assert told.count("unknown") == 4
    document["streams"] = [
        stream("i0.ndz", blocks_sent=75, blocks_repeated=10),
        # Of another domain, and no node of the group is there.
        stream("i0.ndz", blocks_sent=900, blocks_repeated=900, domain="sb1"),
        stream("i1.ndz", blocks_sent=0, blocks_repeated=0),
    ]
    told = Parsed(page.make(document)).text
    assert "10 of 75 (13 %)" in told
    assert "0 of 0" in told
    name = next(name for name, node in document["nodes"].items() if node["image"] == "i0.ndz")
    document["nodes"][name]["domain"] = "sb1"
    assert "910 of 975 (93 %)" in Parsed(page.make(document)).text
    document["streams"][1]["blocks_repeated"] = None
    assert "(93 %)" not in Parsed(page.make(document)).text


def test_round_trips_are_shown_when_they_were_measured(tmp_path):
    path = tmp_path / "ping.json"
    assert page.read_pings(str(path)) == []
    path.write_text(
        json.dumps([{"name": "idle", "packets": 9, "lost_percent": 11.0, "min": 0.1, "max": True}, 3])
    )
    text = Parsed(page.make(many(1, groups=1), pings=page.read_pings(str(path)))).text
    assert [word for word in ("11.0 %", "0.100 ms", "True") if word in text] == ["11.0 %", "0.100 ms"]
    path.write_text(json.dumps({"phases": {"idle": {"all": {"lost_percent": 7.0}}, "after": 3}}))
    assert page.read_pings(str(path)) == [{"lost_percent": 7.0, "name": "idle"}]


def test_events_that_are_cut_or_unknown_do_no_harm(tmp_path):
    path = tmp_path / "events.jsonl"
    assert page.read_events(str(path)) == []
    good = {"v": 1, "at": BEGAN, "event": "node", "node": "node1-1", "percent": 3}
    lines = [good, {"event": "new", "at": 1}, 7, {"at": "x", "event": "node"}, {"event": 5, "at": 1}]
    path.write_bytes(
        "\n".join(map(json.dumps, lines)).encode() + b'\n{"at": NaN, "event": "node"}\n\xff\n{"v": 1, "at'
    )
    assert page.read_events(str(path)) == [good, {"event": "new", "at": 1}]


_ANY = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=3), st.just("node1-1")
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"event": st.sampled_from(["node", "progress", "stream", "run"]), "at": st.integers(0, 2**70)},
            optional=dict.fromkeys(("node", "percent", "bytes", "msg"), _ANY),
        )
    )
)
def test_a_page_is_made_whatever_events_say(events):
    kept = [e for e in events if page._number(e["at"]) is not None]
    assert len(Parsed(page.make(many(2), events=kept)).rows()) == 2


def is_safe(data, document):
    """Whether a page has the tags that it has by itself, and no character that cannot be seen."""
    found = Parsed(data)
    assert [a for tag, a in found.tags if tag in ("img", "iframe", "object", "base", "form")] == []
    assert len(found.all("script")) == len(found.all("style")) == 1
    assert not any(name.startswith("on") or name == "style" for _tag, a in found.tags for name in a)
    aims = [a[key] for _tag, a in found.tags for key in ("href", "src") if key in a]
    assert all(aim.startswith("#") or aim == "data:," for aim in aims)
    assert not any(unicodedata.category(c) in page._SPELT for c in data.decode() if c not in "\n\t")
    assert len(found.rows()) == len(document["nodes"])
    (policy,) = [a["content"] for a in found.all("meta", "http-equiv")]
    assert policy.startswith("default-src 'none'; ")
    for part in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(found.parts[part].encode()).digest()).decode()
        assert f"{part}-src 'sha256-{digest}'" in policy
    return found


@settings(deadline=None)
@given(st.text(st.characters()))
def test_what_nodes_and_services_say_is_text(text):
    said = text + EVIL + text
    document = many(3, failing=2, tries=2, evidence=f"{said}\n{said}")
    names = {name: f"{name}{said}" for name in document["nodes"]}
    document["nodes"] = {names[name]: node for name, node in document["nodes"].items()}
    for group in document["groups"]:
        group.update(label=said, image=said, nodes=[names[name] for name in group["nodes"]])
    document.update(run=said, left_behind=[said])
    pings = [{"name": said, "packets": 1}]
    found = is_safe(page.make(document, pings=pings, notes=[said]), document)
    assert (
        "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\\x00\\x1b\\u2028\\u202e"
        in found.text
    )
    assert "{{ 7*7 }}" in found.text


def test_a_page_is_for_its_owner_and_asks_for_nothing(tmp_path):
    record = ended_run(tmp_path, causes=FAILED)
    path = page.write(record)
    assert os.path.basename(path) == "report.html"
    assert os.stat(path).st_mode & 0o77 == 0
    with open(path, "rb") as stream:
        data = stream.read()
    is_safe(data, record)
    assert re.findall(rb"https?://|url\(|@import|src=", data) == []
