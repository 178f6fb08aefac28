# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The testbed as a grid, from answers, claims, records and results."""

from __future__ import annotations

import json

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims
from ansible_collections.orbit.imaging.plugins.plugin_utils.play import guarding
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import overview, result

from ..runkit import BEGAN, ended_run

NODES = ("node1-1", "node1-2", "node2-1", "node2-2")


@pytest.fixture
def asked(tmp_path):
    """The record of a playbook that only asks, about the nodes of runkit."""
    record = ended_run(tmp_path / "runs" / "now")
    for node in record["nodes"].values():
        node["settings"]["orbit_claim_dir"] = str(tmp_path / "claims")
        node["steps"] = {}
    (tmp_path / "claims").mkdir()
    states = [{"name": name, "state": "on", "raw": "POWERON"} for name in NODES[:2]]
    states += [{"name": NODES[2], "state": "off", "raw": "OFF"}, {"name": NODES[3], "state": "unknown"}]
    record["found"] = {"states": [{"nodes": states, "item": {}}]}
    return record


def ran(tmp_path, name, ended=BEGAN, **causes):
    document = result.make(ended_run(tmp_path / "runs" / name, causes=causes))
    document["ended_at"] = ended
    for node in document["nodes"].values():
        node["steps"]["reset"] = {"at": BEGAN}
    folder = tmp_path / "runs" / name
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(document))


def test_nothing_is_known_where_nothing_was_told(asked):
    found = overview.gather(asked, None, BEGAN)
    assert {node["power"] for node in found["nodes"].values()} == {"on", "off", None}
    assert {(n["link"], n["system"], n["disk"], n["claim"]) for n in found["nodes"].values()} == {(None,) * 4}
    told = overview.lines(found)
    assert told[2:5] == ["y/x  1  2", "1   +. -.", "2   +. ?."]


def test_disks_hold_what_the_last_run_that_wrote_has_left(asked, tmp_path):
    ran(tmp_path, "r1", BEGAN + 9, **{"node1-1": "client_failed"})
    ran(tmp_path, "r0", BEGAN + 3)
    text = (tmp_path / "runs" / "r0" / "result.json").read_text()
    newest = {**json.loads(text), "ended_at": BEGAN + 99}
    no_nodes = {**newest, "nodes": {"node1-1": 3}}
    for name, said in {
        "list": [],
        "text": {**newest, "ended_at": "soon"},
        "odd": no_nodes,
        # Of a later version, which may mean anything by it.
        "new": {**newest, "schema": 2},
    }.items():
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "result.json").write_text(json.dumps(said))
    found = overview.gather(asked, None, BEGAN)
    assert {name: node["disk"]["whole"] for name, node in found["nodes"].items()} == {
        **dict.fromkeys(NODES, True),
        "node1-1": False,
    }
    told = overview.lines(found)
    assert told[3:5] == ["1   +! -B", "2   +A ?B"]
    assert "on disk A: a.ndz: node1-2" in told
    assert "on disk !: not the whole image: node1-1" in told


def test_a_claim_is_told_and_says_nothing_of_files_elsewhere(asked, tmp_path):
    holder = claims.Holder("../../etc\x1b[2J", "eve\u202e", 7, BEGAN)
    mine = claims.Claims(holder)
    try:
        mine.take({path: name for path, name in guarding.paths(asked).items() if name == "node1-1"})
        found = overview.gather(asked, None, BEGAN)
    finally:
        mine.release()
    assert found["nodes"]["node1-1"]["claim"]["pid"] == 7
    told = overview.lines(found)
    assert told[3] == "1   +* -."
    (line,) = [line for line in told if line.startswith("claimed: ")]
    assert line.isprintable()
    assert line.endswith(": node1-1")


def test_nodes_without_coordinates_stand_below(asked):
    asked["nodes"]["node2-2"].update(x=None, y=None)
    told = overview.lines(overview.gather(asked, None, BEGAN))
    assert told[2:6] == ["y/x  1  2", "1   +. -.", "2   +.", "  ?.  node2-2"]


def test_nodes_of_which_the_same_is_known_are_one_line(asked):
    silent = {
        name: {"kind": "none", "identity": "", "up_seconds": None, "msg": f"no route to 10.11.{i}.1 port 22"}
        for i, name in enumerate(NODES)
    }
    told = overview.lines(overview.gather(asked, silent, BEGAN))
    (line,) = [line for line in told if line.startswith("runs: ")]
    assert line == f"runs: no answer by SSH: no route to its address port 22: 4 nodes: {' '.join(NODES)}"


@pytest.mark.parametrize(
    ("bandwidths", "rates"),
    [((None,), [50.0]), ((None, None), [None, None]), ((80.0, 20.0), [80.0, 20.0])],
)
def test_the_rate_of_a_stream_is_its_own(asked, bandwidths, rates):
    streams = [{"image": f"{i}.ndz", "port": 7000 + i, "bandwidth": b} for i, b in enumerate(bandwidths)]
    asked["found"]["streams"] = [{"item": {"url": "http://f"}, "bandwidth": 50.0, "streams": streams}]
    assert [s["rate_mbit"] for s in overview.gather(asked, None, BEGAN)["streams"]] == rates


@pytest.mark.parametrize("said", ["[]", "{", '{"nodes": {"node1-1": 3}}', '{"nodes": {"n": {"steps": 1}}}'])
def test_a_damaged_record_of_a_run_under_way_is_no_end(asked, tmp_path, said):
    folder = tmp_path / "runs" / "other"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(said)
    mine = claims.Claims(claims.Holder("other", "eve", 7, BEGAN))
    try:
        mine.take({path: name for path, name in guarding.paths(asked).items() if name == "node1-1"})
        found = overview.gather(asked, None, BEGAN)
    finally:
        mine.release()
    assert found["nodes"]["node1-1"]["claim"]["run"] == "other"
    assert found["nodes"]["node1-1"]["link"] is None
