# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``frisbeed``: serves one file to one group.

One thread, one loop: hear what has come, send one batch of at most 60 blocks, sleep until the pace allows
the next or a datagram comes. A batch is one read that scatters the file's bytes between headers laid out
beforehand, and one send. So there is no lock, and a request is never older than one batch when the next
one is chosen.

The file is read where it is (``preadv``), never held, and never mapped: a mapped file that somebody
truncates would kill the server by a signal. A file that changes while it is served ends the server with an
error, because clients would mix chunks of both contents without notice.

A client is known by the id and the address of its JOIN. All that is kept for it are numbers for people to
read; when it vanishes nothing else happens. Answers to JOINs go to the group, as clients of both
generations hear them there, and are limited: all JOINs of one moment get one answer, as it names nobody;
JOIN2s get one each, up to :data:`REPLIES_PER_SECOND`. What came too fast is answered later, not dropped.

``gather``: when a client joins while nothing is being sent, the first block waits until no other client has
joined for that long (at most ten times that long), so that clients that start together share one pass. With
``expect`` clients there, it waits for nobody else.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from orbit_frisbee.frisbee import priority, wire
from orbit_frisbee.frisbee.adapt import Adapter
from orbit_frisbee.frisbee.net import (
    CONTROL_SIZE,
    MAX_SEGMENTS,
    TRANSIENT,
    BlockSender,
    Endpoint,
    age,
    claim_stream,
    split,
)
from orbit_frisbee.frisbee.pace import MAKE_UP_SECONDS, Pacer
from orbit_frisbee.frisbee.work import WorkQueue
from orbit_frisbee.whole import replace_file

REPLIES_PER_SECOND: Final = 200
_REPLY_BURST: Final = 20
_REPLY_QUEUE: Final = 1024
CLIENTS_KEPT: Final = 4096
"""Clients known at a time; the one heard of longest ago is forgotten for a new one."""
_LOG_PER_SECOND: Final = 20
_STATS_SECONDS: Final = 0.5
_IDLE_STREAM_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 2.0
_DRAIN: Final = 64
_LINK_DOWN_SECONDS: Final = 0.1
_GATHER_LIMIT: Final = 10


class ServerError(Exception):
    """The server cannot go on; the text names the file or address and the reason."""


class ServerConfig(NamedTuple):
    """What to serve and how.

    ``rate`` is in blocks per second (None: as fast as the clients can), ``read_size`` in blocks, times in
    seconds. ``idle_timeout``: positive, end when nothing happened for that long; 0, never; negative, end
    when the last client has left. ``gather`` 0 sends at once, ``expect`` 0 says nothing.
    """

    path: Path
    group: str
    port: int
    interface: str | None = None
    broadcast: bool = False
    rate: float | None = None
    dynamic: bool = False
    read_size: int = MAX_SEGMENTS
    idle_timeout: float = 1800.0
    gather: float = 0.0
    expect: int = 0
    buffer: int | None = None
    keepalive: float = 0.0
    stats: Path | None = None
    debug: int = 0
    offload: bool = True


class _Client:
    __slots__ = ("address", "ident", "joined", "seen", "wall")

    def __init__(self, ident: int, address: str, now: float) -> None:
        self.ident, self.address = ident, address
        self.joined = self.seen = now
        self.wall = time.time()


class Counters:
    """What happened so far; plain numbers."""

    def __init__(self) -> None:
        self.messages_in = self.messages_out = self.invalid = self.foreign = 0
        self.joins = self.leaves = 0
        self.requests = self.requests_merged = 0
        self.partial_requests = self.partial_blocks = 0
        self.retries = self.duplicate_requests = 0
        self.blocks_sent = self.blocks_repeated = self.bytes_sent = 0
        self.file_reads = 0
        self.idles = self.blocked = self.lost_sends = 0
        self.longest_queue = 0


class Server:
    """A server for one file; :meth:`run` serves until told to stop.

    Raises :class:`ServerError` when the file cannot be served, :class:`net.NetError` when the address
    cannot be used. ``port`` is the session's port.
    """

    def __init__(self, config: ServerConfig, log: TextIO | None = None) -> None:
        self.config = config
        self.count = Counters()
        self._log_to = log if log is not None else sys.stderr
        self._log_allowance, self._log_time = float(_LOG_PER_SECOND), 0.0
        self._log_dropped = 0
        self._started = time.time()
        self._start = now = time.monotonic()
        self._file = self._open_file()
        try:
            self.endpoint = Endpoint(
                config.group,
                config.port,
                interface=config.interface,
                server=True,
                broadcast=config.broadcast,
                buffer=config.buffer,
            )
            try:
                self._claim = claim_stream(config.group, self.endpoint.port)
            except BaseException:
                self.endpoint.close()
                raise
        except BaseException:
            os.close(self._file)
            raise
        self.port = self.endpoint.port
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = self._closed = False
        self._stop_by = now
        self.hung_up = False

        self.blocks = wire.blocks_of(self.size)
        self.chunks = -(-self.blocks // wire.CHUNK_BLOCKS)
        self.work = WorkQueue(self.blocks)
        self._clients: dict[tuple[int, str], _Client] = {}
        self._addresses: dict[str, float] = {}

        self._adapter = Adapter(now)
        self._pacer = Pacer(
            config.rate or self._adapter.rate, now, make_up=0.0 if config.rate else MAKE_UP_SECONDS
        )
        self._dynamic_at, self._dynamic_bad = now, False
        self._sender = BlockSender(self.endpoint, offload=config.offload)
        self._heads = wire.BlockHeads(self.endpoint.own_packed)
        self._packet = bytearray(self._heads.heads[: wire.BLOCK_HEAD_SIZE].ljust(wire.BLOCK_DATAGRAM, b"\0"))
        self._packet *= MAX_SEGMENTS
        self._view = memoryview(self._packet)
        self._slots = [
            self._view[i * wire.BLOCK_DATAGRAM + wire.BLOCK_HEAD_SIZE : (i + 1) * wire.BLOCK_DATAGRAM]
            for i in range(MAX_SEGMENTS)
        ]
        self._unsent = self._view[:0]
        self._inbox = memoryview(bytearray(1 << 16))

        self._join_waits = False
        self._join2_waits: dict[int, None] = {}
        self._reply_allowance, self._reply_time = float(_REPLY_BURST), now

        self._active_at = now
        self._block_at: float | None = None
        self._gather_until = self._gather_last = 0.0
        self._stats_at, self._stats_of = 0.0, -1
        self._keepalive_at = now
        self._empty_at: float | None = None

    # -- the file -----------------------------------------------------------------------------------------

    def _open_file(self) -> int:
        path = self.config.path
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ServerError(f"{path}: {error.strerror}") from None
        try:
            state = os.fstat(file)
            if not (stat.S_ISREG(state.st_mode) or stat.S_ISBLK(state.st_mode)):
                raise ServerError(f"{path}: neither a file nor a disk")
            # The end offset, not the size of the inode: a block device has none.
            self.size = os.lseek(file, 0, os.SEEK_END)
            if not self.size:
                raise ServerError(f"{path}: the file is empty")
            if self.size > wire.BLOCK_SIZE * 0x7FFFFFFF:
                raise ServerError(f"{path}: more blocks than the protocol can count")
        except OSError as error:
            os.close(file)
            raise ServerError(f"{path}: {error.strerror}") from None
        except BaseException:
            os.close(file)
            raise
        self._file_state = (state.st_size, state.st_mtime_ns)
        return file

    def _check_file(self) -> None:
        state = os.fstat(self._file)
        if (state.st_size, state.st_mtime_ns) != self._file_state:
            raise ServerError(f"{self.config.path}: the file changed while it was being served")

    def _read(self, chunk: int, first: int, count: int, slot: int) -> None:
        """Put blocks of the file into the packet's slots, a short last block padded with zeros."""
        offset = (chunk * wire.CHUNK_BLOCKS + first) * wire.BLOCK_SIZE
        want = min(count * wire.BLOCK_SIZE, self.size - offset)
        try:
            got = os.preadv(self._file, self._slots[slot : slot + count], offset)
        except OSError as error:
            raise ServerError(f"{self.config.path}: cannot read at {offset}: {error.strerror}") from None
        self.count.file_reads += 1
        if got < want:
            raise ServerError(f"{self.config.path}: ends at {offset + got} instead of {self.size}")
        if want < count * wire.BLOCK_SIZE:
            used = want - (count - 1) * wire.BLOCK_SIZE
            self._slots[slot + count - 1][used:] = bytes(wire.BLOCK_SIZE - used)

    # -- hearing ------------------------------------------------------------------------------------------

    def handle(self, datagram: wire.Buffer, source: tuple[str, int], now: float) -> None:
        """Take one datagram, whatever is in it; ``now`` is when it reached the machine."""
        count = self.count
        count.messages_in += 1
        try:
            message, header_source = wire.decode(datagram, self.chunks)
        except wire.WireError as error:
            count.invalid += 1
            if self.config.debug:
                self._log(f"{source[0]}:{source[1]}: dropped: {error}", now)
            return
        address = source[0]
        if header_source != wire_address(address):
            count.foreign += 1
            if self.config.debug:
                self._log(f"{address}:{source[1]}: dropped: the header says another address", now)
            return
        if isinstance(message, wire.Request):
            whole = message.bits in (wire.FULL, wire.chunk_bits(message.chunk, self.blocks))
            self._ask(message.chunk, message.bits, address, now, exact=not whole, retry=False)
        elif isinstance(message, wire.PartialRequest):
            count.partial_requests += 1
            count.partial_blocks += message.bits.bit_count()
            self._ask(message.chunk, message.bits, address, now, exact=True, retry=message.retry)
        elif isinstance(message, wire.Join):
            self._join_waits = True
            self._join(message.client, address, now)
        elif isinstance(message, wire.Join2):
            if len(self._join2_waits) < _REPLY_QUEUE:
                self._join2_waits[message.client] = None
            self._join(message.client, address, now)
        elif isinstance(message, wire.Leave):
            self._leave(message, address, now)

    def _ask(self, chunk: int, bits: int, address: str, now: float, *, exact: bool, retry: bool) -> None:
        count = self.count
        count.requests += 1
        self._active_at = now
        if retry:
            count.retries += 1
            if chunk not in self.work:
                self._dynamic_bad = True
        joined = self._addresses.get(address, 0.0)
        self._adapter.heard(address, now)
        again = (bits & self.work.sent_once(chunk)).bit_count()
        late = again > 0 and self._adapter.again(address, again)
        count.duplicate_requests += again > 0
        if self.work.add(chunk, bits, now, exact=exact, joined=joined, late=late):
            if exact:
                lost = bits & self.work.sent_since(chunk, self._adapter.since)
                self._adapter.lost(address, lost.bit_count())
        else:
            count.requests_merged += 1

    def _join(self, ident: int, address: str, now: float) -> None:
        self._active_at = now
        self._addresses[address] = now
        self._adapter.heard(address, now)
        if len(self._addresses) > CLIENTS_KEPT:
            del self._addresses[next(iter(self._addresses))]
        known = self._clients.pop((ident, address), None)
        if known is not None:
            known.seen = now
            self._clients[ident, address] = known
            return
        self._clients[ident, address] = _Client(ident, address, now)
        self._empty_at = None
        if len(self._clients) > CLIENTS_KEPT:
            del self._clients[next(iter(self._clients))]
        self.count.joins += 1
        self._gather(now)
        clock = time.strftime("%H:%M:%S")
        self._log(f"{address} (id {ident}) joins at {clock}!  {len(self._clients)} active clients.", now)

    def _gather(self, now: float) -> None:
        wait = self.config.gather
        if not wait:
            return
        if now < self._gather_until:
            self._gather_until = min(now + wait, self._gather_last)
        elif not self.work.in_progress and (
            self._block_at is None or now - self._block_at > _IDLE_STREAM_SECONDS
        ):
            self._gather_until, self._gather_last = now + wait, now + wait * _GATHER_LIMIT
        if 0 < self.config.expect <= len(self._clients):
            self._gather_until = now

    def _leave(self, message: wire.Leave, address: str, now: float) -> None:
        self._active_at = now
        client = self._clients.pop((message.client, address), None)
        if client is None:
            return
        self.count.leaves += 1
        self._adapter.gone(address)
        if not self._clients:
            self._empty_at = now
        clock = time.strftime("%H:%M:%S")
        self._log(
            f"{address} (id {message.client}) leaves at {clock}, ran for {message.seconds} seconds.  "
            f"{len(self._clients)} active clients",
            now,
        )
        if message.statistics is not None:
            s = message.statistics
            self._log(
                f"  {address}: covered {s.bytes_covered}, written {s.bytes_written} bytes; "
                f"blocks dropped {s.blocks_dropped}, "
                f"duplicate {s.duplicates_of_finished}/{s.duplicates_in_progress}; {s.requests} requests, "
                f"{s.prequests} partial, {s.blocks_asked_again} blocks again",
                now,
            )

    def _hear(self, now: float) -> None:
        rx = self.endpoint.rx
        for _ in range(_DRAIN):
            try:
                size, control, _, source = rx.recvmsg_into([self._inbox], CONTROL_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in TRANSIENT:
                    continue
                raise ServerError(f"cannot receive: {error.strerror}") from None
            came = max(0.0, now - age(control))
            for datagram in split(self._inbox[:size], control):
                self.handle(datagram, source, came)

    # -- saying -------------------------------------------------------------------------------------------

    def _answer(self, now: float) -> None:
        self._reply_allowance = min(
            float(_REPLY_BURST), self._reply_allowance + (now - self._reply_time) * REPLIES_PER_SECOND
        )
        self._reply_time = now
        own = self.endpoint.own_packed
        if self._join_waits and self._reply_allowance >= 1:
            self._join_waits = False
            self._reply(wire.encode_join_reply(own, self.blocks))
        while self._join2_waits and self._reply_allowance >= 1:
            ident = next(iter(self._join2_waits))
            del self._join2_waits[ident]
            self._reply(wire.encode_join2_reply(own, ident, self.size))

    def _reply(self, datagram: bytes) -> None:
        self._reply_allowance -= 1
        self.count.messages_out += 1
        self.endpoint.send(datagram)

    def _send(self, now: float, limit: int) -> int:
        """Make the next batch of at most ``limit`` blocks, for :meth:`_flush`; returns how many they are."""
        self._check_file()
        slot = 0
        count = self.count
        for chunk, first, number in self.work.take(limit, now, begin=not self._stopping):
            end = slot + number
            self._heads.set_chunk(chunk)
            at, step = slot * wire.BLOCK_DATAGRAM, wire.BLOCK_DATAGRAM
            heads, packet = self._heads.heads, self._packet
            low = first * wire.BLOCK_HEAD_SIZE
            high = low + number * wire.BLOCK_HEAD_SIZE
            for byte in range(16, wire.BLOCK_HEAD_SIZE):
                packet[at + byte : end * step : step] = heads[low + byte : high : wire.BLOCK_HEAD_SIZE]
            for done in range(0, number, self.config.read_size):
                self._read(chunk, first + done, min(self.config.read_size, number - done), slot + done)
            slot = end
        count.blocks_repeated = self.work.repeated
        count.blocks_sent += slot
        count.bytes_sent += slot * wire.BLOCK_ON_WIRE
        count.messages_out += slot
        self._adapter.sent(slot)
        self._block_at = self._active_at = now
        self._unsent = self._view[: slot * wire.BLOCK_DATAGRAM]
        return slot

    def _flush(self) -> float | None:
        """Hand the rest of the batch to the kernel; returns seconds to wait when the network is away."""
        try:
            while self._unsent:
                sent = self._sender.send(self._unsent)
                self._unsent = self._unsent[sent:]
                if not sent:
                    self.count.blocked += 1
                    return None
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise ServerError(
                    f"cannot send to {self.config.group}:{self.port}: {error.strerror}"
                ) from None
            if error.errno == errno.ECONNREFUSED:
                return None
            self.count.lost_sends += 1
            self._log(f"cannot send to {self.config.group}:{self.port}: {error.strerror}", time.monotonic())
            return 0.001 if error.errno == errno.ENOBUFS else _LINK_DOWN_SECONDS
        return None

    # -- the loop -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until :meth:`stop` is called or the idle time-out of the configuration ends it."""
        # Without a rate to keep it goes as fast as the clients do, some of which may be on this machine.
        with priority.real_time() if self.config.rate else contextlib.nullcontext():
            self._serve()

    def _serve(self) -> None:
        rx, tx = self.endpoint.rx, self.endpoint.tx
        try:
            while True:
                now = time.monotonic()
                self._hear(now)
                self._answer(now)
                self._housekeeping(now)
                if self._ended(now):
                    break
                wait = self._until_next_event(now)
                writers: list[socket.socket] = []
                if self._unsent:
                    pause = self._flush()
                    if self._unsent:
                        if pause is None:
                            writers = [tx]
                        else:
                            wait = pause
                    else:
                        continue
                elif now >= self._gather_until and self.work.ready(now):
                    limit = min(MAX_SEGMENTS, self._pacer.allowed(now))
                    if limit:
                        blocks = self._send(now, limit)
                        self._flush()
                        self._pacer.sent(blocks, time.monotonic())
                        continue
                    wait = min(wait, self._pacer.wait())
                else:
                    self.count.idles += 1
                    self._pacer.idle()
                readers: list[socket.socket | int] = [rx, self._wake_read]
                select.select(readers, writers, [], max(0.0, wait))
                self._drain_wake()
        finally:
            self._write_stats(ended=True)

    def _ended(self, now: float) -> bool:
        if self._stopping:
            # The item in progress is finished, unless the network is away.
            return (not self.work.in_progress and not self._unsent) or now > self._stop_by
        timeout = self.config.idle_timeout
        if timeout > 0:
            return not self.work and now - self._active_at >= timeout
        if timeout < 0 and self._empty_at is not None:
            return not self.work and now - self._empty_at >= _LINGER_SECONDS
        return False

    def _until_next_event(self, now: float) -> float:
        """Return the seconds until something has to be done without a datagram coming."""
        wait = 3600.0
        if self._join_waits or self._join2_waits:
            wait = min(wait, max(0.001, (1 - self._reply_allowance) / REPLIES_PER_SECOND))
        if self.work and now < self._gather_until:
            wait = min(wait, self._gather_until - now)
        elif self.work and not self.work.ready(now):
            wait = min(wait, self.work.ready_at - now)
        if self.config.stats is not None and self._stats_of != self._stats_mark():
            wait = min(wait, max(0.0, self._stats_at + _STATS_SECONDS - now))
        if self.config.keepalive:
            wait = min(wait, max(0.0, self._keepalive_at + self.config.keepalive - now))
        if self.config.idle_timeout > 0:
            wait = min(wait, max(0.001, self._active_at + self.config.idle_timeout - now))
        elif self.config.idle_timeout < 0 and self._empty_at is not None:
            wait = min(wait, max(0.001, self._empty_at + _LINGER_SECONDS - now))
        if self._stopping:
            wait = min(wait, max(0.0, self._stop_by - now))
        return wait

    def _housekeeping(self, now: float) -> None:
        config = self.config
        if config.stats is not None and now - self._stats_at >= _STATS_SECONDS:
            mark = self._stats_mark()
            if mark != self._stats_of:
                self._stats_of, self._stats_at = mark, now
                self._write_stats()
        if config.keepalive and now - self._keepalive_at >= config.keepalive:
            self._keepalive_at = now
            self.endpoint.rejoin()
        if self._adapter.due(now):
            rate = self._adapter.look(now, shared=self.work.shared(now))
            if config.rate is None:
                self._pacer.set_rate(rate)
        if config.dynamic and config.rate is not None and now - self._dynamic_at >= 0.5:
            # As the 2016 server: a tenth less when something was lost, a sixteenth of the start more if not.
            self._dynamic_at = now
            rate = self._pacer.rate or config.rate
            rate = rate * 0.9 if self._dynamic_bad else rate + config.rate / 16
            self._dynamic_bad = False
            self._pacer.set_rate(min(config.rate, max(config.rate / 16, rate)))

    def stop(self) -> None:
        """Make :meth:`run` end after the work item in progress. Safe in signal handlers and other threads."""
        self._stop_by = time.monotonic() + 5.0
        self._stopping = True
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"x")

    def wakeup_fd(self) -> int:
        """Return the descriptor that ends a sleep of the loop when written to."""
        return self._wake_write

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_read, 512):
                pass

    def close(self) -> None:
        """Release sockets and file."""
        if not self._closed:
            self._closed = True
            self.endpoint.close()
            self._claim.close()
            for descriptor in (self._file, self._wake_read, self._wake_write):
                os.close(descriptor)

    # -- telling ------------------------------------------------------------------------------------------

    def _log(self, text: str, now: float) -> None:
        """Write a line, but not more than a few a second: anybody can make the server talk."""
        self._log_allowance = min(
            float(_LOG_PER_SECOND), self._log_allowance + (now - self._log_time) * _LOG_PER_SECOND
        )
        self._log_time = now
        if self._log_allowance < 1:
            self._log_dropped += 1
            return
        self._log_allowance -= 1
        if self._log_dropped:
            text = f"({self._log_dropped} lines left out)\n{text}"
            self._log_dropped = 0
        print(text, file=self._log_to, flush=True)

    def _stats_mark(self) -> int:
        return self.count.messages_in + self.count.messages_out

    def stats(self, *, ended: bool = False) -> dict[str, object]:
        """Return the numbers of this server: counters, file, address, clients (ages in seconds)."""
        now = time.monotonic()
        self.count.longest_queue = self.work.longest
        numbers: dict[str, object] = {
            "state": "ended" if ended else "serving",
            "pid": os.getpid(),
            "image": str(self.config.path),
            "bytes_in_file": self.size,
            "blocks_in_file": self.blocks,
            "chunks_in_file": self.chunks,
            "address": self.config.group,
            "port": self.port,
            "interface": self.endpoint.own,
            "rate_blocks_per_second": self._pacer.rate,
            "offload": self._sender.offload,
            "started": self._started,
            "uptime": now - self._start,
            "queue": len(self.work),
            "gathering": now < self._gather_until,
            "last_block": None if self._block_at is None else now - self._block_at,
        }
        numbers.update(vars(self.count))
        numbers["clients"] = [
            {"id": c.ident, "ip": c.address, "joined": c.wall, "seen": now - c.seen}
            for c in self._clients.values()
        ]
        return numbers

    def _write_stats(self, *, ended: bool = False) -> None:
        path = self.config.stats
        if path is None:
            return
        try:
            replace_file(path, json.dumps(self.stats(ended=ended), indent=1) + "\n")
        except OSError as error:
            self._log(f"{path}: cannot write statistics: {error.strerror}", time.monotonic())

    def report(self) -> str:
        """Return the statistics block that is printed at the end, worded as the old servers do."""
        c, config = self.count, self.config
        usage = resource.getrusage(resource.RUSAGE_SELF)
        rate = config.rate
        speed = f"{rate * wire.BLOCK_ON_WIRE * 8:.0f} bits/s, {rate:.1f} blocks/s" if rate else "no limit"
        return "\n".join(
            (
                "Params:",
                f"  chunk/block size     {wire.CHUNK_BLOCKS}/{wire.BLOCK_SIZE}",
                f"  bandwidth            {speed}",
                f"  file:size            {config.path}:{self.size}",
                "Stats:",
                f"  service time:        {time.monotonic() - self._start:.3f} sec",
                f"  user/sys CPU time:   {usage.ru_utime:.3f}/{usage.ru_stime:.3f}",
                f"  msgs in/out:         {c.messages_in}/{c.messages_out}",
                f"  msgs dropped:        {c.invalid} invalid, {c.foreign} with a false address",
                f"  joins/leaves:        {c.joins}/{c.leaves}",
                f"  requests:            {c.requests} ({c.requests_merged} merged in queue)",
                f"    partial req/blks:  {c.partial_requests}/{c.partial_blocks}",
                f"    duplicate req:     {c.duplicate_requests}",
                f"    client re-req:     {c.retries}",
                f"  1k blocks sent:      {c.blocks_sent} ({c.blocks_repeated} repeated)",
                f"  file reads:          {c.file_reads}",
                f"  net idle/blocked:    {c.idles}/{c.blocked}",
                f"  sends lost:          {c.lost_sends}",
                f"  max workq size:      {self.work.longest}",
            )
        )


def wire_address(text: str) -> bytes:
    """Return the 4 bytes of an address that a socket gave."""
    a, b, c, d = text.split(".")
    return bytes((int(a), int(b), int(c), int(d)))


def install_signals(server: Server) -> Callable[[], None]:
    """Let SIGINT, SIGTERM and SIGHUP (``server.hung_up``) stop a server; returns what undoes it.

    Main thread only.
    """

    def stop(number: int, _frame: object) -> None:
        server.hung_up |= number == signal.SIGHUP
        server.stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in numbers]
    # A signal that comes just before the loop falls asleep must wake it: only the C handler can do that.
    old_descriptor = signal.set_wakeup_fd(server.wakeup_fd(), warn_on_full_buffer=False)

    def undo() -> None:
        signal.set_wakeup_fd(old_descriptor)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

    return undo
