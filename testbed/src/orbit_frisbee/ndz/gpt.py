# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The second copy of a GPT, made anew for the disk an image is written to.

A GPT has its backup in the last blocks of the disk, and both copies say where the other one is. An image that
held the backup would need a disk as large as the one it was made from, and on a larger one the backup would
lie where nobody looks for it. So images leave it out, and whoever writes one to a disk makes it from
the first copy.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

from orbit_frisbee.ndz.format import SECTOR, NdzError

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNATURE = b"EFI PART"
HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
ENTRY_LIMIT = 1 << 20
"""Bytes of the largest table that is taken for one."""
UNITS = (512, 4096)
"""Sizes of logical blocks, in which a table counts."""
PROTECTIVE = 0xEE

_ENTRIES_AT = 446
_ENTRY = struct.Struct("<B3xB3xII")
_SIZE_AT = 12
_SIZE_UNKNOWN = 0xFFFFFFFF


class Damaged(Exception):
    """There is no such copy of a table, or not one to rely on; the text says why."""


class Copy(NamedTuple):
    """One copy: its header's fields and whole block, its entries, bytes of one entry."""

    fields: tuple[int, ...]
    header: bytes
    entries: bytes
    entry_size: int

    @property
    def last_used(self) -> int:
        """The last block of any partition, 0 when there is none."""
        size = self.entry_size
        return max(
            (
                struct.unpack_from("<Q", self.entries, i + 40)[0]
                for i in range(0, len(self.entries), size)
                if any(self.entries[i : i + 16])
            ),
            default=0,
        )


class Remade(NamedTuple):
    """What a disk gets: ``start`` from byte 0 on, ``backup`` at byte ``at`` up to the disk's end."""

    start: bytes
    at: int
    backup: bytes


def read_copy(read: Callable[[int, int], bytes], size: int, at: int, unit: int) -> Copy:
    """Return the copy whose header is block ``at`` of a disk of ``size`` bytes.

    ``read`` gives so many bytes (second) at a byte (first). Raises :class:`Damaged`.
    """
    if (at + 1) * unit > size:
        raise Damaged("its header is outside the disk")
    raw = read(at * unit, unit)
    fields = HEADER.unpack_from(raw)
    signature, _, header_size, checksum, _, own = fields[:6]
    if signature != SIGNATURE or own != at or not HEADER.size <= header_size <= unit:
        raise Damaged("its header is damaged")
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:header_size]) != checksum:
        raise Damaged("the checksum of its header is wrong")
    entries_at, count, entry_size, entries_checksum = fields[10:14]
    length = count * entry_size
    if entry_size < 128 or length > ENTRY_LIMIT or entries_at * unit + length > size:
        raise Damaged("the place of its entries makes no sense")
    entries = read(entries_at * unit, length)
    if zlib.crc32(entries) != entries_checksum:
        raise Damaged("the checksum of its entries is wrong")
    return Copy(fields, raw, entries, entry_size)


def remake(read: Callable[[int, int], bytes], size: int, name: str) -> Remade | None:
    """Return what to change so that a GPT fits a disk of ``size`` bytes; None when there is nothing to.

    ``read`` is that of :func:`read_copy`, ``name`` goes into errors. Raises :class:`NdzError` when a
    partition lies where the backup must.
    """
    boot = bytearray(read(0, SECTOR)) if size >= 2 * UNITS[0] else bytearray()
    protective = _protective(boot)
    unit = next((unit for unit in UNITS if size >= 2 * unit and read(unit, 8) == SIGNATURE), None)
    if protective is None or unit is None:
        return None
    try:
        first = read_copy(read, size, 1, unit)
    except Damaged:
        return None  # as it was stored, it is written: it is not for us to make a table of it
    last = size // unit - 1
    blocks = -(-len(first.entries) // unit)
    table_at = last - blocks
    if first.last_used >= table_at:
        raise NdzError(
            f"a partition of the image ends at block {first.last_used}, the copy of the partition table "
            f"must begin at block {table_at}",
            name=name,
            remedy="use a larger disk",
        )
    header = first.header
    if first.fields[6] != last:
        header = _changed(header, alternate=last, last_usable=table_at - 1)
        _resize(boot, protective, first.fields[6], last)
    elif _is_there(read, size, first, unit):
        return None
    backup = first.entries.ljust(blocks * unit, b"\0")
    backup += _changed(header, own=last, alternate=1, entries_at=table_at)
    start = bytes(boot) + read(SECTOR, unit - SECTOR) + header
    return Remade(start, table_at * unit, backup)


def _protective(boot: bytes | bytearray) -> int | None:
    """Return where in sector 0 the entry is that protects a GPT; None when there is none."""
    if boot[510:] != b"\x55\xaa":
        return None
    for at in range(_ENTRIES_AT, 510, _ENTRY.size):
        if boot[at + 4] == PROTECTIVE:
            return at
    return None


def _resize(boot: bytearray, at: int, before: int, last: int) -> None:
    """Let the protective entry go to the end of this disk, if it went to the end of that one."""
    _, _, start, count = _ENTRY.unpack_from(boot, at)
    if start == 1 and count == before and count != _SIZE_UNKNOWN:
        struct.pack_into("<I", boot, at + _SIZE_AT, min(last, _SIZE_UNKNOWN))


def _is_there(read: Callable[[int, int], bytes], size: int, first: Copy, unit: int) -> bool:
    """Whether the disk ends with a copy that agrees with the first one."""
    last = first.fields[6]
    try:
        other = read_copy(read, size, last, unit)
    except Damaged:
        return False
    # All but the checksum and the three places must be the same.
    return (
        other.fields[6] == 1
        and other.entries == first.entries
        and (*other.fields[7:10], *other.fields[11:]) == (*first.fields[7:10], *first.fields[11:])
        and other.fields[:3] == first.fields[:3]
    )


def _changed(
    header: bytes,
    *,
    own: int | None = None,
    alternate: int,
    last_usable: int | None = None,
    entries_at: int | None = None,
) -> bytes:
    """Return a header with other places in it, and the checksum that goes with them."""
    fields = list(HEADER.unpack_from(header))
    size = fields[2]
    for at, value in ((5, own), (6, alternate), (8, last_usable), (10, entries_at)):
        if value is not None:
            fields[at] = value
    fields[3] = 0
    raw = bytearray(header)
    HEADER.pack_into(raw, 0, *fields)
    struct.pack_into("<I", raw, 16, zlib.crc32(raw[:size]))
    return bytes(raw)
