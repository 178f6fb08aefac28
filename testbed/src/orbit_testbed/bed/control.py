# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the command line talks to a running hub: one JSON document per line over a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from orbit_testbed.nodes.errors import TestbedError

_NAME = "hub.sock"
Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """Give a path to the socket that fits the 108 bytes of a socket address, however deep the folder is."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{_NAME}"
    finally:
        os.close(handle)


async def serve(folder: Path, handler: Handler) -> asyncio.Server:
    """Answer requests on the socket in ``folder``; a :class:`TestbedError` becomes the answer."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError):
            line = await reader.readline()
            try:
                answer = await handler(json.loads(line))
            except TestbedError as error:
                answer = {"error": error.message, "remedy": error.remedy}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    (folder / _NAME).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with _short_path(folder) as path:
            listener.bind(path)
        (folder / _NAME).chmod(0o600)
        return await asyncio.start_unix_server(connection, sock=listener.dup(), limit=1 << 20)


def _connect(folder: Path, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        with _short_path(folder) as path:
            connection.connect(path)
    except OSError as error:
        connection.close()
        raise TestbedError(f"the testbed in {folder} is not up", "orbit-testbed up") from error
    return connection


def ask(folder: Path, request: dict[str, Any], timeout: float = 30.0) -> dict[str, Any]:
    """Send one request to the hub and return its answer; raises what the hub reports as an error."""
    with _connect(folder, timeout) as connection:
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
            answer: dict[str, Any] = json.loads(line)
        except (OSError, ValueError) as error:
            raise TestbedError(
                f"the hub in {folder} does not answer: {error}", f"see {folder / 'hub.log'}"
            ) from error
    if "error" in answer:
        raise TestbedError(str(answer["error"]), str(answer.get("remedy", "")))
    return answer


def hub_process(folder: Path) -> int:
    """Return the pid of the hub inside the testbed's namespaces, as this process sees it."""
    with _connect(folder, 5.0) as connection:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, _, _ = struct.unpack("3i", credentials)
        return int(pid)
