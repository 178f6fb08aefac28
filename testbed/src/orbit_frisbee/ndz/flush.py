# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeping small what is written but not yet on the disk.

Left alone, the kernel lets a good part of the memory fill with data before it writes any of it, and then a
last fsync takes minutes in which nothing seems to happen. Here the kernel is told to begin with each few
megabytes at once (sync_file_range(2), which does not flush the disk's own cache and so costs nothing), and
a writer that is too far ahead waits for the oldest of them. The disk stays busy; only the heap behind it is
bounded.
"""

from __future__ import annotations

import errno
import functools
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from orbit_frisbee.ndz.ranges import Range, union

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 4 << 20
"""Bytes that the kernel is told to write at a time."""
LIMIT = 32 << 20
"""Bytes that may wait for the disk before a writer does."""
_GAP = 1 << 20
"""Ranges this close are one: over clean pages the kernel passes quickly."""

_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4
_NOT_HERE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EOPNOTSUPP})


class _Batch(NamedTuple):
    ranges: list[Range]
    size: int


class Behind:
    """What was written to a file and may not be on the disk yet. For several threads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._ranges: list[Range] = []
        self._gathered = 0
        self._pending: deque[_Batch] = deque()
        self._size = 0
        self._by_range = True

    def wrote(self, at: int, size: int) -> None:
        """Take note of ``size`` bytes written at byte ``at``; waits when too much waits for the disk.

        Raises :class:`OSError` when the disk does not take what was written before.
        """
        with self._lock:
            self._ranges.append((at, at + size))
            self._gathered += size
            if self._gathered < BATCH:
                return
            batch = self._close_batch()
            late = []
            while self._size > LIMIT:
                late.append(self._pending.popleft())
                self._size -= late[-1].size
        self._sync(batch, _WRITE)
        for old in late:
            self._sync(old, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)

    def flush(self, say: Callable[[int], None]) -> None:
        """Return when all of it, and the file itself, is on the disk. Raises :class:`OSError`.

        ``say`` is called with 0 before, with every tenth percent on the way, with 100 in the end.
        """
        with self._lock:
            self._close_batch()
            batches, self._pending = self._pending, deque()
            total, self._size = self._size, 0
        say(0)
        for batch in batches:
            self._sync(batch, _WRITE)
        done = told = 0
        for batch in batches:
            self._sync(batch, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)
            done += batch.size
            if told < done * 10 // total < 10:
                told = done * 10 // total
                say(told * 10)
        # The rest: where things are, and the disk's own cache.
        os.fsync(self._fd)
        say(100)

    def _close_batch(self) -> _Batch:
        batch = _Batch(union(self._ranges, gap=_GAP), self._gathered)
        self._ranges, self._gathered = [], 0
        if batch.size:
            self._pending.append(batch)
            self._size += batch.size
        return batch

    def _sync(self, batch: _Batch, flags: int) -> None:
        if self._by_range:
            call = _sync_file_range()
            for low, high in batch.ranges:
                number = call(self._fd, low, high - low, flags)
                if number in _NOT_HERE:
                    self._by_range = False
                    break
                if number:
                    raise OSError(number, os.strerror(number))
        if not self._by_range and flags & _WAIT_AFTER:
            # Then all that was written so far: slower, as the disk's cache is flushed too, but as bounded.
            os.fdatasync(self._fd)


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], int]:
    """Return sync_file_range(2) as a function that gives the error's number or 0."""
    try:
        import ctypes

        function: Any = ctypes.CDLL(None, use_errno=True).sync_file_range
    except (ImportError, OSError, AttributeError):
        # A Python without ctypes, or another C library.
        return lambda fd, at, size, flags: errno.ENOSYS
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    function.restype = ctypes.c_int

    def call(fd: int, at: int, size: int, flags: int) -> int:
        return ctypes.get_errno() if function(fd, at, size, flags) else 0

    return call
