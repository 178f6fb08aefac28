# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import pxe
from ansible_collections.orbit.imaging.plugins.modules import pxe_link

from .. import recorded
from ..httpkit import URL, Call, expected_calls, run_module
from ..recorded import DOMAIN, linked_hrn, linked_xy

OPTIONS = {"url": URL, "dialect": "E2", "domain": DOMAIN, "nodes": ["node2-1", "1,1"], "image": "omf-5.4"}
HRNS = f"node2-1.{DOMAIN},node1-1.{DOMAIN}"
SET = Call(
    "/pxe/setBootImageNS",
    {"ns": HRNS, "domain": DOMAIN, "imgName": "omf-5.4"},
    linked_hrn((2, 1), (1, 1)),
)
# What all historic services answer where that of the embedded testbed tells how its links are.
SILENT = Call("/orbit/state", {}, recorded.SERVICE_LIST)
CLEAR = Call("/pxe/clearBootImageNS", {"ns": HRNS, "domain": DOMAIN}, recorded.CLEARED)


def test_present():
    with expected_calls(SILENT, SET, SILENT):
        ended = run_module(pxe_link.main, OPTIONS)
    assert not ended.failed
    assert ended.results["changed"] is True
    assert ended.results["nodes"] == [
        {"name": name, "ok": True, "changed": True, "link": link, "image": "omf-5.4", "msg": "", "code": ""}
        for name, link in (("node2-1", "0A0A0201"), ("node1-1", "0A0A0101"))
    ]
    assert ended.results["failed_nodes"] == []
    assert ended.results["dialect"] == "E2"
    assert ended.results["msg"] == "2 nodes linked"


def test_present_again_sets_again():
    # The service does not tell which nodes are linked, and a link may have expired since.
    with expected_calls(*[SILENT, SET, SILENT] * 2):
        results = [run_module(pxe_link.main, OPTIONS).results for _time in range(2)]
    assert results[0] == results[1]


def test_absent():
    with expected_calls(CLEAR, SILENT):
        ended = run_module(pxe_link.main, {**OPTIONS, "state": "absent"})
    assert ended.results["changed"] is True
    assert [node["image"] for node in ended.results["nodes"]] == ["", ""]
    assert ended.results["msg"] == "2 nodes unlinked"


@pytest.mark.parametrize("state", ["present", "absent"])
def test_check_mode_touches_nothing(state):
    with expected_calls(*[SILENT] * (state == "present")):
        ended = run_module(pxe_link.main, {**OPTIONS, "state": state}, check=True)
    assert ended.results["changed"] is True
    assert [(node["name"], node["link"]) for node in ended.results["nodes"]] == [
        ("node2-1", "0A0A0201"),
        ("node1-1", "0A0A0101"),
    ]
    assert ended.results["msg"] == f"2 nodes would be {'linked' if state == 'present' else 'unlinked'}"


def test_diff():
    with expected_calls(SILENT):
        diff = run_module(pxe_link.main, OPTIONS, check=True, diff=True).results["diff"]
    assert diff["after"] == "node2-1: omf-5.4\nnode1-1: omf-5.4\n"
    assert diff["before"] == "node2-1: not known\nnode1-1: not known\n"


def test_some_nodes_fail_and_all_are_reported(monkeypatch):
    monkeypatch.setattr(pxe, "SET_SPACING", 0)
    with expected_calls(
        SILENT,
        SILENT,
        SET._replace(body="", content_type=""),
        Call("/pxe/clearBootImageNS", {"ns": f"node2-1.{DOMAIN}", "domain": DOMAIN}, ""),
        Call("/pxe/clearBootImageNS", {"ns": f"node1-1.{DOMAIN}", "domain": DOMAIN}, recorded.CLEARED),
        Call("/pxe/setBootImageNS", None, linked_hrn((1, 1))),
    ):
        ended = run_module(pxe_link.main, OPTIONS)
    assert ended.failed
    assert ended.results["failed_nodes"] == ["node2-1"]
    assert [(node["name"], node["ok"], node["changed"], node["code"]) for node in ended.results["nodes"]] == [
        ("node2-1", False, False, "unexpected_reply"),
        ("node1-1", True, True, ""),
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
    gone = ConnectionRefusedError("Connection refused")
    with expected_calls(*[SILENT._replace(body=gone)] * 3, SET._replace(body=gone)):
        ended = run_module(pxe_link.main, OPTIONS)
    assert ended.failed
    assert (
        "node2-1, node1-1: pxe/setBootImageNS: cannot be reached: Connection refused" in ended.results["msg"]
    )
    assert [node["code"] for node in ended.results["nodes"]] == ["not_sent"] * 2


def test_errors_of_the_service_come_with_details():
    with expected_calls(Call("/pxe", {}, "<html>It works!</html>")):
        ended = run_module(pxe_link.main, {**OPTIONS, "dialect": "auto"})
    assert ended.failed
    assert ended.results["error"]["url"] == f"{URL}/pxe"
    assert ended.results["error"]["reply"] == "It works!"
    assert ended.results["error"]["code"] == "unexpected_reply"


# A memory image that is not there


def state(*links, images=("omf-5.4", "orbit-2.0.0"), own="omf-5.4", domain=DOMAIN):
    """What the embedded testbed's service tells; a link is its name, its image and whether it dangles."""
    said = {
        "domain": domain,
        "memory_image": own,
        "memory_images": list(images),
        "links": [{"hex": name, "image": image, "dangling": dangling} for name, image, dangling in links],
    }
    return Call("/orbit/state", {}, json.dumps(said), 200, "application/json")


BOTH = (("0A0A0201", "omf-5.4", False), ("0A0A0101", "omf-5.4", False))


def codes(ended):
    return [node["code"] for node in ended.results["nodes"]]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("dialect", ["A", "C", "D", "E1", "E2"])
def test_a_memory_image_that_the_service_does_not_have_is_refused_before_a_node_is_touched(dialect, check):
    with expected_calls(state()):
        ended = run_module(pxe_link.main, {**OPTIONS, "dialect": dialect, "image": "nosuch"}, check=check)
    assert ended.failed
    assert ended.results["changed"] is False
    assert codes(ended) == ["no_memory_image"] * 2
    assert "has no memory image 'nosuch'; there are: omf-5.4, orbit-2.0.0" in ended.results["msg"]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("told", [SILENT, state(own="orbit-2.0.0"), state(own="omf-5.4", domain="other")])
def test_4_4_cannot_be_told_the_memory_image(told, check):
    """What check mode promises and what the run does agree: neither goes on."""
    with expected_calls(told):
        ended = run_module(pxe_link.main, {**OPTIONS, "dialect": "B"}, check=check)
    assert ended.failed
    assert ended.results["error"]["code"] == "unsupported"
    assert "the memory image 'omf-5.4' cannot be chosen: dialect B (OMF 4.4)" in ended.results["msg"]
    assert "Leave out image" in ended.results["msg"]


def test_4_4_may_be_told_what_it_takes_anyway():
    xy = Call("/pxe/setBootImageNS", {"ns": "[[2,1],[1,1]]", "domain": DOMAIN}, linked_xy((2, 1), (1, 1)))
    with expected_calls(state(), xy, state(*BOTH)):
        assert not run_module(pxe_link.main, {**OPTIONS, "dialect": "B"}).failed
    with expected_calls(state()):
        assert not run_module(pxe_link.main, {**OPTIONS, "dialect": "B"}, check=True).failed
    without = {key: value for key, value in OPTIONS.items() if key != "image"}
    with expected_calls(SILENT, xy, SILENT):
        assert not run_module(pxe_link.main, {**without, "dialect": "B"}).failed


@pytest.mark.parametrize("check", [True, False])
def test_the_memory_image_that_the_service_takes_by_itself_may_be_missing_too(check):
    with expected_calls(state(own="gone")):
        ended = run_module(pxe_link.main, {**OPTIONS, "dialect": "E2", "image": ""}, check=check)
    assert codes(ended) == ["no_memory_image"] * 2


@pytest.mark.parametrize(
    ("shown", "code", "message"),
    [
        ((), "not_linked", "there is no link"),
        ((("0A0A0201", "omf-5.4", True),), "no_memory_image", "no such memory image"),
        ((("0A0A0201", "other", False),), "wrong_memory_image", "'other' instead of 'omf-5.4'"),
    ],
)
def test_a_link_is_what_is_read_back(shown, code, message):
    with expected_calls(state(), SET, state(*shown, BOTH[1])):
        ended = run_module(pxe_link.main, OPTIONS)
    assert ended.failed
    assert codes(ended) == [code, ""]
    assert ended.results["failed_nodes"] == ["node2-1"]
    assert message in ended.results["msg"]


def test_a_link_that_stays_is_not_unlinked():
    """The services up to OMF 5.3 say OK and leave a link that leads nowhere."""
    with expected_calls(CLEAR, state(("0A0A0101", "nosuch", True))):
        ended = run_module(pxe_link.main, {**OPTIONS, "state": "absent"})
    assert ended.failed
    assert codes(ended) == ["", "still_linked"]
    assert [node["image"] for node in ended.results["nodes"]] == ["", "nosuch"]
    assert "remove pxelinux.cfg/0A0A0101 by hand" in ended.results["msg"]


@pytest.mark.parametrize(
    "body",
    ["[]", "{}", '{"links": 1}', '{"links": [1]}', '{"links": [{"hex": 1}]}', "[" * 100_000, "9" * 5000, "{"],
)
def test_a_state_that_is_none_is_none(body):
    other = Call("/orbit/state", {}, body, 200, "application/json")
    with expected_calls(other, SET, other):
        assert not run_module(pxe_link.main, OPTIONS).failed


def test_without_requests(monkeypatch):
    from ansible_collections.orbit.imaging.plugins.module_utils import module

    monkeypatch.setattr(module, "REQUESTS_IMPORT_ERROR", "Traceback: no requests")
    ended = run_module(pxe_link.main, OPTIONS)
    assert ended.failed
    assert "requests" in ended.results["msg"]
