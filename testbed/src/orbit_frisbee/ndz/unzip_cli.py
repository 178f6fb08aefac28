# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""imageunzip: write an image to a disk, a partition or a file."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedReader

from orbit_frisbee.ndz import command, gpt, relocate
from orbit_frisbee.ndz.disk import read_table
from orbit_frisbee.ndz.format import (
    CHUNK_SIZE,
    INDEX_SIZE,
    MAX_SECTORS,
    RELOC_SHORT_SECTOR,
    SECTOR,
    Buffer,
    ChunkIndex,
    NdzError,
    Tiling,
    parse_index,
    version_of,
)
from orbit_frisbee.ndz.source import NotUnderstood, Source
from orbit_frisbee.ndz.unpack import FILE_VARIABLE, HEAD_SECTORS, Target, contents, oddities

PROGRAM = "imageunzip"
_TORN = "the image is not complete, or something follows it: fetch it again"

Chunk = tuple[memoryview, ChunkIndex]


def _parser() -> command.Parser:
    parser = command.Parser(
        prog=PROGRAM,
        description="Write an image to a disk, a partition or a file. A regular file is replaced when all is "
        f"written; with -s or {FILE_VARIABLE}=1 an existing one is a disk and is written in place.",
    )
    parser.add_argument(
        "-s", type=command.number, metavar="N", dest="slice", help="write into partition N of the disk"
    )
    fill = parser.add_mutually_exclusive_group()
    fill.add_argument("-z", action="store_true", dest="zero", help="zero what is free in the image")
    fill.add_argument(
        "-p",
        type=command.number,
        metavar="PATTERN",
        dest="pattern",
        help="fill what is free in the image with a 32-bit pattern",
    )
    parser.add_argument("-o", action="store_true", dest="dots", help="print a dot for each chunk")
    parser.add_argument("-n", action="store_true", dest="single", help="one thread does it all")
    parser.add_argument(
        "-W",
        type=command.number,
        metavar="MB",
        default=16,
        dest="buffer",
        help="most MiB of the image held in memory at a time (default %(default)s)",
    )
    parser.add_argument("-d", action="store_true", dest="debug", help="print a line for each chunk")
    parser.add_argument("image", help="image; - for the standard input")
    parser.add_argument("target", help="disk or file to write to; - for the standard output")
    return parser


class _Image:
    """An image that is read once, in order; what can be checked before is checked at once.

    Of an image in a file every index is checked, of one that comes through a pipe the first. ``end`` is
    the size in bytes of what the image was made from and ``data_end`` the first sector behind its data;
    both are None as long as only the last chunk can tell. A chunk is memory to be given back by
    :meth:`release`: fresh memory for each would cost more than reading into it.
    """

    def __init__(self, file: BufferedReader, name: str) -> None:
        self._file, self.name = file, name
        self.end: int | None = None
        self.data_end: int | None = None
        self._count: int | None = None
        self._held: list[Chunk] = []
        self._spare: list[memoryview] = []
        if file.seekable():
            self._scan()
        else:
            first = self._read(0)
            self._held.append((first, self._parse(first, 0)))

    def release(self, chunk: memoryview) -> None:
        """Take a chunk's memory back."""
        self._spare.append(chunk)

    def _parse(self, chunk: Buffer, number: int) -> ChunkIndex:
        return parse_index(chunk, number, name=self.name, chunks=self._count)

    def _read(self, number: int) -> memoryview:
        """Read the next chunk; nothing at the end."""
        memory = self._spare.pop() if self._spare else memoryview(bytearray(CHUNK_SIZE))
        chunk = memory[: self._file.readinto(memory)]
        if number == 0 and version_of(chunk) is None:
            problem = "is no image" if chunk else "is empty"
            raise NdzError(problem, name=self.name, remedy="give an image made by imagezip")
        if 0 < len(chunk) < CHUNK_SIZE:
            raise NdzError(f"ends after {len(chunk)} bytes", name=self.name, chunk=number, remedy=_TORN)
        return chunk

    def _scan(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        self.release(self._read(0))
        if size % CHUNK_SIZE:
            rest, number = size % CHUNK_SIZE, size // CHUNK_SIZE
            raise NdzError(f"only {rest} bytes are there", name=self.name, chunk=number, remedy=_TORN)
        self._count = size // CHUNK_SIZE
        tiling = Tiling(name=self.name)
        for number in range(self._count):
            self._file.seek(number * CHUNK_SIZE)
            index = self._parse(self._file.read(INDEX_SIZE), number)
            tiling.add(index)
        self.end, self.data_end = _end(index), index.regions[-1].end
        self._file.seek(0)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks, validated; raises :class:`NdzError` for a missing end, too."""
        tiling = Tiling(name=self.name)
        number = 0
        while True:
            if self._held:
                chunk, index = self._held.pop()
            else:
                chunk = self._read(number)
                if not chunk:
                    break
                index = self._parse(chunk, number)
            tiling.add(index)
            self.end, self.data_end = _end(index), index.regions[-1].end
            yield chunk, index
            number += 1
        wanted = self._count or tiling.total or number
        if number != wanted:
            raise NdzError(f"has {number} chunks of {wanted}", name=self.name, remedy=_TORN)


def _end(last: ChunkIndex) -> int:
    """Return the size in bytes of what an image was made from, by its last chunk."""
    for relocation in last.relocations:
        if relocation.type == RELOC_SHORT_SECTOR and relocation.sector == last.after - 1:
            return relocation.sector * SECTOR + relocation.length
    return last.after * SECTOR


class _Stream:
    """An output that cannot seek: takes chunks in order and zeros (or the pattern) for all that is free.

    After the last one, :meth:`finish`.
    """

    def __init__(self, fd: int, pattern: int | None) -> None:
        self._fd = fd
        self._fill = (pattern or 0).to_bytes(4, "little") * (CHUNK_SIZE // 4)
        self._at = self._after = 0
        self._head = bytearray()
        self._said: set[str] = set()
        self.bytes_covered = self.bytes_written = 0

    def write_chunk(self, chunk: Buffer, index: ChunkIndex) -> None:
        """Write a chunk behind the one before."""
        relocate.check(index.relocations, 0)
        for text in oddities(index):
            if text not in self._said:
                self._said.add(text)
                command.say(PROGRAM, f"warning: {text}")
        for sector, piece in contents(chunk, index):
            self._fill_to(sector)
            self._put(piece)
        self._after = index.after

    def finish(self) -> None:
        """Write what is free behind the last chunk's data, and the copy of a GPT that an image leaves out."""
        if self._at % SECTOR == 0:
            end = self._after * SECTOR
            remade = gpt.remake(self._now, end, "standard output")
            if remade is not None and self._at <= remade.at:
                if remade.start == self._head[: len(remade.start)]:
                    self._fill_to(remade.at // SECTOR)
                    self._put(remade.backup)
                else:
                    text = "the partition table is for another size of disk, and without its copy"
                    command.say(PROGRAM, f"warning: {text}")
            self._fill_to(self._after)
        self.bytes_covered = self.bytes_written = self._at

    def _now(self, at: int, size: int) -> bytes:
        """Return what was written at a byte of the head; of the rest, which is not kept, zeros."""
        return bytes(self._head[at : at + size]).ljust(size, b"\0")

    def _put(self, data: Buffer) -> None:
        if len(self._head) < HEAD_SECTORS * SECTOR:
            self._head += memoryview(data)[: HEAD_SECTORS * SECTOR - len(self._head)]
        command.write_all(self._fd, data)
        self._at += len(data)

    def _fill_to(self, sector: int) -> None:
        while (gap := sector * SECTOR - self._at) > 0:
            self._put(memoryview(self._fill)[:gap])


def _in_order(image: _Image, write: Callable[[Buffer, ChunkIndex], None]) -> Iterator[ChunkIndex]:
    for chunk, index in image.chunks():
        write(chunk, index)
        image.release(chunk)
        yield index


def _in_threads(
    image: _Image, write: Callable[[Buffer, ChunkIndex], None], limit: int
) -> Iterator[ChunkIndex]:
    """Write chunks by a few threads, at most ``limit`` chunks in memory; yield each when it is written."""
    pending: deque[tuple[Future[None], memoryview, ChunkIndex]] = deque()
    pool = ThreadPoolExecutor(min(4, (os.cpu_count() or 1) + 1), thread_name_prefix="write")
    try:
        for chunk, index in image.chunks():
            pending.append((pool.submit(write, chunk, index), chunk, index))
            if len(pending) >= limit:
                future, done, written = pending.popleft()
                future.result()
                image.release(done)
                yield written
        for future, _, written in pending:
            future.result()
            yield written
    finally:
        pool.shutdown(cancel_futures=True)


def _write(image: _Image, target: Target | _Stream, args: argparse.Namespace) -> None:
    if args.single or args.buffer < 2 or isinstance(target, _Stream):
        done = _in_order(image, target.write_chunk)
    else:
        done = _in_threads(image, target.write_chunk, args.buffer)
    for index in done:
        if args.debug:
            command.say(
                PROGRAM,
                f"chunk {index.number}: {index.length} bytes, sectors {index.first} to {index.after - 1}, "
                f"{index.sectors} with data",
            )
        elif args.dots:
            print(".", end="", file=sys.stderr, flush=True)
    if args.dots:
        print(file=sys.stderr)


def _open_target(path: str, image: _Image, args: argparse.Namespace, *, fresh: bool = False) -> Target:
    base, limit = 0, None
    if args.slice is not None:
        with Source.open(path) as source:
            try:
                partition = read_table(source).partition(args.slice)
            except NotUnderstood as reason:
                raise NdzError(str(reason), name=path, remedy="name a partition that is there") from None
        base, limit = partition.start, partition.sectors
    target = Target.open(
        path,
        allow_file=True,
        base_sector=base,
        limit_sectors=limit,
        zero_free=args.zero,
        pattern=args.pattern,
        fresh=fresh,
        warn=lambda text: command.say(PROGRAM, f"warning: {text}"),
    )
    if image.data_end is not None and image.data_end * SECTOR > target.size:
        target.close(sync=False)
        raise NdzError(
            f"the image has data up to sector {image.data_end}, the target ends at {target.size // SECTOR}",
            name=path,
            remedy="use a larger disk or partition",
        )
    return target


def _to_disk(image: _Image, args: argparse.Namespace) -> Target:
    with _open_target(args.target, image, args) as target:
        _write(image, target, args)
    return target


def _to_new_file(image: _Image, args: argparse.Namespace) -> Target:
    folder = os.path.realpath(os.path.dirname(args.target) or ".")
    if (folder == "/dev" or folder.startswith("/dev/")) and not folder.startswith("/dev/shm"):
        raise NdzError("no such disk", name=args.target, remedy="name an existing disk, or a file elsewhere")
    with command.NewFile(args.target) as file:
        # Through a pipe, the size is known at the end.
        sectors = MAX_SECTORS if image.end is None else -(-image.end // SECTOR)
        os.ftruncate(file.fd, sectors * SECTOR)
        with _open_target(file.path, image, args, fresh=True) as target:
            _write(image, target, args)
            assert image.end is not None
            target.cut(-(-image.end // SECTOR))
        os.ftruncate(file.fd, image.end)
    return target


def _to_stream(image: _Image, fd: int, args: argparse.Namespace) -> _Stream:
    stream = _Stream(fd, args.pattern)
    _write(image, stream, args)
    stream.finish()
    return stream


def _to_path(image: _Image, args: argparse.Namespace) -> Target | _Stream:
    try:
        mode = os.stat(args.target).st_mode
    except FileNotFoundError:
        if args.slice is not None:
            raise
        return _to_new_file(image, args)
    if stat.S_ISBLK(mode):
        return _to_disk(image, args)
    if stat.S_ISREG(mode):
        if args.image != "-" and os.path.samefile(args.image, args.target):
            raise NdzError("is the image", name=args.target, remedy="name another target")
        if args.slice is not None or os.environ.get(FILE_VARIABLE) == "1":
            return _to_disk(image, args)
        return _to_new_file(image, args)
    with command.NewFile(args.target) as file:
        return _to_stream(image, file.fd, args)


def _work(args: argparse.Namespace) -> int:
    name = "standard input" if args.image == "-" else args.image
    with open(0 if args.image == "-" else args.image, "rb", closefd=args.image != "-") as file:
        image = _Image(file, name)
        if args.target == "-":
            done: Target | _Stream = _to_stream(image, sys.stdout.fileno(), args)
        else:
            done = _to_path(image, args)
    print(f"Wrote {done.bytes_covered} bytes ({done.bytes_written} actual)", file=sys.stderr)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run imageunzip; returns 0, or 1 after one line on the standard error."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.pattern is not None and args.pattern >> 32:
        parser.error("the pattern of -p has more than 32 bits")
    if args.target == "-" and args.slice is not None:
        parser.error("-s needs a disk to write to")
    return command.run(PROGRAM, lambda: _work(args))


if __name__ == "__main__":
    sys.exit(main())
