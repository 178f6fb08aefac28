# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that can be ordered for a service: what comes back instead of, or around, its replies.

The middleware stands in front of the whole application of a dialect, so that faults reach what a client sees
first. The state document (``/orbit/state``) is never hit: it is how tests look on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orbit_services.query import normalize_path
from orbit_services.streams import Stream, StreamTable
from orbit_testbed import faultkinds, inotify

#: The services that can be hit.
SERVICES = ("pxe", "frisbee", "cmc")
#: Bytes of an endless reply; no client should read as much.
HUGE = 100_000_000
#: A host that does not exist (RFC 5737); nobody must follow there.
ELSEWHERE = "http://192.0.2.1:5012"
_BLOCK_SIZE = 1024


class FaultError(Exception):
    """A fault was ordered that there is not."""


@dataclass(frozen=True)
class Kind(faultkinds.Kind):
    """One kind of fault of a service."""

    calls: bool = True
    """Whether it waits for a call of the service."""


KINDS = {
    "none": Kind("the service is sound"),
    "slow": Kind("the reply comes so much later", "SECONDS"),
    "silent": Kind("no reply, the connection stays open"),
    "error": Kind("status 500"),
    "empty": Kind("status 200 and no body"),
    "list": Kind("status 200 and the list of services, as for a service that does not exist"),
    "garbage": Kind("status 200 and bytes that mean nothing"),
    "half-xml": Kind("status 200 and an XML document that breaks off"),
    "huge": Kind(f"status 200 and {HUGE // 1_000_000} MB of XML"),
    "bomb": Kind("status 200 and an XML document whose entities grow to gigabytes"),
    "redirect": Kind("status 302 to another host"),
    "hang-up": Kind("the connection ends without a reply; nothing is done"),
    "lost": Kind("what was asked is done, and the connection ends without a reply"),
    "restart": Kind("the services go down with the call and come back so much later", "SECONDS", 0.5),
    "refuse": Kind("the services' ports are closed for so long (0: until none)", "SECONDS", 0, calls=False),
    "die": Kind("the frisbeed of a stream gets SIGKILL when it has sent this much", "MB", 0, calls=False),
}  # fmt: skip


@dataclass
class Order:
    """A fault of one service. ``left`` counts the strikes to come, None: no end."""

    service: str
    kind: str
    value: float = 0.0
    method: str | None = None
    left: int | None = None
    hits: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def parse(cls, service: str, text: str, method: str | None = None, count: int | None = None) -> Order:
        """Read ``slow=3`` or ``error``; raises :class:`FaultError`, whose text says what there is."""
        if service not in SERVICES:
            raise FaultError(f"service {service!r}: not one of {', '.join(SERVICES)}")
        name, equals, given = text.partition("=")
        kind = KINDS.get(name)
        if kind is None:
            raise FaultError(f"fault {text!r}: not one of {', '.join(KINDS)}")
        if name == "die" and service != "frisbee":
            raise FaultError(f"fault {text!r}: only frisbee has streams")
        if method is not None and not kind.calls:
            raise FaultError(f"fault {text!r} does not wait for a call; leave the method away")
        if count is not None and count < 1:
            raise FaultError(f"count {count}: not 1 or more")
        value = kind.default or 0.0
        if equals or (kind.unit and kind.default is None):
            try:
                value = float(given) if kind.unit else -1.0
            except ValueError:
                value = -1.0
            if not 0 <= value <= 86400:
                raise FaultError(f"fault {text!r}: {given!r} is no number of {kind.unit or 'anything'}")
        if count is None and name in ("restart", "die"):
            count = 1
        return cls(service, name, value, method, count)

    def __str__(self) -> str:
        value = f"={self.value:g}" if KINDS[self.kind].unit else ""
        method = f" of {self.method}" if self.method else ""
        left = "" if self.left is None else f", {self.left} more"
        return f"{self.kind}{value}{method} ({self.hits} hit{left})"

    def take(self, method: str) -> bool:
        """Whether a call of ``method`` is to be hit; counts it then."""
        if self.ended.is_set() or (self.method or method) != method or self.left == 0:
            return False
        self.hits += 1
        if self.left is not None:
            self.left -= 1
        return True


class ServiceFaults:
    """The orders of all services. ``restart`` and ``refuse`` are done by whoever has the sockets."""

    def __init__(
        self,
        streams: Callable[[], StreamTable],
        restart: Callable[[float], Awaitable[None]],
        refuse: Callable[[float | None], Awaitable[None]],
    ) -> None:
        self._streams = streams
        self._restart = restart
        self._refuse = refuse
        self._orders: dict[str, Order] = {}
        self._watch: inotify.Watch | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def order(self, order: Order) -> None:
        """Let a service have a fault from now on; it replaces the one before."""
        before = self._orders.pop(order.service, None)
        if before is not None:
            before.ended.set()
            if before.kind == "refuse":
                await self._refuse(0.0)
        if order.kind == "none":
            return
        self._orders[order.service] = order
        if order.kind == "refuse":
            order.take("")
            await self._refuse(order.value or None)
        elif order.kind == "die":
            self._look_out()

    def status(self) -> dict[str, str]:
        """Return the fault of each service that has one, with how often it struck."""
        return {service: str(order) for service, order in self._orders.items()}

    def hits(self) -> dict[str, int]:
        """Return how often the fault of each service struck."""
        return {service: order.hits for service, order in self._orders.items()}

    def wrap(self, apps: Mapping[str, ASGIApp]) -> dict[str, ASGIApp]:
        """Put the middleware in front of the applications."""
        return {name: _Middleware(app, self) for name, app in apps.items()}

    def strike(self, scope: Scope) -> Order | None:
        """Return the fault that this call is to be hit by."""
        service, method = _asked(scope["path"])
        order = self._orders.get(service)
        if order is None or not KINDS[order.kind].calls:
            return None
        return order if order.take(method) else None

    def restart_soon(self, seconds: float) -> None:
        """Restart the services while the call that asked for it is dropped."""
        self._spawn(self._restart(seconds))

    def close(self) -> None:
        """Strike no more."""
        for order in self._orders.values():
            order.ended.set()
        self._orders.clear()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- streams whose server dies

    def _look_out(self) -> None:
        """Look whenever a server has written about itself."""
        if self._watch is None:
            self._watch = inotify.Watch(self._streams().log_dir, inotify.MOVED_TO, self._look)
        self._look()

    def _look(self) -> None:
        order = self._orders.get("frisbee")
        if order is None or order.kind != "die":
            return
        for stream in self._streams().running():
            if _sent(stream) >= order.value * 1_000_000 and order.take(""):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(stream.pid, signal.SIGKILL)


def _sent(stream: Stream) -> int:
    """Return the bytes a server says it has sent."""
    blocks = (stream.stats() or {}).get("blocks_sent", 0)
    return blocks * _BLOCK_SIZE if isinstance(blocks, int) else 0


def _asked(path: str) -> tuple[str, str]:
    """Return service and method of a call."""
    parts = [*(normalize_path(path) or []), "", ""]
    if parts[0] == "orbit":
        return ("frisbee", "manifest") if parts[1] == "images" else ("", "")
    return parts[0], parts[1]


class _Middleware:
    def __init__(self, app: ASGIApp, faults: ServiceFaults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        order = self._faults.strike(scope) if scope["type"] == "http" else None
        if order is None:
            await self._app(scope, receive, send)
        elif order.kind == "slow":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(order.ended.wait(), order.value)
            await self._app(scope, receive, send)
        elif order.kind == "list":
            elsewhere = {"path": "/", "raw_path": b"/", "query_string": b"", "method": "GET"}
            await self._app({**scope, **elsewhere}, receive, send)
        elif order.kind == "lost":
            await self._app(scope, receive, _nobody)
            await _hang_up(receive, send)
        elif order.kind == "silent":
            await _until_gone(receive, order)
            await _hang_up(receive, send)
        elif order.kind in ("hang-up", "restart"):
            if order.kind == "restart":
                self._faults.restart_soon(order.value)
            await _hang_up(receive, send)
        elif order.kind == "huge":
            await _reply(send, 200, b"text/xml", _HEAD, more=True)
            filling = b"<node x='1' y='1'/>" * 3450
            for _block in range(HUGE // len(filling)):
                await send({"type": "http.response.body", "body": filling, "more_body": True})
            await send({"type": "http.response.body", "body": b"</OK>"})
        else:
            status, content_type, body = _BODIES[order.kind]
            location = ((b"location", (ELSEWHERE + scope["path"]).encode()),) if status == 302 else ()
            await _reply(send, status, content_type, body, headers=location)


_HEAD = b"<?xml version='1.0'?>\n<OK>"
_BOMB = (
    b"<?xml version='1.0'?>\n<!DOCTYPE OK [<!ENTITY a0 'ha'>"
    + b"".join(b"<!ENTITY a%d '%s'>" % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 11))
    + b"]>\n<OK>&a10;</OK>"
)
_BODIES: dict[str, tuple[int, bytes, bytes]] = {
    "error": (500, b"text/html", b"<HTML><HEAD><TITLE>Internal Server Error</TITLE></HEAD></HTML>"),
    "empty": (200, b"text/plain", b""),
    "garbage": (200, b"text/xml", bytes(range(256)) * 16),
    "half-xml": (200, b"text/xml", _HEAD + b"<TESTBED_STATUS><detail><node x='1' y='1' sta"),
    "bomb": (200, b"text/xml", _BOMB),
    "redirect": (302, b"text/plain", b""),
}


async def _reply(
    send: Send,
    status: int,
    content_type: bytes,
    body: bytes,
    *,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    more: bool = False,
) -> None:
    length = () if more else ((b"content-length", str(len(body)).encode()),)
    start = {"status": status, "headers": [(b"content-type", content_type), *length, *headers]}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _nobody(message: Message) -> None:
    """Send to nobody."""


async def _until_gone(receive: Receive, order: Order) -> None:
    """Wait until the client has given up, or the fault is over."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    waits = [asyncio.ensure_future(gone()), asyncio.ensure_future(order.ended.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _hang_up(receive: Receive, send: Send) -> None:
    """End the connection without a reply. ASGI has no word for it, so the server's own transport is used."""
    cycle: Any = getattr(send, "__self__", None)
    transport = getattr(cycle, "transport", None)
    if transport is None:
        # A server that hides its transport: at least no sound reply.
        await _reply(send, 500, b"text/plain", b"")
        return
    transport.abort()
    while not cycle.disconnected and (await receive())["type"] != "http.disconnect":
        pass
