# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Large pieces of memory that are used again and again."""

from __future__ import annotations

import contextlib
import mmap


def anonymous(size: int) -> mmap.mmap:
    """Return new memory of ``size`` bytes at a page border, in huge pages where the kernel has them.

    Of an anonymous private mapping, unlike an allocation, only what is used is really taken from the system.
    """
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
