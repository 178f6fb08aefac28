# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services of a testbed behind their sockets, and what may happen to them: faults, closed ports."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

from orbit_services.app import Services, create_apps
from orbit_services.config import ServicesConfig
from orbit_services.power.base import Power
from orbit_services.serve import HttpServers
from orbit_testbed.servicefaults import Order, ServiceFaults

_BACKLOG = 1024


class FrontDesk:
    """Services and HTTP servers. The sockets are of another network namespace and cannot be made anew here,
    so they are never closed: a port is closed by shutting its socket down, and opened by listening again."""

    def __init__(self, config: ServicesConfig, power: Power, sockets: Mapping[str, socket.socket]) -> None:
        self._config = config
        self._power = power
        self._sockets = sockets
        self._services: Services | None = None
        self._http: HttpServers | None = None
        self._turn = asyncio.Lock()
        self._refusing: asyncio.Task[None] | None = None
        self.faults = ServiceFaults(lambda: self._running().streams, self._restart, self._refuse)

    def _running(self) -> Services:
        assert self._services is not None
        return self._services

    async def start(self) -> None:
        """Start the services and answer calls."""
        self._services = Services(self._config, self._power)
        await self._services.start()
        await self._answer()

    async def close(self) -> None:
        """Answer no more calls; end streams."""
        self.faults.close()
        if self._refusing is not None:
            self._refusing.cancel()
        async with self._turn:
            if self._http is not None:
                await self._http.close()
            if self._services is not None:
                await self._services.close()

    async def order(self, order: Order) -> None:
        """Let a service have a fault."""
        await self.faults.order(order)

    async def _answer(self) -> None:
        apps = self.faults.wrap(create_apps(self._running()))
        sockets = {name: sock.dup() for name, sock in self._sockets.items()}
        self._http = HttpServers(apps, sockets, self._config.access.tls)
        await self._http.start()

    async def _close_ports(self) -> None:
        if self._http is not None:
            http, self._http = self._http, None
            await http.close()
            # Not before: the servers' copies of the sockets could not be accepted from any more.
            for sock in self._sockets.values():
                sock.shutdown(socket.SHUT_RD)

    async def _open_ports(self) -> None:
        if self._http is None:
            for sock in self._sockets.values():
                sock.listen(_BACKLOG)
            await self._answer()

    async def _restart(self, seconds: float) -> None:
        """Go down as a service does that is restarted: streams go on, the state is in its file."""
        async with self._turn:
            await self._close_ports()
            await self._running().close(keep_streams=True)
            await asyncio.sleep(seconds)
            self._services = Services(self._config, self._power)
            await self._services.start()
            await self._open_ports()

    async def _refuse(self, seconds: float | None) -> None:
        """Close the ports for some seconds, or until this is called again with 0."""
        if self._refusing is not None:
            self._refusing.cancel()
            self._refusing = None
        async with self._turn:
            if seconds != 0:
                await self._close_ports()
            else:
                await self._open_ports()
        if seconds:
            self._refusing = asyncio.create_task(self._refuse_no_longer(seconds))

    async def _refuse_no_longer(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        async with self._turn:
            await self._open_ports()
