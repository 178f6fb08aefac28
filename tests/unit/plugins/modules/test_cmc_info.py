# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.modules import cmc_info

from .. import recorded
from ..httpkit import URL, Call, expected_calls, run_module
from ..recorded import DOMAIN, testbed_status

OPTIONS = {"url": URL, "dialect": "C", "domain": DOMAIN}
STATUS = Call(
    "/cmc/allStatus",
    {"domain": DOMAIN},
    testbed_status(
        "name='n_1_1' state='POWERON' x='1' y='1'",
        "name='n_2_1' state='POWEROFF' x='2' y='1'",
        "name='n_3_1' x='3' y='1' state='NODE NOT AVAILABLE'",
    ),
)


@pytest.mark.parametrize("check_mode", [False, True])
def test_all_nodes(check_mode):
    with expected_calls(STATUS):
        ended = run_module(cmc_info.main, OPTIONS, check=check_mode)
    assert not ended.failed
    assert ended.results["changed"] is False
    assert ended.results["nodes"] == [
        {"name": "node1-1", "state": "on", "raw": "POWERON", "msg": "", "code": ""},
        {"name": "node2-1", "state": "off", "raw": "POWEROFF", "msg": "", "code": ""},
        {"name": "node3-1", "state": "not_available", "raw": "NODE NOT AVAILABLE", "msg": "", "code": ""},
    ]
    assert ended.results["counts"] == {"on": 1, "off": 1, "unknown": 0, "not_available": 1}
    assert ended.results["failed_nodes"] == []


def test_nodes_in_the_order_given():
    with expected_calls(STATUS):
        ended = run_module(cmc_info.main, {**OPTIONS, "nodes": ["node2-1", "1,1"]})
    assert [node["name"] for node in ended.results["nodes"]] == ["node2-1", "node1-1"]
    assert ended.results["counts"] == {"on": 1, "off": 1, "unknown": 0, "not_available": 0}


def test_an_unknown_node_fails_with_all_results():
    with expected_calls(STATUS):
        ended = run_module(cmc_info.main, {**OPTIONS, "nodes": ["node1-1", "node9-9"]})
    assert ended.failed
    assert ended.results["failed_nodes"] == ["node9-9"]
    assert ended.results["nodes"][0]["state"] == "on"
    assert ended.results["nodes"][1] == {
        "name": "node9-9",
        "state": "unknown",
        "raw": None,
        "msg": "cmc: the service does not list this node",
        "code": "unknown_node",
    }
    assert f"cmc at {URL}: 1 of 2 not known: node9-9: " in ended.results["msg"]


def test_a_state_the_service_does_not_know_is_no_failure():
    body = testbed_status("name='n_1_1' state='UNKNOWN' x='1' y='1'")
    with expected_calls(STATUS._replace(body=body)):
        ended = run_module(cmc_info.main, {**OPTIONS, "nodes": ["node1-1"]})
    assert not ended.failed
    assert ended.results["nodes"][0]["state"] == "unknown"


def test_5_4_cannot_list():
    with expected_calls(
        Call("/cmc", {}, recorded.describe("E2", "cmc")), Call("/", {}, recorded.SERVICE_LIST)
    ):
        ended = run_module(cmc_info.main, {**OPTIONS, "dialect": "auto"})
    assert ended.failed
    assert "Name the nodes" in ended.results["msg"]


def test_a_list_that_is_none():
    with expected_calls(STATUS._replace(body="")):
        ended = run_module(cmc_info.main, OPTIONS)
    assert ended.failed
    assert ended.results["error"]["method"] == "allStatus"
