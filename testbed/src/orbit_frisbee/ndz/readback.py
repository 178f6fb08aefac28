# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading what is on a disk, past the page cache."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterable, Sequence

from orbit_frisbee.ndz.format import SECTOR, NdzError, Patch

_WINDOW = 1 << 20
"""Bytes read at a time."""
_GAP = 64 << 10
"""Reading over a gap of this many bytes costs less than a read more."""
_ALIGN = 4096
"""Direct reads begin and end at multiples of the device's logical blocks, which are no larger than this."""


class Reader:
    """Reads byte ranges of a disk, from ``base`` sectors on, by direct I/O where that is to be had.

    Elsewhere (a file system without it) the pages are dropped from the cache first, as far as they are on the
    disk. Of each of the ``patches`` that is on the disk, the image's bytes are given. Each thread needs a
    reader of its own. Raises :class:`NdzError`.
    """

    def __init__(self, fd: int, name: str, base: int, sectors: int, patches: Sequence[Patch] = ()) -> None:
        self._patches = patches
        self._name, self._base, self._end = name, base * SECTOR, sectors * SECTOR
        # Aligned to a page, as direct reads ask for.
        self._buffer = memoryview(mmap.mmap(-1, _WINDOW))
        self.direct = True
        self._fd = self._open(fd)

    def _open(self, fd: int) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC
        try:
            try:
                own = os.open(self._name, flags | os.O_DIRECT)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                own = os.open(self._name, flags)
                self._no_longer_direct(own)
        except OSError as error:
            raise self._bad(f"cannot be read back: {_reason(error)}") from None
        there, opened = os.fstat(fd), os.fstat(own)
        if (there.st_dev, there.st_ino, there.st_rdev) != (opened.st_dev, opened.st_ino, opened.st_rdev):
            os.close(own)
            raise self._bad("was replaced while it was written")
        return own

    def _no_longer_direct(self, fd: int) -> None:
        self.direct = False
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def feed(self, ranges: Iterable[tuple[int, int]], take: Callable[[memoryview], object]) -> None:
        """Hand the bytes of (offset, length) ranges, ascending, to ``take`` in order."""
        low = high = 0
        rest = list(ranges)
        for i, (offset, length) in enumerate(rest):
            at, end = offset, offset + length
            if end > self._end:
                raise self._bad(f"ends at byte {self._end}, before byte {end}")
            while at < end:
                if not low <= at < high:
                    low, high = self._fill(at, _stop(rest, i, at))
                stop = min(end, high)
                piece = self._buffer[at - low : stop - low]
                take(self._patched(piece, at) if self._patches else piece)
                at = stop

    def _patched(self, piece: memoryview, at: int) -> memoryview:
        for offset, there, image in self._patches:
            low, high = max(at, offset), min(at + len(piece), offset + len(there))
            if low < high and piece[low - at : high - at] == there[low - offset : high - offset]:
                changed = bytearray(piece)
                changed[low - at : high - at] = image[low - offset : high - offset]
                piece = memoryview(changed)
        return piece

    def _fill(self, at: int, stop: int) -> tuple[int, int]:
        """Read from ``at`` up to about ``stop``; returns the range that the buffer holds then."""
        first = (self._base + at) // _ALIGN * _ALIGN
        size = min(-(-(self._base + stop - first) // _ALIGN) * _ALIGN, _WINDOW)
        try:
            try:
                got = os.preadv(self._fd, [self._buffer[:size]], first)
            except OSError as error:
                if error.errno != errno.EINVAL or not self.direct:
                    raise
                self._read_cached()
                got = os.preadv(self._fd, [self._buffer[:size]], first)
        except OSError as error:
            raise self._bad(f"cannot read at byte {first}: {_reason(error)}") from None
        if first + got <= self._base + at:
            raise self._bad(f"ends at byte {first + got}")
        return first - self._base, first + got - self._base

    def _read_cached(self) -> None:
        """Go on without direct I/O: some file systems refuse it only now."""
        fcntl.fcntl(self._fd, fcntl.F_SETFL, fcntl.fcntl(self._fd, fcntl.F_GETFL) & ~os.O_DIRECT)
        self._no_longer_direct(self._fd)

    def _bad(self, problem: str) -> NdzError:
        return NdzError(problem, name=self._name)

    def close(self) -> None:
        """Close the disk."""
        os.close(self._fd)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _stop(ranges: list[tuple[int, int]], i: int, at: int) -> int:
    """Return up to where one read from ``at``, in range ``i``, is worth going."""
    limit = at + _WINDOW
    stop = ranges[i][0] + ranges[i][1]
    for offset, length in ranges[i + 1 :]:
        if stop >= limit or offset - stop > _GAP:
            break
        stop = offset + length
    return min(stop, limit)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
