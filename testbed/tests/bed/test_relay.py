# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSH gateway between plain sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from orbit_testbed.bed.relay import Gateway

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Use = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def carry(handler: Handler | None, use: Use) -> None:
    """Connect through a gateway to a server that runs ``handler``; without one, nothing listens there."""

    async def main() -> None:
        target = socket.create_server(("127.0.0.1", 0))
        port = target.getsockname()[1]
        tasks: set[asyncio.Task[None]] = set()

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert handler is not None
            tasks.add(asyncio.get_running_loop().create_task(handler(reader, writer)))  # type: ignore[arg-type]

        server = None
        if handler is None:
            target.close()
        else:
            server = await asyncio.start_server(accepted, sock=target)
        gateway = Gateway()
        listener = socket.create_server(("127.0.0.1", 0))
        await gateway.serve(listener, "127.0.0.1", port)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        try:
            await use(reader, writer)
            await asyncio.gather(*tasks)
        finally:
            writer.close()
            gateway.close()
            if server is not None:
                server.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_bytes_go_both_ways_and_each_way_ends_by_itself() -> None:
    size = 5_000_000  # more than all buffers on the way

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()  # to the end of that direction
        writer.write(data[::-1])
        await writer.drain()
        writer.close()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = bytes(range(250)) * (size // 250)
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == sent[::-1]

    carry(server, client)


def test_the_server_speaks_first_and_closes_first() -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n")
        writer.close()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"SSH-2.0-x\r\n"

    carry(server, client)


def test_refused_is_a_reset() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(ConnectionResetError):
            await reader.read()

    carry(None, client)


def test_a_reset_is_passed_on() -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        # Closing with unread data pending makes the kernel send a reset.
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read()

    carry(server, client)


def test_a_caller_that_resets_ends_the_nodes_side() -> None:
    seen: list[str] = []

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        try:
            await reader.read()
            seen.append("end")
        except ConnectionResetError:
            seen.append("reset")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    carry(server, client)
    assert seen == ["reset"]


def test_a_slow_reader_slows_the_sender() -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)
        blocked = False
        for _ in range(400):
            writer.write(bytes(65536))
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except TimeoutError:
                blocked = True
                break
        assert blocked, "26 MB went into a connection that nobody reads"
        writer.transport.abort()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)

    carry(server, client)


def test_unreachable_is_silence_until_the_caller_gives_up() -> None:
    async def main() -> None:
        gateway = Gateway()
        listener = socket.create_server(("127.0.0.1", 0))
        await gateway.serve(listener, "255.255.255.255")  # TCP to it fails at once, and not as refused
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"SSH-2.0-me\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(), 0.5)
        (task,) = gateway._tasks
        writer.close()
        await task
        gateway.close()

    asyncio.run(asyncio.wait_for(main(), 30))
