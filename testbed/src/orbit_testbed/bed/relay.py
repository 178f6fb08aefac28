# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH gateway: carries connections on 127.N.x.y:2222 to port 22 of the node inside the testbed.

The listening sockets come from outside the testbed's network namespace and the connections to the nodes are
made inside it, which is all the bridging that is needed. What a node would have done to the connection
happens to the caller's: refused and reset end it with a reset, silence stays silence. A node that cannot be
reached is silent too, and may still come up while the caller waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import cast

#: Bytes that are read from a caller before its node answers; SSH sends one line.
_EARLY = 64 * 1024
#: Seconds between two tries to reach a node, where the kernel says at once that it cannot.
_PAUSE = 0.2
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def _reset(transport: asyncio.Transport) -> None:
    """Close a connection so that the peer sees a reset."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


class _End(asyncio.Protocol):
    """One end of a carried connection; passes on what it gets to the other end."""

    other: _End | None = None
    transport: asyncio.Transport
    _finished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self._finished = True
        if self.other is None:
            return False
        if self.other._finished:
            # Both directions are done; what is still to be sent is sent by close().
            self.other.transport.close()
            return False
        if self.other.transport.can_write_eof():
            self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            if exc is None:
                self.other.transport.close()
            else:
                _reset(self.other.transport)


class _Node(_End):
    """The end of the node; known to the caller's end before the first byte can come."""

    def __init__(self, caller: _Caller) -> None:
        self.other = caller

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(self.other, _Caller)
        self.other.connected(self)


class _Caller(_End):
    """The end of the program that connected from outside."""

    def __init__(self, host: str, port: int, tasks: set[asyncio.Task[None]]) -> None:
        self._host, self._port, self._tasks = host, port, tasks
        self._early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        task = asyncio.get_running_loop().create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def connected(self, node: _Node) -> None:
        """Begin to carry."""
        if self.transport.is_closing():
            _reset(node.transport)
            return
        self.other = node
        if len(self._early) > _EARLY:
            self.transport.resume_reading()
        node.transport.write(bytes(self._early))
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        # Reading goes on while the node is silent: only so is a caller noticed that has given up.
        if self.other is not None:
            super().data_received(data)
        else:
            self._early += data
            if len(self._early) > _EARLY:
                self.transport.pause_reading()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.transport.is_closing():
            try:
                await loop.create_connection(lambda: _Node(self), self._host, self._port)
                return
            except ConnectionRefusedError:
                _reset(self.transport)
                return
            except OSError:
                await asyncio.sleep(_PAUSE)


class Gateway:
    """All carried connections of a testbed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []

    async def serve(self, listener: socket.socket, host: str, port: int = 22) -> None:
        """Carry every connection accepted on ``listener`` to ``host:port``."""
        loop = asyncio.get_running_loop()
        self._servers.append(
            await loop.create_server(lambda: _Caller(host, port, self._tasks), sock=listener)
        )

    def close(self) -> None:
        """Accept no more connections; carried ones end with their ends."""
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
