# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Relocations: data that must change with the place of the partition it is written to.

What each type means is that of the 2004 and 2016 programs. Addresses in the image are relative to the
partition; the target's first sector is added after inflating.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from orbit_frisbee.ndz import format as fmt
from orbit_frisbee.ndz.format import SECTOR, NdzError, Relocation

_LILO_ADDRESS_SIZE = 5
_LILO_MAP_ENTRIES = 102
_LILO_DESCRIPTORS = 990
"""Bytes of the descriptor table, its checksum at the start included. The relocation names its end."""
_LILO_SUMMED = 1024
"""Bytes that are summed up: the two sectors of the table."""
_LILO_CHECKSUM_START = 0xABCD
# Flags of an address. Without any it is of cylinder, head and sector, and stays. One that is not linear may
# hold bits 24 to 31 where the sector count would be.
_LILO_FLAGS, _LILO_LINEAR, _LILO_NO_COUNT = 0x70, 0x40, 0x10

_LABEL_MAGIC = 0x82564557
_LABEL_CHECKSUM_AT = 136
_LABEL_PARTITIONS_AT = 148
_LABEL_PARTITION_SIZE = 16
_LABEL_RAW_PARTITION = 2

_DAMAGED = "the image is damaged: fetch or make it again"

KNOWN = frozenset(
    (
        fmt.RELOC_BSD_LABEL,
        fmt.RELOC_OPENBSD_LABEL,
        fmt.RELOC_LILO_ADDRESS,
        fmt.RELOC_LILO_MAP,
        fmt.RELOC_LILO_CHECKSUM,
        fmt.RELOC_SHORT_SECTOR,
    )
)


def _xor16(data: bytes | bytearray | memoryview, start: int = 0) -> int:
    for (word,) in struct.iter_unpack("<H", data):
        start ^= word
    return start


def first_sector(relocation: Relocation) -> int:
    """Return the first sector that must be at hand to apply a relocation."""
    at = relocation.sector * SECTOR + relocation.offset
    if relocation.type == fmt.RELOC_LILO_CHECKSUM:
        at -= _LILO_DESCRIPTORS
    return max(at, 0) // SECTOR


def end_sector(relocation: Relocation) -> int:
    """Return the first sector behind those that a relocation needs."""
    if relocation.type == fmt.RELOC_LILO_CHECKSUM:
        end = relocation.sector * SECTOR + relocation.offset - _LILO_DESCRIPTORS + _LILO_SUMMED
        return -(-end // SECTOR)
    return relocation.sector + (relocation.offset + relocation.length - 1) // SECTOR + 1


def check(relocations: Sequence[Relocation], base: int) -> None:
    """Raise :class:`NdzError` when a relocation has the wrong length or is of a kind not supported.

    ``base`` is the target's first sector. To be called before anything is written.
    """
    lengths = {
        fmt.RELOC_LILO_ADDRESS: _LILO_ADDRESS_SIZE,
        fmt.RELOC_LILO_MAP: SECTOR,
        fmt.RELOC_LILO_CHECKSUM: 2,
    }
    for i, relocation in enumerate(relocations):
        wanted = lengths.get(relocation.type)
        if wanted is not None and relocation.length != wanted:
            raise NdzError(
                f"type {relocation.type} has {relocation.length} bytes instead of {wanted}",
                field=f"relocation {i}",
                remedy=_DAMAGED,
            )
        if relocation.type == fmt.RELOC_BSD_LABEL and relocation.length < _LABEL_PARTITIONS_AT:
            raise NdzError(
                f"{relocation.length} bytes are no BSD disk label", field=f"relocation {i}", remedy=_DAMAGED
            )
        if relocation.type == fmt.RELOC_OPENBSD_LABEL and base:
            raise NdzError(
                "OpenBSD disk labels cannot be moved",
                field=f"relocation {i}",
                remedy="write the image to a whole disk",
            )


def apply(piece: bytearray, sector: int, relocations: Sequence[Relocation], base: int, size: int) -> None:
    """Apply relocations in place.

    ``piece`` is data that belongs at ``sector`` (relative to the partition) and holds all that the given
    relocations need; ``base`` and ``size`` are the partition's first sector and number of sectors.
    Checksums are made last, whatever order the image lists them in. Short sectors are not for here.
    """
    for relocation in sorted(relocations, key=lambda item: item.type == fmt.RELOC_LILO_CHECKSUM):
        at = (relocation.sector - sector) * SECTOR + relocation.offset
        if relocation.type == fmt.RELOC_LILO_ADDRESS:
            _move_address(piece, at, base)
        elif relocation.type == fmt.RELOC_LILO_MAP:
            for entry in range(at, at + _LILO_MAP_ENTRIES * _LILO_ADDRESS_SIZE, _LILO_ADDRESS_SIZE):
                if not _move_address(piece, entry, base):
                    break
        elif relocation.type == fmt.RELOC_LILO_CHECKSUM:
            table = at - _LILO_DESCRIPTORS
            if table < 0 or table + _LILO_SUMMED > len(piece):
                raise NdzError("the LILO descriptors that a checksum is for are not in its region")
            struct.pack_into("<H", piece, table, 0)
            checksum = _xor16(memoryview(piece)[table : table + _LILO_SUMMED], _LILO_CHECKSUM_START)
            struct.pack_into("<H", piece, table, checksum)
        elif relocation.type == fmt.RELOC_BSD_LABEL:
            _move_label(piece, at, relocation.length, base, size)


def _move_address(piece: bytearray, at: int, base: int) -> bool:
    """Add ``base`` to a LILO sector address; return whether there was one (anything else ends a map)."""
    low, middle, flags, high, count = piece[at : at + _LILO_ADDRESS_SIZE]
    kind = flags & _LILO_FLAGS
    wide = bool(kind & _LILO_NO_COUNT and not kind & _LILO_LINEAR)
    address = low | middle << 8 | high << 16 | (count << 24 if wide else 0)
    if not address or not kind:
        return False
    address += base
    if address >> (32 if wide else 24):
        raise NdzError(
            f"a LILO address becomes sector {address}, which it cannot hold",
            remedy="write to a partition nearer the start of the disk",
        )
    piece[at], piece[at + 1], piece[at + 3] = address & 0xFF, address >> 8 & 0xFF, address >> 16 & 0xFF
    if wide:
        piece[at + 4] = address >> 24
    return True


def _move_label(piece: bytearray, at: int, length: int, base: int, size: int) -> None:
    if not base:
        return
    (magic,) = struct.unpack_from("<I", piece, at)
    (count,) = struct.unpack_from("<H", piece, at + _LABEL_CHECKSUM_AT + 2)
    end = _LABEL_PARTITIONS_AT + count * _LABEL_PARTITION_SIZE
    if magic != _LABEL_MAGIC or end > length:
        raise NdzError(
            "a relocation names a BSD disk label where none is",
            remedy=_DAMAGED,
        )
    for i in range(count):
        entry = at + _LABEL_PARTITIONS_AT + i * _LABEL_PARTITION_SIZE
        sectors, start = struct.unpack_from("<II", piece, entry)
        if i == _LABEL_RAW_PARTITION:
            sectors, start = min(size, fmt.MAX_SECTORS - 1), 0
        if sectors:
            sectors = max(0, min(sectors, size - start))
            if start + base >= fmt.MAX_SECTORS:
                raise NdzError(
                    f"a BSD partition would begin at sector {start + base}, which its label cannot hold",
                    remedy="write to a partition nearer the start of the disk",
                )
            struct.pack_into("<II", piece, entry, sectors, start + base)
    struct.pack_into("<H", piece, at + _LABEL_CHECKSUM_AT, 0)
    checksum = _xor16(memoryview(piece)[at : at + end])
    struct.pack_into("<H", piece, at + _LABEL_CHECKSUM_AT, checksum)
