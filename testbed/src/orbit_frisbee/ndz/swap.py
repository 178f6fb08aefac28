# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Swap space: its header is kept, what was swapped out is not."""

from __future__ import annotations

from orbit_frisbee.ndz.format import SECTOR
from orbit_frisbee.ndz.ranges import Range
from orbit_frisbee.ndz.source import NotThisKind, NotUnderstood, Source

_PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)
_KEPT = 32768
"""Bytes that the originals keep; a header is as large as a page and may need more."""


def free_ranges(source: Source) -> list[Range]:
    """Return the free sectors of a swap area; raises NotUnderstood when it is none or holds a hibernated
    system."""
    head = source.read(0, min(source.sectors * SECTOR, _PAGE_SIZES[-1]))
    for size in _PAGE_SIZES:
        mark = head[size - 10 : size]
        if mark in (b"SWAPSPACE2", b"SWAP-SPACE"):
            kept = max(size, _KEPT) // SECTOR
            return [(kept, source.sectors)] if kept < source.sectors else []
        if mark.startswith((b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001")):
            raise NotUnderstood("it holds a hibernated system")
    raise NotThisKind("it has no swap header")
