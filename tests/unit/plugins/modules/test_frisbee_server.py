# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.modules import frisbee_server

from .. import recorded
from ..httpkit import URL, Call, expected_calls, run_module
from ..recorded import DOMAIN, NO_STREAMS, NOT_STOPPED, status

OPTIONS = {"url": URL, "dialect": "E2", "domain": DOMAIN, "user": "alice", "images": ["a.ndz", "b.ndz"]}
STOPPED = {**OPTIONS, "state": "stopped"}


def listing(*daemons):
    return Call("/frisbee/status", {"domain": DOMAIN}, status(*daemons) if daemons else NO_STREAMS)


def get(image, body, code=200):
    return Call("/frisbee/getAddress", {"img": image, "domain": DOMAIN, "user": "alice"}, body, code)


def stop(image, body):
    return Call("/frisbee/stop", {"img": image, "domain": DOMAIN}, body)


def check(image, body="<OK>Image found and readable</OK>"):
    return Call("/frisbee/checkImage", {"img": image, "domain": DOMAIN, "user": "alice"}, body)


def test_started():
    with expected_calls(
        listing(),
        get("a.ndz", "<OK>224.0.0.5:7000</OK>"),
        listing(("a.ndz", 7000)),
        listing(("a.ndz", 7000)),
        get("b.ndz", "<OK>224.0.0.5:7001</OK>"),
        listing(("a.ndz", 7000), ("b.ndz", 7001)),
    ) as calls:
        ended = run_module(frisbee_server.main, OPTIONS)
    assert not ended.failed
    assert ended.results["changed"] is True
    assert ended.results["streams"] == [
        {
            "image": image,
            "ok": True,
            "changed": True,
            "address": "224.0.0.5",
            "port": port,
            "joined": False,
            "msg": f"started at 224.0.0.5:{port}",
        }
        for image, port in (("a.ndz", 7000), ("b.ndz", 7001))
    ]
    assert ended.results["failed_images"] == []
    # One after another: two first calls at once would be given one address.
    assert calls.paths() == ["/frisbee/status", "/frisbee/getAddress", "/frisbee/status"] * 2


def test_started_again_joins():
    running = listing(("a.ndz", 7000))
    with expected_calls(running, get("a.ndz", "<OK>224.0.0.5:7000</OK>"), running):
        ended = run_module(frisbee_server.main, {**OPTIONS, "images": ["a.ndz"]})
    # The use is counted, so it is a change: it needs a stop of its own.
    assert ended.results["changed"] is True
    assert ended.results["streams"][0]["joined"] is True
    assert ended.results["streams"][0]["msg"] == "joined at 224.0.0.5:7000"


def test_started_again_where_uses_are_not_counted():
    running = listing(("a.ndz", 7000))
    call = Call("/frisbee/getAddress", {"img": "a.ndz", "domain": DOMAIN}, "224.0.0.5:7000")
    with expected_calls(running, call, running):
        ended = run_module(frisbee_server.main, {**OPTIONS, "dialect": "C", "images": ["a.ndz"]})
    assert ended.results["changed"] is False


def test_two_images_with_one_address_are_refused():
    nothing = Call("/frisbee/status", None, "", 200)
    with expected_calls(
        nothing,
        get("a.ndz", "<OK>224.0.0.5:7000</OK>"),
        nothing,
        nothing,
        get("b.ndz", "<OK>224.0.0.5:7000</OK>"),
        nothing,
    ):
        ended = run_module(frisbee_server.main, OPTIONS)
    assert ended.failed
    assert ended.results["failed_images"] == ["a.ndz", "b.ndz"]
    assert "a.ndz: has the same address 224.0.0.5:7000 as 'b.ndz'" in ended.results["msg"]


def test_one_image_fails_and_the_other_is_started():
    with expected_calls(
        listing(),
        get("a.ndz", "Image file '/i/a.ndz' not found or not readable by user 'alice'", 400),
        listing(),
        get("b.ndz", "<OK>224.0.0.5:7001</OK>"),
        listing(("b.ndz", 7001)),
    ):
        ended = run_module(frisbee_server.main, OPTIONS)
    assert ended.failed
    assert ended.results["failed_images"] == ["a.ndz"]
    assert [stream["ok"] for stream in ended.results["streams"]] == [False, True]
    assert "not readable by user 'alice'" in ended.results["msg"]


def test_stopped():
    with expected_calls(
        listing(("a.ndz", 7000), ("b.ndz", 7001)),
        stop("a.ndz", "<OK>Stopped serving &apos;a.ndz&apos; at 224.0.0.5:7000</OK>"),
        listing(("b.ndz", 7001)),
        stop("b.ndz", NOT_STOPPED.format(image="b.ndz")),
    ):
        ended = run_module(frisbee_server.main, STOPPED)
    assert not ended.failed
    assert [stream["changed"] for stream in ended.results["streams"]] == [True, True]
    assert ended.results["streams"][1]["msg"] == "not running, or still used by others"


def test_stopped_again():
    # The stop is sent nevertheless: the list may have lost a stream that the count has not.
    with expected_calls(
        listing(),
        stop("a.ndz", NOT_STOPPED.format(image="a.ndz")),
        listing(),
        stop("b.ndz", NOT_STOPPED.format(image="b.ndz")),
    ):
        ended = run_module(frisbee_server.main, STOPPED)
    assert not ended.failed
    assert ended.results["changed"] is False


def test_check_mode_starts_nothing():
    with expected_calls(check("a.ndz"), listing(), check("b.ndz"), listing(("b.ndz", 7001))):
        ended = run_module(frisbee_server.main, OPTIONS, check=True, diff=True)
    assert ended.results["changed"] is True
    assert [stream["msg"] for stream in ended.results["streams"]] == ["would be started", "would be joined"]
    assert ended.results["diff"]["before"] == "a.ndz: not sent\nb.ndz: sent\n"
    assert ended.results["diff"]["after"] == "a.ndz: sent\nb.ndz: sent\n"


def test_check_mode_knows_a_missing_image():
    with expected_calls(check("a.ndz", "<ERROR>Image file &apos;/i/a.ndz&apos; not found</ERROR>")):
        ended = run_module(frisbee_server.main, {**OPTIONS, "images": ["a.ndz"]}, check=True)
    assert ended.failed
    assert ended.results["streams"][0]["ok"] is False


def test_check_mode_stops_nothing():
    with expected_calls(listing(("a.ndz", 7000)), listing(("a.ndz", 7000))):
        ended = run_module(frisbee_server.main, STOPPED, check=True)
    assert [stream["changed"] for stream in ended.results["streams"]] == [True, False]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no image is chosen"),
        (["a.ndz", "a.ndz"], "the image 'a.ndz' is named twice"),
        (["a.ndz", "b;c"], "'b;c' is not a name of an image"),
    ],
)
def test_bad_input(images, message):
    with expected_calls():
        ended = run_module(frisbee_server.main, {**OPTIONS, "images": images})
    assert ended.failed
    assert message in ended.results["msg"]


def test_a_service_that_is_none():
    with expected_calls(Call("/frisbee", {}, recorded.SERVICE_LIST.replace("frisbee", "pxe2"))):
        ended = run_module(frisbee_server.main, {**OPTIONS, "dialect": "auto"})
    assert ended.failed
    assert "there is no service 'frisbee' here; the services are: cmc, pxe, pxe2" in ended.results["msg"]
