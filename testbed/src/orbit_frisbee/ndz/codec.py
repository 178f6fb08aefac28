# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inflate and deflate, by the fastest library that is installed.

All release the interpreter lock, so threads help. What is inflated whole goes through libdeflate, a fifth
faster than ISA-L; what is inflated in pieces, and what is deflated, through ISA-L, three to four times faster
than zlib at the one and about seven times at the other. It gives other (equally valid) bytes than zlib does.
Without them zlib does it all.
"""

from __future__ import annotations

import functools
import zlib
from typing import TYPE_CHECKING, Any

from orbit_frisbee.ndz.format import Buffer, NdzError
from orbit_frisbee.ndz.memory import anonymous

if TYPE_CHECKING:
    import ctypes
    from types import ModuleType


@functools.cache
def isal() -> Any:
    """Return ISA-L's stand-in for :mod:`zlib`; None when it is not installed."""
    try:
        from isal import isal_zlib
    except ImportError:
        return None
    return isal_zlib


@functools.cache
def libdeflate() -> ctypes.CDLL | None:
    """Return libdeflate; None when the system does not have it."""
    try:
        from orbit_frisbee.ndz.libdeflate import load
    except ImportError:
        return None  # a Python without ctypes
    return load()


LEVELS = range(10)
DEFAULT_LEVEL = 4
WINDOW = 32768
"""How many bytes a deflate stream can refer back to."""

_STEP = 1 << 20
"""Bytes inflated at a time where a stream is not inflated whole."""

STREAM_HEAD = b"\x78\x5e"
STREAM_TAIL = b"\x03\x00"
"""An empty last block; the big-endian Adler-32 of all data follows it."""

# ISA-L's levels compress like zlib's 1. Its third takes three quarters longer than the second, for one
# hundredth of the size. From 5 on somebody asks for small, not for fast; 0 must give stored blocks, which
# it cannot.
_FAST_LEVEL = {1: 1, 2: 1, 3: 2, 4: 2}


class Inflater:
    """Reads a zlib stream piece by piece and insists on its exact end.

    Raises :class:`NdzError` for damaged or short data; ``name`` and ``chunk`` go into the text.
    """

    def __init__(self, data: Buffer, *, name: str | None = None, chunk: int | None = None) -> None:
        library = isal() or zlib
        self._stream: Any = library.decompressobj()
        self._error: Any = (zlib.error, library.error)
        self._rest: Buffer = data
        self._name, self._chunk = name, chunk

    def read(self, size: int) -> bytearray:
        """Return the next ``size`` bytes, not fewer."""
        result = bytearray(size)
        self.read_into(memoryview(result))
        return result

    def read_into(self, room: memoryview) -> None:
        """Fill ``room`` with the next bytes."""
        at = 0
        try:
            while at < len(room) and not self._stream.eof:
                # The library puts together what it returns, which takes its size once more.
                piece = self._stream.decompress(self._rest, min(_STEP, len(room) - at))
                if not piece:
                    break
                self._rest = self._stream.unconsumed_tail
                room[at : at + len(piece)] = piece
                at += len(piece)
        except self._error as error:
            raise self._bad(f"does not inflate ({error})") from None
        if at < len(room):
            raise self._bad("inflates to less than the regions hold")

    def finish(self) -> None:
        """Check that the stream and the data end here."""
        try:
            if not self._stream.eof:
                if self._stream.decompress(self._rest, 1):
                    raise self._bad("inflates to more than the regions hold")
                self._rest = self._stream.unconsumed_tail
        except self._error as error:
            raise self._bad(f"does not inflate ({error})") from None
        if not self._stream.eof:
            raise self._bad("ends in the middle of the stream")
        if self._stream.unused_data or self._rest:
            raise self._bad("goes on behind the end of the stream")

    def _bad(self, problem: str) -> NdzError:
        return NdzError(
            problem,
            name=self._name,
            chunk=self._chunk,
            field="compressed data",
            remedy="the image is damaged: fetch or make it again",
        )


class Workspace:
    """Where whole streams of at most ``room`` bytes of output are inflated. For one thread at a time."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._memory: memoryview | None = None
        self._inflater: Any = None
        if (library := libdeflate()) is not None:
            from orbit_frisbee.ndz.libdeflate import Inflater as Whole

            self._inflater = Whole(library, room)

    def inflate(
        self, data: Buffer, size: int, *, name: str | None = None, chunk: int | None = None
    ) -> memoryview:
        """Inflate a zlib stream that must give exactly ``size`` bytes and use all of ``data``.

        The result is good until the next call. Raises :class:`NdzError`; ``name`` and ``chunk`` go into the
        text.
        """
        if self._inflater is not None:
            whole: memoryview | None = self._inflater.inflate(data, size)
            if whole is not None:
                return whole
            # Wrong in some way: the other library says in which.
        stream = Inflater(data, name=name, chunk=chunk)
        if self._memory is None or size > len(self._memory):
            self._memory = memoryview(anonymous(max(size, self._room)))
        result = self._memory[:size]
        stream.read_into(result)
        stream.finish()
        return result


def adler32(data: Buffer, value: int = 1) -> int:
    """Return the check sum that ends a zlib stream, of what gave ``value`` and ``data`` behind it."""
    result: int = (isal() or zlib).adler32(data, value)
    return result


_ADLER_BASE = 65521


def joined_adler32(first: int, second: int, size: int) -> int:
    """Return the check sum of two data in a row: with sum ``first``; of ``size`` bytes with sum ``second``.

    As zlib's ``adler32_combine``, which Python does not have.
    """
    low, high = first & 0xFFFF, first >> 16
    high = (size * low + high + (second >> 16) - size) % _ADLER_BASE
    low = (low + (second & 0xFFFF) - 1) % _ADLER_BASE
    return high << 16 | low


class Deflater:
    """Deflates what belongs together, piece by piece, into one stream.

    Each piece becomes raw deflate blocks that end on a byte border without closing the stream. A stream is
    :data:`STREAM_HEAD`, such pieces, :data:`STREAM_TAIL` and the Adler-32 of all data. ``before`` is what
    precedes the first piece in the stream, of which the last 32 KiB can be referred to.
    """

    def __init__(self, level: int = DEFAULT_LEVEL, *, before: Buffer = b"") -> None:
        module: ModuleType = zlib
        fast = isal()
        if fast is not None and level in _FAST_LEVEL:
            module, level = fast, _FAST_LEVEL[level]
        extra = {"zdict": bytes(before[-WINDOW:])} if len(before) else {}
        self._stream = module.compressobj(level, zlib.DEFLATED, -15, **extra)

    def deflate(self, data: Buffer) -> bytes:
        """Return the next piece, deflated."""
        result: bytes = self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)
        return result


def deflate(data: Buffer, level: int = DEFAULT_LEVEL, *, before: Buffer = b"") -> bytes:
    """Return one piece deflated behind ``before``, as :class:`Deflater` does."""
    return Deflater(level, before=before).deflate(data)
