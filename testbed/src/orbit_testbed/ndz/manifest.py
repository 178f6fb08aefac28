# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of an image: what every chunk is and what it puts on the disk, in digests.

It lies next to the image as ``<image>.manifest``; image and wire are as without it. All digests are SHA-256
(the fastest of hashlib's on processors that have instructions for it, and ``sha256sum`` checks it anywhere),
in lower-case hexadecimal. The file is ASCII, one JSON object per line, each line ended by a line feed:

* first ``{"manifest": "orbit.imaging", "version": 1, "algorithm": "sha256", "image_version": 2,
  "size": BYTES, "mtime_ns": T, "chunks": N, "digest": HEX}``: size, time stamp and digest of the image file;
  also ``"identity": NAME`` where it is known how the system in the image calls itself once it runs;
* then one line per chunk, ascending, ``{"chunk": I, "digest": HEX, "first": S, "after": S,
  "regions": [[START, COUNT], ...], "bytes": BYTES, "data": HEX, "relocated": false}``. ``digest`` is that
  of the chunk's 1 MiB as it is in the file. ``first``, ``after`` and ``regions`` are those of its index, in
  sectors. ``data`` is the digest of the ``bytes`` bytes that the regions hold on the disk, in order; these
  are 512 for each sector, less only where the image ends inside one. ``relocated``: what is on
  the disk depends on where the partition lies, so that it cannot be compared with ``data``;
* last ``{"end": HEX}``, the digest of all the bytes before this line.

The version changes when an old reader would misread the file.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, Protocol

from orbit_testbed.ndz.format import (
    CHUNK_SIZE,
    INDEX_SIZE,
    MAX_SECTORS,
    RELOC_SHORT_SECTOR,
    SECTOR,
    VERSIONS,
    Buffer,
    ChunkIndex,
    NdzError,
    Region,
    Tiling,
    parse_index,
)
from orbit_testbed.ndz.unpack import contents

SUFFIX: Final = ".manifest"
MAX_SIZE: Final = 64 << 20
"""Bytes of the largest manifest that is read; one of a 4 GiB image has about 1 MiB."""
MAX_IDENTITY: Final = 255
"""Characters of the longest identity."""
FORMAT_VERSION: Final = 1

_NAME: Final = "orbit.imaging"
_ALGORITHM: Final = "sha256"
_DIGEST_SIZE: Final = 32
_LINE_LIMIT: Final = 64 << 10
_QUEUED: Final = 64
_AGAIN = "make it again: imagezip --manifest IMAGE"


class Hash(Protocol):
    """A digest in the making."""

    def update(self, data: Buffer, /) -> None:
        """Take in more data."""

    def digest(self) -> bytes:
        """Return the digest."""

    def hexdigest(self) -> str:
        """Return it in hexadecimal."""


def sha256(data: Buffer = b"") -> Hash:
    """Return a new SHA-256, by hashlib's fastest."""
    # Imported here, as json below: clients without a manifest load this module, too.
    import hashlib

    return hashlib.sha256(data)


class ManifestError(NdzError):
    """A manifest cannot be used, or belongs to another image."""


class Entry(NamedTuple):
    """One chunk. ``regions`` holds start and count of each region, one after the other, in sectors."""

    number: int
    digest: bytes
    first: int
    after: int
    regions: array[int]
    size: int
    data: bytes
    relocated: bool

    def layout(self, version: int) -> ChunkIndex:
        """Return what the chunk's index says about the disk; it has no compressed data."""
        return ChunkIndex(
            version, self.number, 0, regions_of(self.regions), first=self.first, after=self.after
        )

    def ranges(self) -> list[tuple[int, int]]:
        """Return (byte offset, length) of what the chunk puts on the disk, ascending."""
        return byte_ranges(self.regions, self.size)


class Manifest(NamedTuple):
    """Everything about one image. ``size`` is in bytes, ``mtime_ns`` in nanoseconds since 1970.

    ``identity`` is the name that the installed system gives itself, empty when unknown.
    """

    image_version: int
    size: int
    mtime_ns: int
    digest: bytes
    entries: Sequence[Entry]
    identity: str = ""

    def encode(self) -> bytes:
        """Return the manifest's file."""
        head: dict[str, Any] = {
            "manifest": _NAME,
            "version": FORMAT_VERSION,
            "algorithm": _ALGORITHM,
            "image_version": self.image_version,
            "size": self.size,
            "mtime_ns": self.mtime_ns,
            "chunks": len(self.entries),
            "digest": self.digest.hex(),
        }
        if self.identity:
            head["identity"] = check_identity(self.identity)
        body = "".join(_line(item) for item in (head, *map(_entry_fields, self.entries))).encode("ascii")
        return body + _line({"end": sha256(body).hexdigest()}).encode("ascii")


def check_identity(text: str) -> str:
    """Return the name of a system if it is one line that comes back as it is. Raises :class:`ValueError`."""
    if not text or len(text) > MAX_IDENTITY or not text.isprintable() or text != text.strip():
        raise ValueError(
            f"an identity has 1 to {MAX_IDENTITY} printable characters and no blank at either end"
        )
    return text


def path_of(image: str | Path) -> Path:
    """Return where the manifest of an image lies."""
    return Path(f"{os.fspath(image)}{SUFFIX}")


def regions_of(flat: array[int]) -> list[Region]:
    """Return the regions of an :class:`Entry`."""
    return [Region(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]


def flat_regions(regions: Sequence[Region]) -> array[int]:
    """Return regions as an :class:`Entry` keeps them: an eighth of the memory."""
    return array("I", [value for region in regions for value in region])


def byte_ranges(flat: array[int], size: int) -> list[tuple[int, int]]:
    """Return (byte offset, length) of regions that hold ``size`` bytes: the last may end inside a sector."""
    ranges = [(flat[i] * SECTOR, flat[i + 1] * SECTOR) for i in range(0, len(flat), 2)]
    missing = sum(length for _, length in ranges) - size
    if missing:
        offset, length = ranges[-1]
        ranges[-1] = (offset, length - missing)
    return ranges


def _line(fields: dict[str, Any]) -> str:
    import json

    return json.dumps(fields, separators=(",", ":")) + "\n"


def _entry_fields(entry: Entry) -> dict[str, Any]:
    return {
        "chunk": entry.number,
        "digest": entry.digest.hex(),
        "first": entry.first,
        "after": entry.after,
        "regions": [list(region) for region in regions_of(entry.regions)],
        "bytes": entry.size,
        "data": entry.data.hex(),
        "relocated": entry.relocated,
    }


# -- reading -----------------------------------------------------------------------------------------------


def parse(text: bytes, name: str) -> Manifest:
    """Parse and validate a manifest; ``name`` goes into errors. Raises :class:`ManifestError`."""
    if len(text) > MAX_SIZE:
        raise ManifestError(f"larger than {MAX_SIZE} bytes", name=name, remedy=_AGAIN)
    lines = text.split(b"\n")
    if len(lines) < 4 or lines.pop():
        raise ManifestError("is no manifest, or cut off", name=name, remedy=_AGAIN)
    reader = _Reader(name)
    head = reader.fields(0, lines[0])
    if head.get("manifest") != _NAME:
        raise ManifestError("is no manifest of an image", name=name, remedy="give the .manifest of the image")
    # By what they look like: in Python, 1 equals both 1.0 and true.
    if repr(head.get("version")) != str(FORMAT_VERSION) or head.get("algorithm") != _ALGORITHM:
        raise ManifestError(
            f"version {head.get('version')!r} with {head.get('algorithm')!r} digests is not known",
            name=name,
            remedy=f"version {FORMAT_VERSION} with {_ALGORITHM} is; {_AGAIN}",
        )
    end = reader.digest(len(lines) - 1, reader.fields(len(lines) - 1, lines[-1]), "end")
    if end != sha256(memoryview(text)[: len(text) - len(lines[-1]) - 1]).digest():
        raise ManifestError("damaged: the digest in its last line is another", name=name, remedy=_AGAIN)
    version = reader.number(0, head, "image_version", VERSIONS[-1])
    size = reader.number(0, head, "size", MAX_SECTORS * SECTOR)
    chunks = reader.number(0, head, "chunks", MAX_SECTORS)
    if version not in VERSIONS or not chunks or size != chunks * CHUNK_SIZE or len(lines) != chunks + 2:
        raise reader.bad(0, f"{size} bytes, {chunks} chunks and {len(lines)} lines do not go together")
    tiling = Tiling(name=name)
    entries = []
    for at in range(1, chunks + 1):
        entry = reader.entry(at, reader.fields(at, lines[at]))
        try:
            tiling.add(entry.layout(version))
        except NdzError as error:
            raise reader.bad(at, f"{error.field}: {error.problem}") from None
        entries.append(entry)
    return Manifest(
        version,
        size,
        reader.number(0, head, "mtime_ns", 1 << 63),
        reader.digest(0, head, "digest"),
        entries,
        reader.identity(head),
    )


def read(path: str | Path) -> Manifest:
    """Read the manifest in a file. Raises :class:`ManifestError`."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            return parse(file.read(MAX_SIZE + 1), name)
    except OSError as error:
        raise ManifestError(
            (error.strerror or str(error)).lower(), name=name, remedy="name a readable manifest"
        ) from None


class _Reader:
    """Takes fields out of lines and insists on what they must be."""

    def __init__(self, name: str) -> None:
        self._name = name

    def bad(self, line: int, problem: str) -> ManifestError:
        return ManifestError(problem, name=f"{self._name}: line {line + 1}", remedy=_AGAIN)

    def fields(self, line: int, text: bytes) -> dict[str, Any]:
        if len(text) > _LINE_LIMIT:
            raise self.bad(line, f"longer than {_LINE_LIMIT} bytes")
        import json

        try:
            found = json.loads(text.decode("ascii"))
        except (ValueError, RecursionError):
            raise self.bad(line, "is not JSON") from None
        if not isinstance(found, dict):
            raise self.bad(line, "is no JSON object")
        return found

    def number(self, line: int, fields: dict[str, Any], name: str, limit: int) -> int:
        value = fields.get(name)
        if type(value) is not int or not 0 <= value <= limit:
            raise self.bad(line, f"{name} is no number from 0 to {limit}")
        return value

    def digest(self, line: int, fields: dict[str, Any], name: str) -> bytes:
        value = fields.get(name)
        try:
            digest = bytes.fromhex(value) if isinstance(value, str) else b""
        except ValueError:
            digest = b""
        if len(digest) != _DIGEST_SIZE or digest.hex() != value:
            raise self.bad(line, f"{name} is no SHA-256 in hexadecimal")
        return digest

    def identity(self, head: dict[str, Any]) -> str:
        if "identity" not in head:
            return ""
        value = head["identity"]
        try:
            return check_identity(value if isinstance(value, str) else "")
        except ValueError as error:
            raise self.bad(0, f"identity: {error}") from None

    def entry(self, line: int, fields: dict[str, Any]) -> Entry:
        first = self.number(line, fields, "first", MAX_SECTORS)
        after = self.number(line, fields, "after", MAX_SECTORS)
        flat = self._regions(line, fields.get("regions"), first, after)
        sectors = sum(flat[1::2])
        size = self.number(line, fields, "bytes", sectors * SECTOR)
        if size <= (sectors - 1) * SECTOR:
            raise self.bad(line, f"{size} bytes do not fill {sectors} sectors")
        relocated = fields.get("relocated")
        if not isinstance(relocated, bool):
            raise self.bad(line, "relocated is neither true nor false")
        number = self.number(line, fields, "chunk", MAX_SECTORS)
        if number != line - 1:
            raise self.bad(line, f"chunk {number} instead of {line - 1}")
        return Entry(
            number,
            self.digest(line, fields, "digest"),
            first,
            after,
            flat,
            size,
            self.digest(line, fields, "data"),
            relocated,
        )

    def _regions(self, line: int, regions: Any, first: int, after: int) -> array[int]:
        flat: array[int] = array("I")
        at = first
        for region in regions if isinstance(regions, list) else ():
            if not (isinstance(region, list) and [type(value) for value in region] == [int, int]):
                raise self.bad(line, "a region is no pair of numbers")
            start, count = region
            if start < at or count < 1 or start + count > after:
                raise self.bad(
                    line, f"region {start}, {count} does not lie behind sector {at} before {after}"
                )
            flat.extend(region)
            at = start + count
        if not flat:
            raise self.bad(line, "no regions")
        return flat


# -- making ------------------------------------------------------------------------------------------------


def data_ranges(index: ChunkIndex) -> list[tuple[int, int]]:
    """Return (byte offset, length) of what a chunk puts on the disk, ascending, by its index."""
    short = {
        relocation.sector: SECTOR - relocation.length
        for relocation in index.relocations
        if relocation.type == RELOC_SHORT_SECTOR
    }
    return [
        (region.start * SECTOR, region.count * SECTOR - short.get(region.end - 1, 0))
        for region in index.regions
    ]


def _entry(chunk: Buffer, index: ChunkIndex, data: bytes | None) -> Entry:
    """Describe a chunk; ``data`` is the digest of what it inflates to, if known."""
    last = index.regions[-1].end - 1
    relocated = any(
        relocation.type != RELOC_SHORT_SECTOR or relocation.sector != last for relocation in index.relocations
    )
    size = sum(length for _, length in data_ranges(index))
    if data is None or index.relocations:
        digest = sha256()
        for _, piece in contents(chunk, index):
            digest.update(piece)
        data = digest.digest()
    return Entry(
        index.number,
        sha256(chunk).digest(),
        index.first,
        index.after,
        flat_regions(index.regions),
        size if not relocated else index.sectors * SECTOR,
        data,
        relocated,
    )


class Recorder:
    """Makes the manifest of an image while it is written; a thread of its own does the sums.

    Call :meth:`data` with everything that goes into a chunk, in order, then :meth:`chunk` with the chunk,
    and in the end :meth:`finish`; :meth:`close` ends the thread in any case.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[bytes, bool] | None] = SimpleQueue()
        self._room = threading.Semaphore(_QUEUED)
        self._image = sha256()
        self._data = sha256()
        self._version = 0
        self._entries: list[Entry] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="manifest", daemon=True)
        self._thread.start()

    def data(self, data: bytes) -> None:
        """Take in bytes before compression."""
        self._room.acquire()
        self._queue.put((data, False))

    def chunk(self, chunk: bytes) -> None:
        """Take in a finished chunk of 1 MiB: all data since the last one is in it."""
        self._room.acquire()
        self._queue.put((chunk, True))

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                if self._error is None:
                    self._take(*job)
            except BaseException as error:
                # Raised again by finish(), in the thread that cares.
                self._error = error
            self._room.release()

    def _take(self, data: bytes, finished: bool) -> None:
        if not finished:
            self._data.update(data)
            return
        # The index alone: it was just written, its checksum need not be verified.
        index = parse_index(memoryview(data)[:INDEX_SIZE], len(self._entries))
        self._version = index.version
        self._image.update(data)
        self._entries.append(_entry(data, index, self._data.digest()))
        self._data = sha256()

    def finish(self, mtime_ns: int, identity: str = "") -> Manifest:
        """Return the manifest; ``mtime_ns`` is the time stamp of the finished image file."""
        self.close()
        if self._error is not None:
            raise self._error
        size = len(self._entries) * CHUNK_SIZE
        return Manifest(self._version, size, mtime_ns, self._image.digest(), self._entries, identity)

    def close(self) -> None:
        """End the thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()


def of_image(path: str | Path, identity: str = "") -> Manifest:
    """Make the manifest of an existing image, which is inflated and checked in full on the way.

    ``identity`` is the name that the system in it gives itself, if it is known.

    Raises :class:`NdzError` for a file that is no whole image or changes meanwhile.
    """
    name = os.fspath(path)
    image = sha256()
    tiling = Tiling(name=name)
    entries = []
    version = 0
    with open(name, "rb") as file:
        before = os.fstat(file.fileno())
        chunks = -(-before.st_size // CHUNK_SIZE)
        if not chunks:
            raise NdzError("is empty", name=name, remedy="give an image made by imagezip")
        for number, chunk in enumerate(_chunks(file.fileno())):
            if len(chunk) < CHUNK_SIZE and number:
                raise NdzError(
                    f"only {len(chunk)} bytes are there",
                    name=name,
                    chunk=number,
                    remedy="fetch the image again",
                )
            index = parse_index(chunk, number, name=name, chunks=chunks)
            if len(chunk) < CHUNK_SIZE:
                raise NdzError("shorter than a chunk", name=name, remedy="fetch the image again")
            tiling.add(index)
            version = index.version
            try:
                entries.append(_entry(chunk, index, None))
            except NdzError as error:
                error.name = name
                raise
            image.update(chunk)
        after = os.fstat(file.fileno())
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise NdzError("changed while it was read", name=name, remedy="try again")
    return Manifest(version, before.st_size, before.st_mtime_ns, image.digest(), entries, identity)


def _chunks(fd: int) -> Iterator[bytes]:
    at = 0
    while chunk := os.pread(fd, CHUNK_SIZE, at):
        yield chunk
        at += len(chunk)


# -- belonging ---------------------------------------------------------------------------------------------


def belongs(manifest: Manifest, image: str | Path) -> bool:
    """Whether a manifest is that of an image file, by its size and time stamp or else by its digest."""
    with open(image, "rb") as file:
        state = os.fstat(file.fileno())
        if state.st_size != manifest.size:
            return False
        if state.st_mtime_ns == manifest.mtime_ns:
            return True
        digest = sha256()
        while piece := file.read(CHUNK_SIZE):
            digest.update(piece)
        return digest.digest() == manifest.digest
