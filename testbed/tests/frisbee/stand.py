# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests set up: images, servers in threads, hand-made parties, a bad network."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import random
import select
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orbit_frisbee.frisbee import wire
from orbit_frisbee.frisbee.client import Client, ClientConfig
from orbit_frisbee.frisbee.net import Endpoint, split
from orbit_frisbee.frisbee.server import Server, ServerConfig
from orbit_frisbee.ndz.format import Region, encode_chunk

HOME = "127.0.0.1"
DEADLINE = 180.0
"""No wait of a test is longer than this; a loaded machine may need much of it."""

_numbers = itertools.count(os.getpid() * 64)


def new_group() -> str:
    """Return a multicast address that no other test uses, nor another run of the tests."""
    number = next(_numbers)
    return f"239.{192 + (number >> 16) % 60}.{number >> 8 & 0xFF}.{number & 0xFF}"


def make_image(
    chunks: int,
    *,
    sectors: int = 40,
    gap: int = 24,
    seed: int = 0,
    version: int = 3,
    checksum: bool = False,
    counted: bool = False,
) -> tuple[bytes, bytes]:
    """Return an image and the disk that it must give.

    A chunk holds ``sectors`` of random data and speaks for ``gap`` free ones behind them. ``counted``: the
    first chunk says how many there are.
    """
    source = random.Random(seed)
    image, disk = bytearray(), bytearray()
    at = 0
    for number in range(chunks):
        data = source.randbytes(sectors * 512)
        after = at + sectors + gap
        image += encode_chunk(
            [zlib.compress(data, 1)],
            version=version,
            number=number,
            regions=[Region(at, sectors)],
            first=at,
            after=after,
            total=chunks if counted and not number else 0,
            checksum=checksum,
        )
        disk += data + bytes(gap * 512)
        at = after
    return bytes(image), bytes(disk)


def assert_one_pass(stats: Mapping[str, Any], chunks: int) -> None:
    """All clients were fed by one pass over so many chunks, by what the server's statistics say.

    A client that has no processor for a moment loses blocks and asks again; a pass of its own it needs not.
    """
    assert stats["blocks_sent"] - stats["blocks_repeated"] == chunks * 1024
    assert stats["blocks_repeated"] < chunks * 1024, "one pass for all"


class Running:
    """A server at work in a thread."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.log = server._log_to
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.server.run()
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        """Wait until the server has ended by itself."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the server does not end"

    def stop(self) -> None:
        """Stop the server and release everything."""
        self.server.stop()
        self.join()
        self.server.close()


class Party:
    """A hand-made client or server: sends bytes, hears everything."""

    def __init__(self, group: str, port: int, interface: str = HOME) -> None:
        self.endpoint = Endpoint(group, port, interface=interface, server=False)
        self.own = self.endpoint.own_packed
        self._heard: deque[bytes] = deque()

    def send(self, datagram: bytes) -> None:
        self.endpoint.tx.sendto(datagram, self.endpoint.target)

    def hear(self, seconds: float = DEADLINE) -> Iterator[bytes]:
        """Yield what comes in, until nothing has come for so long."""
        while self._heard or select.select([self.endpoint.rx], [], [], seconds)[0]:
            if not self._heard:
                datagrams, control, _, _ = self.endpoint.rx.recvmsg(1 << 16, 128)
                self._heard.extend(map(bytes, split(memoryview(datagrams), control)))
            if self._heard:
                yield self._heard.popleft()

    def messages(self, kind: type, seconds: float = DEADLINE) -> Iterator[Any]:
        """Yield the messages of a kind that come in within so many seconds."""
        until = time.monotonic() + seconds
        for datagram in self.hear(seconds):
            # Own nonsense comes back here as well.
            with contextlib.suppress(wire.WireError):
                message, _ = wire.decode(datagram)
                if isinstance(message, kind):
                    yield message
            if time.monotonic() >= until:
                return

    def expect(self, kind: type) -> Any:
        """Return the next message of a kind."""
        for message in self.messages(kind):
            return message
        raise AssertionError(f"no {kind.__name__} came")

    def blocks(self, count: int) -> list[tuple[int, int]]:
        """Return chunk and block of the next ``count`` BLOCKs."""
        found = []
        while len(found) < count:
            block = self.expect(wire.Block)
            found.append((block.chunk, block.block))
        return found

    def silent(self, seconds: float, kind: type = object) -> bool:
        """Whether no message of a kind comes for so long."""
        return not any(True for _ in self.messages(kind, seconds))

    def close(self) -> None:
        self.endpoint.close()


class Proxy:
    """A bad network between a server's group and a group of its clients.

    Datagrams each way are lost, doubled and overtaken with the given probabilities.
    """

    def __init__(
        self,
        server_side: tuple[str, int],
        *,
        loss: float = 0.0,
        double: float = 0.0,
        overtake: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._server_side = Endpoint(*server_side, interface=HOME, server=False, buffer=32 << 20)
        self.group = new_group()
        self._client_side = Endpoint(self.group, 0, interface=HOME, server=False)
        self.port = self._client_side.port
        self._random = random.Random(seed)
        self._loss, self._double, self._overtake = loss, double, overtake
        self._held: list[tuple[Endpoint, bytes]] = []
        self.passed = self.lost = 0
        self._wake = os.eventfd(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        a, b = self._server_side, self._client_side
        while True:
            ready, _, _ = select.select([a.rx, b.rx, self._wake], [], [], 0.005 if self._held else None)
            if self._wake in ready:
                return
            if not ready:
                self._release()
            for here, there, answers in ((a, b, True), (b, a, False)):
                if here.rx not in ready:
                    continue
                datagrams, control, _, _ = here.rx.recvmsg(1 << 16, 128)
                for view in split(memoryview(datagrams), control):
                    datagram = bytes(view)
                    # What the proxy sent to a group itself comes back from it: only answers leave a server.
                    if (datagram[0] == wire.TYPE_REPLY or datagram[4] == wire.BLOCK) == answers:
                        self._pass(there, datagram)

    def _pass(self, there: Endpoint, datagram: bytes) -> None:
        chance = self._random.random
        if chance() < self._loss:
            self.lost += 1
            return
        if chance() < self._overtake:
            self._held.append((there, datagram))
            return
        self._deliver(there, datagram)
        if chance() < self._double:
            self._deliver(there, datagram)
        if self._held and chance() < 0.2:
            self._release()

    def _release(self) -> None:
        held, self._held = self._held, []
        for there, datagram in held:
            self._deliver(there, datagram)

    def _deliver(self, there: Endpoint, datagram: bytes) -> None:
        self.passed += 1
        with contextlib.suppress(BlockingIOError):
            there.tx.sendto(datagram, there.target)

    def stop(self) -> None:
        os.eventfd_write(self._wake, 1)
        self._thread.join(DEADLINE)
        os.close(self._wake)
        self._server_side.close()
        self._client_side.close()


class HandServer(Party):
    """A server made by hand in a thread, that serves ``image`` as the options say.

    ``unicast``: answers a JOIN like the 2004 server. ``floor``: rounds the chunks down like that one.
    ``first``: called with each BLOCK's bytes before they are sent, may change them.
    """

    def __init__(
        self,
        image: bytes,
        *,
        unicast: bool = False,
        floor: bool = False,
        blocks: int | None = None,
        interface: str = HOME,
        change: Callable[[int, int, bytes], bytes] = lambda chunk, block, datagram: datagram,
        mute_after: int | None = None,
    ) -> None:
        self.group = new_group()
        super().__init__(self.group, 0, interface)
        self.port = self.endpoint.port
        self.image = image
        self._count = wire.blocks_of(len(image)) if blocks is None else blocks
        self._chunks = len(image) >> 20 if floor else -(-len(image) >> 20)
        self._unicast, self._change = unicast, change
        self._mute_after = mute_after
        self.sent = 0
        self.seen: list[bytes] = []
        self._wake = os.eventfd(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self.endpoint.rx, self._wake], [], [])
            if self._wake in ready:
                return
            datagrams, control, _, source = self.endpoint.rx.recvmsg(1 << 16, 128)
            for datagram in split(memoryview(datagrams), control):
                if datagram[0] != wire.TYPE_REPLY and datagram[4] != wire.BLOCK:
                    self.seen.append(bytes(datagram))
                    self._answer(bytes(datagram), source)

    def _answer(self, datagram: bytes, source: tuple[str, int]) -> None:
        message, _ = wire.decode(datagram)
        if isinstance(message, wire.Join):
            reply = wire.encode_join_reply(self.own, self._count)
            self.endpoint.tx.sendto(reply, source if self._unicast else self.endpoint.target)
        elif isinstance(message, wire.Join2):
            self.send(wire.encode_join2_reply(self.own, message.client, len(self.image)))
        elif isinstance(message, wire.Request | wire.PartialRequest) and message.chunk < self._chunks:
            for first, count in wire.runs(message.bits):
                for block in range(first, first + count):
                    self._serve(message.chunk, block)

    def _serve(self, chunk: int, block: int) -> None:
        at = (chunk * 1024 + block) * 1024
        if at >= len(self.image) or (self._mute_after is not None and self.sent >= self._mute_after):
            return
        self.sent += 1
        datagram = wire.encode_block(self.own, chunk, block, self.image[at : at + 1024])
        self.send(self._change(chunk, block, datagram))

    def stop(self) -> None:
        os.eventfd_write(self._wake, 1)
        self._thread.join(DEADLINE)
        os.close(self._wake)
        self.close()


class Fetch:
    """A client in a thread; :meth:`wait` raises what it raised."""

    def __init__(self, disk: Path, group: str, port: int, **options: Any) -> None:
        self.disk = disk
        self.out, self.err = io.StringIO(), io.StringIO()
        options.setdefault("interface", HOME)
        config = ClientConfig(target=str(disk), group=group, port=port, **options)
        self.client = Client(config, self.out, self.err)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.client.run()
        except BaseException as error:
            self.error = error

    def wait(self) -> Fetch:
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the client does not end"
        if self.error is not None:
            raise self.error
        return self


class Stand:
    """Starts things and stops them all in the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()
        self._disks = itertools.count()

    def close(self) -> None:
        self._stack.close()

    def image(self, chunks: int, **options: Any) -> tuple[Path, bytes]:
        """Write an image file; returns its path and the disk it must give."""
        image, disk = make_image(chunks, **options)
        return self.file(image), disk

    def file(self, content: bytes) -> Path:
        path = self.folder / f"file{next(self._disks)}.ndz"
        path.write_bytes(content)
        return path

    def disk(self, size: int) -> Path:
        path = self.folder / f"disk{next(self._disks)}"
        with path.open("wb") as file:
            file.truncate(size)
        return path

    def serve(self, path: Path, **options: Any) -> Running:
        options.setdefault("group", new_group())
        options.setdefault("interface", HOME)
        options.setdefault("port", 0)
        running = Running(Server(ServerConfig(path=path, **options), log=io.StringIO()))
        self._stack.callback(running.stop)
        return running

    def fetch(self, running: Running, size: int, **options: Any) -> Fetch:
        return Fetch(self.disk(size), running.server.config.group, running.server.port, **options)

    def party(self, running: Running, **options: Any) -> Party:
        return self.keep(Party(running.server.config.group, running.server.port, **options))

    def bad_network(self, running: Running, **how: Any) -> Proxy:
        """Return a network between a server and clients of the proxy's group; ``how`` bad: see there."""
        proxy = Proxy((running.server.config.group, running.server.port), **how)
        self.keep(proxy)
        return proxy

    def keep(self, thing: Any) -> Any:
        """Stop (or close) a thing in the end."""
        self._stack.callback(getattr(thing, "stop", None) or thing.close)
        return thing


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that another thread or process makes true."""
    until = time.monotonic() + DEADLINE
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < until, f"{what} did not happen"
        tick.wait(0.005)
