# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the client checks beyond the image's own means: manifest, what is on the disk already, read-back.

* With a manifest, a chunk is compared with its digest before any of it is written.
* *Resume*: before joining, the disk is read where the image has data; chunks that are there already are
  kept and never asked for. What is compared are the sectors, so any disk will do, however it came about.
* *Verify*: when all is flushed to the disk, what was written is read back past the page cache and compared
  with the manifest, or with digests made while writing where there is none.

What is kept for each chunk is little: 9 bytes and its part of the manifest, or, to verify without one, 60
bytes and 16 for each range of the disk.
"""

from __future__ import annotations

import os
import struct
import threading
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

from orbit_frisbee.frisbee.options import EXIT_DIGEST, EXIT_MANIFEST, EXIT_USAGE, EXIT_VERIFY
from orbit_frisbee.ndz.format import CHUNK_SIZE, SECTOR, Buffer, ChunkIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orbit_frisbee.ndz.manifest import Entry, Hash, Manifest
    from orbit_frisbee.ndz.readback import Reader
    from orbit_frisbee.ndz.unpack import Target

_ZEROS: Final = bytes(1 << 20)
_THREADS: Final = 4


class CheckError(Exception):
    """A check failed; ``status`` is the exit status that says which."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


_Ranges = list[tuple[int, int]]
"""Offset and length in bytes of each range of the disk."""


class _Written(NamedTuple):
    """What must be on the disk."""

    ranges: _Ranges
    digest: bytes
    zeros: _Ranges


class _Record:
    """What was written of each of so many chunks, packed. For several threads."""

    _FIELDS: Final = struct.Struct("=32sII")
    _NOWHERE: Final = (1 << 64) - 1

    def __init__(self, chunks: int) -> None:
        self._lock = threading.Lock()
        self._packed = bytearray()
        self._places = array("Q", (self._NOWHERE,)) * chunks

    def put(self, number: int, written: _Written) -> None:
        """Remember a chunk."""
        numbers = array("Q", [number for pair in (*written.ranges, *written.zeros) for number in pair])
        head = self._FIELDS.pack(written.digest, len(written.ranges), len(written.zeros))
        with self._lock:
            self._places[number] = len(self._packed)
            self._packed += head
            self._packed += numbers.tobytes()

    def get(self, number: int) -> _Written:
        """Return what was remembered of a chunk."""
        at = self._places[number]
        digest, ranges, zeros = self._FIELDS.unpack_from(self._packed, at)
        at += self._FIELDS.size
        flat = array("Q", bytes(memoryview(self._packed)[at : at + 16 * (ranges + zeros)]))
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        return _Written(pairs[:ranges], digest, pairs[ranges:])


_LEFT_OUT, _AS_IN_MANIFEST, _FREE_SPACE, _RECORDED = range(4)
"""What is to be verified of a chunk: nothing, what the manifest says, its zeroed free space, its record."""


class Checks:
    """The checks of one transfer. ``plain``: the file goes to the disk as it is.

    ``say`` is called with the percentage done of long readings. ``kept`` are the numbers of the chunks that
    are on the disk already, ``verified`` is the number of bytes read and found right.
    """

    def __init__(
        self, manifest: Manifest | None, *, plain: bool = False, zero_free: bool = False, verify: bool = False
    ) -> None:
        self.manifest = manifest
        self._plain, self._zero_free, self._verify = plain, zero_free, verify
        self.kept: Sequence[int] = array("I")
        self.verified = 0
        self._kept_bytes = 0
        self._expect(len(manifest.entries) if manifest is not None else 0)

    def _expect(self, chunks: int) -> None:
        self._how = bytearray(chunks)
        self._record = _Record(chunks)

    # -- before -------------------------------------------------------------------------------------------

    def fits(self, target: Target) -> None:
        """Refuse a target that is too small, as far as the manifest tells. Raises :class:`CheckError`."""
        if self.manifest is None:
            return
        last = self.manifest.entries[-1]
        end = self.manifest.size if self._plain else (last.regions[-2] + last.regions[-1]) * SECTOR
        if end > target.size:
            raise CheckError(
                f"{target.name}: the manifest's image has data up to byte {end}, the target ends at "
                f"{target.size}; use a larger disk or partition",
                EXIT_USAGE,
            )

    def keep(self, target: Target, say: Callable[[int], None]) -> None:
        """Find the chunks that are on the disk already. Raises :class:`NdzError` when it cannot be read."""
        manifest = self.manifest
        assert manifest is not None
        found = bytearray(len(manifest.entries))

        def compare(reader: Reader, number: int) -> None:
            entry = manifest.entries[number]
            if self._plain or not entry.relocated:
                ranges, wanted = self._on_disk(entry)
                found[number] = _digest(reader, ranges) == wanted

        _in_threads(target, range(len(found)), compare, say)
        self.kept = array("I", [number for number, there in enumerate(found) if there])
        self._kept_bytes = sum(
            CHUNK_SIZE if self._plain else manifest.entries[number].size for number in self.kept
        )

    def _on_disk(self, entry: Entry) -> tuple[_Ranges, bytes]:
        if self._plain:
            return [(entry.number * CHUNK_SIZE, CHUNK_SIZE)], entry.digest
        return entry.ranges(), entry.data

    def joined(self, server: str, blocks: int) -> None:
        """Refuse a server whose file cannot be the manifest's image. Raises :class:`CheckError`."""
        if self.manifest is None:
            self._expect(-(-blocks * 1024 // CHUNK_SIZE) if self._verify else 0)
        elif blocks * 1024 != self.manifest.size:
            raise CheckError(
                f"{server} serves {blocks * 1024} bytes, the manifest's image has {self.manifest.size}; "
                "give the manifest of the image that is served",
                EXIT_MANIFEST,
            )

    # -- while writing; called by several threads ---------------------------------------------------------

    def arrived(self, number: int, chunk: Buffer) -> None:
        """Compare a chunk that came with the manifest. Raises :class:`CheckError`."""
        if self.manifest is None:
            return
        digest, wanted = sha256(chunk).digest(), self.manifest.entries[number].digest
        if digest != wanted:
            raise CheckError(
                f"chunk {number}: its SHA-256 is {digest.hex()}, in the manifest {wanted.hex()}; nothing of "
                "it was written: the image served is another or damaged, make its manifest again or mend it",
                EXIT_DIGEST,
            )

    def hasher(self, number: int) -> Hash | None:
        """Return what shall take in the data of a chunk while it is written, if its digest is not known."""
        if not self._verify or (self.manifest is not None and not self.manifest.entries[number].relocated):
            return None
        return sha256()

    def wrote(self, index: ChunkIndex, hasher: Hash | None) -> None:
        """Remember what was written of a chunk."""
        if not self._verify:
            return
        if hasher is None:
            self._how[index.number] = _AS_IN_MANIFEST
            return
        self._how[index.number] = _RECORDED
        zeros = _free(index) if self._zero_free else []
        self._record.put(index.number, _Written(_data_ranges(index), hasher.digest(), zeros))

    def wrote_plain(self, number: int, offset: int, data: Buffer) -> None:
        """Remember bytes that were written as they are."""
        if not self._verify:
            return
        if self.manifest is not None:
            self._how[number] = _AS_IN_MANIFEST
            return
        self._how[number] = _RECORDED
        self._record.put(number, _Written([(offset, len(data))], sha256(data).digest(), []))

    # -- afterwards ---------------------------------------------------------------------------------------

    def finish_kept(self, target: Target) -> None:
        """Do with the kept chunks what is done with the others besides writing data."""
        for number in self.kept:
            assert self.manifest is not None
            if self._plain:
                target.bytes_covered += CHUNK_SIZE
                continue
            index = self.manifest.entries[number].layout(self.manifest.image_version)
            target.keep_chunk(index)
            if self._verify and self._zero_free:
                self._how[number] = _FREE_SPACE

    def verify(self, target: Target, say: Callable[[int], None]) -> None:
        """Read back what was written; sets ``verified``. Call after the flush.

        Raises :class:`CheckError` for other bytes, :class:`NdzError` when it cannot be read.
        """
        wrong: dict[int, str] = {}
        size = 0
        lock = threading.Lock()

        def compare(reader: Reader, number: int) -> None:
            nonlocal size
            written = self._must_be(number)
            digest = _digest(reader, written.ranges)
            zeros = [(at, min(length, target.size - at)) for at, length in written.zeros if at < target.size]
            clean = _all_zero(reader, zeros)
            with lock:
                if digest != written.digest:
                    wrong[number] = f"its SHA-256 is {digest.hex()}, written was {written.digest.hex()}"
                elif not clean:
                    wrong[number] = "its free sectors are not zero"
                size += sum(length for _, length in (*written.ranges, *zeros))

        numbers = array("I", [number for number, how in enumerate(self._how) if how != _LEFT_OUT])
        _in_threads(target, numbers, compare, say)
        if not wrong and (place := target.spoiled()) is not None:
            raise CheckError(
                f"{target.name}: the partition table that was made for this disk reads back wrong at byte "
                f"{place}; the disk does not keep what it is given, replace it",
                EXIT_VERIFY,
            )
        if wrong:
            first = min(wrong)
            raise CheckError(
                f"{target.name}: chunk {first} reads back wrong ({len(wrong)} of {len(numbers)} do): "
                f"{wrong[first]}; the disk does not keep what it is given, replace it",
                EXIT_VERIFY,
            )
        self.verified = size + self._kept_bytes

    def _must_be(self, number: int) -> _Written:
        """Return what must be on the disk of a chunk."""
        if self._how[number] == _RECORDED:
            return self._record.get(number)
        assert self.manifest is not None
        entry = self.manifest.entries[number]
        zeros = []
        if self._zero_free and not self._plain:
            zeros = _free(entry.layout(self.manifest.image_version))
        if self._how[number] == _FREE_SPACE:
            return _Written([], sha256().digest(), zeros)
        ranges, digest = self._on_disk(entry)
        return _Written(ranges, digest, zeros)


def _in_threads(
    target: Target, jobs: Sequence[int], work: Callable[[Reader, int], None], say: Callable[[int], None]
) -> None:
    """Do the jobs of these numbers by one thread per processor, at most :data:`_THREADS`, each with a reader.

    ``say`` is called with every tenth percent. The first error ends it all.
    """
    waiting = iter(jobs)
    lock = threading.Lock()
    done = 0
    errors: list[BaseException] = []

    def run() -> None:
        nonlocal done
        try:
            with target.reader() as reader:
                while not errors:
                    with lock:
                        job = next(waiting, None)
                    if job is None:
                        return
                    work(reader, job)
                    with lock:
                        before, done = done * 10 // len(jobs), done + 1
                        if done * 10 // len(jobs) > before:
                            say(done * 10 // len(jobs) * 10)
        except BaseException as error:
            # Raised again below, in the thread that cares.
            errors.append(error)

    threads = [
        threading.Thread(target=run, name=f"frisbee-reader-{i}", daemon=True)
        for i in range(min(_THREADS, os.cpu_count() or 1, max(1, len(jobs))))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# A client that has neither manifest nor anything to verify starts sooner without these two's module.


def sha256(data: Buffer = b"") -> Hash:
    """Return a SHA-256 of ``data`` that takes more."""
    from orbit_frisbee.ndz import manifest

    return manifest.sha256(data)


def _data_ranges(index: ChunkIndex) -> _Ranges:
    from orbit_frisbee.ndz import manifest

    return manifest.data_ranges(index)


def _free(index: ChunkIndex) -> _Ranges:
    return [(start * SECTOR, count * SECTOR) for start, count in index.free()]


def _digest(reader: Reader, ranges: Iterable[tuple[int, int]]) -> bytes:
    digest = sha256()
    reader.feed(ranges, digest.update)
    return digest.digest()


def _all_zero(reader: Reader, ranges: Iterable[tuple[int, int]]) -> bool:
    clean = True

    def look(piece: memoryview) -> None:
        nonlocal clean
        clean = clean and bytes(piece) == _ZEROS[: len(piece)]

    reader.feed(ranges, look)
    return clean
