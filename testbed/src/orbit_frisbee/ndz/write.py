# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making images.

The input is cut into pieces of at most 128 KiB that end at region borders, as the readers of the field
expect; a pool of threads deflates them, and one thread packs them into chunks in order. A deflated
piece refers back to the data before it. Where that data went into the chunk before, the piece is
deflated again, and where it does not fit it is split. So the image depends on the input alone, never on
the threads.
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

from orbit_frisbee.ndz import codec
from orbit_frisbee.ndz.format import (
    CHUNK_SIZE,
    DATA_MAX,
    INDEX_SIZE,
    REGION_LIMIT,
    RELOC_SHORT_SECTOR,
    SECTOR,
    TOTAL_AT,
    TOTAL_SIZE,
    Buffer,
    NdzError,
    Region,
    Relocation,
    encode_chunk,
    with_total,
)
from orbit_frisbee.ndz.plan import Plan
from orbit_frisbee.ndz.ranges import Range
from orbit_frisbee.ndz.source import Source

PIECE = 128 << 10
WRITABLE = (2, 3, 4)

_LEAST_ROOM = 8 << 10
"""A chunk with less room than this takes nothing more."""
_SLACK = 1024
"""How much larger than its input a deflated piece may be at most, stored blocks' headers included."""
_WORTH_INFLATING = 0.97
"""A piece that deflates to more than this share is stored: every client would inflate it for nothing."""
_BATCH = 1 << 20
"""Input of one task of the pool: large enough for the hand-over to cost little."""
_FRAME = len(codec.STREAM_HEAD) + len(codec.STREAM_TAIL) + 4


class Options(NamedTuple):
    """How an image is written.

    ``version`` 2 is read by every program of the field, 3 by all but the oldest, 4 (which ``uuid`` of 16
    bytes and ``checksum`` need) by those of 2011 and later. ``level`` is zlib's 0 (stored) to 9.
    """

    version: int = 2
    level: int = codec.DEFAULT_LEVEL
    uuid: bytes = bytes(16)
    checksum: bool = False
    threads: int = 0
    """Threads that deflate; 0 means one per CPU."""


class Written(NamedTuple):
    """What was written: chunks of 1 MiB, bytes of data before compression."""

    chunks: int
    data_bytes: int


class Record(Protocol):
    """Is told of everything written: what :class:`orbit_frisbee.ndz.manifest.Recorder` does."""

    def data(self, data: Buffer, /) -> None:
        """Take in data of the chunk being made, in order, before compression."""

    def chunk(self, chunk: bytes, /) -> None:
        """Take in the finished chunk."""


class _Piece(NamedTuple):
    start: int
    data: Buffer
    before: Buffer
    packed: bytes
    adler: int


class _Packer:
    """Packs pieces into chunks; hands each finished chunk to ``emit``."""

    def __init__(
        self, options: Options, emit: Callable[[bytes], None], reserve: int, record: Record | None
    ) -> None:
        self._options = options
        self._emit = emit
        self._record = record
        self._region_limit = REGION_LIMIT[options.version] - reserve
        self.number = 0
        self._first = 0
        self._begin()

    def _begin(self) -> None:
        self._packed: list[bytes] = [codec.STREAM_HEAD]
        self._room = DATA_MAX - _FRAME
        self._adler = 1
        self._size = 0
        self._tail: Buffer = b""
        self._regions: list[Region] = []

    def _end(self) -> int:
        return self._regions[-1].end if self._regions else self._first

    def add(self, piece: _Piece) -> None:
        """Take in the next piece of the input."""
        start, data = piece.start, piece.data
        packed: bytes | None = piece.packed if len(piece.before) <= self._size else None
        adler: int | None = piece.adler
        while data:
            full = len(self._regions) >= self._region_limit and start != self._end()
            if self._room < _LEAST_ROOM or full:
                self.close(self._end())
                packed = None  # it may refer to data of the chunk just closed
            if packed is None:
                packed = self._deflate(data)
            if len(packed) <= self._room:
                self._put(start, data, packed, adler)
                return
            ratio = len(packed) / len(data)
            packed = adler = None
            # Deflating all of the rest is worth it only once it is likely to fit.
            while data and self._room >= _LEAST_ROOM and len(data) * ratio > self._room:
                sectors = self._put_part(start, data, ratio)
                start, data = start + sectors, data[sectors * SECTOR :]

    def _put_part(self, start: int, data: Buffer, ratio: float) -> int:
        """Put in as much of ``data`` as seems to fit, going by its compression; return the sectors."""
        sure = min((self._room - _SLACK) // SECTOR, len(data) // SECTOR)
        likely = min(int(self._room / ratio * 0.95) // SECTOR, len(data) // SECTOR)
        if likely > sure:
            part = data[: likely * SECTOR]
            packed = self._deflate(part)
            if len(packed) <= self._room:
                self._put(start, part, packed)
                return likely
        part = data[: sure * SECTOR]
        self._put(start, part, self._deflate(part))
        return sure

    def _deflate(self, data: Buffer) -> bytes:
        return _deflate(data, self._options.level, self._tail)

    def _put(self, start: int, data: Buffer, packed: bytes, adler: int | None = None) -> None:
        self._packed.append(packed)
        self._room -= len(packed)
        if adler is None:
            adler = codec.adler32(data)
        self._adler = codec.joined_adler32(self._adler, adler, len(data))
        if self._record is not None:
            self._record.data(data)
        self._size += len(data)
        self._tail = _window(self._tail, data)
        count = len(data) // SECTOR
        if self._regions and self._regions[-1].end == start:
            last = self._regions[-1]
            self._regions[-1] = Region(last.start, last.count + count)
        else:
            self._regions.append(Region(start, count))

    def close(self, after: int, relocations: Iterable[Relocation] = ()) -> None:
        """Finish the chunk, which speaks for what lies before sector ``after``."""
        options = self._options
        data = [*self._packed, codec.STREAM_TAIL, self._adler.to_bytes(4, "big")]
        chunk = encode_chunk(
            data,
            version=options.version,
            number=self.number,
            regions=self._regions,
            relocations=tuple(relocations),
            first=self._first,
            after=after,
            uuid=options.uuid,
            checksum=options.checksum,
        )
        if self._record is not None:
            self._record.chunk(chunk)
        self._emit(chunk)
        self.number += 1
        self._first = after
        self._begin()


def _window(before: Buffer, data: Buffer) -> Buffer:
    """Return what data behind ``before`` and ``data`` can refer to."""
    return (data if len(data) >= codec.WINDOW else b"".join((before, data)))[-codec.WINDOW :]


def _deflate(data: Buffer, level: int, before: Buffer) -> bytes:
    return _worthy(codec.deflate(data, level, before=before), data)


def _worthy(packed: bytes, data: Buffer) -> bytes:
    """Return ``packed``, or the data stored where it hardly deflates."""
    return packed if len(packed) <= len(data) * _WORTH_INFLATING else codec.deflate(data, 0)


def write_image(
    plan: Plan,
    emit: Callable[[bytes], None],
    options: Options = Options(),  # noqa: B008 - immutable
    *,
    progress: Callable[[int], None] | None = None,
    record: Record | None = None,
) -> Written:
    """Write an image of what ``plan`` holds; each chunk of 1 MiB is handed to ``emit`` in order.

    ``progress`` is called with the number of bytes of data packed so far; ``record`` is told of all data
    and chunks. The number of chunks, known in the end, is in none of them; :func:`tell_total` puts it into
    all. Raises :class:`NdzError` for options that exclude each other and for read errors.
    """
    if options.version not in WRITABLE:
        raise NdzError(f"version {options.version} cannot be written", remedy="use 2, 3 or 4")
    if options.level not in codec.LEVELS:
        raise NdzError(f"compression level {options.level} is not between 0 and 9")
    if options.version < 4 and (options.checksum or any(options.uuid)):
        raise NdzError(f"a UUID or checksum has no place in version {options.version}", remedy="use 4")
    source = plan.source
    short = source.tail if plan.data[-1][1] == source.sectors else 0
    packer = _Packer(options, emit, 2 if short else 0, record)
    done = 0
    for piece in _deflated(source, plan.data, options):
        packer.add(piece)
        done += len(piece.data)
        if progress is not None:
            progress(done)
    relocations = [Relocation(RELOC_SHORT_SECTOR, source.sectors - 1, 0, short)] if short else []
    packer.close(plan.end, relocations)
    return Written(packer.number, done)


def tell_total(fd: int, start: int, chunks: int, *, checksum: bool) -> bool:
    """Let every chunk of the image at byte ``start`` of a file say how many there are.

    A reader then notices that the last ones are missing. In all or in none: the programs of the field take
    one that says something else than the first for damaged. A ``checksum`` covers that field too and is made
    again, which takes reading: returns false, and changes nothing, for a file that cannot be read. Raises
    :class:`NdzError` or :class:`OSError`.
    """
    if checksum and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        return False
    for at in range(start, start + chunks * CHUNK_SIZE, CHUNK_SIZE):
        if checksum:
            chunk = os.pread(fd, CHUNK_SIZE, at)
            if len(chunk) < CHUNK_SIZE:
                raise NdzError(f"ends at byte {at + len(chunk)}: it changed while it was written")
            offset, data = 0, with_total(chunk, chunks)[:INDEX_SIZE]
        else:
            offset, data = TOTAL_AT, chunks.to_bytes(TOTAL_SIZE, "little")
        if os.pwrite(fd, data, at + offset) != len(data):
            raise NdzError("takes no more data")
    return True


def _deflated(source: Source, data: list[Range], options: Options) -> Iterator[_Piece]:
    """Yield the pieces of the input in order, deflated by a pool of threads."""
    threads = options.threads or os.cpu_count() or 1
    pending: deque[Future[list[_Piece]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="deflate")
    try:
        for batch in _batches(source, data):
            pending.append(pool.submit(_deflate_batch, batch, options.level))
            if len(pending) > 2 * threads + 2:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(source: Source, data: list[Range]) -> Iterator[list[_Piece]]:
    """Yield pieces not yet deflated, about 1 MiB at a time."""
    batch: list[_Piece] = []
    size = 0
    before: Buffer = b""
    for start, end in data:
        at = start
        while at < end:
            read = memoryview(source.read(at * SECTOR, min(_BATCH - size, (end - at) * SECTOR)))
            for low in range(0, len(read), PIECE):
                piece = read[low : low + PIECE]
                batch.append(_Piece(at + low // SECTOR, piece, before, b"", 0))
                before = _window(before, piece)
            at += len(read) // SECTOR
            size += len(read)
            if size >= _BATCH:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _deflate_batch(batch: list[_Piece], level: int) -> list[_Piece]:
    stream = codec.Deflater(level, before=batch[0].before)
    # The check sum here as well: what was just deflated is still in this processor's cache.
    return [
        piece._replace(
            packed=_worthy(stream.deflate(piece.data), piece.data), adler=codec.adler32(piece.data)
        )
        for piece in batch
    ]
