# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""QMP, the protocol that switches QEMU's machines: JSON documents, one per line, over a socket."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any


class QmpError(Exception):
    """QEMU refused a command, or is gone."""


class Qmp:
    """A connection to one QEMU. Commands are answered one after another; events are skipped."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, sock: socket.socket) -> Qmp:
        """Take over a connected socket, wait for QEMU's greeting and enable commands."""
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
        connection = cls(reader, writer)
        try:
            await connection._document("QMP")
            await connection.execute("qmp_capabilities")
        except BaseException:
            writer.close()
            raise
        return connection

    async def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return what it returns; raises :class:`QmpError`."""
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        async with self._lock:
            try:
                self._writer.write(json.dumps(request).encode() + b"\n")
                await self._writer.drain()
            except OSError as error:
                raise QmpError(f"QEMU is gone: {error}") from error
            answer = await self._document("return", "error")
        if "error" in answer:
            raise QmpError(f"{command}: {answer['error'].get('desc', answer['error'])}")
        return answer["return"]

    async def _document(self, *keys: str) -> dict[str, Any]:
        """Return the next document that has one of the keys; events come at any time and have none."""
        while True:
            try:
                line = await self._reader.readline()
                document = json.loads(line) if line else None
            except (OSError, ValueError) as error:
                raise QmpError(f"QEMU does not speak QMP: {error}") from error
            if document is None:
                raise QmpError("QEMU is gone")
            if isinstance(document, dict) and any(key in document for key in keys):
                return document

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()
