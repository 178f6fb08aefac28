# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arithmetic on lists of ranges: half-open (start, end) pairs, ascending and apart from each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Range = tuple[int, int]


def union(ranges: Iterable[Range], *, gap: int = 0) -> list[Range]:
    """Return the union of ranges in any order; ranges less than ``gap`` apart become one."""
    result: list[Range] = []
    for start, end in sorted(ranges):
        if start >= end:
            continue
        if result and start - result[-1][1] < max(gap, 1):
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def subtract(ranges: Iterable[Range], holes: Iterable[Range]) -> Iterator[Range]:
    """Yield what of ``ranges`` lies outside ``holes``; both ascending."""
    rest = iter(holes)
    hole = next(rest, None)
    for start, end in ranges:
        at = start
        while hole is not None and hole[0] < end:
            if hole[0] > at:
                yield at, hole[0]
            at = max(at, hole[1])
            if hole[1] > end:
                break
            hole = next(rest, None)
        if at < end:
            yield at, end


def complement(ranges: Iterable[Range], end: int) -> list[Range]:
    """Return what of [0, end) lies outside ``ranges``."""
    return list(subtract([(0, end)], union(ranges)))


def shift(ranges: Iterable[Range], distance: int) -> Iterator[Range]:
    """Yield the ranges moved up."""
    return ((start + distance, end + distance) for start, end in ranges)


def scale(ranges: Iterable[Range], factor: int) -> Iterator[Range]:
    """Yield the ranges in a unit that is ``factor`` times smaller."""
    return ((start * factor, end * factor) for start, end in ranges)


def total(ranges: Iterable[Range]) -> int:
    """Return the sum of the lengths."""
    return sum(end - start for start, end in ranges)
