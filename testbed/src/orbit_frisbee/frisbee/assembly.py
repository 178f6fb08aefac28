# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client has of each chunk of the file.

A chunk is untouched, being filled, or complete. While it is filled it owns one buffer of 1 MiB out of a fixed
number; it keeps it until :meth:`Assembly.release`, that is while it is inflated and written. With
no buffer free, blocks of untouched chunks are dropped, so memory is bounded whatever the server sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orbit_frisbee.frisbee.wire import BLOCK_SIZE, CHUNK_BLOCKS, CHUNK_SIZE, chunk_bits, runs
from orbit_frisbee.ndz.memory import anonymous

if TYPE_CHECKING:
    from collections.abc import Iterator

_SLAB: Final = 16
"""Buffers got from the kernel at a time."""
_UNTOUCHED, _FILLING, _COMPLETE = 0, 1, 2


class Assembly:
    """The chunks of a file of ``blocks`` blocks, at most ``buffers`` of them in memory.

    ``filling`` maps each chunk being filled to the bitmap of its missing blocks, in the order they were
    begun. ``dropped``, ``finished_again`` and ``filled_again`` count blocks that came for nothing: no
    buffer, chunk complete, block there already.
    """

    def __init__(self, blocks: int, buffers: int) -> None:
        self.blocks = blocks
        self.chunks = -(-blocks // CHUNK_BLOCKS)
        self.free = min(buffers, self.chunks)
        self.buffers = self.free
        self.filling: dict[int, int] = {}
        self.complete = 0
        self.dropped = self.finished_again = self.filled_again = 0
        self._state = bytearray(self.chunks)
        self._memory: dict[int, memoryview] = {}
        self._spare: list[memoryview] = []

    def untouched(self, start: int, limit: int) -> Iterator[int]:
        """Yield up to ``limit`` untouched chunks, ascending from ``start`` and round to it again."""
        state = self._state
        for at, stop in ((start, self.chunks), (0, start)):
            while limit:
                at = state.find(_UNTOUCHED, at, stop)
                if at < 0:
                    break
                yield at
                limit -= 1
                at += 1

    def missing(self, chunk: int) -> int:
        """Return the bitmap of the blocks of a chunk that are not here."""
        state = self._state[chunk]
        if state == _FILLING:
            return self.filling[chunk]
        return chunk_bits(chunk, self.blocks) if state == _UNTOUCHED else 0

    def is_untouched(self, chunk: int) -> bool:
        """Whether nothing of a chunk is here."""
        return self._state[chunk] == _UNTOUCHED

    def take(self, chunk: int, first: int, number: int, data: memoryview) -> int:
        """Take ``number`` blocks of a chunk from ``first`` on; returns how many of them were missing.

        Chunk and blocks must be inside a full chunk of the file; blocks behind the end of the file are
        ignored. When :meth:`missing` is 0 afterwards and something was taken, the chunk is complete:
        fetch it with :meth:`collect`.
        """
        state = self._state[chunk]
        if state == _COMPLETE:
            self.finished_again += number
            return 0
        if state == _UNTOUCHED:
            if not self.free:
                self.dropped += number
                return 0
            self._begin(chunk)
        bits = ((1 << number) - 1) << first
        missing = self.filling[chunk]
        new = missing & bits
        if new != bits:
            self.filled_again += number - new.bit_count()
            if not new:
                return 0
        memory = self._memory[chunk]
        for at, count in runs(new):
            low = (at - first) * BLOCK_SIZE
            memory[at * BLOCK_SIZE : (at + count) * BLOCK_SIZE] = data[low : low + count * BLOCK_SIZE]
        missing &= ~bits
        if missing:
            self.filling[chunk] = missing
        else:
            del self.filling[chunk]
            self._state[chunk] = _COMPLETE
            self.complete += 1
        return new.bit_count()

    def _begin(self, chunk: int) -> None:
        self.free -= 1
        if not self._spare:
            self._spare = _slab(min(_SLAB, self.free + 1))
        # The one given back last is the one most likely to be in the processor's cache.
        memory = self._spare.pop()
        self._memory[chunk] = memory
        self._state[chunk] = _FILLING
        self.filling[chunk] = chunk_bits(chunk, self.blocks)
        length = (self.blocks - chunk * CHUNK_BLOCKS) * BLOCK_SIZE
        if length < CHUNK_SIZE:
            # The short last chunk of the file: no remains of another chunk behind its end.
            memory[length:] = bytes(CHUNK_SIZE - length)

    def skip(self, chunk: int) -> None:
        """Count an untouched chunk as complete: it is where it belongs already."""
        self._state[chunk] = _COMPLETE
        self.complete += 1

    def collect(self, chunk: int) -> memoryview:
        """Return the bytes of a complete chunk, always 1 MiB; give them back with :meth:`release`."""
        return self._memory.pop(chunk)

    def release(self, memory: memoryview) -> None:
        """Take a buffer back."""
        self._spare.append(memory)
        self.free += 1


def _slab(buffers: int) -> list[memoryview]:
    """Return new buffers of a chunk each, in huge pages where the kernel has them.

    In ordinary ones it would be interrupted 256 times for each buffer, which costs more than receiving does.
    """
    view = memoryview(anonymous(buffers * CHUNK_SIZE))
    # Taken from the end.
    return [view[i * CHUNK_SIZE : (i + 1) * CHUNK_SIZE] for i in reversed(range(buffers))]
