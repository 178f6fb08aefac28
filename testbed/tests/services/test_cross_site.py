# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a browser sends for other people's pages changes nothing; what historic clients send does."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

import pytest

from orbit_services.access import Access, AccessError
from orbit_services.dialects import DIALECTS

from .stand import DOMAIN, FORM, World
from .test_access import ARGUMENTS, CHANGES

MakeWorld = Callable[..., World]
#: Headers that no request bears which may change something, and what the refusal names.
FOREIGN = [
    ({"Sec-Fetch-Site": "cross-site"}, "Sec-Fetch-Site: cross-site"),
    ({"Sec-Fetch-Site": "same-site"}, "Sec-Fetch-Site: same-site"),
    ({"Sec-Fetch-Site": "what comes next"}, "Sec-Fetch-Site"),
    ({"Origin": "https://evil.example"}, "header Origin"),
    ({"Origin": "null"}, "header Origin"),
    ({"Origin": "http://127.0.0.1:1"}, "header Origin"),
    ({"Origin": "http://localhost"}, "header Origin"),
    ({"Host": "evil.example"}, "--known-as"),
    ({"Host": "evil.example:5012"}, "--known-as"),
    ({"Host": "localhost.evil.example"}, "--known-as"),
    ({"Host": "127.0.0.1.evil.example:5012"}, "--known-as"),
    ({"Host": "192.0.2.7:5012"}, "--known-as"),
    ({"Host": "[2001:db8::7]:5012"}, "--known-as"),
    ({"Host": "0.0.0.0:5012"}, "--known-as"),
]


@pytest.mark.parametrize(("dialect", "path"), CHANGES)
def test_a_page_of_another_site_changes_nothing(dialect: str, path: str, make_world: MakeWorld) -> None:
    world = make_world()
    for headers, named in FOREIGN:
        for method, target, body in (
            ("GET", f"{path}?{ARGUMENTS}", None),
            ("POST", path, ARGUMENTS),
            ("GET", f"/x/..//.{path}?{ARGUMENTS}", None),
        ):
            reply = world.send(dialect, target, method, body, {**headers, **(FORM if body else {})})
            assert reply.status == 403, headers
            assert named in reply.text
    for method in ("HEAD", "PUT"):
        target, body = (path, ARGUMENTS) if method == "PUT" else (f"{path}?{ARGUMENTS}", None)
        assert world.send(dialect, target, method, body, FORM if body else None).status == 403
    assert (world.links(), world.streams(), world.power.log) == ({}, [], [])


def test_a_page_of_another_site_may_ask(make_world: MakeWorld) -> None:
    """It cannot read the reply; and a person may look at a page that has a link to the state."""
    world = make_world()
    for headers, _ in FOREIGN:
        for target in ("/", "/cmc", "/orbit/state", "/orbit/images", "/frisbee/status"):
            assert world.send("A", target, headers=headers).status == 200
    assert world.send("A", "/cmc/status", "HEAD").status == 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST:5012", "localhost.:80", "127.0.0.1", "127.77.0.1:5012", "[::1]:5012", "[::1]",
        "pxe:5012", "frisbee", "cmc:5012", "Console.Grid.Example:5012", "198.51.100.7",
        socket.gethostname(), f"{socket.gethostname().partition('.')[0]}:5012",
    ],
)  # fmt: skip
def test_the_services_own_names(host: str, make_world: MakeWorld) -> None:
    world = make_world(access=Access.load(names=["console.grid.example", "198.51.100.7"]))
    assert world.send("A", "/cmc/on?x=1&y=1", headers={"Host": host}).text == "OK"
    assert world.power.log == [("on", "node1-1")]


@pytest.mark.parametrize(("version", "host"), [("1.0", ""), ("1.0", "Host:\r\n"), ("1.1", "Host:\r\n")])
def test_clients_without_a_host(version: str, host: str, make_world: MakeWorld) -> None:
    world = make_world()
    with socket.create_connection(("127.0.0.1", world.stand.ports["A"]), timeout=180) as sock:
        sock.sendall(f"GET /cmc/on?x=1&y=1 HTTP/{version}\r\n{host}Connection: close\r\n\r\n".encode())
        answer = b""
        while part := sock.recv(65536):
            answer += part
    assert answer.endswith(b"\r\n\r\nOK")


def test_the_service_s_own_page_and_a_person_may_change_something(make_world: MakeWorld) -> None:
    world = make_world()
    here = f"127.0.0.1:{world.stand.ports['A']}"
    for headers in (
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": f"http://{here}"},
        {"Origin": f"HTTP://{here}"},
        {"Origin": "http://localhost", "Host": "localhost"},
        {"Origin": "http://localhost:80", "Host": "localhost"},
    ):
        assert world.send("A", "/cmc/on?x=1&y=1", headers=headers).text == "OK"
    assert len(world.power.log) == 5


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_refusal_is_one_clear_text(dialect: str, make_world: MakeWorld) -> None:
    world = make_world()
    path = next(path for name, path in CHANGES if name == dialect)
    reply = world.send(dialect, f"{path}?{ARGUMENTS}&domain={DOMAIN}", headers={"Host": "evil.example:5012"})
    assert reply.status == 403
    assert re.search(r"not known as .*evil\.example:5012.* \(header Host\).*--known-as", reply.text)


@pytest.mark.parametrize("name", ["", "http://pxe", "pxe:5012", "a b", "-x", "10.0.0.0/8"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(AccessError, match="--known-as"):
        Access.load(names=[name])
