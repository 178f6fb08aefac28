# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Helpers: an image reader and builders of disks that share no code with the package."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

SECTOR = 512
CHUNK = 1 << 20
MAGIC = {1: 0x69696969, 2: 0x6969696A, 3: 0x6969696B, 4: 0x6969696C}
REGIONS_AT = {1: 24, 2: 36, 3: 36, 4: 344}


def make_chunk(
    version: int,
    regions: Sequence[tuple[int, int]],
    data: bytes,
    *,
    number: int = 0,
    total: int = 0,
    first: int = 0,
    after: int | None = None,
    relocations: Sequence[tuple[int, int, int, int]] = (),
    cipher: int = 0,
    checksum: int = 0,
    packed: bytes | None = None,
    garbage: bytes = b"",
) -> bytearray:
    """Build a chunk from the description of the format alone, garbage in all undefined places."""
    packed = zlib.compress(data, 4) if packed is None else packed
    after = regions[-1][0] + regions[-1][1] if after is None else after
    index = struct.pack("<IIiiii", MAGIC[version], len(packed), number, total, 4096, len(regions))
    if version > 1:
        index += struct.pack("<IIi", first, after, len(relocations))
    if version == 4:
        index += struct.pack("<HH", cipher, checksum) + bytes(32 + 256 + 16)
    assert len(index) == REGIONS_AT[version]
    index += b"".join(struct.pack("<II", *region) for region in regions)
    index += b"".join(struct.pack("<IIII", *relocation) for relocation in relocations)
    index += (garbage * 4096)[: 4096 - len(index)] if garbage else bytes(4096 - len(index))
    chunk = bytearray(index + packed)
    chunk += (garbage * CHUNK)[: CHUNK - len(chunk)] if garbage else bytes(CHUNK - len(chunk))
    return chunk


def read_image(image: bytes) -> tuple[list[tuple[int, bytes]], int, list[list[tuple[int, int]]]]:
    """Return (first sector and data of each region, end, regions per chunk) of an image of version 2 to 4.

    Checks on the way all that the format asks for.
    """
    stored: list[tuple[int, bytes]] = []
    at = 0
    layout = []
    assert image
    assert len(image) % CHUNK == 0
    for number in range(len(image) // CHUNK):
        chunk = image[number * CHUNK : (number + 1) * CHUNK]
        magic, length, own, total, size, count = struct.unpack_from("<IIiiii", chunk)
        first, after, relocation_count = struct.unpack_from("<IIi", chunk, 24)
        version = magic - 0x69696968
        # In a file, each chunk says how many there are: the programs of the field want all or none to.
        assert total in (0, len(image) // CHUNK)
        assert total == struct.unpack_from("<i", image, 12)[0]
        assert (own, size, first) == (number, 4096, at)
        begin = REGIONS_AT[version]
        assert count + 2 * relocation_count <= (469 if version == 4 else 507)
        regions = list(struct.iter_unpack("<II", chunk[begin : begin + 8 * count]))
        assert not any(chunk[begin + 8 * count + 16 * relocation_count : 4096]), "index padding"
        assert not any(chunk[4096 + length :]), "padding"
        stream = zlib.decompressobj()
        data = stream.decompress(chunk[4096 : 4096 + length])
        assert stream.eof
        assert not stream.unused_data
        offset = 0
        for start, sectors_here in regions:
            assert sectors_here > 0
            assert start >= at
            at = start + sectors_here
            stored.append((start, data[offset : offset + sectors_here * SECTOR]))
            offset += sectors_here * SECTOR
        assert offset == len(data)
        assert after >= at
        at = after
        layout.append(regions)
    return stored, at, layout


def through_a_pipe(image: bytes) -> bytes:
    """Return an image as it is when its chunks cannot be changed in the end (versions 2 and 3)."""
    changed = bytearray(image)
    for at in range(0, len(image), CHUNK):
        changed[at + 12 : at + 16] = bytes(4)
    return bytes(changed)


def assert_same_where_stored(image: bytes, disk: bytes) -> list[tuple[int, int]]:
    """Check that an image covers a disk and agrees with it wherever it has data; return the sector ranges
    it has data for."""
    stored, end, _ = read_image(image)
    assert end == -(-len(disk) // SECTOR)
    disk += bytes(-len(disk) % SECTOR)
    ranges: list[tuple[int, int]] = []
    for start, data in stored:
        assert data == disk[start * SECTOR : start * SECTOR + len(data)], f"region at sector {start}"
        stop = start + len(data) // SECTOR
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], stop)
        else:
            ranges.append((start, stop))
    return ranges


def tool(name: str) -> str | None:
    """Path of a system program, also of those that only root has on the search path."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def run(*command: str | Path, stdin: str | None = None) -> str:
    """Run a program that must succeed and return its output."""
    name = tool(str(command[0]))
    assert name is not None, f"{command[0]} is not installed"
    done = subprocess.run(
        [name, *map(str, command[1:])], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def fill(path: Path, size: int) -> None:
    """Make a file full of bytes that are never zero, so that whatever is left out shows."""
    pattern = bytes(range(1, 256))
    path.write_bytes((pattern * (size // len(pattern) + 1))[:size])


def put(path: Path, sector: int, data: bytes) -> None:
    """Write into an existing file."""
    with path.open("r+b") as file:
        file.seek(sector * SECTOR)
        file.write(data)


def mbr(entries: Iterable[tuple[int, int, int]], *, code: bytes = b"") -> bytes:
    """A partition table sector from (type, start, sectors)."""
    packed = b"".join(struct.pack("<B3xB3xII", 0, *entry) for entry in entries)
    return code[:446].ljust(446, b"\0") + packed.ljust(64, b"\0") + b"\x55\xaa"


LINUX_GUID = bytes.fromhex("af3dc60f838472478e793d69d8477de4")
SWAP_GUID = bytes.fromhex("6dfd5706aba4c44384e50933c84b4f4f")
EFI_GUID = bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")


def put_gpt(
    path: Path, partitions: Sequence[tuple[bytes, int, int]], *, unit: int = 512, count: int = 128
) -> None:
    """Write protective MBR, GPT and its backup; partitions are (type, first, last) in logical blocks."""
    blocks = path.stat().st_size // unit
    entries = b"".join(
        struct.pack("<16s16sQQQ72x", kind, bytes([i + 1]) * 16, first, last, 0)
        for i, (kind, first, last) in enumerate(partitions)
    ).ljust(128 * count, b"\0")
    table_blocks = -(-len(entries) // unit)

    def header(own: int, other: int, table: int) -> bytes:
        fields: list[Any] = [b"EFI PART", 0x10000, 92, 0, 0, own, other, 2 + table_blocks]
        fields += [blocks - table_blocks - 2, b"\x77" * 16, table, count, 128, zlib.crc32(entries)]
        raw = struct.pack("<8sIIIIQQQQ16sQIII", *fields)
        return raw[:16] + struct.pack("<I", zlib.crc32(raw)) + raw[20:]

    factor = unit // SECTOR
    put(path, 0, mbr([(0xEE, 1, blocks - 1)]))
    put(path, factor, header(1, blocks - 1, 2).ljust(unit, b"\0"))
    put(path, 2 * factor, entries)
    put(path, (blocks - 1 - table_blocks) * factor, entries)
    put(path, (blocks - 1) * factor, header(blocks - 1, 1, blocks - 1 - table_blocks).ljust(unit, b"\0"))


def swap_header(page: int = 4096) -> bytes:
    """The first page of a swap area."""
    return bytes(1024) + struct.pack("<II", 1, 100).ljust(page - 1024 - 10, b"\0") + b"SWAPSPACE2"
