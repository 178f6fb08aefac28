# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TFTP server that nodes read their PXE links from: dnsmasq, with everything but TFTP switched off."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Sequence
from pathlib import Path

from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.host import program

_READ, _DATA = 1, 3
PORT = 69


class _Question(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self.reply.done():
            self.reply.set_result(data)


async def first_block(host: str, name: str, timeout: float) -> bytes | None:
    """Ask for a file and return its first block of at most 512 bytes; None when no data came in time."""
    loop = asyncio.get_running_loop()
    transport, question = await loop.create_datagram_endpoint(_Question, local_addr=(host, 0))
    try:
        transport.sendto(struct.pack(">H", _READ) + name.encode() + b"\0octet\0", (host, PORT))
        reply = await asyncio.wait_for(question.reply, timeout)
    except TimeoutError:
        return None
    finally:
        transport.close()
    return reply[4:] if len(reply) >= 4 and struct.unpack_from(">H", reply)[0] == _DATA else None


class TftpServer:
    """dnsmasq as a child process. ``options`` say where it listens and what it does besides TFTP."""

    def __init__(self, root: Path, address: str, log: Path, options: Sequence[str] = ()) -> None:
        self._root, self._address, self._log = root, address, log
        self._options = options or (f"--listen-address={address}", "--bind-interfaces")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, timeout: float = 15.0) -> None:
        """Start the server and return once it serves ``pxelinux.cfg/default``."""
        # The empty user and group keep it from changing ids, which a user namespace of one id refuses.
        self._process = await asyncio.create_subprocess_exec(
            program("dnsmasq"),
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=",
            "--group=",
            "--port=0",
            *self._options,
            "--no-resolv",
            "--no-hosts",
            "--enable-tftp",
            f"--tftp-root={self._root}",
            "--tftp-max=2000",
            "--pid-file=",
            f"--log-facility={self._log}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        ended = asyncio.ensure_future(self._process.communicate())
        try:
            async with asyncio.timeout(timeout):
                while await first_block(self._address, "pxelinux.cfg/default", 0.05) is None:
                    if ended.done():
                        raise TestbedError(f"dnsmasq did not start: {ended.result()[1].decode().strip()}")
        except TimeoutError:
            raise TestbedError(
                f"dnsmasq does not answer TFTP requests within {timeout:g} s", f"see {self._log}"
            ) from None

    async def stop(self) -> None:
        """Stop the server."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await self._process.wait()
