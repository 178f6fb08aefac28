# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import pxe
from ansible_collections.orbit.imaging.plugins.modules import pxe_link

from .. import recorded
from ..httpkit import URL, Call, expected_calls, run_module
from ..recorded import DOMAIN, linked_hrn

OPTIONS = {"url": URL, "dialect": "E2", "domain": DOMAIN, "nodes": ["node2-1", "1,1"], "image": "omf-5.4"}
HRNS = f"node2-1.{DOMAIN},node1-1.{DOMAIN}"
SET = Call(
    "/pxe/setBootImageNS",
    {"ns": HRNS, "domain": DOMAIN, "imgName": "omf-5.4"},
    linked_hrn((2, 1), (1, 1)),
)


def test_present():
    with expected_calls(SET):
        ended = run_module(pxe_link.main, OPTIONS)
    assert not ended.failed
    assert ended.results["changed"] is True
    assert ended.results["nodes"] == [
        {"name": name, "ok": True, "changed": True, "link": link, "image": "omf-5.4", "msg": ""}
        for name, link in (("node2-1", "0A0A0201"), ("node1-1", "0A0A0101"))
    ]
    assert ended.results["failed_nodes"] == []
    assert ended.results["dialect"] == "E2"
    assert ended.results["msg"] == "2 nodes linked"


def test_present_again_sets_again():
    # The service does not tell which nodes are linked, and a link may have expired since.
    with expected_calls(SET, SET):
        results = [run_module(pxe_link.main, OPTIONS).results for _time in range(2)]
    assert results[0] == results[1]


def test_absent():
    with expected_calls(Call("/pxe/clearBootImageNS", {"ns": HRNS, "domain": DOMAIN}, recorded.CLEARED)):
        ended = run_module(pxe_link.main, {**OPTIONS, "state": "absent"})
    assert ended.results["changed"] is True
    assert [node["image"] for node in ended.results["nodes"]] == ["", ""]
    assert ended.results["msg"] == "2 nodes unlinked"


@pytest.mark.parametrize("state", ["present", "absent"])
def test_check_mode_touches_nothing(state):
    with expected_calls():
        ended = run_module(pxe_link.main, {**OPTIONS, "state": state}, check=True)
    assert ended.results["changed"] is True
    assert [(node["name"], node["link"]) for node in ended.results["nodes"]] == [
        ("node2-1", "0A0A0201"),
        ("node1-1", "0A0A0101"),
    ]
    assert ended.results["msg"] == f"2 nodes would be {'linked' if state == 'present' else 'unlinked'}"


def test_diff():
    with expected_calls():
        diff = run_module(pxe_link.main, OPTIONS, check=True, diff=True).results["diff"]
    assert diff["after"] == "node2-1: omf-5.4\nnode1-1: omf-5.4\n"
    assert diff["before"] == "node2-1: not known\nnode1-1: not known\n"


def test_some_nodes_fail_and_all_are_reported(monkeypatch):
    monkeypatch.setattr(pxe, "SET_SPACING", 0)
    with expected_calls(
        SET._replace(body="", content_type=""),
        Call("/pxe/clearBootImageNS", {"ns": f"node2-1.{DOMAIN}", "domain": DOMAIN}, ""),
        Call("/pxe/clearBootImageNS", {"ns": f"node1-1.{DOMAIN}", "domain": DOMAIN}, recorded.CLEARED),
        Call("/pxe/setBootImageNS", None, linked_hrn((1, 1))),
    ):
        ended = run_module(pxe_link.main, OPTIONS)
    assert ended.failed
    assert ended.results["failed_nodes"] == ["node2-1"]
    assert [(node["name"], node["ok"], node["changed"]) for node in ended.results["nodes"]] == [
        ("node2-1", False, False),
        ("node1-1", True, True),
    ]
    assert ended.results["changed"] is True
    assert ended.results["msg"].startswith(
        f"pxe at {URL}: 1 of 2 not linked: node2-1: pxe/clearBootImageNS: an empty"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": []}, "no nodes are chosen"),
        ({"nodes": ["node1-1", "1,1"]}, "'node1-1' is named twice"),
        ({"nodes": ["node99-1"]}, "outside the domain"),
        ({"nodes": ["[[1,1]"]}, "nodes, item 1, column 7: expected ',' or ']'"),
        ({"image": "../x"}, "is not a name of a memory image"),
        ({"url": "pxe:5012"}, "is not an http or https URL"),
        ({"timeout": 0}, "timeout is 0.0, but must be at least 0.1"),
        ({"parallel": 0}, "parallel is 0, but must be at least 1"),
        ({"state": "gone"}, "value of state must be one of"),
        ({"dialect": "F"}, "value of dialect must be one of"),
    ],
)
def test_bad_input_is_refused_before_anything_is_asked(change, message):
    with expected_calls():
        ended = run_module(pxe_link.main, {**OPTIONS, **change})
    assert ended.failed
    assert message in ended.results["msg"]


def test_a_service_that_is_not_there():
    with expected_calls(SET._replace(body=ConnectionRefusedError("Connection refused"))):
        ended = run_module(pxe_link.main, OPTIONS)
    assert ended.failed
    assert (
        "node2-1, node1-1: pxe/setBootImageNS: cannot be reached: Connection refused" in ended.results["msg"]
    )


def test_errors_of_the_service_come_with_details():
    with expected_calls(Call("/pxe", {}, "<html>It works!</html>")):
        ended = run_module(pxe_link.main, {**OPTIONS, "dialect": "auto"})
    assert ended.failed
    assert ended.results["error"]["url"] == f"{URL}/pxe"
    assert ended.results["error"]["reply"] == "It works!"


def test_without_requests(monkeypatch):
    from ansible_collections.orbit.imaging.plugins.module_utils import module

    monkeypatch.setattr(module, "REQUESTS_IMPORT_ERROR", "Traceback: no requests")
    ended = run_module(pxe_link.main, OPTIONS)
    assert ended.failed
    assert "requests" in ended.results["msg"]
