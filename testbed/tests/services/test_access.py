# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may use the services: the allow list, the token, TLS, and how long a request may take."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import re
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from orbit_services import serve, web
from orbit_services.access import Access, AccessError
from orbit_services.dialects import DIALECTS

from .stand import DOMAIN, FORM, World

MakeWorld = Callable[..., World]
TOKEN = "0123456789abcdef-secret"
#: Only clients of this network may change something; the tests' own address is another one.
ELSEWHERE = Access(allow=(ipaddress.ip_network("127.9.0.0/16"),))
#: A call of every method that changes something, with arguments that would do it.
ARGUMENTS = f"domain={DOMAIN}&ns=[1,1]&node=node1-1&img=baseline.ndz&user=me&x=1&y=1&nodes=[1,1]"
CHANGES = [
    (dialect.name, f"/{service.name}/{method.name}")
    for dialect in DIALECTS.values()
    for service in dialect.services.values()
    for method in service.methods
    if method.changes
]


# -- the allow list


@pytest.mark.parametrize(("dialect", "path"), CHANGES)
def test_strangers_may_change_nothing(dialect: str, path: str, make_world: MakeWorld) -> None:
    world = make_world(access=ELSEWHERE)
    for method, target, body in (
        ("GET", f"{path}?{ARGUMENTS}", None),
        ("HEAD", f"{path}?{ARGUMENTS}", None),
        ("POST", path, ARGUMENTS),
        ("PUT", path, ARGUMENTS),
        ("GET", f"/x/..//.{path}?{ARGUMENTS}", None),
        ("GET", f"{path.replace('e', '%65')}?{ARGUMENTS}", None),
    ):
        reply = world.send(dialect, target, method, body, FORM if body else {"X-Forwarded-For": "127.9.0.1"})
        assert reply.status == 403
        if method != "HEAD":
            assert "127.0.0.1 may ask, but not change anything here" in reply.text
    assert (world.links(), world.streams(), world.power.log) == ({}, [], [])


def test_strangers_may_ask(make_world: MakeWorld) -> None:
    world = make_world(access=ELSEWHERE)
    for dialect in DIALECTS:
        for target in ("/", "/pxe", "/frisbee", "/cmc", "/orbit/state"):
            assert world.send(dialect, target).status == 200
    assert world.send("A", "/frisbee/status").status == 200
    assert world.send("E2", f"/cmc/allStatus?domain={DOMAIN}").status == 200
    assert world.send("E2", f"/frisbee/checkImage?domain={DOMAIN}&user=me&img=baseline.ndz").status == 200


def test_who_is_on_the_list_may_change_something(make_world: MakeWorld) -> None:
    world = make_world(access=ELSEWHERE)
    connection = http.client.HTTPConnection(
        "127.0.0.1", world.stand.ports["A"], timeout=180, source_address=("127.9.3.4", 0)
    )
    with contextlib.closing(connection):
        connection.request("GET", "/cmc/on?x=1&y=1")
        assert connection.getresponse().read() == b"OK"
    assert world.power.log == [("on", "node1-1")]


@pytest.mark.parametrize(
    ("client", "may"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.77.1.1", True),
        ("::ffff:10.77.1.1", True),
        ("10.78.1.1", False),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("testclient", False),
        ("", False),
        (None, False),
    ],
)
def test_loopback_and_what_is_told_are_on_the_list(client: str | None, may: bool) -> None:
    assert Access.load(["10.77.0.0/16"]).may_change(client) is may


# -- the token


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_without_the_token_nothing_is_said(make_world: MakeWorld) -> None:
    world = make_world(access=Access(token=TOKEN.encode()))
    for headers in (
        {},
        bearing("wrong"),
        bearing(TOKEN + "x"),
        bearing(TOKEN[:-1]),
        bearing(""),
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN} {TOKEN}"},
    ):
        for target in ("/", "/cmc/on?x=1&y=1", "/orbit/state", "/orbit/images", "/nothing"):
            reply = world.send("A", target, headers=headers)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert "wants a token" in reply.text
            assert TOKEN not in reply.text
    assert world.power.log == []
    for word in ("Bearer", "bearer"):
        headers = {"Authorization": f"{word} {TOKEN}"}
        assert world.send("A", "/cmc/on?x=1&y=1", headers=headers).text == "OK"


def test_a_token_does_not_make_a_stranger_a_friend(make_world: MakeWorld) -> None:
    world = make_world(access=Access(allow=ELSEWHERE.allow, token=TOKEN.encode()))
    assert world.send("A", "/cmc/on?x=1&y=1", headers=bearing(TOKEN)).status == 403


def test_the_token_is_not_shown(tmp_path: Path) -> None:
    assert TOKEN not in repr(Access(token=TOKEN.encode()))


def test_a_request_with_two_tokens_is_refused(make_world: MakeWorld) -> None:
    world = make_world(access=Access(token=TOKEN.encode()))
    with socket.create_connection(("127.0.0.1", world.stand.ports["A"]), timeout=180) as sock:
        lines = [f"Authorization: Bearer {token}" for token in (TOKEN, "other-token-0123456789")]
        sock.sendall("\r\n".join(["GET / HTTP/1.1", "Host: x", *lines, "", ""]).encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 401")


# -- options


def test_options_that_cannot_be_met_are_named(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("short", "open", "two", "empty", "junk")}
    files["short"].write_text("abc")
    files["open"].write_text(TOKEN)
    files["two"].write_text(f"{TOKEN}\n{TOKEN}\n")
    files["empty"].write_text("")
    files["junk"].write_text("no certificate")
    for name, path in files.items():
        path.chmod(0o644 if name == "open" else 0o600)
    for name, words in (
        ("short", "openssl rand"),
        ("open", "chmod 600"),
        ("two", "not one token"),
        ("empty", "not one token"),
        ("missing", "No such file"),
    ):
        with pytest.raises(AccessError, match=words) as caught:
            Access.load(token_file=tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert TOKEN not in str(caught.value)
    for text in ("10.0.0.0/33", "here", "10.0.0.1/8"):
        with pytest.raises(AccessError, match=f"--allow {text}"):
            Access.load([text])
    with pytest.raises(AccessError, match=r"--tls-cert .*junk"):
        Access.load(certificate=files["junk"])
    with pytest.raises(AccessError, match="give --tls-cert"):
        Access.load(key=files["junk"])


# -- TLS


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """``python -m orbit_services`` with token and TLS; its URL and the certificate to trust."""
    certificate, key, trusted, token = (
        tmp_path / name for name in ("service.crt", "service.key", "ca", "token")
    )
    authority = trustme.CA()
    authority.cert_pem.write_to_path(trusted)
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    token.touch(0o600)
    token.write_text(f"{TOKEN}\n")
    command = [sys.executable, "-m", "orbit_services", "--listen", "A=127.0.0.1:0"]
    command += ["--token-file", str(token), "--tls-cert", str(certificate), "--tls-key", str(key)]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            _dialect, url = process.stdout.readline().split()
            assert process.stdout.readline() == "ready\n"
            yield url, trusted
        finally:
            process.terminate()
            assert process.wait(180) == 0
        assert "Traceback" not in process.stderr.read()


def test_token_and_tls_together(secured: tuple[str, Path]) -> None:
    url, trusted = secured
    assert url.startswith("https://127.0.0.1:")
    trusting = ssl.create_default_context(cafile=str(trusted))
    request = urllib.request.Request(f"{url}/cmc/on?x=1&y=1", headers=bearing(TOKEN))
    with urllib.request.urlopen(request, timeout=180, context=trusting) as reply:
        assert reply.read() == b"OK"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/cmc/on?x=1&y=1", timeout=180, context=trusting)
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(request, timeout=180, context=ssl.create_default_context())
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=180) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert not sock.recv(100).startswith(b"HTTP")


# -- names that leave their folder

#: Ways to write a path that leads out of a folder, as they stand in a URL.
ESCAPES = [
    "../x", "..%2fx", "..%2Fx", "%2e%2e/x", "%2e%2e%2fx", "%2E%2E%2Fx", "%252e%252e%252fx", "..%5cx",
    "%2e%2e%5cx", "..%c0%afx", "%c0%ae%c0%ae/x", "..%00/x", "x%00", "%00", "/x", "%2fx",
    "%2fetc%2fpasswd", "//x", "./../x", ".%2f..%2fx", "sub/../../x", "..", "%2e%2e", ".", "%2e", "",
    "x%0a", "x%0d%0aX:%20y", "~root", "x%20y", "%ef%bc%8e%ef%bc%8e%ef%bc%8fx",
]  # fmt: skip


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_name_leads_out_of_its_folder(escape: str, make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world()
    (tmp_path / "x").write_text("outside")
    for dialect in DIALECTS.values():
        for service, method, parameter in (
            ("pxe", "setBootImage", "img"),
            ("pxe", "setBootImageNS", "imgName"),
            ("pxe", "setBootImageAll", "imgName"),
            ("frisbee", "getAddress", "img"),
            ("frisbee", "checkImage", "img"),
        ):
            known = dialect.services[service].method(method)
            if known is None or not any(arg.name == parameter for arg in known.args):
                continue
            ns = f"node1-1.{DOMAIN}" if dialect.name.startswith(("D", "E")) else "[1,1]"
            query = f"domain={DOMAIN}&user=me&ns={ns}&node=node1-1&{parameter}={escape}"
            for reply in (
                world.send(dialect.name, f"/{service}/{method}?{query}"),
                world.send(dialect.name, f"/{service}/{method}", "POST", query),
            ):
                assert not re.search(r"^OK|<OK|status=.OK|239\.\d+\.\d+\.\d+:\d+", reply.text), reply.text
                assert "outside" not in reply.text
    assert (world.links(), world.streams()) == ({}, [])
    assert json.loads(world.send("A", "/orbit/state").text)["links"] == []


# -- time


def test_a_client_that_takes_its_time_loses_its_connection(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "HEAD_TIME", 0.2)
    monkeypatch.setattr(web, "BODY_TIME", 0.2)
    world = make_world()
    port = world.stand.ports["A"]
    for begun in (
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=180) as sock:
            sock.sendall(begun)
            assert sock.recv(65536) == b""
    head = b"POST /cmc/on HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=180) as sock:
        sock.sendall(head + b"Content-Length: 100\r\n\r\nx=1")
        answer = b""
        while part := sock.recv(65536):
            answer += part
        assert answer.startswith(b"HTTP/1.1 408")
    assert world.send("A", "/").status == 200
