# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""imagedump: say what is in an image."""

from __future__ import annotations

import argparse
import os
import sys
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial

from orbit_frisbee.ndz import codec, command
from orbit_frisbee.ndz.format import (
    CHECKSUM_SHA1,
    CHECKSUM_SIGNED,
    CHUNK_SIZE,
    INDEX_SIZE,
    SECTOR,
    ChunkIndex,
    NdzError,
    Region,
    Tiling,
    parse_index,
    version_of,
)

PROGRAM = "imagedump"
_SIZES_KB = (8, 16, 32, 64, 128, 256)


def _parser() -> command.Parser:
    parser = command.Parser(
        prog=PROGRAM, description="Say what is in images. The exit status is the number of bad ones."
    )
    parser.add_argument(
        "-d", action="count", default=0, dest="detail", help="a line per chunk; -dd: per region, too"
    )
    parser.add_argument("-m", action="store_true", dest="map", help="a map of allocated and free ranges")
    parser.add_argument("-i", action="store_true", dest="any_number", help="ignore the chunks' numbers")
    parser.add_argument("-q", action="store_true", dest="quick", help="only tell whether it is an image")
    parser.add_argument(
        "-c", action="store_true", dest="verify", help="inflate all data and verify checksums, too"
    )
    parser.add_argument("images", nargs="+", metavar="image", help="image; - for the standard input")
    return parser


class _Runs:
    """Statistics of a kind of range; ranges that touch across chunks count as one."""

    def __init__(self) -> None:
        self.runs: list[Region] = []

    def add(self, region: Region) -> None:
        if self.runs and self.runs[-1].end == region.start:
            last = self.runs.pop()
            region = Region(last.start, last.count + region.count)
        self.runs.append(region)

    @property
    def size(self) -> int:
        """Sum in bytes."""
        return sum(run.count for run in self.runs) * SECTOR

    def lines(self, title: str) -> list[str]:
        counts = [run.count * SECTOR for run in self.runs]
        if not counts:
            return [f"  {title}: none"]
        bins = [0] * (len(_SIZES_KB) + 1)
        for count in counts:
            bins[bisect_right(_SIZES_KB, count / 1024)] += 1
        names = [f"<{size}k" for size in _SIZES_KB] + [f">={_SIZES_KB[-1]}k"]
        histogram = ", ".join(f"{name} {count}" for name, count in zip(names, bins, strict=True))
        return [
            f"  {title}: {len(counts)} ranges, {sum(counts)} bytes, "
            f"average {sum(counts) // len(counts)}, smallest {min(counts)}, largest {max(counts)}",
            f"    by size: {histogram}",
        ]


def _protection(index: ChunkIndex) -> str:
    text = ""
    if index.signed:
        text += f", signed csum (0x{CHECKSUM_SHA1 | CHECKSUM_SIGNED:04x})"
    elif index.digest is not None:
        text += f", SHA-1 csum (0x{CHECKSUM_SHA1:04x})"
    if index.uuid is not None and any(index.uuid):
        digits = index.uuid.hex()
        text += f", UUID {digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    return text


def _dump(path: str, args: argparse.Namespace) -> int:
    """Print about one image; return the number of things found wrong."""
    name = "standard input" if path == "-" else path
    wrong = 0

    def warn(text: str) -> None:
        nonlocal wrong
        wrong += 1
        sys.stdout.flush()
        command.say(PROGRAM, text)

    indexes: list[ChunkIndex] = []
    tiling = Tiling(name=name)
    size = packed = 0
    with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
        whole = args.verify or not file.seekable()
        while head := file.read(CHUNK_SIZE if whole else INDEX_SIZE):
            number = size // CHUNK_SIZE
            if number == 0 and version_of(head) is None:
                raise NdzError("is no image", name=name, remedy="give an image made by imagezip")
            if args.quick:
                print(f"{name}: image, version {version_of(head)}")
                return 0
            have = len(head) if whole else min(os.fstat(file.fileno()).st_size - size, CHUNK_SIZE)
            size += have
            if have < CHUNK_SIZE:
                warn(f"{name}: chunk {number}: only {have} bytes are there")
                break
            if not whole:
                file.seek(size)
            try:
                index = parse_index(head, None if args.any_number else number, name=name)
                indexes.append(index)
                packed += index.length
                if not args.any_number:
                    tiling.add(index)
                if args.verify:
                    _verify(head, index, name)
            except NdzError as error:
                warn(str(error))
        if not size:
            raise NdzError("is empty", name=name, remedy="give an image made by imagezip")
    if not indexes:
        return wrong
    for line in _report(name, size, packed, indexes, args):
        print(line)
    if indexes[0].total not in (0, size // CHUNK_SIZE):
        warn(f"{name}: has {size // CHUNK_SIZE} of {indexes[0].total} chunks")
    return wrong


def _verify(chunk: bytes, index: ChunkIndex, name: str) -> None:
    stream = codec.Inflater(
        memoryview(chunk)[INDEX_SIZE : INDEX_SIZE + index.length], name=name, chunk=index.number
    )
    rest = index.sectors * SECTOR
    while rest:
        rest -= len(stream.read(min(rest, 4 << 20)))
    stream.finish()


def _report(
    name: str, size: int, packed: int, indexes: list[ChunkIndex], args: argparse.Namespace
) -> list[str]:
    chunks = size // CHUNK_SIZE
    lines = [f"{name}: {size} bytes, {chunks} chunks, version {indexes[0].version}{_protection(indexes[0])}"]
    allocated, free = _Runs(), _Runs()
    end = 0
    for index in indexes:
        if args.detail:
            lines.append(
                f"  Chunk {index.number}: {index.length} compressed bytes, "
                f"sector range [{index.first}-{index.after - 1}], "
                f"{len(index.relocations)} relocs, {len(index.regions)} regions"
            )
        if index.version == 1 and index.first > end:
            free.add(Region(end, index.first - end))
        end = index.after
        for region in index.free():
            free.add(region)
        for region in index.regions:
            allocated.add(region)
            if args.detail > 1:
                lines.append(f"    Region: start {region.start}, {region.count} sectors")
        if args.detail > 1:
            lines += [
                f"    Reloc: type {kind}, sector {sector}, offset {offset}, {length} bytes"
                for kind, sector, offset, length in index.relocations
            ]
    covered = allocated.size + free.size
    overhead = size - packed
    lines += [
        f"  {overhead} bytes of overhead ({100 * overhead / size:.1f}%)",
        f"  {packed} bytes of compressed data",
        f"  {allocated.size / packed:.2f}x compression of allocated data ({allocated.size} bytes)",
        f"  {covered / packed:.2f}x compression of total covered size ({covered} bytes)",
        *free.lines("free"),
        *allocated.lines("allocated"),
    ]
    if args.map:
        runs = [("A", run) for run in allocated.runs] + [("F", run) for run in free.runs]
        lines += [
            f"{kind}: {run.start:08x} - {run.end - 1:08x}"
            for kind, run in sorted(runs, key=lambda item: item[1].start)
        ]
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run imagedump; returns the number of bad images, at most 255."""
    args = _parser().parse_args(argv)
    # One bad image does not keep the others from being looked at.
    bad = sum(command.run(PROGRAM, partial(_dump, path, args)) != 0 for path in args.images)
    return min(bad, 255)


if __name__ == "__main__":
    sys.exit(main())
