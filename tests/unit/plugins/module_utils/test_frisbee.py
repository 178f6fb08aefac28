# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import frisbee
from ansible_collections.orbit.imaging.plugins.module_utils.frisbee import (
    FrisbeeClient,
    Status,
    Stream,
    check_image_name,
    start_lock,
)
from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection, ServiceError

from .. import recorded
from ..httpkit import URL, Call, expected_calls
from ..manifestkit import DIGEST, make
from ..recorded import DOMAIN, NO_STREAMS, NOT_STOPPED, status

IMAGE = "baseline.ndz"
XML = "text/xml"


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Take the pauses away and return the list of those that would have been made."""
    made = []
    monkeypatch.setattr(frisbee.time, "sleep", made.append)
    return made


def client(dialect):
    return FrisbeeClient(Connection(URL), dialect, DOMAIN, "alice")


def arguments(dialect, image=IMAGE):
    user = {"user": "alice"} if dialect == "E2" else {}
    return {"img": image, "domain": DOMAIN, **user}


def get(dialect, body, image=IMAGE, code=200):
    return Call("/frisbee/getAddress", arguments(dialect, image), body, code)


def listing(body, code=200):
    return Call("/frisbee/status", {"domain": DOMAIN}, body, code)


MANIFEST = f"/orbit/images/{IMAGE}/manifest"


def given(body, code=200, content_type="application/x-ndjson"):
    return Call(MANIFEST, {}, body, code, content_type)


def test_a_manifest_is_read():
    text = make(count=2, end=4096, identity="baseline 5.4")
    with expected_calls(given(text.decode())):
        found = client("E2").manifest(IMAGE)
    assert found.manifest == (DIGEST, 2 << 20, 2, 4096 * 512, "baseline 5.4")
    assert (found.text, found.msg, found.damaged) == (text, "", False)


@pytest.mark.parametrize("dialect", ["A", "B", "C", "D", "E1", "E2"])
@pytest.mark.parametrize(
    "call",
    [
        given(recorded.SERVICE_LIST, 200, "text/xml"),
        given(recorded.describe("B", "frisbee"), 200, "text/xml"),
        given("", 200, "text/plain"),
        given("Not Found", 404, "text/plain"),
        given("<html><h1>Not Found</h1></html>", 404, "text/html"),
        given("<html><h1>Internal Server Error</h1></html>", 500, "text/html"),
        given("OK", 200, "text"),
        given("[]", 404, "application/json"),
        given("{", 409, "application/json"),
    ],
    ids=lambda call: f"{call.status} {call.body[:12]!r}",
)
def test_any_other_answer_means_no_manifest(dialect, call):
    with expected_calls(call):
        found = client(dialect).manifest(IMAGE)
    assert found.manifest is None
    assert not found.damaged
    assert found.msg == "this service has no manifests"


def test_no_answer_means_no_manifest_and_says_so():
    with expected_calls(*[given(OSError("gone"))] * 3):
        found = client("E2").manifest(IMAGE)
    assert found.manifest is None
    assert not found.damaged
    assert found.msg.startswith("the service gave no manifest: orbit/images/baseline.ndz/manifest: cannot be")


def test_an_image_without_a_manifest_has_the_services_reason():
    with expected_calls(given('{"error": "the image has no manifest"}', 404, "application/json")):
        assert client("A").manifest(IMAGE) == (None, b"", "the image has no manifest", False)


@pytest.mark.parametrize("status", [403, 409])
def test_a_manifest_that_the_service_refuses_is_damaged(status):
    with expected_calls(given('{"error": "does not belong"}', status, "application/json")):
        assert client("A").manifest(IMAGE) == (None, b"", "does not belong", True)


def test_a_damaged_manifest_is_told():
    with expected_calls(given(make().decode()[:-10])):
        found = client("A").manifest(IMAGE)
    assert found.damaged
    assert found.msg.startswith("the manifest of 'baseline.ndz' cannot be used: is no manifest, or cut off")


def test_what_is_wrong_with_a_manifest_is_told_in_short():
    for version in ('"' + "v" * 100_000 + '"', "9" * 5000):
        first, _line, rest = make().decode().partition("\n")
        damaged = first.replace('"version":1', f'"version":{version}').replace(
            '"version": 1', f'"version":{version}'
        )
        assert damaged != first
        with expected_calls(given(f"{damaged}\n{rest}")):
            found = client("A").manifest(IMAGE)
        assert found.damaged
        assert len(found.msg) < 500


def stop(body, image=IMAGE, code=200):
    return Call("/frisbee/stop", {"img": image, "domain": DOMAIN}, body, code)


# Names


@pytest.mark.parametrize("name", ["baseline.ndz", "a", "A-b_c.0", "_x", "x" * 255])
def test_image_name(name):
    assert check_image_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b",
        "../x",
        "a b",
        "a;b",
        "$(x)",
        "-rf",
        ".",
        ".hidden",
        "a\nb",
        "a\x00",
        "\u00fc",
        "x" * 256,
        "a\n",
    ],
)
def test_bad_image_name(name):
    with pytest.raises(ServiceError, match="is not a name of an image") as caught:
        check_image_name(name)
    assert "bare file name" in caught.value.remedy
    with pytest.raises(ServiceError, match="is not a name of a memory image"):
        check_image_name(name, "memory image")


# Status


@pytest.mark.parametrize(
    ("dialect", "body", "code", "found"),
    [
        ("E2", NO_STREAMS, 200, Status()),
        ("E2", "<OK>No frisbee daemons are currently serving &apos;x&apos;</OK>", 200, Status()),
        ("D", "internal error", 500, Status()),
        ("C", recorded.HTML_ERROR.format(message="uninitialized class variable @@bw"), 500, Status()),
        ("D", status(), 200, Status((), 50.0)),
        (
            "E2",
            status((IMAGE, 7000), ("other.ndz", 7001), bandwidth="72.0"),
            200,
            Status(
                (Stream(IMAGE, None, 7000, 3594.866836), Stream("other.ndz", None, 7001, 3594.866836)), 72.0
            ),
        ),
        (
            "A",
            "<frisbee_status><bandwidth>50.0</bandwidth><mc_address>224.0.0.2</mc_address>"
            "<daemon img='baseline-2.1.ndz' port='7000' timeLeft='3543.265777'/></frisbee_status>",
            200,
            Status((Stream("baseline-2.1.ndz", None, 7000, 3543.265777),), 50.0),
        ),
        (
            "E2",
            "<frisbee_status><daemon img='a' port='7000' address='239.77.0.1'/></frisbee_status>",
            200,
            Status((Stream("a", "239.77.0.1", 7000, None),), None),
        ),
        (
            # Its own address and its domain are what later services add; what is no address is none.
            "E2",
            "<frisbee_status><daemon img='a' port='7000' mc_address='239.77.0.1' domain='sb1.orbit-lab.org'/>"
            f"<daemon img='a' port='7001' mc_address='x' domain='{DOMAIN.upper()}'/></frisbee_status>",
            200,
            Status((Stream("a", "239.77.0.1", 7000, None, False), Stream("a", None, 7001, None, True)), None),
        ),
    ],
)
def test_status(dialect, body, code, found):
    with expected_calls(listing(body, code)):
        assert client(dialect).status() == found


@pytest.mark.parametrize(
    ("dialect", "body", "code"),
    [
        ("E2", "internal error", 500),
        ("D", "Missing parameter 'domain'", 400),
        ("E2", "", 200),
        ("E2", "<frisbee_status><daemon img='x' port='seven'/></frisbee_status>", 200),
        ("E2", "<frisbee_status><daemon img='x'/></frisbee_status>", 200),
        *(
            ("E2", f"<frisbee_status><daemon img='x' {said}/></frisbee_status>", 200)
            for said in (
                f"port='{'7' * 5000}'",
                "port='-1'",
                "port='0'",
                "port='65536'",
                "port='7000' timeLeft='nan'",
                "port='7000' timeLeft='1e999'",
                f"port='7000' timeLeft='{'9' * 5000}'",
            )
        ),
        ("E2", "<frisbee_status><bandwidth>inf</bandwidth></frisbee_status>", 200),
        ("E2", "OK", 200),
        ("E2", recorded.SERVICE_LIST, 200),
    ],
)
def test_status_that_is_none(dialect, body, code):
    with expected_calls(listing(body, code)), pytest.raises(ServiceError, match=r"^frisbee/status: |refused"):
        client(dialect).status()


def own(image=IMAGE, port=None, dialect="E2"):
    """The question for the stream of this domain, asked when the list of all domains has the image."""
    arguments = {"img": image, "domain": DOMAIN}
    if port:
        return Call("/frisbee/status", arguments, status((image, port)))
    if dialect in ("B", "C", "D"):
        return Call("/frisbee/status", arguments, "internal error", 500)
    return Call("/frisbee/status", arguments, recorded.NOT_SERVING.format(image=image))


@pytest.mark.parametrize("dialect", ["B", "C", "D", "E1", "E2"])
def test_the_stream_of_another_domain_is_not_taken_for_ours(dialect):
    """The list is that of all domains and does not say whose a stream is."""
    theirs = listing(status((IMAGE, 7010)))
    with expected_calls(theirs, own(dialect=dialect)):
        assert client(dialect).serving(IMAGE) is False
    with expected_calls(theirs, own(port=7010, dialect=dialect)):
        assert client(dialect).serving(IMAGE) is True
    both = listing(status((IMAGE, 7010), ("other.ndz", 7001), (IMAGE, 7000)))
    with expected_calls(both, own(port=7000, dialect=dialect), own("other.ndz", dialect=dialect)):
        streams = client(dialect).streams().streams
    assert [(one.image, one.port, one.own) for one in streams] == [
        (IMAGE, 7010, False), ("other.ndz", 7001, False), (IMAGE, 7000, True),
    ]  # fmt: skip


def test_2006_knows_no_domains():
    with expected_calls(listing(status((IMAGE, 7000))), listing(status((IMAGE, 7000)))):
        assert client("A").serving(IMAGE) is True
        assert [one.own for one in client("A").streams().streams] == [None]


def test_where_the_list_tells_domains_nothing_more_is_asked():
    rows = f"<daemon img='{IMAGE}' port='7000' domain='sb1.orbit-lab.org'/>"
    with expected_calls(listing(f"<frisbee_status>{rows}</frisbee_status>")):
        assert client("E2").serving(IMAGE) is False


# Does an image exist?


@pytest.mark.parametrize(
    ("dialect", "body", "answer"),
    [
        ("B", "OK", (True, "")),
        ("C", "IMAGE NOT FOUND", (False, "image file 'baseline.ndz' not found")),
        ("E1", "<OK>Image found</OK>", (True, "")),
        ("E2", "<OK>Image found and readable</OK>", (True, "")),
        (
            "E1",
            "<ERROR>Image file &apos;/d/x&apos; not found</ERROR>",
            (False, "Image file '/d/x' not found"),
        ),
        (
            "E2",
            "<ERROR>Image file &apos;/d/x&apos; not found or not readable by user &apos;alice&apos;</ERROR>",
            (False, "Image file '/d/x' not found or not readable by user 'alice'"),
        ),
    ],
)
def test_check(dialect, body, answer):
    with expected_calls(Call("/frisbee/checkImage", arguments(dialect), body)):
        assert client(dialect).check(IMAGE) == answer


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (
            "<ERROR>frisbee getAddress: missing &apos;user&apos; parameter in service call.</ERROR>",
            200,
            "missing 'user'",
        ),
        ("", 200, "empty reply"),
        (recorded.describe("A", "frisbee"), 200, "no method 'checkImage'"),
        ("internal error", 500, "internal error"),
        ("found", 200, "not what this method answers"),
    ],
)
def test_check_without_an_answer(body, code, message):
    with (
        expected_calls(Call("/frisbee/checkImage", None, body, code)),
        pytest.raises(ServiceError, match=message),
    ):
        client("E2").check(IMAGE)


def no_check(*calls):
    """Expect calls to a service of 2006, which describes no checkImage."""
    return expected_calls(
        Call("/frisbee", {}, recorded.describe("A", "frisbee")), Call("/", {}, recorded.SERVICE_LIST), *calls
    )


def test_2006_an_image_that_is_being_sent_exists():
    with no_check(listing(status((IMAGE, 7000)))):
        assert client("A").check(IMAGE) == (True, "")


def test_2006_an_image_is_proven_by_its_stream():
    with no_check(listing(status()), get("A", "224.0.0.2:7000"), stop("OK")) as calls:
        assert client("A").check(IMAGE) == (True, "")
    assert calls.paths()[-1] == "/frisbee/stop"


def test_2006_an_image_that_has_no_stream():
    with no_check(listing(status()), get("A", "Image file '/x' not found", code=400)):
        assert client("A").check(IMAGE) == (False, "refused: Image file '/x' not found")


def test_2006_what_is_no_answer_is_no_missing_image():
    with no_check(listing(status()), get("A", "")), pytest.raises(ServiceError, match="empty reply"):
        client("A").check(IMAGE)


def test_2006_nothing_is_started_only_to_ask():
    with no_check(listing(status())):
        exists, reason = client("A").check(IMAGE, may_start=False)
    assert exists is None
    assert "only by starting" in reason


def test_2006_a_service_that_describes_a_check_is_asked():
    methods = recorded.METHODS["A"]["frisbee"] + "; checkImage(img)"
    with expected_calls(
        Call("/frisbee", {}, recorded.description("frisbee", methods)),
        Call("/", {}, recorded.SERVICE_LIST),
        Call("/frisbee/checkImage", arguments("A"), "OK"),
    ):
        assert client("A").check(IMAGE) == (True, "")


# Start


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("A", "224.0.0.2:7000"),
        ("B", "224.0.0.2:7000"),
        ("D", "224.0.0.2:7000"),
        ("E1", "<OK>224.0.0.2:7000</OK>"),
        ("E2", "<OK>224.0.0.2:7000</OK>"),
    ],
)
def test_start(dialect, body):
    with expected_calls(
        listing(status()), get(dialect, body), listing(status((IMAGE, 7000), ("other.ndz", 7001)))
    ) as calls:
        started = client(dialect).start(IMAGE)
    assert started.stream == Stream(IMAGE, "224.0.0.2", 7000)
    assert (started.joined, started.verified) == (False, True)
    assert calls.paths() == ["/frisbee/status", "/frisbee/getAddress", "/frisbee/status"]


def test_join():
    running = status((IMAGE, 7000))
    for dialect, asked in (("E1", []), ("E2", [READABLE])):
        reply = get(dialect, "<OK>224.0.0.2:7000</OK>")
        with expected_calls(listing(running), own(port=7000), *asked, reply, listing(running)):
            started = client(dialect).start(IMAGE)
        assert started.joined
        assert started.state == "joined"


READABLE = Call("/frisbee/checkImage", arguments("E2"), "<OK>Image found and readable</OK>")


def test_a_join_that_would_be_refused_is_not_asked_for():
    """OMF 5.4 counts the use that it refuses; nobody would ever take it back."""
    words = "Image file &apos;/i/x&apos; not found or not readable by user &apos;alice&apos;"
    no = READABLE._replace(body=f"<ERROR>{words}</ERROR>")
    calls = expected_calls(listing(status((IMAGE, 7000))), own(port=7000), no)
    with calls, pytest.raises(ServiceError, match="not readable by user") as caught:
        client("E2").start(IMAGE)
    assert caught.value.code == "no_such_image"


def test_the_same_image_in_another_domain_is_started_and_not_joined():
    with expected_calls(
        listing(status((IMAGE, 7010))),
        own(),
        get("E2", "<OK>224.0.0.2:7000</OK>"),
        listing(status((IMAGE, 7010), (IMAGE, 7000))),
    ):
        assert client("E2").start(IMAGE).state == "started"


@pytest.mark.parametrize("dialect", ["B", "C", "D", "E1", "E2"])
def test_a_start_that_another_hosts_start_made_fail_is_made_again(dialect, pauses):
    body = "224.0.0.2:7000" if dialect in ("B", "C", "D") else "<OK>224.0.0.2:7000</OK>"
    empty = listing(status())
    looked = [empty] if dialect in ("D", "E1", "E2") else []
    with expected_calls(
        empty, get(dialect, "internal error", code=500), *looked,
        empty, get(dialect, body), listing(status((IMAGE, 7000))),
    ):  # fmt: skip
        assert client(dialect).start(IMAGE).verified
    assert len(pauses) == 1
    assert frisbee.START_PAUSE <= pauses[0] <= 2 * frisbee.START_PAUSE


@pytest.mark.parametrize("dialect", ["D", "E1", "E2"])
@pytest.mark.parametrize("shown", [[(IMAGE, 7000)], None], ids=["listed", "not told"])
def test_a_start_that_may_have_been_counted_is_not_made_again(dialect, shown, pauses):
    after = [listing(status(*shown)), own(port=7000)] if shown else [listing("", 200)]
    calls = expected_calls(listing(status()), get(dialect, "internal error", code=500), *after)
    with calls, pytest.raises(ServiceError, match="internal error") as caught:
        client(dialect).start(IMAGE)
    assert caught.value.code == "http_error"
    assert pauses == []


@pytest.mark.parametrize(
    ("code", "body"), [(400, "Max. number of daemons reached"), (503, "down"), (502, "down")]
)
def test_what_is_no_race_is_not_tried_again(code, body, pauses):
    calls = expected_calls(listing(status()), get("C", body, code=code))
    with calls, pytest.raises(ServiceError, match=body[:4]):
        client("C").start(IMAGE)
    assert pauses == []


def test_a_stream_that_the_service_has_lost_is_started_again():
    """One image, first asked for by two hosts at once: OMF 5.4 starts two, and knows the second alone."""
    with expected_calls(
        listing(NO_STREAMS), get("E1", "<OK>224.0.0.1:7000</OK>"), listing(status((IMAGE, 7001))),
        listing(status((IMAGE, 7001))), own(port=7001),
        get("E1", "<OK>224.0.0.1:7001</OK>"), listing(status((IMAGE, 7001))),
    ):  # fmt: skip
        started = client("E1").start(IMAGE)
    assert (started.stream.port, started.state) == (7001, "joined")


def test_a_stream_that_is_never_listed_is_no_success():
    lost = [listing(NO_STREAMS), get("E1", "<OK>224.0.0.1:7000</OK>"), listing(NO_STREAMS)]
    calls = expected_calls(*lost * (1 + frisbee.START_RETRIES))
    with calls, pytest.raises(ServiceError, match="does not list it there") as caught:
        client("E1").start(IMAGE)
    assert caught.value.code == "not_sending"


def test_start_without_a_list():
    with expected_calls(
        listing("", 200), get("E2", "<OK>224.0.0.2:7000</OK>"), listing("internal error", 500)
    ):
        assert not client("E2").start(IMAGE).verified


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("<OK>MC:7000</OK>", 200, "not what this method answers"),
        ("<OK>224.0.0.999:7000</OK>", 200, "not what"),
        ("<OK>224.0.0.1:0</OK>", 200, "not what"),
        ("<OK>224.0.0.1:70000</OK>", 200, "not what"),
        ("<OK/>", 200, "not what"),
        ("OK", 200, "not what"),
        ("224.0.0.1:7000 x", 200, "not what"),
        ("<ERROR>Found unsafe characters in parameter &apos;x&apos;</ERROR>", 200, "unsafe characters"),
        ("Max. number of daemons reached. Shutdown others and try again", 400, "Max. number of daemons"),
        ("internal error", 500, "internal error"),
        ("", 200, "empty reply"),
    ],
)
def test_start_without_an_address(body, code, message):
    calls = [listing(NO_STREAMS), get("E2", body, code=code)]
    if body.startswith("<OK"):
        # Counted by the service and of no use to anybody.
        calls.append(stop("<OK/>"))
    if code == 500:
        calls = [*calls, listing(NO_STREAMS)] * (1 + frisbee.START_RETRIES)
    with expected_calls(*calls), pytest.raises(ServiceError, match=message):
        client("E2").start(IMAGE)


@pytest.mark.parametrize(("dialect", "stops"), [("B", 0), ("C", 0), ("D", 1)])
def test_an_address_that_is_none_is_given_back_where_uses_are_counted(dialect, stops):
    calls = expected_calls(
        listing(status()), get(dialect, "224.0.0.1:99999"), *[stop("internal error", code=500)] * stops
    )
    with calls, pytest.raises(ServiceError, match="not what this method answers") as caught:
        client(dialect).start(IMAGE)
    assert ("could not be given back: frisbee/stop" in caught.value.message) == bool(stops)


def test_the_address_of_another_image_is_given_back(pauses):
    """Two first calls at the same time are given one port; the other's stream is what is sent there."""
    shared = status(("other.ndz", 7000), (IMAGE, 7000))
    with expected_calls(
        listing(NO_STREAMS),
        get("E2", "<OK>224.0.0.1:7000</OK>"),
        listing(shared),
        stop(NOT_STOPPED.format(image=IMAGE)),
        listing(status(("other.ndz", 7000))),
        get("E2", "<OK>224.0.0.1:7001</OK>"),
        listing(status(("other.ndz", 7000), (IMAGE, 7001))),
    ):
        assert client("E2").start(IMAGE).stream.port == 7001
    # By lot, so that the two hosts do not meet again.
    assert len(pauses) == 1
    assert frisbee.START_PAUSE <= pauses[0] <= 2 * frisbee.START_PAUSE


def test_the_address_of_another_image_again_and_again():
    shared = status(("other.ndz", 7000), (IMAGE, 7000))
    before = [listing(shared), own(port=7000), READABLE]
    round_trip = [*before, get("E2", "<OK>224.0.0.1:7000</OK>"), listing(shared), stop("<OK/>")]
    calls = expected_calls(*round_trip * (1 + frisbee.START_RETRIES))
    with calls, pytest.raises(ServiceError, match=r"where 'other\.ndz' is being sent already") as caught:
        client("E2").start(IMAGE)
    assert caught.value.code == "address_taken"


def test_the_same_image_of_another_domain_at_the_same_address_is_another():
    shared = status((IMAGE, 7000), (IMAGE, 7000))
    taken = [listing(NO_STREAMS), get("E2", "<OK>224.0.0.1:7000</OK>"), listing(shared), stop("<OK/>")]
    calls = expected_calls(*taken * (1 + frisbee.START_RETRIES))
    with calls, pytest.raises(ServiceError, match="is being sent already"):
        client("E2").start(IMAGE)


def test_uncounted_streams_are_not_stopped():
    """Up to 5.2 a stop ends the stream for everybody."""
    shared = status(("other.ndz", 7000), (IMAGE, 7000))
    again = [listing(shared), own(port=7000), get("C", "224.0.0.1:7000"), listing(shared)]
    calls = expected_calls(
        listing(status()), get("C", "224.0.0.1:7000"), listing(shared), *again * frisbee.START_RETRIES
    )
    with calls, pytest.raises(ServiceError, match=r"where 'other\.ndz' is being sent already"):
        client("C").start(IMAGE)


def test_one_port_at_two_addresses_is_two_streams():
    body = (
        "<frisbee_status><daemon img='other.ndz' port='7000' address='239.77.0.1'/>"
        "<daemon img='baseline.ndz' port='7000' address='239.77.0.2'/></frisbee_status>"
    )
    with expected_calls(listing(NO_STREAMS), get("E2", "<OK>239.77.0.2:7000</OK>"), listing(body)):
        assert client("E2").start(IMAGE).stream.address == "239.77.0.2"


def test_bad_name_is_not_sent():
    made = client("E2")
    with expected_calls():
        for work in (made.start, made.stop, made.check):
            with pytest.raises(ServiceError):
                work("../x")


# Stop


def seen(dialect, port):
    """What is asked to see whether the image is being sent, while another domain sends it too."""
    rows = [(IMAGE, port)] if port else []
    return [listing(status(*rows, (IMAGE, 7010))), own(port=port, dialect=dialect)]


@pytest.mark.parametrize(
    ("before", "after", "state"),
    [(7000, None, "stopped"), (7000, 7000, "still_used"), (None, None, "not_sending")],
)
@pytest.mark.parametrize("dialect", ["B", "C", "D"])
def test_stop_up_to_5_3(dialect, before, after, state):
    """OK is all that these services say, also for a stream that goes on and for one that never was."""
    with expected_calls(*seen(dialect, before), stop("OK"), *seen(dialect, after)):
        assert client(dialect).stop(IMAGE).state == state


def test_stop_of_a_stream_on_its_way_out():
    going = stop(recorded.HTML_ERROR.format(message="No such process"), code=500)
    with expected_calls(*seen("C", 7000), going, *seen("C", None)):
        assert client("C").stop(IMAGE).state == "stopped"


def test_stop_when_the_list_cannot_be_read():
    silent = listing("Missing parameter", 400)
    with expected_calls(silent, stop("OK"), silent):
        assert client("D").stop(IMAGE).state == "unknown"
    with expected_calls(stop(NOT_STOPPED.format(image=IMAGE)), listing("", 200)):
        assert client("E2").stop(IMAGE).state == "unknown"


@pytest.mark.parametrize("dialect", ["E1", "E2"])
def test_stop_of_5_4(dialect):
    with expected_calls(stop("<OK>Stopped serving &apos;b&apos; at 224.0.0.1:7000</OK>")):
        assert client(dialect).stop(IMAGE) == ("stopped", "Stopped serving 'b' at 224.0.0.1:7000", {})
    for port, state in ((7000, "still_used"), (None, "not_sending")):
        with expected_calls(stop(NOT_STOPPED.format(image=IMAGE)), *seen(dialect, port)):
            assert client(dialect).stop(IMAGE).state == state


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "blocks_sent=70 blocks_repeated=2 bandwidth=80.5",
            {"blocks_sent": 70, "blocks_repeated": 2, "bandwidth": 80.5},
        ),
        ("blocks_sent=x blocks_repeated=-2 bandwidth=nan other", {}),
        ("blocks_sent=0 more=1", {"blocks_sent": 0}),
        (f"blocks_sent={10**19}", {}),
        ("", {}),
    ],
)
def test_what_a_stream_has_sent_is_told_with_its_end_or_in_the_list(said, told):
    stopped = "<OK>Stopped serving &apos;b&apos; at 224.0.0.1:7000</OK>"
    with expected_calls(stop(stopped)._replace(sent=said)):
        assert client("E2").stop(IMAGE).sent == told
    with expected_calls(*seen("C", 7000), stop("OK")._replace(sent=said), *seen("C", None)):
        assert client("C").stop(IMAGE).sent == told
    attributes = re.sub(r"(\S+)=(\S+)", r"\1='\2'", said.replace(" other", ""))
    listed = status((IMAGE, 7000)).replace("<daemon ", f"<daemon {attributes} ")
    with expected_calls(stop(NOT_STOPPED.format(image=IMAGE)), listing(listed), own(port=7000)):
        assert client("E2").stop(IMAGE).sent == told


@pytest.mark.parametrize(
    ("body", "code"), [("", 200), ("<ERROR>other</ERROR>", 200), ("internal error", 500), ("gone", 200)]
)
def test_stop_without_an_answer(body, code):
    with expected_calls(stop(body, code=code)), pytest.raises(ServiceError, match=r"frisbee/stop|refused"):
        client("E2").stop(IMAGE)


# One start at a time

# Of this process alone: other runs of the tests take such locks, too.
KEY = f"a key of {os.getpid()}"


def test_starts_in_one_process_come_one_after_another(monkeypatch):
    monkeypatch.undo()
    inside, order = threading.Event(), []

    def second():
        with start_lock(KEY):
            order.append("second")

    with start_lock(KEY):
        thread = threading.Thread(target=lambda: (inside.set(), second()))
        thread.start()
        inside.wait(180)
        order.append("first")
    thread.join(180)
    assert order == ["first", "second"]


def test_start_lock_ends_with_its_holder():
    script = (
        "import socket, sys\n"
        "from ansible_collections.orbit.imaging.plugins.module_utils.frisbee import start_lock\n"
        f"with start_lock({KEY!r}):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    ) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with (
                pytest.raises(ServiceError, match="another process on this host"),
                start_lock(KEY, wait=0),
            ):
                pass
            with start_lock("another key", wait=0):
                pass
            holder.kill()
            holder.wait(180)
            with start_lock(KEY, wait=0):
                pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                holder.kill()
