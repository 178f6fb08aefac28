# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.report import table
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records


def run(*names):
    node = {
        "image": "x.ndz",
        "outcome": None,
        "evidence": "",
        "steps": {},
        "settings": {"orbit_boot": False},
        "control_ip": "10.0.0.1",
    }
    return {
        "id": "r1",
        "at": 10.0,
        "started_at": 9.0,
        "nodes": {name: {**node, "name": name, "steps": {}} for name in names},
        "groups": [{"label": "all of them", "image": "x.ndz", "nodes": list(names)}],
    }


def fleet(record, step, reports, now):
    """The record after a step with the nodes themselves, which was over at ``now``."""
    return records.close(records.judge_fleet(record, step, reports), step, now)


def errors(images, power, links):
    """Why the services could not do what is planned, as the steps of the plan take it from their answers."""
    found = [words for answer in images for words in records.images_missing(answer)]
    found += [words for answer in power for words in records.nodes_missing(answer, "cmc", "raw")]
    return found + [words for answer in links for words in records.nodes_missing(answer, "pxe", "ok", True)]


def asked(*names):
    return {"nodes": [{"name": name} for name in names]}


def test_a_node_the_module_does_not_name_has_failed():
    result = {
        "item": asked("a", "b", "c"),
        "nodes": [{"name": "a", "ok": True}, {"name": "b", "ok": False, "msg": "no"}],
    }
    changed = records.judge_nodes(run("a", "b", "c"), "link", "link_failed", [result], 20.0)
    assert [changed["nodes"][n]["outcome"] for n in "abc"] == [None, "link_failed", "link_failed"]
    assert changed["nodes"]["b"]["evidence"] == "no"
    assert [node["name"] for node in records.active(changed)] == ["a"]


def test_a_module_that_failed_as_a_whole_fails_its_nodes_with_its_message():
    changed = records.judge_nodes(
        run("a"), "reset", "power_failed", [{"item": asked("a"), "failed": True, "msg": "no service"}], 20.0
    )
    assert changed["nodes"]["a"]["outcome"] == "power_failed"
    assert changed["nodes"]["a"]["evidence"] == "no service"


def test_power_remembers_when_the_old_system_must_have_gone():
    changed = records.judge_nodes(
        run("a"), "reset", "power_failed", [{"item": asked("a"), "nodes": [{"name": "a", "ok": True}]}], 20.0
    )
    assert changed["nodes"]["a"]["power"] == {"before": 10.0, "after": 20.0}


def test_the_first_cause_stays():
    changed = records.judge_nodes(run("a"), "link", "link_failed", [{"item": asked("a")}], 20.0)
    changed = records.judge_nodes(
        changed, "unlink", "link_failed", [{"item": asked("a"), "msg": "later"}], 30.0
    )
    assert changed["nodes"]["a"]["outcome"] == "link_failed"
    assert changed["nodes"]["a"]["evidence"] != "later"


def test_streams_reach_the_nodes_of_their_image_only():
    record = run("a", "b")
    record["nodes"]["b"]["image"] = "y.ndz"
    item = {
        "images": ["x.ndz", "y.ndz"],
        "url": "u",
        "dialect": "A",
        "domain": "d",
        "user": None,
        "timeout": 1,
        "ca_path": None,
        "validate_certs": True,
        "token_from": "a",
        **asked("a", "b"),
    }
    streams = [
        {"image": "x.ndz", "ok": True, "address": "239.1.1.1", "port": 7000},
        {"image": "y.ndz", "ok": False, "msg": "full"},
    ]
    changed = records.judge_streams(record, "serve_failed", [{"item": item, "streams": streams}], 20.0)
    assert changed["nodes"]["a"]["stream"] == {"address": "239.1.1.1", "port": 7000}
    assert (changed["nodes"]["b"]["outcome"], changed["nodes"]["b"]["evidence"]) == ("serve_failed", "full")
    (stopped,) = changed["streams"]
    assert (stopped["images"], stopped["token_from"], stopped["validate_certs"]) == (["x.ndz"], "a", True)


def test_only_what_was_seen_is_imaged():
    record = fleet(run("a", "b", "c"), "client", {"a": {"bytes_written": 1}, "b": {"cause": "stalled"}}, 20.0)
    concluded = records.conclude(record)
    assert [concluded["nodes"][n]["outcome"] for n in "abc"] == ["imaged", "stalled", "interrupted"]
    assert concluded["groups"][0]["imaged"] == 1
    assert not concluded["groups"][0]["passed"]
    assert not concluded["passed"]


def test_a_node_that_is_to_boot_is_imaged_when_it_was_seen_to():
    record = run("a", "b")
    for node in record["nodes"].values():
        node["settings"] = {"orbit_boot": True}
    record = fleet(record, "client", {n: {"bytes_written": 1} for n in "ab"}, 20.0)
    concluded = records.conclude(fleet(record, "proof", {"a": {"up_at": 21.0}}, 22.0))
    assert [concluded["nodes"][n]["outcome"] for n in "ab"] == ["imaged", "interrupted"]
    assert "proof" in concluded["nodes"]["b"]["evidence"]


def test_an_unnamed_cause_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="not a named cause"):
        records.fail(run("a")["nodes"]["a"], "bad_luck", "")


def test_the_report_names_groups_and_failures():
    reports = {
        "a": {"bytes_written": 2_000_000, "started_at": 1.0, "ended_at": 3.5},
        "b": {"cause": "stalled", "evidence": "no data\nx"},
    }
    concluded = records.conclude(fleet(run("a", "b"), "client", reports, 20.0))
    text = "\n".join(table.lines(concluded))
    assert "all of them  x.ndz  1 of 2  2.0 MB     2.5 s    FAILED" in text
    assert "b: stalled: no data" in text
    assert "1 of 2 nodes imaged in 11.0 s, 1 failed" in text


def test_mistakes_are_all_that_no_service_says_yes_to():
    item = {
        "url": "http://s",
        "domain": "d",
        "images": ["a", "b", "c"],
        "nodes": [{"name": "n"}, {"name": "m"}],
    }
    images = [
        {
            "item": item,
            "images": [{"image": "a", "exists": True}, {"image": "b", "exists": False, "msg": "gone"}],
        }
    ]
    # A module that failed while its failure was put off: no answers, only words.
    power = [{"item": item, "failed": False, "msg": "no service at http://s"}]
    links = [{"item": item, "nodes": [{"name": "n", "ok": True}]}]
    assert errors(images, power, links) == [
        "image 'b': gone (frisbee at http://s, domain d)",
        "image 'c': the service does not know it (frisbee at http://s, domain d)",
        "no service at http://s",
        "pxe at http://s: no answer for m",
    ]


def test_a_service_that_says_yes_to_all_leaves_no_mistake():
    item = {"url": "http://s", "domain": "d", "images": ["a"], "nodes": [{"name": "n"}]}
    images = [{"item": item, "images": [{"image": "a", "exists": True}]}]
    power = [{"item": item, "nodes": [{"name": "n", "state": "unknown", "raw": "UNKNOWN"}]}]
    links = [{"item": item, "nodes": [{"name": "n", "ok": True}]}]
    assert errors(images, power, links) == []


@pytest.mark.parametrize(
    ("evidence", "line"), [("", "no evidence"), ("a\x1b[2Jb\x9b é\nmore", "a [2Jb  é"), ("one", "one")]
)
def test_the_first_line_of_an_evidence_cannot_control_a_terminal(evidence, line):
    assert records.first_line(evidence) == line
