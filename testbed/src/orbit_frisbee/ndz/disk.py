# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partition tables: MBR with logical partitions, and GPT."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from orbit_frisbee.ndz import gpt
from orbit_frisbee.ndz.format import SECTOR
from orbit_frisbee.ndz.ranges import Range, union
from orbit_frisbee.ndz.source import NotUnderstood, Source

_MBR_ENTRY = struct.Struct("<B3xB3xII")
_MBR_ENTRIES_AT = 446
_EXTENDED = (0x05, 0x0F, 0x85)
_LOGICAL_LIMIT = 256
_TRACK = 63
"""Sectors kept at each extended boot record: up to one track of boot code."""

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


_Entry = tuple[int, int, int]
"""Type, first sector and sectors of an entry of an MBR; without sectors it is unused."""


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
    if any(kind == gpt.PROTECTIVE for kind, _, _ in entries):
        table = _read_gpt(source, entries)
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


def _mbr_entries(sector: bytes) -> Iterator[_Entry]:
    """Yield the four entries.

    One that has sectors but no type is no unused one: Linux makes a partition of it.
    """
    for i in range(4):
        flag, kind, start, count = _MBR_ENTRY.unpack_from(sector, _MBR_ENTRIES_AT + 16 * i)
        if flag not in (0, 0x80):
            raise NotUnderstood("its partition table makes no sense")
        if count and not kind:
            raise NotUnderstood(f"entry {i + 1} of its partition table has sectors but no type")
        yield (kind, start, count) if count else (0, 0, 0)


def _mbr_partition(number: int, kind: int, start: int, count: int) -> Partition:
    if not start:
        raise NotUnderstood(f"partition {number} begins at sector 0")
    return Partition(number, start, count, f"0x{kind:02x}", _MBR_KINDS.get(kind))


def _read_mbr(source: Source, entries: list[_Entry]) -> Table:
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
            if (kind in _EXTENDED and following is not None) or (
                kind not in (0, *_EXTENDED) and found is not None
            ):
                raise NotUnderstood(f"the extended boot record at sector {at} has more than two entries")
            if kind in _EXTENDED:
                following = base + start
            elif kind:
                found = _mbr_partition(number, kind, at + start, count)
                if not found.end <= base + size:
                    raise NotUnderstood(f"partition {number} leaves its extended partition")
                number += 1
        stop = min(at + _TRACK, found.start if found else at + 1)
        yield found, (at, max(stop, at + 1))
        if following is None:
            return
        at = following


def _read_gpt(source: Source, entries: list[_Entry]) -> Table:
    for unit in gpt.UNITS:
        if source.sectors * SECTOR >= 2 * unit and source.read(unit, 8) == gpt.SIGNATURE:
            break
    else:
        raise NotUnderstood("it has a protective MBR but no GPT")
    factor, size = unit // SECTOR, source.sectors * SECTOR
    try:
        copy = gpt.read_copy(source.read, size, 1, unit)
    except gpt.Damaged as reason:
        raise NotUnderstood(str(reason)) from None
    table = Table("GPT", [], [], [])
    for i in range(0, len(copy.entries), copy.entry_size):
        kind = copy.entries[i : i + 16]
        if kind == bytes(16):
            continue
        first, last = struct.unpack_from("<QQ", copy.entries, i + 32)
        number = i // copy.entry_size + 1
        if last < first or not first:
            raise NotUnderstood(f"partition {number} makes no sense")
        name = _guid(kind)
        table.partitions.append(
            Partition(number, first * factor, (last - first + 1) * factor, name, _GPT_KINDS.get(name))
        )
    for type_, start, count in entries:
        if type_ != gpt.PROTECTIVE and count and not _lies_in(table, start * factor, count * factor):
            raise NotUnderstood(f"its MBR has a partition at block {start} that its GPT has not")
    table.keep.append((0, 2 * factor))
    table.keep.append((copy.fields[10] * factor, (copy.fields[10] + -(-len(copy.entries) // unit)) * factor))
    # The backup is not kept: it is made anew where an image is written, at the end of that disk.
    try:
        gpt.read_copy(source.read, size, copy.fields[6], unit)
    except gpt.Damaged as reason:
        table.warnings.append(f"the backup of the partition table cannot be used: {reason}")
    return table


def _lies_in(table: Table, start: int, count: int) -> bool:
    return any(part.start <= start and start + count <= part.end for part in table.partitions)


def _guid(raw: bytes) -> str:
    a, b, c = struct.unpack_from("<IHH", raw)
    return f"{a:08x}-{b:04x}-{c:04x}-{raw[8:10].hex()}-{raw[10:].hex()}"
