# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The web layer: connections, bodies, methods, the neutral endpoint, and whatever a client may send."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Callable
from urllib.parse import quote

import pytest
from defusedxml.ElementTree import fromstring
from hypothesis import HealthCheck, given, settings, strategies as st

from orbit_services import web
from orbit_services.dialects import DIALECTS

from .stand import DOMAIN, FORM, Reply, World

MakeWorld = Callable[..., World]


def raw(world: World, dialect: str, data: bytes, *, ends: bool = True) -> bytes:
    """Send bytes, close our direction if it ``ends``, and return all that comes until the other side closes.

    Who closes it before the reply has come may get none: the server takes it for gone.
    """
    with socket.create_connection(("127.0.0.1", world.stand.ports[dialect]), timeout=180) as sock:
        sock.sendall(data)
        if ends:
            sock.shutdown(socket.SHUT_WR)
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_connections_are_kept_after_success_and_closed_after_errors(make_world: MakeWorld) -> None:
    world = make_world()
    connection = http.client.HTTPConnection("127.0.0.1", world.stand.ports["D"], timeout=180)
    try:
        for _ in range(3):
            connection.request("GET", "/pxe")
            reply = connection.getresponse()
            assert reply.read()
            assert not reply.will_close
        connection.request("GET", "/pxe/setBootImageNS")
        reply = connection.getresponse()
        assert reply.status == 400
        assert reply.will_close
    finally:
        connection.close()


def test_empty_replies_keep_the_connection_unless_faithful(make_world: MakeWorld) -> None:
    world = make_world()
    target = f"/cmc/reset?hrn=nosuch&domain={DOMAIN}"
    connection = http.client.HTTPConnection("127.0.0.1", world.stand.ports["E2"], timeout=180)
    try:
        for _ in range(2):
            connection.request("GET", target)
            reply = connection.getresponse()
            assert (reply.status, reply.read(), reply.getheader("content-type")) == (200, b"", None)
    finally:
        connection.close()


def test_faithful_empty_replies_drop_a_connection_announced_as_kept(make_world: MakeWorld) -> None:
    world = make_world(faithful=True)
    target = f"/cmc/reset?hrn=nosuch&domain={DOMAIN}"
    request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    data = raw(world, "E2", request * 2, ends=False)
    assert data.count(b"HTTP/1.1 200") == 1
    assert b"connection: Keep-Alive\r\n" in data
    assert b"content-length: 0\r\n" in data
    assert data.endswith(b"\r\n\r\n")


def test_a_client_that_asks_for_it_gets_its_connection_closed(make_world: MakeWorld) -> None:
    request = b"GET /cmc/allOn HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    data = raw(make_world(), "A", request, ends=False)
    assert b"\r\nconnection: close\r\n" in data.lower()
    assert b"keep-alive" not in data.lower()


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "multipart/form-data", ""])
def test_only_forms_are_read(content_type: str, make_world: MakeWorld) -> None:
    reply = make_world().send(
        "D", "/pxe/setBootImageNS?ns=x&domain=y", "POST", "ns=a&domain=b", {"Content-Type": content_type}
    )
    assert reply.text == "Missing parameter 'ns'"


def test_form_type_with_parameters_and_capitals(make_world: MakeWorld) -> None:
    reply = make_world().send(
        "D",
        "/frisbee/checkImage",
        "POST",
        f"domain={DOMAIN}&img=baseline.ndz",
        {"Content-Type": "Application/X-WWW-Form-Urlencoded; charset=utf-8"},
    )
    assert reply.text == "OK"


def test_bodies_have_a_limit(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world()
    monkeypatch.setattr(web, "MAX_BODY", 1000)
    assert world.send("D", "/pxe/setBootImageNS", "POST", "ns=" + "x" * 2000, FORM).status == 413


def test_head_asks_and_changes_nothing(make_world: MakeWorld) -> None:
    world = make_world()
    asked, told = (world.send("A", "/cmc/getAllNodes", method) for method in ("GET", "HEAD"))
    assert (told.status, told.body, told.headers["content-length"]) == (200, b"", str(len(asked.body)))
    reply = world.send("A", "/cmc/on?x=1&y=1", "HEAD")
    assert (reply.status, reply.body) == (403, b"")
    assert world.power.log == []


def test_error_page(make_world: MakeWorld) -> None:
    reply = make_world().send("C", "/pxe/setBootImageNS?ns=" + quote('<a b="c">&'))
    assert reply.headers["connection"] == "close"
    assert "&lt;a b=&quot;c&quot;&gt;&amp;" in reply.text
    assert "<TITLE>Bad Request</TITLE>" in reply.text
    assert re.search(r"<ADDRESS>\n     .* at\n     127\.0\.0\.1:\d+\n    </ADDRESS>", reply.text)


def test_neutral_endpoint_on_every_port(make_world: MakeWorld) -> None:
    world = make_world()
    world.send("A", "/cmc/on?x=2&y=3")
    world.send("B", "/pxe/setBootImageNS?ns=[1,1]")
    world.send("C", "/frisbee/getAddress?img=other.ndz")
    for dialect in DIALECTS:
        reply = world.send(dialect, "/orbit/state")
        state = json.loads(reply.text)
        assert reply.content_type == "application/json"
        assert state["domain"] == DOMAIN
        assert state["version"]
        nodes = {node["name"]: node for node in state["nodes"]}
        assert len(nodes) == 400
        assert (nodes["node2-3"]["power"], nodes["node3-2"]["power"]) == ("on", "off")
        assert (nodes["node1-1"]["link"], nodes["node2-1"]["link"]) == ("omf-5.4", None)
        assert [link["hex"] for link in state["links"]] == ["0A0A0101"]
        (stream,) = state["streams"]
        assert (stream["image"], stream["users"]) == ("other.ndz", 1)
        assert stream["stats"] == {"blocks_sent": 0, "clients": 0}
        assert world.send(dialect, "/orbit/nothing").status == 404
        assert "orbit" not in world.send(dialect, "/").text


def test_broken_requests_get_an_answer_not_a_trace(make_world: MakeWorld) -> None:
    world = make_world()
    for data in (
        b"\0\1\2\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /pxe HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ):
        found = raw(world, "E2", data, ends=False)
        assert found.startswith(b"HTTP/1.1 4")
        assert b"Traceback" not in found


def test_a_client_that_leaves_in_the_middle_harms_nobody(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world()
    raw(
        world, "E2", b"POST /pxe/setBootImageNS HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nns="
    )
    assert world.send("E2", "/").status == 200
    assert "Traceback" not in caplog.text


def test_our_own_fault_is_an_internal_error_in_every_dialect(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world()
    world.config.tftp_dir.joinpath("0A0A0101").mkdir()
    reply = world.send("A", "/pxe/setBootImage?node=node1-1")
    assert (reply.status, reply.text) == (500, "internal error")
    reply = world.send("B", "/pxe/setBootImageNS?ns=[1,1]")
    assert reply.status == 500
    assert "internal error" in reply.text
    assert "Traceback" not in reply.text
    assert "IsADirectoryError" in caplog.text


# -- fuzz --------------------------------------------------------------------------------------------------

_NAMES = sorted(
    {
        arg.name
        for dialect in DIALECTS.values()
        for service in dialect.services.values()
        for method in service.methods
        for arg in method.args
    }
)
_METHODS = sorted(
    {
        (service.name, method.name)
        for dialect in DIALECTS.values()
        for service in dialect.services.values()
        for method in service.methods
    }
)
_VALUES = (
    st.text(max_size=20)
    | st.sampled_from(
        [
            DOMAIN,
            "default",
            "",
            f"node1-1.{DOMAIN}",
            "node1-1",
            "1",
            "[1,1]",
            "[[1,1],[1..5,2]]",
            "[1..9999,1..9999]",
            "baseline.ndz",
            "../x",
            "$(reboot)",
            "'; drop",
            "a" * 500,
            "%",
            "\0",
        ]
    )
).map(lambda text: quote(text.encode("utf-8", "surrogatepass"), safe="[],."))
_TARGETS = st.tuples(
    st.sampled_from(_METHODS).map("/".join) | st.text(alphabet="abpxe/.%2f", max_size=12),
    st.lists(st.tuples(st.sampled_from(_NAMES), _VALUES), max_size=5),
    st.sampled_from("&;"),
).map(lambda parts: f"/{parts[0]}?" + parts[2].join(f"{name}={value}" for name, value in parts[1]))

#: What may come with status 500: no more than the dialects prescribe.
_PRESCRIBED_500 = re.compile(
    r"internal error|Inventory has no|Missing 'testbed' config|is not registered for|Starting daemon"
)


def judge(dialect: str, reply: Reply) -> None:
    assert b"Traceback" not in reply.body
    assert reply.status in (200, 400, 404, 405, 414, 500)
    if reply.status == 500:
        assert _PRESCRIBED_500.search(reply.text), reply.text
    if reply.content_type == "text/xml" or (reply.headers.get("contenttype") and reply.body):
        fromstring(reply.body)


@pytest.fixture
def fuzz_world(make_world: MakeWorld) -> World:
    return make_world(max_daemons=1)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    target=_TARGETS,
    dialect=st.sampled_from(sorted(DIALECTS)),
    method=st.sampled_from(["GET", "POST", "HEAD"]),
)
def test_any_request_gets_a_reply_of_the_dialect(
    target: str, dialect: str, method: str, fuzz_world: World
) -> None:
    path, _, query = target.partition("?")
    form = query if method == "POST" else None
    reply = fuzz_world.send(dialect, path.replace(" ", "") if form else target, method, form)
    if method != "HEAD":
        judge(dialect, reply)
