# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.modules import cmc_power

from .. import recorded
from ..httpkit import URL, Call, expected_calls, run_module
from ..recorded import DOMAIN, node_status

OPTIONS = {"url": URL, "dialect": "E2", "domain": DOMAIN, "nodes": ["node1-1", "node2-1"], "state": "reset"}
DESCRIBES = (Call("/cmc", {}, recorded.describe("E2", "cmc")), Call("/", {}, recorded.SERVICE_LIST))


def one(method, x, body="<OK/>", code=200):
    return Call(f"/cmc/{method}", {"hrn": f"node{x}-1.{DOMAIN}", "domain": DOMAIN}, body, code)


def state(x, word):
    return one("status", x, node_status(f"node{x}-1.{DOMAIN}", word))


def test_reset():
    with expected_calls(one("reset", 1), one("reset", 2)):
        ended = run_module(cmc_power.main, OPTIONS)
    assert not ended.failed
    assert ended.results["changed"] is True
    assert ended.results["nodes"] == [
        {
            "name": f"node{x}-1",
            "ok": True,
            "changed": True,
            "state": "unknown",
            "msg": "accepted",
            "code": "",
            "steps": ["reset"],
        }
        for x in (1, 2)
    ]
    assert ended.results["failed_nodes"] == []
    assert ended.results["msg"] == "reset: 2 nodes commanded, 0 already so"


@pytest.mark.parametrize(
    ("options", "method", "before"),
    [
        ({"state": "on"}, "on", "POWEROFF"),
        ({"state": "off"}, "offHard", "POWERON"),
        ({"state": "off", "soft": True}, "offSoft", "POWERON"),
    ],
)
def test_switch_and_switch_again(options, method, before):
    after = "POWERON" if before == "POWEROFF" else "POWEROFF"
    with expected_calls(*DESCRIBES, state(1, before), state(2, before), one(method, 1), one(method, 2)):
        first = run_module(cmc_power.main, {**OPTIONS, **options})
    with expected_calls(*DESCRIBES, state(1, after), state(2, after)):
        second = run_module(cmc_power.main, {**OPTIONS, **options})
    assert (first.results["changed"], second.results["changed"]) == (True, False)
    assert [node["msg"] for node in second.results["nodes"]] == [f"already {options['state']}"] * 2


def test_verify():
    with expected_calls(
        *DESCRIBES, one("reset", 1), one("reset", 2), state(1, "POWERON"), state(2, "POWERON")
    ):
        ended = run_module(cmc_power.main, {**OPTIONS, "verify": True})
    assert [node["state"] for node in ended.results["nodes"]] == ["on", "on"]


def test_accepted_is_not_done():
    with expected_calls(
        *DESCRIBES, one("reset", 1), one("reset", 2), state(1, "POWERON"), state(2, "POWEROFF")
    ):
        ended = run_module(cmc_power.main, {**OPTIONS, "wait_state": True, "verify_timeout": 0})
    assert ended.failed
    assert ended.results["failed_nodes"] == ["node2-1"]
    assert ended.results["nodes"][1]["state"] == "off"
    assert [node["code"] for node in ended.results["nodes"]] == ["", "wrong_state"]
    assert "still off after 0 s instead of on" in ended.results["msg"]


def test_what_is_accepted_but_not_done_is_tried_harder():
    one_node = {**OPTIONS, "nodes": ["node1-1"], "verify": True, "escalate": True}
    with expected_calls(
        state(1, "POWEROFF"), one("on", 1), state(1, "POWEROFF"), state(1, "POWEROFF"),
        state(1, "POWEROFF"), one("on", 1), state(1, "POWERON"),
    ):  # fmt: skip
        ended = run_module(cmc_power.main, {**one_node, "state": "reset", "verify_timeout": 0.8})
    assert not ended.failed
    assert ended.results["nodes"][0]["steps"] == ["on", "on"]
    assert ended.results["nodes"][0]["msg"] == "seen on after on, on"


def test_cycle():
    with expected_calls(
        *DESCRIBES, state(1, "POWERON"), state(2, "POWEROFF"), one("offHard", 1), state(1, "POWEROFF"),
        one("on", 1), one("on", 2),
    ):  # fmt: skip
        ended = run_module(cmc_power.main, {**OPTIONS, "state": "cycle"})
    assert [node["steps"] for node in ended.results["nodes"]] == [["off", "on"], ["on"]]
    assert ended.results["msg"] == "cycle: 2 nodes commanded, 0 already so"


def test_check_mode_of_cycle():
    with expected_calls(*DESCRIBES, state(1, "POWERON"), state(2, "POWEROFF")):
        ended = run_module(cmc_power.main, {**OPTIONS, "state": "cycle"}, check=True, diff=True)
    assert [node["msg"] for node in ended.results["nodes"]] == [
        "would be given 'off' and 'on'",
        "would be given 'on'",
    ]
    assert ended.results["diff"]["after"] == "node1-1: cycle\nnode2-1: cycle\n"


def test_all_nodes_are_tried():
    with expected_calls(one("reset", 1, ""), one("reset", 2)):
        ended = run_module(cmc_power.main, OPTIONS)
    assert ended.failed
    assert ended.results["changed"] is True
    assert ended.results["failed_nodes"] == ["node1-1"]
    assert [node["code"] for node in ended.results["nodes"]] == ["unexpected_reply", ""]
    assert ended.results["msg"].startswith(
        f"cmc at {URL}: 1 of 2 not reset: node1-1: cmc/reset: an empty reply"
    )


def test_one_reason_is_said_once():
    nodes = ["[1..8,1]"]
    with expected_calls(*(one("reset", x, "<ERROR/>") for x in range(1, 9))):
        ended = run_module(cmc_power.main, {**OPTIONS, "nodes": nodes})
    assert ended.results["msg"].count("the service says ERROR") == 1
    assert "[1..8,1]: cmc/reset" in ended.results["msg"]


def test_check_mode_of_reset():
    with expected_calls():
        ended = run_module(cmc_power.main, OPTIONS, check=True)
    assert ended.results["changed"] is True
    assert ended.results["nodes"][0]["msg"] == "would be given 'reset'"
    assert ended.results["msg"] == "reset: 2 nodes would be commanded, 0 already so"


def test_check_mode_of_on():
    with expected_calls(*DESCRIBES, state(1, "POWERON"), state(2, "POWEROFF")):
        ended = run_module(cmc_power.main, {**OPTIONS, "state": "on"}, check=True, diff=True)
    assert [(node["changed"], node["msg"]) for node in ended.results["nodes"]] == [
        (False, "already on"),
        (True, "would be given 'on'"),
    ]
    assert ended.results["diff"]["before"] == "node1-1: on\nnode2-1: not on, or not known\n"
    assert ended.results["diff"]["after"] == "node1-1: on\nnode2-1: on\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 0}, "window must be at least 1"),
        ({"interval": -1}, "interval at least 0"),
        ({"nodes": []}, "no nodes are chosen"),
        ({"nodes": [7]}, "a node is a name or a record, not int"),
        ({"state": "explode"}, "value of state must be one of"),
        ({"soft": True}, "soft says how nodes are switched off, but state is reset"),
        ({"escalate": True}, "escalate needs the states of the nodes, but verify is false"),
    ],
)
def test_bad_input(change, message):
    with expected_calls():
        ended = run_module(cmc_power.main, {**OPTIONS, **change})
    assert ended.failed
    assert message in ended.results["msg"]


def test_an_action_that_the_service_does_not_have():
    with expected_calls(
        Call("/cmc", {}, recorded.describe("C", "cmc")), Call("/", {}, recorded.SERVICE_LIST)
    ):
        ended = run_module(cmc_power.main, {**OPTIONS, "dialect": "C", "state": "reboot"})
    assert ended.failed
    assert "Use reset" in ended.results["msg"]


@pytest.mark.parametrize("check", [True, False])
def test_states_that_the_service_does_not_tell_cannot_be_verified(check):
    """Refused before a node is touched: each would be told to have failed after its command."""
    methods = "on(hrn, domain); offHard(hrn, domain); reset(hrn, domain)"
    with expected_calls(
        Call("/cmc", {}, recorded.description("cmc", methods)), Call("/", {}, recorded.SERVICE_LIST)
    ):
        ended = run_module(cmc_power.main, {**OPTIONS, "dialect": "auto", "verify": True}, check=check)
    assert ended.failed
    assert ended.results["error"]["code"] == "unsupported"
    assert "Leave verify out" in ended.results["msg"]
