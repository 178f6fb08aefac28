# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``frisbee``: fetches an image from the group and writes it to a disk.

Threads and what they own:

* The calling thread does the protocol: it receives, puts blocks together (:mod:`.assembly`), decides what to
  ask for (:mod:`.asking`) and asks. It sleeps in ``select`` until a datagram, a timer or a
  writer wakes it. Nobody else touches these objects, so they need no lock.
* One or two *writers* take complete chunks from a queue, check and inflate them and write them to the
  target; inflating and writing release the interpreter's lock. With two, one inflates while the other
  waits for the disk. They hand the buffer back through a second queue and an ``eventfd``. The queues need no
  bound of their own: there are only so many buffers (80 MiB by default), and without a free one the
  protocol thread neither asks for nor keeps new chunks.
* With a manifest or read-back, :mod:`.integrity` checks each chunk in the writers and reads the disk, by
  threads of its own, before joining and after the end.

Anybody can send to the group, and an answer to a JOIN names no client. So no single datagram of somebody
else ends a transfer or leads it astray. With ``server`` nobody else is heard. Without, a server is judged by
what it sends: one whose file does not fit, who is silent while another one sends, or whose first chunk is
none, is left for another as long as nothing was written. A changed length is believed when it is told again.

Before the disk is written the first time, a whole chunk has come from one server and is a valid chunk of an
image that fits the disk. After that, each chunk must fit the ones before (version, identity, range of
sectors), come from the same server, and every byte of the image must have been written and flushed before
``Wrote ... bytes`` is printed. Anything else ends in an exception and a status that is not 0.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import sys
import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

from orbit_frisbee.frisbee import priority, wire
from orbit_frisbee.frisbee.asking import AGAIN_SECONDS, MAX_IN_PROGRESS, READ_AHEAD, Asker
from orbit_frisbee.frisbee.assembly import Assembly
from orbit_frisbee.frisbee.integrity import CheckError, Checks
from orbit_frisbee.frisbee.net import Endpoint, NetError, Receiver, parse_address
from orbit_frisbee.frisbee.options import EXIT_FATAL, EXIT_SILENCE, EXIT_USAGE
from orbit_frisbee.ndz.format import NdzError, Tiling, parse_index
from orbit_frisbee.ndz.unpack import Target

if TYPE_CHECKING:
    import socket

    from orbit_frisbee.ndz.manifest import Manifest

JOIN_SECONDS: Final = (0.05, 0.5)
"""Between two JOINs: at first, and once it has doubled often enough. What is sent meanwhile is missed."""
SILENCE_SECONDS: Final = 30.0
BUFFERS: Final = 80
WORKERS: Final = 2
_DRAIN: Final = 64
_GATHER_SECONDS: Final = 0.005
_GATHER_SHARE: Final = 1 / 8
_GATHER_SPARE: Final = 16 << 10
"""Bytes of the socket's buffer for each block that may gather: a datagram takes up to 4 KiB of it."""
_SHORT_TAIL_ASKS: Final = 3
_CHANCE_SECONDS: Final = 1.0
"""How long the true server has to make itself heard after another one turned out to be none."""
_DOUBT_SECONDS: Final = (0.1, 0.5)
"""Between two JOINs that ask again how long the file is, and before the answers are believed."""
_DOUBT_ANSWERS: Final = 3
_MISTAKES: Final = 5
"""How often another server is looked for because the one at hand is silent or says something else."""
_RIVALS: Final = 16
"""Most other senders that are remembered."""
_BEHIND_SECONDS: Final = 0.5
_MBR_TYPE_AT: Final = 446 + 4


class ClientError(Exception):
    """The transfer failed; ``status`` is the exit status that says how."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class ClientConfig(NamedTuple):
    """What to fetch and how. Times are in seconds; ``silence`` 0 waits for ever.

    ``server`` pins the server's address, or some with commas between; others are not heard. ``plain`` stores
    the file as it is instead of unpacking it.
    ``partition`` writes into that partition of the target, whose type byte becomes ``partition_type``
    in the end. ``buffers`` are of 1 MiB, ``socket_buffer`` is in bytes. Every chunk is checked against the
    ``manifest``; ``resume``, which needs it, keeps chunks that are on the target already, ``verify`` reads
    back what was written.
    """

    target: str
    group: str
    port: int
    interface: str | None = None
    broadcast: bool = False
    server: str | None = None
    partition: int | None = None
    partition_type: int | None = None
    zero_free: bool = False
    plain: bool = False
    ascending: bool = False
    start_delay: float = 0.0
    silence: float = SILENCE_SECONDS
    again: float = AGAIN_SECONDS
    read_ahead: int = READ_AHEAD
    max_in_progress: int = MAX_IN_PROGRESS
    buffers: int = BUFFERS
    workers: int = WORKERS
    socket_buffer: int | None = None
    keepalive: float = 0.0
    quiet: bool = False
    debug: int = 0
    manifest: Manifest | None = None
    resume: bool = False
    verify: bool = False


class _Mistaken(ClientError):
    """Somebody else may be the server, or the file another one; nothing was written yet."""

    def __init__(self, text: str) -> None:
        super().__init__(text, EXIT_FATAL)


class _Rival:
    """Somebody else who sends what a server sends: number of BLOCKs, and when the last one came."""

    def __init__(self) -> None:
        self.blocks = 0
        self.at = float("-inf")


class _Doubt:
    """The server seems to serve another number of blocks than before.

    ``again`` is when to ask the next time, ``answers`` counts who says what the first one said.
    """

    def __init__(self, blocks: int, now: float) -> None:
        self.blocks, self.since, self.again = blocks, now, now
        self.answers = 1


class _Writers:
    """Threads that check, inflate and write complete chunks."""

    def __init__(
        self, target: Target, count: int, chunks: int, plain_size: int | None, checks: Checks
    ) -> None:
        self._target = target
        self._checks = checks
        self._chunks = chunks
        self._plain_size = plain_size
        self._tiling = Tiling()
        self._lock = threading.Lock()
        self._queue: SimpleQueue[tuple[int, memoryview] | None] = SimpleQueue()
        self.done: deque[tuple[int, memoryview]] = deque()
        self.error: BaseException | None = None
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._threads = [
            threading.Thread(target=self._run, name=f"frisbee-writer-{i}", daemon=True) for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, number: int, chunk: memoryview) -> None:
        """Hand over a complete chunk; it comes back through ``done``, announced by ``wake``."""
        self._queue.put((number, chunk))

    def _run(self) -> None:
        if self._plain_size is None:
            # Now, while the server waits for other clients, and not when the first chunk is here. Where there
            # is no memory, that one will tell.
            with contextlib.suppress(OSError, MemoryError):
                self._target.prepare()
        while (job := self._queue.get()) is not None:
            if self.error is None:
                try:
                    self._write(*job)
                except BaseException as error:
                    # Whatever it is, the protocol thread must hear of it and end the transfer.
                    self.error = error
            self.done.append(job)
            os.eventfd_write(self.wake, 1)

    def _write(self, number: int, chunk: memoryview) -> None:
        self._checks.arrived(number, chunk)
        if self._plain_size is not None:
            offset = number * wire.CHUNK_SIZE
            data = chunk[: min(wire.CHUNK_SIZE, self._plain_size - offset)]
            self._target.write_plain(data, offset)
            self._checks.wrote_plain(number, offset, data)
            return
        index = parse_index(chunk, number, chunks=self._chunks)
        with self._lock:
            self._tiling.add(index)
        hasher = self._checks.hasher(number)
        self._target.write_chunk(chunk, index, hasher)
        self._checks.wrote(index, hasher)

    def heard(self) -> None:
        """Say that ``wake`` woke somebody, who now looks at ``done``.

        Not to be left out when nothing is there: a writer puts its chunk there before it wakes, so that may
        have been taken already.
        """
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake)

    def close(self) -> None:
        """Wait for the threads to end; what is queued and no longer wanted is thrown away on an error."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        os.close(self.wake)

    def abandon(self) -> None:
        """Let chunks that wait be dropped: the transfer has failed."""
        if self.error is None:
            self.error = ClientError("abandoned", EXIT_FATAL)


class Client:
    """One transfer; :meth:`run` does it.

    Raises :class:`ClientError`, :class:`integrity.CheckError`, :class:`net.NetError` or :class:`NdzError`;
    lines for people and for the controller go to ``out`` and ``err``.
    """

    def __init__(self, config: ClientConfig, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.config = config
        self._out = out if out is not None else sys.stdout
        self._err = err if err is not None else sys.stderr
        self._ident = int.from_bytes(os.urandom(4), "little")
        self._server: tuple[str, int] | None = None
        self._answered_alone = False
        self._allowed = frozenset(config.server.split(",")) if config.server is not None else None
        for address in self._allowed or ():
            parse_address(address, "server address")
        self._refused: set[tuple[str, int]] = set()
        self._rivals: dict[tuple[str, int], _Rival] = {}
        self._doubt: _Doubt | None = None
        self._unfit: ClientError | CheckError | None = None
        self._mistakes = 0
        self._joins = self._blocks = self._size = 0
        self._joined_at = 0.0
        self._percent = 0
        self._short_asks = 0
        self.strangers = 0

    def run(self) -> None:
        """Fetch and write the image; returns when all of it is on the disk."""
        config = self.config
        target, number = self._open_target()
        try:
            if self._wanted(target):
                endpoint = Endpoint(
                    config.group,
                    config.port,
                    interface=config.interface,
                    server=False,
                    broadcast=config.broadcast,
                    buffer=config.socket_buffer,
                )
                try:
                    self._endpoint = endpoint
                    self._transfer(target)
                finally:
                    endpoint.close()
            if config.verify:
                self._checks.verify(target, lambda percent: self._tell(f"Verifying: {percent}%"))
        except BaseException:
            target.close(sync=False)
            raise
        target.close(sync=False)
        if config.verify:
            print(f"Verified {self._checks.verified} bytes", file=self._err, flush=True)
        if number is not None and config.partition_type is not None:
            self._set_type(number, config.partition_type)
        print(
            f"Wrote {target.bytes_covered} bytes ({target.bytes_written} actual)", file=self._err, flush=True
        )
        elapsed = int(time.monotonic() - self._joined_at)
        print(f"Left the team after {elapsed} seconds on the field!", file=self._out, flush=True)

    def _wanted(self, target: Target) -> bool:
        """Find out whether anything must be fetched; if not, the target is finished."""
        config, manifest = self.config, self.config.manifest
        self._checks = checks = Checks(
            manifest, plain=config.plain, zero_free=config.zero_free, verify=config.verify
        )
        checks.fits(target)
        if manifest is None or not config.resume:
            return True
        checks.keep(target, lambda percent: self._tell(f"Comparing: {percent}%"))
        chunks = len(manifest.entries)
        print(f"Kept {len(checks.kept)} of {chunks} chunks", file=self._err, flush=True)
        if len(checks.kept) < chunks:
            return True
        self._joined_at = time.monotonic()
        self._tell("Progress: 100% 000000 000000", self._out)
        checks.finish_kept(target)
        self._finish(target)
        return False

    def _finish(self, target: Target) -> None:
        """See that all is on the disk; a file that is stored as it is brings all of its partition table."""
        target.finish(lambda percent: self._tell(f"Flushing: {percent}%"), table=not self.config.plain)

    def _tell(self, text: str, to: TextIO | None = None) -> None:
        """Print a line about progress."""
        if not self.config.quiet:
            print(text, file=to or self._err, flush=True)

    # -- the target ---------------------------------------------------------------------------------------

    def _open_target(self) -> tuple[Target, int | None]:
        config = self.config
        if config.partition is None:
            return Target.open(config.target, zero_free=config.zero_free, warn=self._warn), None
        # Imported here: few runs need it.
        from orbit_frisbee.ndz.disk import read_table
        from orbit_frisbee.ndz.source import NotUnderstood, Source

        try:
            with Source.open(config.target) as source:
                table = read_table(source)
                partition = table.partition(config.partition)
        except NotUnderstood as error:
            raise ClientError(f"{config.target}: {error}", EXIT_USAGE) from None
        if config.partition_type is not None and (table.scheme != "MBR" or config.partition > 4):
            raise ClientError(
                f"{config.target}: only primary partitions of an MBR have a type byte", EXIT_USAGE
            )
        target = Target.open(
            config.target,
            base_sector=partition.start,
            limit_sectors=partition.sectors,
            zero_free=config.zero_free,
            warn=self._warn,
        )
        return target, config.partition

    def _set_type(self, number: int, kind: int) -> None:
        try:
            disk = os.open(self.config.target, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.pwrite(disk, bytes((kind,)), _MBR_TYPE_AT + 16 * (number - 1))
                os.fsync(disk)
            finally:
                os.close(disk)
        except OSError as error:
            raise ClientError(
                f"{self.config.target}: cannot set the partition's type: {error.strerror}", EXIT_USAGE
            ) from None

    def _warn(self, text: str) -> None:
        print(f"frisbee: {text}", file=self._err, flush=True)

    # -- joining ------------------------------------------------------------------------------------------

    def _transfer(self, target: Target) -> None:
        config, endpoint = self.config, self._endpoint
        if config.start_delay:
            time.sleep(config.start_delay * _uniform())
        self._receiver = Receiver(endpoint.rx, gro=endpoint.gro)
        self._join(target)
        while True:
            endpoint.hush()
            try:
                self._fetch(target)
                return
            except (ClientError, CheckError, NdzError) as error:
                if target.begun or not self._join_another(target, error):
                    self._leave(None)
                    raise
            except BaseException:
                self._leave(None)
                raise

    def _join_another(self, target: Target, error: Exception) -> bool:
        """Join another server than the one that turned out to be none; false when there is no other."""
        mistaken = isinstance(error, _Mistaken)
        if not mistaken and (self._allowed is not None or getattr(error, "status", 0) == EXIT_SILENCE):
            return False
        assert self._server is not None
        left, rivals = self._server, set(self._rivals)
        self._server, self._rivals, self._doubt = None, {}, None
        self._answered_alone = False
        self._endpoint.listen()
        if mistaken:
            # Who was left may still be the one: without another, he is taken again.
            self._mistakes += 1
            if not (rivals and self._join(target, wanted=rivals, because=error)):
                self._join(target)
        else:
            self._refused.add(left)
            if not self._join(target, because=error):
                self._server = left
                return False
        self._warn(f"{left[0]} does not seem to be the server: {error}")
        return True

    def _join(
        self,
        target: Target,
        *,
        wanted: set[tuple[str, int]] | None = None,
        because: Exception | None = None,
    ) -> bool:
        """Ask for a server until one answers; sets server, size and number of blocks.

        Only those ``wanted`` will do, if given. After an error, ``because``, there is not much time: returns
        false when nobody answers.
        """
        config, endpoint = self.config, self._endpoint
        start = time.monotonic()
        next_join = start
        pause, longest = JOIN_SECONDS
        sockets = list({endpoint.rx, endpoint.tx})
        self._target, self._wanted_sources, self._unfit = target, wanted, None
        patience = _CHANCE_SECONDS if because is not None else config.silence
        while self._server is None:
            now = time.monotonic()
            if self._unfit is not None and patience != _CHANCE_SECONDS:
                # The true server may be slower to answer than the one who is none.
                start, patience = now, _CHANCE_SECONDS
            if patience and now - start >= patience:
                if because is not None:
                    return False
                if self._unfit is not None:
                    raise self._unfit
                raise ClientError(
                    f"no server answered on {config.group}:{endpoint.port} from {endpoint.own} "
                    f"for {config.silence:g} seconds",
                    EXIT_SILENCE,
                )
            if now >= next_join:
                self._send_join()
                next_join, pause = now + pause, min(longest, 2 * pause)
            limit = next_join if not patience else min(next_join, start + patience)
            select.select(sockets, [], [], max(0.0, limit - now))
            for sock in sockets:
                self._hear_join(sock)
        self._joined_at = time.monotonic()
        if not config.quiet:
            chunks = -(-self._blocks // wire.CHUNK_BLOCKS)
            print(
                f"Joined the team after {int(self._joined_at - start)} sec. ID is {self._ident}. "
                f"File is {chunks} chunks ({self._size} bytes)",
                file=self._err,
                flush=True,
            )
        return True

    def _send_join(self) -> None:
        encode = wire.encode_join2 if self.config.plain else wire.encode_join
        self._endpoint.send(encode(self._endpoint.own_packed, self._ident))
        self._joins += 1

    def _hear_join(self, sock: socket.socket) -> None:
        for _ in range(_DRAIN):
            if self._server is not None:
                return
            if sock is self._endpoint.rx:
                source = self._receiver.receive()
                if source is None:
                    return
                for datagram in self._receiver.datagrams():
                    self._accept(datagram, source)
            else:
                try:
                    datagram, source = sock.recvfrom(wire.MAX_DATAGRAM)
                except (BlockingIOError, ConnectionRefusedError):
                    return
                self._accept(datagram, source)
                self._answered_alone = self._server is not None

    def _accept(self, datagram: bytes, source: tuple[str, int]) -> None:
        """Take a JOIN reply as the server's, if it is one that fits and no server is known."""
        if self._server is not None or source[1] != self._endpoint.port or source in self._refused:
            return
        if self._allowed is not None and source[0] not in self._allowed:
            return
        if self._wanted_sources is not None and source not in self._wanted_sources:
            return
        try:
            message, header_source = wire.decode(datagram)
            if header_source != parse_address(source[0], "source"):
                return
        except wire.WireError:
            return
        if self.config.plain:
            if not (isinstance(message, wire.Join2Reply) and message.client == self._ident):
                return
            size = message.size
        elif isinstance(message, wire.JoinReply):
            size = message.blocks * wire.BLOCK_SIZE
        else:
            return
        try:
            self._check_offer(message, size, source[0])
        except (ClientError, CheckError) as error:
            self._unfit = self._unfit or error
            return
        self._server, self._blocks, self._size = source, message.blocks, size

    def _check_offer(self, message: wire.JoinReply | wire.Join2Reply, size: int, source: str) -> None:
        """Raise :class:`ClientError` or :class:`CheckError` for a file that cannot be what is wanted."""
        if isinstance(message, wire.Join2Reply) and (message.chunk_blocks, message.block_size) != (
            wire.CHUNK_BLOCKS,
            wire.BLOCK_SIZE,
        ):
            raise ClientError(
                f"{source} sends chunks of {message.chunk_blocks} blocks of {message.block_size} bytes; "
                f"only {wire.CHUNK_BLOCKS} of {wire.BLOCK_SIZE} are understood",
                EXIT_FATAL,
            )
        if not message.blocks:
            raise ClientError(
                f"{source} serves 0 blocks: the file is empty (or shorter than 1 MiB, which "
                "the 2004 server cannot serve)",
                EXIT_USAGE,
            )
        self._checks.joined(source, message.blocks)
        if self.config.plain and size > self._target.size:
            raise ClientError(
                f"{self.config.target}: the file has {size} bytes, the target {self._target.size}", EXIT_USAGE
            )

    # -- fetching -----------------------------------------------------------------------------------------

    def _fetch(self, target: Target) -> None:
        config = self.config
        assert self._server is not None
        now = time.monotonic()
        self._assembly = assembly = Assembly(self._blocks, config.buffers)
        self._asker = asker = Asker(
            assembly,
            now,
            _uniform,
            read_ahead=config.read_ahead,
            max_in_progress=config.max_in_progress,
            again=config.again,
            ascending=config.ascending,
        )
        for chunk in self._checks.kept:
            assembly.skip(chunk)
        self._heads = wire.BlockHeads(parse_address(self._server[0], "server address"))
        self._heads_view = memoryview(self._heads.heads)
        self._signature = wire.signature_of(self._heads_view)
        self._heard_at = self._useful_at = self._probe_at = now
        self._drained = False
        room = self._endpoint.buffer / (_GATHER_SPARE * wire.CHUNK_BLOCKS)
        self._gather_share = min(_GATHER_SHARE, room)
        keepalive_at = now + config.keepalive if config.keepalive else float("inf")
        plain_size = self._size if config.plain else None
        writers = _Writers(target, config.workers, assembly.chunks, plain_size, self._checks)
        self._writers = writers
        written = len(self._checks.kept)
        readers: list[socket.socket | int] = [self._endpoint.rx, writers.wake]
        try:
            with priority.raised():
                while assembly.complete < assembly.chunks or self._doubt is not None:
                    now = self._receive()
                    self._excuse_server(now)
                    written += self._collect_written(now, written)
                    if now >= keepalive_at:
                        keepalive_at = now + config.keepalive
                        self._endpoint.rejoin()
                    if now >= asker.due() and self._is_up_to_date(now):
                        self._ask(now)
                    self._check_silence(now)
                    self._check_rivals(now)
                    if now - self._useful_at >= _CHANCE_SECONDS and now >= self._probe_at:
                        # Nothing comes of what is asked for: perhaps the file is not what was said.
                        self._probe_at = now + _CHANCE_SECONDS
                        self._send_join()
                    wait = min(asker.due(), keepalive_at)
                    if self._doubt is not None:
                        self._ask_again(now)
                        wait = min(wait, self._doubt.again)
                    if config.silence:
                        wait = min(wait, self._heard_at + config.silence)
                    timeout = max(0.0, wait - time.monotonic())
                    if timeout and (assembly.complete < assembly.chunks or self._doubt is not None):
                        ready, _, _ = select.select(readers, [], [], timeout)
                        if writers.wake in ready:
                            writers.heard()
                        else:
                            self._let_gather(timeout)
            # What still comes is for others: to look at it would take time from inflating and writing.
            self._endpoint.deafen()
            while written < assembly.chunks:
                select.select([writers.wake], [], [])
                writers.heard()
                written += self._collect_written(time.monotonic(), written)
        except BaseException:
            writers.abandon()
            raise
        finally:
            writers.close()
        self._checks.finish_kept(target)
        self._finish(target)
        self._leave(target)

    def _receive(self) -> float:
        """Take what has come, up to a limit; returns the time."""
        now = time.monotonic()
        receiver, server = self._receiver, self._server
        self._drained = False
        for _ in range(_DRAIN):
            source = receiver.receive()
            if source is None:
                self._drained = True
                break
            now = time.monotonic()
            taken = 0
            if source == server:
                taken = self._take_blocks(receiver.blocks, now)
            if taken * wire.BLOCK_DATAGRAM < receiver.size or not receiver.size:
                for datagram in receiver.datagrams(taken):
                    self._hear(datagram, source, now)
        return now

    def _let_gather(self, limit: float) -> None:
        """Let datagrams gather in the socket's buffer: who is woken by each of them does little else.

        Not for longer than ``limit`` seconds, nor than a small part of the time a chunk takes, so that
        nothing is asked for noticeably later, nor than it takes to fill a part of the buffer.
        """
        time.sleep(min(limit, _GATHER_SECONDS, self._gather_share * self._asker.interval))

    def _is_up_to_date(self, now: float) -> bool:
        """Whether all that came has been looked at, as far as that can be waited for.

        A client that was kept from running must not ask for what lies in its socket's buffer. But what others
        have sent again must not keep it from asking for ever.
        """
        return self._drained or now - self._useful_at >= _BEHIND_SECONDS

    def _take_blocks(self, count: int, now: float) -> int:
        """Take the BLOCKs at the head of what was received; returns how many were valid ones.

        A row without gaps, as most are, is known by one comparison with what the server's must look like.
        """
        if not count:
            return 0
        heads, size = self._receiver.heads, wire.BLOCK_HEAD_SIZE
        chunk, block = wire.place_of(heads)
        if 0 <= chunk < self._assembly.chunks and 0 <= block <= wire.CHUNK_BLOCKS - count:
            self._heads.set_chunk(chunk)
            if heads[: count * size] == self._heads_view[block * size : (block + count) * size]:
                self._take(chunk, [(block, count, self._receiver.data[: count * wire.BLOCK_SIZE])], now)
                return count
        at = 0
        for chunk, runs in wire.split_row(heads, count, self._signature):
            if chunk >= self._assembly.chunks:
                break
            found = []
            for block, number in runs:
                end = at + number
                found.append(
                    (block, number, self._receiver.data[at * wire.BLOCK_SIZE : end * wire.BLOCK_SIZE])
                )
                at = end
            self._take(chunk, found, now)
        return at

    def _take(self, chunk: int, runs: list[tuple[int, int, memoryview]], now: float) -> None:
        """Take blocks of one chunk: first block, number and data of each run."""
        assembly = self._assembly
        began = assembly.is_untouched(chunk)
        new = 0
        for first, number, data in runs:
            new += assembly.take(chunk, first, number, data)
        self._heard_at = now
        if new:
            self._useful_at = now
        last, number, _ = runs[-1]
        self._asker.block(chunk, new, now, began=began and new > 0, end=last + number)
        if new and not assembly.missing(chunk):
            self._writers.put(chunk, assembly.collect(chunk))

    def _hear(self, datagram: bytes, source: tuple[str, int], now: float) -> None:
        """Take a datagram that is not a plain BLOCK of the server."""
        try:
            message, header_source = wire.decode(datagram, self._assembly.chunks)
        except wire.WireError as error:
            if self.config.debug:
                self._warn(f"dropped from {source[0]}:{source[1]}: {error}")
            return
        if header_source != parse_address(source[0], "source"):
            return
        if isinstance(message, wire.Request):
            self._asker.request(message.chunk, message.bits, now, exact=message.number < wire.CHUNK_BLOCKS)
        elif isinstance(message, wire.PartialRequest):
            self._asker.request(message.chunk, message.bits, now, exact=True)
        elif isinstance(message, (wire.Block, wire.JoinReply, wire.Join2Reply)):
            if source[1] != self._endpoint.port:
                return
            if source != self._server:
                self._stranger(source, message, now)
            elif isinstance(message, wire.Block):
                self._take(message.chunk, [(message.block, 1, memoryview(message.data))], now)
            else:
                self._heard_at = now
                self._told_again(message.blocks, now)

    def _told_again(self, blocks: int, now: float) -> None:
        """The server tells (anybody) how long the file is: as it was, or the image may have been changed."""
        if blocks == self._blocks:
            self._doubt = None
        elif self._doubt is None:
            self._doubt = _Doubt(blocks, now)
        else:
            self._doubt.answers += 1

    def _ask_again(self, now: float) -> None:
        """Ask how long the file is: one answer could be anybody's. Without an answer, all is as it was."""
        doubt, (pause, enough) = self._doubt, _DOUBT_SECONDS
        assert doubt is not None
        assert self._server is not None
        if now - doubt.since >= enough:
            if doubt.answers >= _DOUBT_ANSWERS:
                text = (
                    f"{self._server[0]} now serves {doubt.blocks} blocks instead of {self._blocks}: "
                    "the image was changed"
                )
                if self._nothing_complete() and self._mistakes < _MISTAKES:
                    raise _Mistaken(text)
                raise ClientError(text, EXIT_USAGE)
            if now - doubt.since >= _CHANCE_SECONDS:
                self._doubt = None
                return
        if now >= doubt.again:
            doubt.again = now + pause
            self._send_join()

    def _stranger(
        self, source: tuple[str, int], message: wire.Block | wire.JoinReply | wire.Join2Reply, now: float
    ) -> None:
        """Somebody else sends what a server sends."""
        self.strangers += 1
        if self._allowed is not None or source in self._refused:
            return
        rival = self._rivals.get(source)
        if rival is None:
            if len(self._rivals) >= _RIVALS:
                del self._rivals[min(self._rivals, key=lambda other: self._rivals[other].blocks)]
            rival = self._rivals[source] = _Rival()
        if isinstance(message, wire.Block):
            rival.blocks += 1
            rival.at = now

    def _nothing_complete(self) -> bool:
        return self._assembly.complete == len(self._checks.kept)

    def _check_rivals(self, now: float) -> None:
        """Leave a server that is silent while another one sends, before anything of it is complete.

        After that, who sends as much as a server does is a second server: which one is right, nobody can
        tell here, save by a manifest.
        """
        if not self._rivals:
            return
        assert self._server is not None
        if self._nothing_complete():
            if now - self._useful_at >= _CHANCE_SECONDS and self._mistakes < _MISTAKES:
                for source, rival in self._rivals.items():
                    if now - rival.at < _CHANCE_SECONDS:
                        raise _Mistaken(f"it is silent while {source[0]} sends")
            return
        if self._checks.manifest is not None or not self._target.begun:
            return
        for source, rival in self._rivals.items():
            if rival.blocks >= wire.CHUNK_BLOCKS:
                raise ClientError(
                    f"two servers, {self._server[0]} and {source[0]}, send to {self.config.group}:"
                    f"{self._endpoint.port}; stop one, or name the right one with --server",
                    EXIT_FATAL,
                )

    def _collect_written(self, now: float, before: int) -> int:
        """Take buffers back from the writers; returns how many chunks were written."""
        writers = self._writers
        if not writers.done and writers.error is None:
            return 0
        written = 0
        while writers.done:
            _, chunk = writers.done.popleft()
            self._assembly.release(chunk)
            written += 1
            if writers.error is None:
                self._show_progress(now, before + written)
        if writers.error is not None:
            raise writers.error
        if written:
            self._asker.freed(now)
        return written

    def _show_progress(self, now: float, written: int) -> None:
        if self.config.quiet:
            return
        percent = written * 100 // self._assembly.chunks
        while self._percent + 10 <= percent:
            self._percent += 10
            elapsed, left = int(now - self._joined_at), self._assembly.chunks - written
            print(f"Progress: {self._percent}% {elapsed:06d} {left:06d}", file=self._out, flush=True)

    def _ask(self, now: float) -> None:
        own, last = self._endpoint.own_packed, self._assembly.chunks - 1
        for ask in self._asker.asks(now):
            if ask.whole:
                datagram = wire.encode_request(own, ask.chunk, 0, ask.bits.bit_length())
            else:
                datagram = wire.encode_prequest(own, ask.chunk, ask.bits, retry=ask.retry)
            if ask.chunk == last:
                self._short_asks += 1
            self._endpoint.send(datagram)

    def _excuse_server(self, now: float) -> None:
        """Expect nothing while nothing is asked for: every buffer is full and waits for the disk."""
        if not (self._assembly.free or self._assembly.filling):
            self._heard_at = self._useful_at = now

    def _check_silence(self, now: float) -> None:
        silence = self.config.silence
        if not silence:
            return
        assembly = self._assembly
        last = assembly.chunks - 1
        if (
            now - self._useful_at >= silence
            and self._blocks % wire.CHUNK_BLOCKS
            and assembly.complete == last
            and assembly.is_untouched(last)
            and self._short_asks >= _SHORT_TAIL_ASKS
        ):
            raise ClientError(
                f"the server does not send the short last chunk {last}: the file is not whole chunks of "
                "1 MiB and a 2004 server loses its end; pad the file on the server",
                EXIT_USAGE,
            )
        if now - self._heard_at >= silence:
            assert self._server is not None
            raise ClientError(
                f"the server {self._server[0]} has been silent for {silence:g} seconds, "
                f"{assembly.chunks - assembly.complete} of {assembly.chunks} chunks are missing",
                EXIT_SILENCE,
            )

    # -- leaving ------------------------------------------------------------------------------------------

    def _leave(self, target: Target | None) -> None:
        """Tell the server that we go; nobody answers.

        Without numbers where a 2004 server answered, known by its answering a JOIN to the one who sent it.
        Built for 64 bits it has numbers of another length, and would not count us as gone.
        """
        endpoint = self._endpoint
        elapsed = time.monotonic() - self._joined_at
        if target is None or self._answered_alone:
            datagram = wire.encode_leave(endpoint.own_packed, self._ident, int(elapsed))
        else:
            datagram = wire.encode_leave2(endpoint.own_packed, self._ident, self._statistics(target, elapsed))
        try:
            endpoint.send(datagram)
        except NetError as error:
            self._warn(str(error))

    def _statistics(self, target: Target, elapsed: float) -> wire.Statistics:
        asker, assembly, config = self._asker, self._assembly, self.config
        return wire.Statistics(
            seconds=int(elapsed),
            milliseconds=int(elapsed * 1000) % 1000,
            bytes_written=target.bytes_written,
            bytes_covered=target.bytes_covered,
            chunk_buffers=assembly.buffers,
            read_ahead=config.read_ahead,
            max_in_progress=config.max_in_progress,
            start_delay_option=int(config.start_delay),
            again_delay_us=int(config.again * 1_000_000),
            blocks_dropped=assembly.dropped,
            duplicates_of_finished=assembly.finished_again,
            duplicates_in_progress=assembly.filled_again,
            prequests=asker.partial_requests,
            receive_idles=asker.idle_rounds,
            join_attempts=self._joins,
            requests=asker.requests,
            blocks_asked_again=asker.blocks_again,
            asked_again=asker.asked_again,
        )


def _uniform() -> float:
    """Return a random number in [0, 1). Not ``random``: importing that takes longer than all the rest."""
    number: int = struct.unpack("=I", os.urandom(4))[0]
    return number / 4294967296
