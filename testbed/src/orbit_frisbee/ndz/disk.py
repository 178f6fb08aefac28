# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partition tables: MBR with logical partitions, and GPT."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from orbit_frisbee.ndz.format import SECTOR
from orbit_frisbee.ndz.ranges import Range, union
from orbit_frisbee.ndz.source import NotUnderstood, Source

_MBR_ENTRY = struct.Struct("<B3xB3xII")
_MBR_ENTRIES_AT = 446
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_LOGICAL_LIMIT = 256
_TRACK = 63
"""Sectors kept at each extended boot record: up to one track of boot code."""

_GPT_SIGNATURE = b"EFI PART"
_GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY_LIMIT = 1 << 20

_GAP_LIMIT = (64 << 20) // SECTOR
"""Most sectors kept before the first partition; a boot loader there needs a few hundred."""

_MBR_KINDS = {
    0x82: "swap",
    0x83: "ext",
    **dict.fromkeys((0x01, 0x04, 0x06, 0x0B, 0x0C, 0x0E, 0xEF), "fat"),
}
_GPT_KINDS = {
    "0fc63daf-8483-4772-8e79-3d69d8477de4": "ext",  # Linux data
    "44479540-f297-41b2-9af7-d131d5f0458a": "ext",  # Linux root, x86
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "ext",  # Linux root, x86-64
    "b921b045-1df0-41c3-af44-4c6f280d3fae": "ext",  # Linux root, ARM 64
    "933ac7e1-2eb4-4f13-b844-0e14e2aef915": "ext",  # Linux home
    "bc13c2ff-59e6-4262-a352-b275fd6f7172": "ext",  # extended boot loader partition
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "swap",
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "fat",  # EFI system
}


class Partition(NamedTuple):
    """A partition: Linux number, first sector, sectors, type as in the table, what to look for in it."""

    number: int
    start: int
    sectors: int
    type: str
    kind: str | None

    @property
    def end(self) -> int:
        """First sector behind the partition."""
        return self.start + self.sectors


class Table(NamedTuple):
    """A partition table; ``keep`` are the sectors of the table itself and of boot loaders outside
    partitions, ``warnings`` what is odd about it."""

    scheme: str
    partitions: list[Partition]
    keep: list[Range]
    warnings: list[str]

    def partition(self, number: int) -> Partition:
        """Return the partition of that number; raises NotUnderstood when there is none."""
        for partition in self.partitions:
            if partition.number == number:
                return partition
        there = ", ".join(str(partition.number) for partition in self.partitions)
        raise NotUnderstood(f"it has no partition {number} but {there}")


def read_table(source: Source) -> Table:
    """Read the partition table of a disk.

    Raises NotUnderstood when there is none, or when it is damaged or contradicts itself.
    """
    boot = source.read(0, SECTOR) if source.sectors else b""
    if boot[510:] != b"\x55\xaa":
        raise NotUnderstood("it has no partition table")
    entries = list(_mbr_entries(boot))
    if any(kind == _PROTECTIVE for kind, _, _ in entries):
        table = _read_gpt(source)
    elif source.unit != SECTOR:
        raise NotUnderstood(f"its MBR counts in blocks of {source.unit} bytes")
    else:
        table = _read_mbr(source, entries)
    if not table.partitions:
        raise NotUnderstood("its partition table is empty")
    before: Partition | None = None
    for partition in sorted(table.partitions, key=lambda item: item.start):
        if partition.end > source.sectors:
            raise NotUnderstood(
                f"partition {partition.number} ends at sector {partition.end}, the disk at {source.sectors}"
            )
        if before is not None and partition.start < before.end:
            raise NotUnderstood(f"partitions {before.number} and {partition.number} overlap")
        before = partition
    first = min(partition.start for partition in table.partitions)
    table.keep.append((0, min(first, _GAP_LIMIT)))
    if first > _GAP_LIMIT:
        table.warnings.append(
            f"only the first {_GAP_LIMIT} of {first} sectors before the first partition are kept"
        )
    return table._replace(keep=union(table.keep))


def _mbr_entries(sector: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (type, first sector, sectors) of the four entries; type 0 means unused."""
    for i in range(4):
        flag, kind, start, count = _MBR_ENTRY.unpack_from(sector, _MBR_ENTRIES_AT + 16 * i)
        if flag not in (0, 0x80):
            raise NotUnderstood("its partition table makes no sense")
        yield (kind, start, count) if count else (0, 0, 0)


def _mbr_partition(number: int, kind: int, start: int, count: int) -> Partition:
    if not start:
        raise NotUnderstood(f"partition {number} begins at sector 0")
    return Partition(number, start, count, f"0x{kind:02x}", _MBR_KINDS.get(kind))


def _read_mbr(source: Source, entries: list[tuple[int, int, int]]) -> Table:
    table = Table("MBR", [], [], [])
    logical = 5
    for i, (kind, start, count) in enumerate(entries):
        if kind in _EXTENDED:
            for partition, record in _logical(source, start, count, logical):
                table.keep.append(record)
                if partition is not None:
                    table.partitions.append(partition)
                    logical += 1
        elif kind:
            table.partitions.append(_mbr_partition(i + 1, kind, start, count))
    return table


def _logical(source: Source, base: int, size: int, number: int) -> Iterator[tuple[Partition | None, Range]]:
    """Yield logical partitions, each with the sectors to keep of its boot record."""
    at, seen = base, set[int]()
    while True:
        if at in seen or len(seen) >= _LOGICAL_LIMIT or not base <= at < min(base + size, source.sectors):
            raise NotUnderstood("the chain of its logical partitions is broken")
        seen.add(at)
        sector = source.read(at * SECTOR, SECTOR)
        if sector[510:] != b"\x55\xaa":
            raise NotUnderstood(f"the extended boot record at sector {at} is damaged")
        following, found = None, None
        for kind, start, count in _mbr_entries(sector):
            if kind in _EXTENDED:
                following = following or base + start
            elif kind and found is None:
                found = _mbr_partition(number, kind, at + start, count)
                if not found.end <= base + size:
                    raise NotUnderstood(f"partition {number} leaves its extended partition")
                number += 1
        stop = min(at + _TRACK, found.start if found else at + 1)
        yield found, (at, max(stop, at + 1))
        if following is None:
            return
        at = following


def _read_gpt(source: Source) -> Table:
    for unit in (512, 4096):
        if source.sectors * SECTOR >= 2 * unit and source.read(unit, 8) == _GPT_SIGNATURE:
            break
    else:
        raise NotUnderstood("it has a protective MBR but no GPT")
    factor = unit // SECTOR
    header, entries, entry_size = _gpt_copy(source, 1, unit)
    table = Table("GPT", [], [], [])
    for i in range(0, len(entries), entry_size):
        kind = entries[i : i + 16]
        if kind == bytes(16):
            continue
        first, last = struct.unpack_from("<QQ", entries, i + 32)
        number = i // entry_size + 1
        if last < first or not first:
            raise NotUnderstood(f"partition {number} makes no sense")
        name = _guid(kind)
        table.partitions.append(
            Partition(number, first * factor, (last - first + 1) * factor, name, _GPT_KINDS.get(name))
        )
    table.keep.append((0, (header[10] + -(-len(entries) // unit)) * factor))
    backup = header[6]
    try:
        copy, copied, _ = _gpt_copy(source, backup, unit)
        table.keep.append((copy[10] * factor, (copy[10] + -(-len(copied) // unit)) * factor))
        table.keep.append((backup * factor, (backup + 1) * factor))
    except NotUnderstood as reason:
        table.warnings.append(f"the backup of the partition table cannot be used: {reason}")
        table.keep.append((max(0, source.sectors - 33 * factor), source.sectors))
    return table


def _gpt_copy(source: Source, at: int, unit: int) -> tuple[tuple[int, ...], bytes, int]:
    """Return (header fields, entries, size of an entry) of the table whose header is at a logical block."""
    size = source.sectors * SECTOR
    if (at + 1) * unit > size:
        raise NotUnderstood("its header is outside the disk")
    raw = source.read(at * unit, unit)
    header = _GPT_HEADER.unpack_from(raw)
    signature, _, header_size, checksum, _, own = header[:6]
    if signature != _GPT_SIGNATURE or own != at or not 92 <= header_size <= unit:
        raise NotUnderstood("its header is damaged")
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:header_size]) != checksum:
        raise NotUnderstood("the checksum of its header is wrong")
    entries_at, count, entry_size, entries_checksum = header[10:14]
    length = count * entry_size
    if entry_size < 128 or length > _GPT_ENTRY_LIMIT or entries_at * unit + length > size:
        raise NotUnderstood("the place of its entries makes no sense")
    entries = source.read(entries_at * unit, length)
    if zlib.crc32(entries) != entries_checksum:
        raise NotUnderstood("the checksum of its entries is wrong")
    return header, entries, entry_size


def _guid(raw: bytes) -> str:
    a, b, c = struct.unpack_from("<IHH", raw)
    return f"{a:08x}-{b:04x}-{c:04x}-{raw[8:10].hex()}-{raw[10:].hex()}"
