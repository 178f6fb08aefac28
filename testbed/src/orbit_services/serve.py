# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves the dialects on sockets, all in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Mapping

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds for the request line and headers to come.
HEAD_TIME = 30.0


class _Server(uvicorn.Server):
    """A server that leaves the process's signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Protocol(H11Protocol):
    """HTTP that gives a client a limited time to say what it wants.

    The server's own timer covers the time between two requests; a body has one of its own. Without this one,
    a client that sends a byte now and then would hold its connection for ever.
    """

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; the server's own way to do so fails on a broken body, and on HEAD."""
        if self.cycle is not None and not self.cycle.response_complete:
            # Whoever is working on the request must not answer, too.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(
                b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
        # An answer that has begun cannot become another one.
        self.transport.close()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._patience is None:
            self._patience = self.loop.call_later(HEAD_TIME, self._give_up)

    def _forget(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()


class HttpServers:
    """One server per listening socket, HTTPS with a TLS context. The sockets are closed with the servers."""

    def __init__(
        self,
        apps: Mapping[str, ASGIApp],
        sockets: Mapping[str, socket.socket],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._sockets = sockets
        self._servers = {name: _Server(_config(apps[name], tls)) for name in sockets}
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


def _config(app: ASGIApp, tls: ssl.SSLContext | None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=2,
        server_header=False,
        # No proxy stands before us: a client's address is what the kernel says, not what a header does.
        proxy_headers=False,
    )
    config.load()
    # Made beforehand, as the files may not be seen from where the server runs.
    config.ssl = tls
    return config


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one."""
    sock = socket.create_server((host, port), backlog=1024)
    sock.setblocking(False)
    return sock
