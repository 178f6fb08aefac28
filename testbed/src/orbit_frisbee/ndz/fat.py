# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""FAT12, FAT16 and FAT32: which clusters are free."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

from orbit_frisbee.ndz.format import SECTOR
from orbit_frisbee.ndz.ranges import Range, union
from orbit_frisbee.ndz.source import NotThisKind, NotUnderstood, Source

_BPB = struct.Struct("<HBHBHHBHHHII")
_BAD_CLUSTER = {12: 0xFF7, 16: 0xFFF7, 32: 0x0FFFFFF7}
_CLEAN = {16: 0xC000, 32: 0x0C000000}
"""Flags in the second entry: shut down cleanly, no read errors."""


def free_ranges(source: Source) -> list[Range]:
    """Return the free sectors of a FAT file system; raises NotUnderstood for what is none, dirty or odd."""
    boot = source.read(0, SECTOR)
    (
        sector_size,
        per_cluster,
        reserved,
        fats,
        root_entries,
        sectors16,
        media,
        fat_size16,
        _,
        _,
        _,
        sectors32,
    ) = _BPB.unpack_from(boot, 11)
    if boot[510:] != b"\x55\xaa" or boot[0] not in (0xEB, 0xE9):
        raise NotThisKind("it has no boot sector")
    if sector_size not in (512, 1024, 2048, 4096):
        raise NotUnderstood(f"its sectors have {sector_size} bytes")
    if not per_cluster or per_cluster & (per_cluster - 1):
        raise NotUnderstood(f"its clusters have {per_cluster} sectors")
    if not reserved or fats not in (1, 2) or media not in (0xF0, *range(0xF8, 0x100)):
        raise NotThisKind("its boot sector is not that of a FAT file system")
    total = sectors16 or sectors32
    fat_size = fat_size16 or int.from_bytes(boot[36:40], "little")
    root_sectors = -(-root_entries * 32 // sector_size)
    data_start = reserved + fats * fat_size + root_sectors
    clusters = (total - data_start) // per_cluster
    if clusters <= 0 or not fat_size:
        raise NotUnderstood("its boot sector leaves no room for data")
    if total * sector_size > source.sectors * SECTOR:
        raise NotUnderstood("it is larger than its partition")
    # The number of clusters alone decides the kind; the texts in the boot sector do not.
    bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
    if (bits == 32) != (not fat_size16):
        raise NotUnderstood(f"it has {clusters} clusters, which does not fit the rest of its boot sector")
    if boot[65 if bits == 32 else 37] & 1:
        raise NotUnderstood("it is dirty: not unmounted cleanly")
    size = fat_size * sector_size
    if (clusters + 2) * bits > size * 8:
        raise NotUnderstood("its allocation table is too small")
    copies = [source.read((reserved + i * fat_size) * sector_size, size) for i in range(fats)]
    active = 0
    if bits == 32 and boot[40] & 0x80:
        active = boot[40] & 0x0F
        if active >= fats:
            raise NotUnderstood(f"it names allocation table {active} of {fats}")
    elif copies.count(copies[0]) != fats:
        raise NotUnderstood("its allocation tables differ")
    entries = _entries(copies[active], bits, clusters + 2)
    if entries[0] & 0xFF != media:
        raise NotUnderstood("its allocation table does not begin with the media byte")
    clean = _CLEAN.get(bits, 0)
    if entries[1] & clean != clean:
        raise NotUnderstood("it is dirty: not unmounted cleanly, or with read errors")
    unused = bytes(entry in (0, _BAD_CLUSTER[bits]) for entry in entries[2:])
    factor = sector_size // SECTOR
    runs = (match.span() for match in re.finditer(rb"\x01+", unused))
    return union(
        ((data_start + start * per_cluster) * factor, (data_start + end * per_cluster) * factor)
        for start, end in runs
    )


def _entries(table: bytes, bits: int, count: int) -> Sequence[int]:
    if bits == 16:
        return struct.unpack_from(f"<{count}H", table)
    if bits == 32:
        return [entry & 0x0FFFFFFF for entry in struct.unpack_from(f"<{count}I", table)]
    result = []
    for i in range(0, count * 3, 3):
        pair = int.from_bytes(table[i // 2 : i // 2 + 2], "little")
        result.append(pair >> 4 if i % 2 else pair & 0xFFF)
    return result
