# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutated datagrams against the server's handler, in process: it survives, and says no more than was asked.

``python -m tests.frisbee.fuzz_server [-n COUNT] [-s SEED]``, in the folder ``testbed``. What is sent follows
from the seed alone (the clock is made up as well), so a finding is repeated by the same two numbers; the
last line names the datagram. The rest of the server runs as it would: it answers, takes blocks off the
queue and reads them from the file; only what would go to the network is counted instead.

``python -m tests.frisbee.fuzz_sockets`` does the same through the real sockets.

Besides exceptions, these are findings:

* more answers than JOINs, or than the limit allows in the time; an answer longer than what it answers;
* any answer or block because of a reply (which a second server of the group sends) or of a BLOCK;
* a block that nobody has asked for since it was last sent, or that is not in the file;
* memory that grows with what strangers send: clients, waiting answers, items of work.
"""

from __future__ import annotations

import argparse
import io
import random
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from orbit_frisbee.frisbee import server as server_module, wire
from orbit_frisbee.frisbee.net import parse_address
from orbit_frisbee.frisbee.server import CLIENTS_KEPT, REPLIES_PER_SECOND, Server, ServerConfig

from .stand import HOME, new_group

BLOCKS = 5 * 1024 + 300
_NUMBERS = (0, 1, 2, 5, 6, 255, 1023, 1024, 1025, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_FIELDS = (0, 4, 8, 12, 16, 20, 24, 28, 32)
_STEP = 50
"""Datagrams between two turns of the server's loop."""


class Finding(Exception):
    """The server did what it must not do."""


def kind_of(data: bytes, address: str, chunks: int) -> str:
    """Return what a server of so many chunks must take a datagram for: join, ask, other, foreign or bad."""
    try:
        message, said = wire.decode(data, chunks)
    except wire.WireError:
        return "bad"
    if said != parse_address(address, "source"):
        return "foreign"
    if isinstance(message, wire.Join | wire.Join2):
        return "join"
    return "ask" if isinstance(message, wire.Request | wire.PartialRequest) else "other"


class Mutator:
    """Makes datagrams that look like those of a client with the address ``own``, more or less."""

    def __init__(self, own: bytes, source: random.Random) -> None:
        self._random = source
        self._messages = self._valid(own)

    @staticmethod
    def _valid(own: bytes) -> list[bytes]:
        statistics = wire.Statistics(seconds=3, bytes_written=99)
        return [
            wire.encode_join(own, 7),
            wire.encode_join2(own, 7),
            wire.encode_leave(own, 7, 3),
            wire.encode_leave2(own, 7, statistics),
            wire.encode_leave2(own, 7, statistics).ljust(2080, b"\0"),
            wire.encode_request(own, 2),
            wire.encode_request(own, 5, 0, 300),
            wire.encode_request(own, 1, 7, 30),
            wire.encode_prequest(own, 3, 0b1011 << 40, retry=True),
            wire.encode_prequest(own, 5, wire.FULL, retry=False),
            wire.encode_block(own, 1, 9, bytes(1024)),
            wire.encode_join_reply(own, BLOCKS),
            wire.encode_join2_reply(own, 7, BLOCKS * 1024),
        ]

    def datagram(self) -> bytes:
        """Return something to send: a valid datagram with a few things wrong, or with none."""
        source = self._random
        data = bytearray(source.choice(self._messages))
        for _ in range(source.choice((0, 0, 1, 1, 1, 2, 3, 6))):
            kind = source.random()
            if kind < 0.35:
                at = source.choice(_FIELDS)
                if at + 4 <= len(data):
                    struct.pack_into("<I", data, at, source.choice(_NUMBERS))
            elif kind < 0.5:
                at = source.choice(_FIELDS)
                if at + 4 <= len(data):
                    struct.pack_into("<I", data, at, source.randrange(12))
            elif kind < 0.75 and data:
                data[source.randrange(min(len(data), 160))] ^= 1 << source.randrange(8)
            elif kind < 0.82 and data:
                del data[source.randrange(len(data)) :]
            elif kind < 0.88:
                data += source.randbytes(source.randrange(60))
            elif kind < 0.94 and len(data) > 16:
                data[16:] = source.choice(self._messages)[16:]
            elif kind < 0.97 and len(data) >= 12:
                struct.pack_into("<i", data, 8, len(data) - 16)
            else:
                data = bytearray(source.randbytes(source.randrange(2100)))
        return bytes(data)


class Fuzzer:
    """Sends datagrams to one server; :meth:`run` raises :class:`Finding`, or what the server raised."""

    def __init__(self, folder: Path, seed: int) -> None:
        path = folder / "served.ndz"
        with path.open("wb") as file:
            file.truncate(BLOCKS * 1024 - 100)
        self.random = random.Random(seed)
        self.server = Server(ServerConfig(path, new_group(), 0, HOME, rate=None), log=io.StringIO())
        self.now = time.monotonic()
        self._start = self.now
        self._replies: list[bytes] = []
        self.blocks = self.replies = 0
        self._joins = 0
        self._asked: dict[int, int] = {}
        endpoint: Any = self.server.endpoint
        endpoint.send = self._replies.append
        sender: Any = self.server._sender
        sender.send = self._sent
        self.own = endpoint.own_packed
        self._mutator = Mutator(self.own, self.random)
        self.last = b""

    def close(self) -> None:
        self.server.close()

    def source(self, data: bytes) -> tuple[str, int]:
        """Return where a datagram comes from: mostly the address in its header, else it is dropped."""
        source = self.random
        port = self.server.port if source.random() < 0.8 else source.randrange(1, 65536)
        if source.random() < 0.9 and len(data) >= 16:
            return ".".join(map(str, data[12:16])), port
        return HOME, port

    def run(self, count: int) -> None:
        """Send so many datagrams and look after the server on the way."""
        for number in range(count):
            self.last = data = self._mutator.datagram()
            self.now += self.random.expovariate(20_000)
            self._hand_over(data)
            if number % _STEP == 0:
                self._turn()
        self._turn()

    def _hand_over(self, data: bytes) -> None:
        server = self.server
        source = self.source(data)
        before = self._to_do()
        server.handle(data, source, self.now)
        if self._replies:
            raise Finding("the handler itself answers")
        kind = kind_of(data, source[0], server.chunks)
        if kind == "join":
            self._joins += 1
        elif kind == "ask":
            message, _ = wire.decode(data, server.chunks)
            assert isinstance(message, wire.Request | wire.PartialRequest)
            self._asked[message.chunk] = self._asked.get(message.chunk, 0) | message.bits
        elif self._to_do() != before:
            raise Finding("something is to be sent because of what is neither a JOIN nor a request")

    def _to_do(self) -> tuple[object, ...]:
        server = self.server
        return server._join_waits, len(server._join2_waits), len(server.work)

    def _turn(self) -> None:
        """Let the server answer and send, and check what it did and holds."""
        server = self.server
        server._answer(self.now)
        server._housekeeping(self.now)
        for reply in self._replies:
            if len(reply) > (20 if reply[4] == wire.JOIN else 40):
                raise Finding(f"an answer of {len(reply)} bytes")
            # What a second server on the group would get to hear: it must not be taken for a question.
            server.handle(reply, ("127.0.0.9", server.port), self.now)
            server.handle(reply, (HOME, server.port), self.now)
        self.replies += len(self._replies)
        self._replies.clear()
        allowed = REPLIES_PER_SECOND * (self.now - self._start) + server_module._REPLY_BURST
        if self.replies > min(self._joins, allowed + 1):
            raise Finding(f"{self.replies} answers to {self._joins} JOINs, {allowed:.0f} are allowed")
        if server.work:
            server._send(self.now, self.random.randrange(1, 61))
            server._flush()
        held = len(server._clients), len(server._addresses), len(server._join2_waits), len(server.work)
        # A chunk may wait again while it is being sent, and its repairs apart from the rest.
        limits = CLIENTS_KEPT, CLIENTS_KEPT, server_module._REPLY_QUEUE, 3 * server.chunks
        if any(there > limit for there, limit in zip(held, limits, strict=True)):
            raise Finding(f"clients, addresses, answers, items: {held}, limits {limits}")
        log: Any = server._log_to
        if log.tell() > 1 << 20:
            log.seek(0)
            log.truncate()

    def _sent(self, batch: memoryview) -> int:
        size = wire.BLOCK_DATAGRAM
        for at in range(0, len(batch), size):
            message, source = wire.decode(bytes(batch[at : at + size]), self.server.chunks)
            if not isinstance(message, wire.Block) or source != self.own:
                raise Finding("something is sent that is no BLOCK of ours")
            if message.chunk * 1024 + message.block >= self.server.blocks:
                raise Finding(f"block {message.block} of chunk {message.chunk} is not in the file")
            bit = 1 << message.block
            if not self._asked.get(message.chunk, 0) & bit:
                raise Finding(
                    f"block {message.block} of chunk {message.chunk} was not asked for since it was sent"
                )
            self._asked[message.chunk] &= ~bit
            self.blocks += 1
        return len(batch)


def fuzz(count: int, seed: int) -> Fuzzer:
    """Send ``count`` datagrams; returns the fuzzer for its numbers."""
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), seed)
        try:
            fuzzer.run(count)
        except BaseException:
            sent = fuzzer.server.count.messages_in
            print(f"seed {seed}, message {sent}: {fuzzer.last.hex()}", file=sys.stderr)
            raise
        finally:
            fuzzer.close()
        return fuzzer


def main() -> None:
    """Fuzz as the command line says and print what the server counted."""
    parser = argparse.ArgumentParser(description="Send mutated datagrams to a server's handler.")
    parser.add_argument("-n", dest="count", type=int, default=1_000_000, help="how many (%(default)s)")
    parser.add_argument("-s", dest="seed", type=int, default=1, help="the seed (%(default)s)")
    options = parser.parse_args()
    start = time.perf_counter()
    done = fuzz(options.count, options.seed)
    count = done.server.count
    print(
        f"{options.count} datagrams in {time.perf_counter() - start:.1f} s, seed {options.seed}: "
        f"{count.invalid} invalid, {count.foreign} with a false address, {count.joins} joins, "
        f"{count.leaves} leaves, {count.requests} requests; {done.replies} answers, {done.blocks} blocks"
    )


if __name__ == "__main__":
    main()
