# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the client checks beyond the image's own means: manifest, what is on the disk already, read-back.

* With a manifest, a chunk is compared with its digest before any of it is written.
* *Resume*: before joining, the disk is read where the image has data; chunks that are there already are
  kept and never asked for. What is compared are the sectors, so any disk will do, however it came about.
* *Verify*: when all is flushed to the disk, what was written is read back past the page cache and compared
  with the manifest, or with digests made while writing where there is none.
"""

from __future__ import annotations

import os
import threading
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from orbit_testbed.frisbee.options import EXIT_DIGEST, EXIT_MANIFEST, EXIT_USAGE, EXIT_VERIFY
from orbit_testbed.ndz.format import CHUNK_SIZE, SECTOR, Buffer, ChunkIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from orbit_testbed.ndz.manifest import Entry, Hash, Manifest
    from orbit_testbed.ndz.readback import Reader
    from orbit_testbed.ndz.unpack import Target

_ZEROS: Final = bytes(1 << 20)
_THREADS: Final = 4
_Job = TypeVar("_Job")


class CheckError(Exception):
    """A check failed; ``status`` is the exit status that says which."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class _Written(NamedTuple):
    """What must be on the disk: ``ranges`` and ``zeros`` are offset and length in bytes, by turns."""

    ranges: array[int]
    digest: bytes
    zeros: array[int]


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
        self.kept: frozenset[int] = frozenset()
        self.verified = 0
        self._kept_bytes = 0
        self._written: dict[int, _Written] = {}

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
        candidates = [entry for entry in manifest.entries if self._plain or not entry.relocated]
        found: set[int] = set()

        def compare(reader: Reader, entry: Entry) -> None:
            ranges, wanted = self._on_disk(entry)
            if _digest(reader, ranges) == wanted:
                found.add(entry.number)

        _in_threads(target, candidates, compare, say)
        self.kept = frozenset(found)
        self._kept_bytes = sum(
            CHUNK_SIZE if self._plain else manifest.entries[number].size for number in self.kept
        )

    def _on_disk(self, entry: Entry) -> tuple[list[tuple[int, int]], bytes]:
        if self._plain:
            return [(entry.number * CHUNK_SIZE, CHUNK_SIZE)], entry.digest
        return entry.ranges(), entry.data

    def joined(self, server: str, blocks: int) -> None:
        """Refuse a server whose file cannot be the manifest's image. Raises :class:`CheckError`."""
        if self.manifest is not None and blocks * 1024 != self.manifest.size:
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
        if hasher is not None:
            digest = hasher.digest()
        else:
            assert self.manifest is not None
            digest = self.manifest.entries[index.number].data
        zeros = _flat((s * SECTOR, n * SECTOR) for s, n in index.free()) if self._zero_free else _flat(())
        self._written[index.number] = _Written(_flat(_data_ranges(index)), digest, zeros)

    def wrote_plain(self, number: int, offset: int, data: Buffer) -> None:
        """Remember bytes that were written as they are."""
        if self._verify:
            self._written[number] = _Written(_flat(((offset, len(data)),)), sha256(data).digest(), _flat(()))

    # -- afterwards ---------------------------------------------------------------------------------------

    def finish_kept(self, target: Target) -> None:
        """Do with the kept chunks what is done with the others besides writing data."""
        for number in sorted(self.kept):
            assert self.manifest is not None
            if self._plain:
                target.bytes_covered += CHUNK_SIZE
                continue
            index = self.manifest.entries[number].layout(self.manifest.image_version)
            target.keep_chunk(index)
            if self._verify and self._zero_free:
                zeros = _flat((s * SECTOR, n * SECTOR) for s, n in index.free())
                self._written[number] = _Written(_flat(()), sha256().digest(), zeros)

    def verify(self, target: Target, say: Callable[[int], None]) -> None:
        """Read back what was written; sets ``verified``. Call after the flush.

        Raises :class:`CheckError` for other bytes, :class:`NdzError` when it cannot be read.
        """
        wrong: dict[int, str] = {}
        sizes: list[int] = []

        def compare(reader: Reader, job: tuple[int, _Written]) -> None:
            number, written = job
            digest = _digest(reader, _pairs(written.ranges))
            if digest != written.digest:
                wrong[number] = f"its SHA-256 is {digest.hex()}, written was {written.digest.hex()}"
            zeros = [
                (at, min(size, target.size - at)) for at, size in _pairs(written.zeros) if at < target.size
            ]
            if not _all_zero(reader, zeros):
                wrong.setdefault(number, "its free sectors are not zero")
            sizes.append(sum(written.ranges[1::2]) + sum(size for _, size in zeros))

        _in_threads(target, sorted(self._written.items()), compare, say)
        if wrong:
            first = min(wrong)
            raise CheckError(
                f"{target.name}: chunk {first} reads back wrong ({len(wrong)} of {len(self._written)} do): "
                f"{wrong[first]}; the disk does not keep what it is given, replace it",
                EXIT_VERIFY,
            )
        self.verified = sum(sizes) + self._kept_bytes


def _in_threads(
    target: Target, jobs: list[_Job], work: Callable[[Reader, _Job], None], say: Callable[[int], None]
) -> None:
    """Do all jobs by one thread per processor, at most :data:`_THREADS`, each with its own reader.

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
    from orbit_testbed.ndz import manifest

    return manifest.sha256(data)


def _data_ranges(index: ChunkIndex) -> Iterable[tuple[int, int]]:
    from orbit_testbed.ndz import manifest

    return manifest.data_ranges(index)


def _flat(ranges: Iterable[tuple[int, int]]) -> array[int]:
    return array("Q", [number for pair in ranges for number in pair])


def _pairs(flat: array[int]) -> Iterator[tuple[int, int]]:
    return zip(flat[::2], flat[1::2], strict=True)


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
