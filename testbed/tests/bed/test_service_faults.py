# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of services at a real HTTP server: what comes back, and what has been done."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
from collections.abc import Iterator

import pytest
from starlette.types import Receive, Scope, Send

from orbit_services.serve import HttpServers, listen
from orbit_testbed import servicefaults as faults
from orbit_testbed.servicefaults import FaultError, Order, ServiceFaults

PATIENCE = 180.0


class Front:
    """A service that counts its calls, behind the middleware."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.restarts: list[float] = []
        self.refusals: list[float | None] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.faults = ServiceFaults(lambda: pytest.fail("no streams here"), self._restart, self._refuse)
        sock = listen("127.0.0.1", 0)
        self.port: int = sock.getsockname()[1]
        self._servers = HttpServers(self.faults.wrap({"A": self._app}), {"A": sock})
        self._run(self._servers.start())

    def _run(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)  # type: ignore[arg-type]

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append(scope["path"])
        body = b"<serviceGroups/>" if scope["path"] == "/" else b"OK"
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _restart(self, seconds: float) -> None:
        self.restarts.append(seconds)

    async def _refuse(self, seconds: float | None) -> None:
        self.refusals.append(seconds)

    def order(self, fault: str, **more: object) -> None:
        self._run(self.faults.order(Order.parse("pxe", fault, **more)))  # type: ignore[arg-type]

    @contextlib.contextmanager
    def asked(self, path: str, timeout: float = PATIENCE) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            yield connection.getresponse()
        finally:
            connection.close()

    def ask(self, path: str = "/pxe/setBootImage") -> tuple[int, bytes]:
        with self.asked(path) as reply:
            return reply.status, reply.read()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self.faults.close)
        self._run(self._servers.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


@pytest.fixture
def front() -> Iterator[Front]:
    made = Front()
    yield made
    made.close()


def test_a_sound_service_is_as_it_was(front: Front) -> None:
    front.order("error")
    front.order("none")
    assert front.ask() == (200, b"OK")
    assert front.faults.status() == {}


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        ("error", 500, b"<HTML>"),
        ("empty", 200, b""),
        ("list", 200, b"<serviceGroups/>"),
        ("garbage", 200, bytes(range(16))),
        ("half-xml", 200, b"<?xml version='1.0'?>\n<OK><TESTBED_STATUS><detail><node"),
        ("bomb", 200, b"<?xml version='1.0'?>\n<!DOCTYPE"),
    ],
)
def test_replies(front: Front, fault: str, status: int, body: bytes) -> None:
    front.order(fault)
    got = front.ask()
    assert got[0] == status
    assert got[1].startswith(body)
    assert bool(got[1]) == bool(body)
    assert front.ask("/cmc/reset") == (200, b"OK"), "only the service is hit"
    assert front.faults.hits() == {"pxe": 1}


def test_a_redirection_leads_to_another_host(front: Front) -> None:
    front.order("redirect")
    with front.asked("/pxe/setBootImage") as reply:
        assert reply.status == 302
        assert reply.headers["Location"] == "http://192.0.2.1:5012/pxe/setBootImage"


def test_a_huge_reply_is_huge(front: Front) -> None:
    front.order("huge")
    size = 0
    with front.asked("/pxe/setBootImage") as reply:
        while block := reply.read(1 << 20):
            size += len(block)
    assert abs(size - faults.HUGE) < 100_000


def test_a_slow_reply_comes_late_or_when_the_fault_is_over(front: Front) -> None:
    front.order("slow=0.3")
    assert front.ask() == (200, b"OK")
    front.order("slow=3600")
    with pytest.raises(TimeoutError), front.asked("/pxe/setBootImage", timeout=0.3):
        pass
    threading.Timer(0.1, front.order, ("none",)).start()
    assert front.ask() == (200, b"OK")


def test_silence_lasts_until_the_client_has_enough_or_the_fault_is_over(front: Front) -> None:
    front.order("silent")
    with pytest.raises(TimeoutError), front.asked("/pxe/setBootImage", timeout=0.3):
        pass
    threading.Timer(0.1, front.order, ("none",)).start()
    with pytest.raises(http.client.RemoteDisconnected):
        front.ask()
    assert front.calls == []


@pytest.mark.parametrize(("fault", "done"), [("hang-up", 0), ("lost", 1), ("restart=2", 0)])
def test_connections_that_end_without_a_reply(front: Front, fault: str, done: int) -> None:
    front.order(fault)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        front.ask()
    assert len(front.calls) == done
    assert front.restarts == ([2.0] if fault == "restart=2" else [])


def test_ports_are_closed_until_the_next_order(front: Front) -> None:
    front.order("refuse")
    front.order("none")
    assert front.refusals == [None, 0.0]
    front.order("refuse=3")
    assert front.refusals[2:] == [3.0]


def test_method_and_count(front: Front) -> None:
    front.order("error", method="clearBootImage", count=2)
    path = "/pxe/./clearBootImage"
    assert front.ask() == (200, b"OK")
    assert [front.ask(path)[0] for _ in range(3)] == [500, 500, 200]
    assert front.faults.status() == {"pxe": "error of clearBootImage (2 hit, 0 more)"}


def test_the_manifest_is_the_frisbee_services_and_the_state_nobodys(front: Front) -> None:
    front._run(front.faults.order(Order.parse("frisbee", "error", "manifest")))
    assert front.ask("/orbit/images/x.ndz/manifest")[0] == 500
    assert front.ask("/frisbee/getAddress")[0] == 200
    assert front.ask("/orbit/state")[0] == 200


@pytest.mark.parametrize(
    ("service", "fault", "more"),
    [
        ("inventory", "error", {}),
        ("pxe", "explode", {}),
        ("pxe", "slow", {}),
        ("pxe", "slow=fast", {}),
        ("pxe", "slow=-1", {}),
        ("pxe", "error=1", {}),
        ("pxe", "die", {}),
        ("pxe", "refuse", {"method": "x"}),
        ("pxe", "error", {"count": 0}),
    ],
)
def test_faults_that_there_are_not(service: str, fault: str, more: dict[str, object]) -> None:
    with pytest.raises(FaultError):
        Order.parse(service, fault, **more)  # type: ignore[arg-type]
