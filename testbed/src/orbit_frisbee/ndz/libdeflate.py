# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""libdeflate, where the system has it (Debian: ``libdeflate0``): the fastest way to inflate a whole stream.

It wants room for all of the output at once, which is why it is faster, and takes memory of ours for it. That
is used again and again and lies in huge pages: fresh memory costs a fifth of what inflating does.
The calls release the interpreter lock.
"""

from __future__ import annotations

import ctypes

from orbit_frisbee.ndz.format import Buffer
from orbit_frisbee.ndz.memory import anonymous

LIBRARY = "libdeflate.so.0"


def load() -> ctypes.CDLL | None:
    """Return the library, None when it is not there."""
    try:
        library = ctypes.CDLL(LIBRARY)
        library.libdeflate_alloc_decompressor.argtypes = ()
        library.libdeflate_alloc_decompressor.restype = ctypes.c_void_p
        library.libdeflate_free_decompressor.argtypes = (ctypes.c_void_p,)
        library.libdeflate_free_decompressor.restype = None
        inflate = library.libdeflate_zlib_decompress_ex
    except (OSError, AttributeError):
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    sizes = ctypes.POINTER(size)
    inflate.argtypes = (pointer, pointer, size, pointer, size, sizes, sizes)
    inflate.restype = ctypes.c_int
    return library


class Inflater:
    """Inflates streams of at most ``room`` bytes of output, one after the other, into one piece of memory.

    For one thread at a time. Of the memory only what was needed so far is really taken from the system.
    """

    def __init__(self, library: ctypes.CDLL, room: int) -> None:
        self._library = library
        memory = anonymous(room)
        self._view = memoryview(memory)
        self._at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._read, self._written = ctypes.c_size_t(), ctypes.c_size_t()
        self._state = library.libdeflate_alloc_decompressor()
        if not self._state:
            raise MemoryError

    def inflate(self, data: Buffer, size: int) -> memoryview | None:
        """Return what a zlib stream holds, None unless that is ``size`` bytes and ``data`` ends with it.

        The memory is good until the next call.
        """
        if size > len(self._view):
            return None
        kind = ctypes.c_char * len(data)
        # What cannot be written to, ctypes refuses to lend.
        stream = kind.from_buffer_copy(data) if memoryview(data).readonly else kind.from_buffer(data)
        error = self._library.libdeflate_zlib_decompress_ex(
            self._state,
            ctypes.addressof(stream),
            len(data),
            self._at,
            size,
            ctypes.byref(self._read),
            ctypes.byref(self._written),
        )
        if error or self._read.value != len(data) or self._written.value != size:
            return None
        return self._view[:size]

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.libdeflate_free_decompressor(self._state)
