# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutated datagrams through real sockets to a server at work: ``fuzz_server`` with all that lies before.

``python -m tests.frisbee.fuzz_sockets [-n COUNT] [-s SEED]``, in the folder ``testbed``. Several senders on
the loopback interface send to the group, single datagrams and rows of them that the kernel hands over as one
(``UDP_SEGMENT``, ``UDP_GRO``): through the server's socket filter and ``recvmsg``, to be taken apart again. A
client fetches the file in the end.

Findings, besides a server that ends or hangs:

* a datagram that reaches the server and should have been filtered, or the other way round: they are counted;
* more answers than JOINs, or than the limit allows in the time; more blocks than were asked for;
* memory that grows with what strangers send, as in ``fuzz_server``;
* a client that does not get the file, or a wrong one.

What is sent follows from the seed; when the server gets to send between it, and what, does not.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orbit_frisbee.frisbee import server as server_module, wire
from orbit_frisbee.frisbee.net import parse_address
from orbit_frisbee.frisbee.server import CLIENTS_KEPT, REPLIES_PER_SECOND, Server, ServerConfig
from orbit_frisbee.ndz.unpack import FILE_VARIABLE

from .fuzz_server import BLOCKS, Finding, Mutator, kind_of
from .stand import HOME, Fetch, Running, new_group, wait_until

_SENDERS = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.77")
_WINDOW = 128
"""About how many datagrams under way: fewer than fit the server's socket, so that none is lost."""
_ROW = 40
_SOL_UDP, _UDP_SEGMENT = 17, 103


class SocketFuzzer:
    """Sends datagrams to one server; :meth:`run` raises :class:`Finding`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.content = random.Random(0).randbytes(BLOCKS * 1024 - 100)
        path = folder / "served.ndz"
        path.write_bytes(self.content)
        self.target = folder / "disk"
        with self.target.open("wb") as file:
            file.truncate(BLOCKS * 1024)
        self.group = new_group()
        config = ServerConfig(path, self.group, 0, HOME, rate=None, debug=1)
        self.running = Running(Server(config, log=io.StringIO()))
        self.server = self.running.server
        self._start = time.monotonic()
        self._sockets = [(address, self._sender(address)) for address in _SENDERS]
        self._mutators = [Mutator(parse_address(a, "sender"), self.random) for a in _SENDERS]
        self.heard = dict.fromkeys(("join", "ask", "other", "foreign", "bad"), 0)
        self.filtered = self.rows = self.asked = 0

    def _sender(self, address: str) -> socket.socket:
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, parse_address(address, "sender"))
        sender.bind((address, 0))
        return sender

    def close(self) -> None:
        """Stop the server."""
        for _, sender in self._sockets:
            sender.close()
        self.running.stop()

    def run(self, count: int) -> None:
        """Send so many datagrams, see that all were heard, and fetch the file."""
        sent = under_way = 0
        while sent < count:
            row = list(self._row(count - sent))
            sent += len(row)
            under_way += len(row)
            if under_way >= _WINDOW:
                self._look()
                under_way = 0
        self._look()
        fetch = Fetch(self.target, self.group, self.server.port, plain=True).wait()
        if fetch.disk.read_bytes()[: len(self.content)] != self.content:
            raise Finding("the client got another file")

    def _row(self, most: int) -> Iterator[bytes]:
        """Send a datagram, or several of one size in one call, and yield them."""
        which = self.random.randrange(len(self._sockets))
        address, sender = self._sockets[which]
        mutator, target = self._mutators[which], (self.group, self.server.port)
        if self.random.random() < 0.5 or most < 2:
            data = mutator.datagram()
            self._expect([data], address)
            sender.sendto(data, target)
            yield data
            return
        size = self.random.choice((16, 20, 24, 28, 40, 152, 300))
        row = [
            mutator.datagram()[:size].ljust(size, b"\0")
            for _ in range(self.random.randrange(2, min(_ROW, most) + 1))
        ]
        row[-1] = row[-1][: self.random.randrange(1, size + 1)]
        self._expect(row, address)
        self.rows += 1
        sender.sendmsg([b"".join(row)], [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size))], 0, target)
        yield from row

    def _expect(self, row: list[bytes], address: str) -> None:
        # The filter sees the first of a row. It cannot read what is not there, which drops the datagram.
        if len(row[0]) < 8 or row[0][4:8] == wire.BLOCK.to_bytes(4, "little"):
            self.filtered += len(row)
            return
        for data in row:
            kind = kind_of(data, address, self.server.chunks)
            self.heard[kind] += 1
            if kind == "ask":
                message: Any = wire.decode(data)[0]
                self.asked += message.bits.bit_count()

    def _look(self) -> None:
        """Wait until all was heard, and check what the server did and holds."""
        server, count = self.server, self.server.count

        wanted = self.heard["bad"], self.heard["foreign"], self.heard["ask"]

        # The server hears its own answers as well, which are none of these.
        def found() -> tuple[int, int, int]:
            return count.invalid, count.foreign, count.requests

        def heard() -> bool:
            if self.running.error is not None:
                raise Finding("the server has ended") from self.running.error
            return all(there >= want for there, want in zip(found(), wanted, strict=True))

        wait_until(heard, f"the hearing of {wanted}")
        if found() != wanted:
            raise Finding(f"bad, foreign and asking datagrams: {found()} instead of {wanted} were heard")
        # In this order: the server sends meanwhile, and counts messages last.
        sent = count.messages_out
        replies = sent - count.blocks_sent
        allowed = REPLIES_PER_SECOND * (time.monotonic() - self._start) + server_module._REPLY_BURST + 1
        if replies > min(self.heard["join"], allowed):
            raise Finding(f"{replies} answers to {self.heard['join']} JOINs, {allowed:.0f} are allowed")
        if count.blocks_sent > self.asked:
            raise Finding(f"{count.blocks_sent} blocks were sent, {self.asked} asked for")
        held = len(server._clients), len(server._addresses), len(server._join2_waits), len(server.work)
        limits = CLIENTS_KEPT, CLIENTS_KEPT, server_module._REPLY_QUEUE, 3 * server.chunks
        # One more for a moment, which another thread may see.
        if any(there > limit + 1 for there, limit in zip(held, limits, strict=True)):
            raise Finding(f"clients, addresses, answers, items: {held}, limits {limits}")


def fuzz(count: int, seed: int) -> SocketFuzzer:
    """Send ``count`` datagrams; returns the fuzzer for its numbers."""
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = SocketFuzzer(Path(folder), seed)
        try:
            fuzzer.run(count)
        finally:
            fuzzer.close()
        return fuzzer


def main() -> None:
    """Fuzz as the command line says and print what the server counted."""
    parser = argparse.ArgumentParser(description="Send mutated datagrams to a server at work.")
    parser.add_argument("-n", dest="count", type=int, default=1_000_000, help="how many (%(default)s)")
    parser.add_argument("-s", dest="seed", type=int, default=1, help="the seed (%(default)s)")
    options = parser.parse_args()
    os.environ[FILE_VARIABLE] = "1"
    start = time.perf_counter()
    done = fuzz(options.count, options.seed)
    count = done.server.count
    print(
        f"{options.count} datagrams in {time.perf_counter() - start:.1f} s, seed {options.seed}, "
        f"{done.rows} rows: {done.filtered} filtered, {sum(done.heard.values())} heard, "
        f"{count.invalid} invalid, {count.foreign} with a false address, {count.joins} joins, "
        f"{count.requests} requests; {count.messages_out - count.blocks_sent} answers, "
        f"{count.blocks_sent} blocks"
    )


if __name__ == "__main__":
    main()
