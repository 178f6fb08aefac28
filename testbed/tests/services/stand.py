# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand of HTTP servers, one per dialect on real sockets, into which services are put one after another."""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from orbit_services import null_frisbeed
from orbit_services.app import Services, create_apps
from orbit_services.config import ServicesConfig
from orbit_services.dialects import DIALECTS
from orbit_services.power.memory import MemoryPower
from orbit_services.serve import HttpServers, listen

DOMAIN = "grid.orbit-lab.org"
NULL_FRISBEED = (sys.executable, "-I", "-S", null_frisbeed.__file__)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_T = TypeVar("_T")


def wait_until(condition: Callable[[], _T], what: str, seconds: float = 10.0) -> _T:
    """Return the condition's value as soon as it is true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.005)


def free_ports(count: int) -> int:
    """Return the first of ``count`` free UDP ports in a row."""
    while True:
        first = random.randrange(20000, 30000)
        socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
        try:
            for number, sock in enumerate(socks):
                sock.bind(("", first + number))
        except OSError:
            continue
        else:
            return first
        finally:
            for sock in socks:
                sock.close()


@dataclasses.dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("latin-1" if "8859-1" in self.headers.get("content-type", "") else "utf-8")

    @property
    def content_type(self) -> str | None:
        return self.headers.get("content-type")


class _Switch:
    """The application behind a server, exchangeable."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)


class Stand:
    """An event loop in a thread with one HTTP server per dialect."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._switches = {name: _Switch() for name in DIALECTS}
        sockets = {name: listen("127.0.0.1", 0) for name in DIALECTS}
        self.ports: dict[str, int] = {name: sock.getsockname()[1] for name, sock in sockets.items()}
        self._servers = HttpServers(dict(self._switches), sockets)
        self.run(self._servers.start())

    def run(self, work: Coroutine[Any, Any, _T] | Awaitable[_T]) -> _T:
        """Run a coroutine in the stand's loop and return its result."""

        async def wrapped() -> _T:
            return await work

        return asyncio.run_coroutine_threadsafe(wrapped(), self._loop).result(30)

    def install(self, services: Services) -> None:
        for name, app in create_apps(services).items():
            self._switches[name].app = app

    def close(self) -> None:
        self.run(self._servers.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(180)
        self._loop.close()


class World:
    """Services on a domain of 20 x 20 nodes, with what a test needs to look behind them."""

    def __init__(self, stand: Stand, config: ServicesConfig) -> None:
        self.stand = stand
        self.config = config
        self.power = MemoryPower(node.name for node in config.nodes)
        self.services = Services(config, self.power)
        self.open = False

    def start(self) -> None:
        self.stand.run(self.services.start())
        self.stand.install(self.services)
        self.open = True

    def close(self, keep_streams: bool = False) -> None:
        if self.open:
            self.stand.run(self.services.close(keep_streams=keep_streams))
            self.open = False

    def restarted(self, **changes: Any) -> None:
        """Close, leaving the streams, and start anew on the same files."""
        self.close(keep_streams=True)
        self.config = dataclasses.replace(self.config, **changes)
        self.services = Services(self.config, self.power)
        self.start()

    def send(
        self,
        dialect: str,
        target: str,
        method: str = "GET",
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.stand.ports[dialect], timeout=180)
        try:
            connection.request(method, target, body, headers or (FORM if body is not None else {}))
            reply = connection.getresponse()
            found = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, found, reply.read())
        finally:
            connection.close()

    def links(self) -> dict[str, str]:
        return {
            path.name: os.readlink(path).removeprefix("./")
            for path in sorted(self.config.tftp_dir.iterdir())
            if path.is_symlink()
        }

    def saved(self) -> Any:
        """Return the state document as it is on disk."""
        return json.loads(self.config.state_file.read_text())

    def streams(self) -> list[Any]:
        return self.services.streams.running()
