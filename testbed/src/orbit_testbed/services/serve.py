# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves the dialects on sockets, all in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Mapping

import uvicorn
from starlette.types import ASGIApp


class _Server(uvicorn.Server):
    """A server that leaves the process's signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServers:
    """One HTTP server per listening socket. The sockets are closed with the servers."""

    def __init__(self, apps: Mapping[str, ASGIApp], sockets: Mapping[str, socket.socket]) -> None:
        self._sockets = sockets
        self._servers = {
            name: _Server(
                uvicorn.Config(
                    apps[name],
                    http="h11",
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    timeout_keep_alive=60,
                    timeout_graceful_shutdown=2,
                    server_header=False,
                )
            )
            for name in sockets
        }
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to serve; a request that was sent before is answered, too."""
        for name, server in self._servers.items():
            self._tasks.append(asyncio.create_task(server.serve([self._sockets[name]])))

    async def close(self) -> None:
        """Finish the requests under way (two seconds at most) and stop."""
        for server in self._servers.values():
            server.should_exit = True
        await asyncio.gather(*self._tasks)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one."""
    sock = socket.create_server((host, port), backlog=1024)
    sock.setblocking(False)
    return sock
