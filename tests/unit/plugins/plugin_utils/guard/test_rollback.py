# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is taken back, and what is left because it may be somebody else's."""

from __future__ import annotations

import os
import threading

import pytest
import requests

from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims, rollback

from ...httpkit import URL, Call, expected_calls

ASKED = {"url": URL, "dialect": "E2", "domain": "d", "user": "alice", "timeout": 5}
NODES = [
    {"name": f"host{x}", "domain": "d", "x": x, "y": 1, "hrn": f"node{x}-1.d", "control_ip": f"10.0.{x}.1"}
    for x in (1, 2)
]
IMAGE = "x.ndz"


@pytest.fixture
def work(tmp_path):
    mine = claims.Claims(claims.Holder("run-1", "alice", 1, 1.0))
    log = []
    work = rollback.Work([{**ASKED, "nodes": NODES}], mine, str(tmp_path), log.append, settle=0.0)
    work.lines = log
    yield work
    mine.release()


def sent(*images):
    rows = "".join(f'<daemon img="{image}" port="7000"/>' for image in images)
    return Call("/frisbee/status", {"domain": "d"}, f"<frisbee_status>{rows}</frisbee_status>")


def looked(*images, foreign=()):
    """What is asked to see whether the image is sent: the list of all domains, then for the image in ours."""
    calls = [sent(*images, *foreign)]
    if IMAGE in (*images, *foreign):
        own = '<daemon img="x.ndz" port="7000"/>' if IMAGE in images else ""
        body = f"<frisbee_status>{own}</frisbee_status>"
        calls.append(Call("/frisbee/status", {"domain": "d", "img": IMAGE}, body))
    return calls


def stopped(body="<OK>Stopped</OK>"):
    return Call("/frisbee/stop", {"img": IMAGE, "domain": "d"}, body)


def intend(work, *running):
    with expected_calls(*looked(*running)):
        work.note("serve", {"streams": [{**ASKED, "images": [IMAGE]}]})


def served(work, *, ok=True, port=7000, joined=False):
    work.note("serve", {"results": [{**ASKED, "image": IMAGE, "ok": ok, "port": port, "joined": joined}]})


@pytest.mark.parametrize("joined", [False, True])
def test_what_is_owned_gets_exactly_one_stop(work, joined):
    intend(work, *([IMAGE] if joined else []))
    served(work, joined=joined)
    with expected_calls(stopped()):
        assert work.undo(0, killed=True) == []
    assert work.is_done
    with expected_calls():
        assert work.undo(0) == []


def test_an_interrupted_start_of_which_the_service_knows_nothing_gets_no_stop(work):
    intend(work)
    with expected_calls(*looked("other.ndz")):
        assert work.undo(0, killed=True) == []
    assert work.is_done


def test_a_stream_of_another_domain_is_no_use_of_ours(work):
    """It is neither taken back nor said to be left."""
    with expected_calls(*looked(foreign=[IMAGE])):
        work.note("serve", {"streams": [{**ASKED, "images": [IMAGE]}]})
    with expected_calls(*looked(foreign=[IMAGE])):
        assert work.undo(0, killed=True) == []
    assert work.is_done


def test_an_interrupted_start_that_took_effect_is_stopped_when_it_can_only_be_ours(work):
    intend(work, "other.ndz")
    with expected_calls(*looked(IMAGE, "other.ndz"), stopped()):
        assert work.undo(0, killed=True) == []


def test_an_interrupted_start_of_a_stream_that_others_had_is_left(work):
    intend(work, IMAGE)
    with expected_calls(*looked(IMAGE)):
        (left,) = work.undo(0, killed=True)
    assert left.startswith(f"a use of {IMAGE} (frisbee at {URL}, domain d)")
    assert "stop_streams=true" in left
    assert any(line.startswith("NOT stopped") for line in work.lines)


def test_an_interrupted_start_is_left_when_another_run_of_this_host_uses_the_stream(work, tmp_path):
    intend(work)
    other = claims.Claims(claims.Holder("run-2", "bob", 2, 1.0))
    other.share(claims.stream_path(str(tmp_path), URL, "d", IMAGE))
    try:
        with expected_calls(*looked(IMAGE)):
            assert len(work.undo(0, killed=True)) == 1
    finally:
        other.release()
    with expected_calls(*looked(IMAGE), stopped()):
        assert work.undo(0, killed=True) == []


def test_when_the_service_did_not_say_what_it_sends_nothing_is_taken_for_ours(work):
    with expected_calls(Call("/frisbee/status", {"domain": "d"}, "", status=400)):
        work.note("serve", {"streams": [{**ASKED, "images": [IMAGE]}]})
    with expected_calls(*looked(IMAGE)):
        assert len(work.undo(0, killed=True)) == 1


def test_an_interrupted_stop_is_not_repeated_while_others_may_receive(work):
    intend(work, IMAGE)
    served(work, joined=True)
    work.note("stop", {})
    with expected_calls(*looked(IMAGE)):
        assert len(work.undo(0, killed=True)) == 1
    with expected_calls(*looked()):
        assert work.undo(0, killed=True) == []


def test_a_stop_whose_answer_is_lost_is_looked_after_before_it_is_repeated(work, monkeypatch):
    monkeypatch.setattr(rollback, "_PAUSE", 0.0)
    intend(work, IMAGE)
    served(work, joined=True)
    lost = requests.exceptions.ReadTimeout("read timed out")
    with expected_calls(stopped(lost), *looked()):
        assert work.undo(5, killed=True) == []
    assert work.is_done


def test_a_stop_that_was_never_sent_is_repeated(work, monkeypatch):
    monkeypatch.setattr(rollback, "_PAUSE", 0.0)
    intend(work, IMAGE)
    served(work, joined=True)
    refused = requests.exceptions.ConnectionError(ConnectionRefusedError(111, "Connection refused"))
    with expected_calls(stopped(refused), stopped()):
        assert work.undo(5, killed=True) == []


def test_a_stream_that_was_given_but_refused_is_taken_back(work):
    intend(work)
    served(work, ok=False)
    with expected_calls(stopped()):
        assert work.undo(0) == []


def test_a_stop_that_the_run_has_seen_succeed_is_not_repeated(work):
    intend(work)
    served(work)
    work.note("stop", {})
    work.note("stop", {"results": [{**ASKED, "image": IMAGE, "ok": True}]})
    assert work.is_done


def test_only_links_that_are_not_seen_removed_are_removed(work):
    work.note("link", {})
    work.note("unlink", {"results": [{"name": "host1", "ok": True}, {"name": "host2", "ok": False}]})
    assert work.links == ["host2"]
    answer = '<response status="OK"/>'
    with expected_calls(Call("/pxe/clearBootImageNS", None, answer)) as calls:
        assert work.undo(0) == []
    ((_path, arguments),) = calls.seen
    assert "node2-1" in str(arguments) or "[2,1]" in str(arguments)
    assert "node1-1" not in str(arguments)


def test_links_that_were_being_made_are_removed_twice(work):
    work.note("link", {})
    answer = '<response status="OK"/>'
    clear = Call("/pxe/clearBootImageNS", None, answer)
    with expected_calls(clear, clear):
        assert work.undo(0, killed=True) == []
    assert work.is_done


def test_links_that_cannot_be_removed_are_named(work):
    work.note("link", {})
    # One call for all, then one for each node.
    refused = Call("/pxe/clearBootImageNS", None, "", 500)
    with expected_calls(refused, refused, refused):
        (left,) = work.undo(0)
    assert left.startswith(f"links of host1, host2 (pxe at {URL}, domain d)")
    assert work.links == ["host1", "host2"]


def status(domain, *images):
    rows = "".join(f'<daemon img="{image}" port="7000"/>' for image in images)
    return Call("/frisbee/status", {"domain": domain}, f"<frisbee_status>{rows}</frisbee_status>")


@pytest.mark.parametrize(
    ("said", "is_ours"),
    [
        ({}, True),
        ({"url": f"{URL}/"}, True),
        ({"domain": "D"}, True),
        ({"dialect": "auto", "user": None}, True),
        ({"url": "http://other:5054"}, False),
        ({"domain": "e"}, False),
        ({"image": "y.ndz"}, False),
    ],
)
def test_a_result_is_about_the_stream_of_its_service_domain_and_image(work, said, is_ours):
    intend(work)
    work.note(
        "serve", {"results": [{**ASKED, "image": IMAGE, "ok": True, "port": 1, "joined": False, **said}]}
    )
    assert work.uses[0].state == ("owned" if is_ours else "intended")


def test_two_domains_of_one_service_have_two_streams_of_one_name(work):
    with expected_calls(status("d"), status("e")):
        work.note("serve", {"streams": [{**ASKED, "domain": d, "images": [IMAGE]} for d in ("d", "e")]})
    work.note(
        "serve",
        {
            "results": [
                {**ASKED, "domain": d, "image": IMAGE, "ok": d == "e", "port": None, "joined": False}
                for d in ("e", "d")
            ]
        },
    )
    assert {use.asked["domain"]: use.state for use in work.uses} == {"d": "intended", "e": "owned"}
    gone = Call("/frisbee/stop", {"img": IMAGE, "domain": "e"}, "<OK>Stopped</OK>")
    with expected_calls(status("d"), gone):
        assert work.undo(0) == []


def test_of_two_users_of_one_stream_each_has_the_use_that_was_given_to_it(work):
    users = ("alice", "bob")
    with expected_calls(sent(), sent()):
        work.note("serve", {"streams": [{**ASKED, "user": user, "images": [IMAGE]} for user in users]})
    work.note(
        "serve",
        {"results": [{**ASKED, "user": "bob", "image": IMAGE, "ok": True, "port": 1, "joined": False}]},
    )
    assert {use.asked["user"]: use.state for use in work.uses} == {"alice": "intended", "bob": "owned"}


def test_an_intention_that_is_said_twice_is_one_use(work):
    intend(work)
    intend(work)
    assert len(work.uses) == 1


def test_a_stream_that_cannot_be_claimed_is_no_obstacle_and_never_taken_for_ours_alone(work, tmp_path):
    os.mkdir(claims.stream_path(str(tmp_path), URL, "d", IMAGE))
    intend(work)
    assert any("cannot be known" in line for line in work.lines)
    with expected_calls(sent(IMAGE)):
        assert len(work.undo(0, killed=True)) == 1
    served(work)
    with expected_calls(stopped()):
        assert work.undo(0) == []


def test_what_fails_in_one_place_is_undone_in_the_others(work, monkeypatch):
    intend(work)
    served(work)
    work.note("link", {})

    def broken(*_arguments):
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(rollback.PxeClient, "unlink", broken)
    with expected_calls(stopped()):
        (left,) = work.undo(0)
    assert left.startswith("links of host1, host2")
    assert "a mistake of ours" in left


def test_no_service_waits_for_another_and_what_is_late_is_left_behind():
    go = threading.Event()
    order = []

    def slow():
        go.wait(180)
        return "late"

    try:
        jobs = [("slow", slow)] * 30 + [("fast", lambda: order.append("fast") or "done")]
        results = rollback.together(jobs, 0.2)
    finally:
        go.set()
    assert results == [None] * 30 + ["done"]
    (error,) = rollback.together([("x", lambda: 1 // 0)], 20)
    assert isinstance(error, ZeroDivisionError)
    assert rollback.together([], 0) == []
