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


def own(image, port=None):
    """The question for the stream of this domain, which is asked when the list of all has the image."""
    body = status((image, port)) if port else recorded.NOT_SERVING.format(image=image)
    return Call("/frisbee/status", {"domain": DOMAIN, "img": image}, body)


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
            "state": "started",
            "code": "",
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
    with expected_calls(
        running, own("a.ndz", 7000), check("a.ndz"), get("a.ndz", "<OK>224.0.0.5:7000</OK>"), running
    ):
        ended = run_module(frisbee_server.main, {**OPTIONS, "images": ["a.ndz"]})
    # The use is counted, so it is a change: it needs a stop of its own.
    assert ended.results["changed"] is True
    assert ended.results["streams"][0]["joined"] is True
    assert ended.results["streams"][0]["state"] == "joined"
    assert ended.results["streams"][0]["msg"] == "joined at 224.0.0.5:7000"


def test_started_again_where_uses_are_not_counted():
    running = listing(("a.ndz", 7000))
    call = Call("/frisbee/getAddress", {"img": "a.ndz", "domain": DOMAIN}, "224.0.0.5:7000")
    with expected_calls(running, own("a.ndz", 7000), call, running):
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
        # Uses are counted here, and nobody else would give them back.
        stop("a.ndz", "<OK/>"),
        stop("b.ndz", "<OK/>"),
    ):
        ended = run_module(frisbee_server.main, OPTIONS)
    assert ended.failed
    assert ended.results["failed_images"] == ["a.ndz", "b.ndz"]
    assert "a.ndz: has the same address 224.0.0.5:7000 as 'b.ndz'" in ended.results["msg"]
    assert [(one["state"], one["code"], one["port"]) for one in ended.results["streams"]] == [
        ("failed", "address_taken", 0)
    ] * 2
    assert ended.results["changed"] is False


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
    assert [stream["state"] for stream in ended.results["streams"]] == ["failed", "started"]
    assert [stream["code"] for stream in ended.results["streams"]] == ["http_error", ""]
    assert "not readable by user 'alice'" in ended.results["msg"]


def test_stopped():
    with expected_calls(
        stop("a.ndz", "<OK>Stopped serving &apos;a.ndz&apos; at 224.0.0.5:7000</OK>")._replace(
            sent="blocks_sent=7 bandwidth=80"
        ),
        stop("b.ndz", NOT_STOPPED.format(image="b.ndz")),
        listing(("b.ndz", 7001)),
        own("b.ndz", 7001),
    ):
        ended = run_module(frisbee_server.main, STOPPED)
    assert not ended.failed
    assert [(s.get("blocks_sent"), s.get("bandwidth")) for s in ended.results["streams"]] == [
        (7, 80.0),
        (None, None),
    ]
    assert [stream["changed"] for stream in ended.results["streams"]] == [True, True]
    assert [stream["state"] for stream in ended.results["streams"]] == ["stopped", "still_used"]
    assert ended.results["streams"][1]["msg"] == "still used by others"


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
    assert [stream["state"] for stream in ended.results["streams"]] == ["not_sending"] * 2


@pytest.mark.parametrize(
    ("before", "after", "state", "changed"),
    [
        (7000, 7000, "still_used", True),
        (7000, None, "stopped", True),
        (None, None, "not_sending", False),
    ],
)
@pytest.mark.parametrize("dialect", ["B", "C", "D"])
def test_an_ok_that_says_nothing_is_looked_behind(dialect, before, after, state, changed):
    """Up to OMF 5.3 the answer is OK whether the stream has ended, goes on for others, or was never there."""
    calls = []
    for port in (before, after):
        # The same image of another domain is always there.
        calls += [listing(*((("a.ndz", port),) if port else ()), ("a.ndz", 7010)), own("a.ndz", port)]
    calls.insert(2, stop("a.ndz", "OK"))
    with expected_calls(*calls):
        ended = run_module(frisbee_server.main, {**STOPPED, "dialect": dialect, "images": ["a.ndz"]})
    (stream,) = ended.results["streams"]
    assert (stream["ok"], stream["state"], stream["changed"]) == (True, state, changed)


def test_the_last_of_several_stops_says_that_the_stream_has_ended():
    many = [stop("a.ndz", NOT_STOPPED.format(image="a.ndz")), listing(("a.ndz", 7000)), own("a.ndz", 7000)]
    last = [stop("a.ndz", "<OK>Stopped serving &apos;a.ndz&apos; at 224.0.0.5:7000</OK>")]
    none = [stop("a.ndz", NOT_STOPPED.format(image="a.ndz")), listing(("a.ndz", 7010)), own("a.ndz")]
    states = []
    for calls in (many, last, none):
        with expected_calls(*calls):
            ended = run_module(frisbee_server.main, {**STOPPED, "images": ["a.ndz"]})
        states.append(ended.results["streams"][0]["state"])
    assert states == ["still_used", "stopped", "not_sending"]


def test_check_mode_starts_nothing():
    with expected_calls(
        check("a.ndz"), listing(("a.ndz", 7010)), own("a.ndz"),
        check("b.ndz"), listing(("b.ndz", 7001)), own("b.ndz", 7001),
    ):  # fmt: skip
        ended = run_module(frisbee_server.main, OPTIONS, check=True, diff=True)
    assert ended.results["changed"] is True
    assert [stream["msg"] for stream in ended.results["streams"]] == ["would be started", "would be joined"]
    assert [stream["state"] for stream in ended.results["streams"]] == ["would_start", "would_join"]
    assert ended.results["diff"]["before"] == "a.ndz: not sent\nb.ndz: sent\n"
    assert ended.results["diff"]["after"] == "a.ndz: sent\nb.ndz: sent\n"


def test_check_mode_knows_a_missing_image():
    with expected_calls(check("a.ndz", "<ERROR>Image file &apos;/i/a.ndz&apos; not found</ERROR>")):
        ended = run_module(frisbee_server.main, {**OPTIONS, "images": ["a.ndz"]}, check=True)
    assert ended.failed
    assert ended.results["streams"][0]["ok"] is False
    assert ended.results["streams"][0]["code"] == "no_such_image"


def test_check_mode_stops_nothing():
    both = listing(("a.ndz", 7000), ("b.ndz", 7010))
    with expected_calls(both, own("a.ndz", 7000), both, own("b.ndz")):
        ended = run_module(frisbee_server.main, STOPPED, check=True)
    assert [stream["changed"] for stream in ended.results["streams"]] == [True, False]
    assert [stream["state"] for stream in ended.results["streams"]] == ["would_stop", "not_sending"]


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
