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

The version changes when an old reader would misread the file. A manifest has at most :data:`MAX_SIZE` bytes;
what a reader makes of it takes about half of that.
"""

from __future__ import annotations

import os
import struct
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, Protocol, overload

from orbit_frisbee.ndz.format import (
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
from orbit_frisbee.ndz.unpack import contents

SUFFIX: Final = ".manifest"
MAX_SIZE: Final = 64 << 20
"""Bytes of the largest manifest that is written and read: that of an image file of about 200 GiB, less when
the data is in many pieces."""
MAX_IDENTITY: Final = 255
"""Characters of the longest identity."""
FORMAT_VERSION: Final = 1

_NAME: Final = "orbit.imaging"
_ALGORITHM: Final = "sha256"
_DIGEST_SIZE: Final = 32
_LINE_LIMIT: Final = 64 << 10
_END_SIZE: Final = 128
_QUEUED: Final = 16
_HANDED_OVER: Final = 1 << 20
"""Bytes handed over to the thread at a time: threads that wait for each other often do little else."""
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


class Entries(Sequence[Entry]):
    """Chunks in order, packed: each takes about 110 bytes of memory, and 8 for each of its regions."""

    _FIELDS: Final = struct.Struct("<32s32sQQQI?")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._packed = bytearray()
        self._places = array("Q")
        for entry in entries:
            self.append(entry)

    def append(self, entry: Entry) -> None:
        """Add the next chunk."""
        self._places.append(len(self._packed))
        self._packed += self._FIELDS.pack(
            entry.digest,
            entry.data,
            entry.first,
            entry.after,
            entry.size,
            len(entry.regions),
            entry.relocated,
        )
        self._packed += entry.regions.tobytes()

    def amend(self, number: int, digest: bytes) -> None:
        """Change the digest of a chunk."""
        at = self._places[number]
        self._packed[at : at + len(digest)] = digest

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, number: int, /) -> Entry: ...
    @overload
    def __getitem__(self, number: slice, /) -> list[Entry]: ...

    def __getitem__(self, number: int | slice, /) -> Entry | list[Entry]:
        if isinstance(number, slice):
            return [self[i] for i in range(len(self))[number]]
        number = range(len(self))[number]
        at = self._places[number]
        digest, data, first, after, size, count, relocated = self._FIELDS.unpack_from(self._packed, at)
        at += self._FIELDS.size
        regions = array("I", bytes(memoryview(self._packed)[at : at + 4 * count]))
        return Entry(number, digest, first, after, regions, size, data, relocated)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(Entry.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]


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
        """Return the manifest's file. Raises :class:`ManifestError` when nobody would read one so large."""
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
        text = bytearray(_line(head))
        for entry in self.entries:
            text += _line(_entry_fields(entry))
            if len(text) > MAX_SIZE - _END_SIZE:
                raise ManifestError(
                    f"its manifest would be larger than {MAX_SIZE} bytes",
                    remedy="let it be checked by its own means (-V 4 -a)",
                )
        text += _line({"end": sha256(text).hexdigest()})
        return bytes(text)


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


def _line(fields: dict[str, Any]) -> bytes:
    import json

    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


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


def parse(text: bytes | bytearray, name: str) -> Manifest:
    """Parse and validate a manifest; ``name`` goes into errors. Raises :class:`ManifestError`."""
    if len(text) > MAX_SIZE:
        raise ManifestError(f"larger than {MAX_SIZE} bytes", name=name, remedy=_AGAIN)
    # All lines at a time would take as much memory again as the text.
    count = text.count(b"\n")
    if count < 3 or not text.endswith(b"\n"):
        raise ManifestError("is no manifest, or cut off", name=name, remedy=_AGAIN)
    last = text.rindex(b"\n", 0, -1) + 1
    lines = _lines(text)
    reader = _Reader(name)
    head = reader.fields(0, next(lines))
    if head.get("manifest") != _NAME:
        raise ManifestError("is no manifest of an image", name=name, remedy="give the .manifest of the image")
    # By what they look like: in Python, 1 equals both 1.0 and true.
    if repr(head.get("version")) != str(FORMAT_VERSION) or head.get("algorithm") != _ALGORITHM:
        raise ManifestError(
            f"version {head.get('version')!r} with {head.get('algorithm')!r} digests is not known",
            name=name,
            remedy=f"version {FORMAT_VERSION} with {_ALGORITHM} is; {_AGAIN}",
        )
    end = reader.digest(count - 1, reader.fields(count - 1, text[last:-1]), "end")
    if end != sha256(memoryview(text)[:last]).digest():
        raise ManifestError("damaged: the digest in its last line is another", name=name, remedy=_AGAIN)
    version = reader.number(0, head, "image_version", VERSIONS[-1])
    size = reader.number(0, head, "size", MAX_SECTORS * SECTOR)
    chunks = reader.number(0, head, "chunks", MAX_SECTORS)
    if version not in VERSIONS or not chunks or size != chunks * CHUNK_SIZE or count != chunks + 2:
        raise reader.bad(0, f"{size} bytes, {chunks} chunks and {count} lines do not go together")
    tiling = Tiling(name=name)
    entries = Entries()
    for at in range(1, chunks + 1):
        entry = reader.entry(at, reader.fields(at, next(lines)))
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


def _lines(text: bytes | bytearray) -> Iterator[bytes | bytearray]:
    at = 0
    while (end := text.find(b"\n", at)) >= 0:
        yield text[at:end]
        at = end + 1


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

    def fields(self, line: int, text: bytes | bytearray) -> dict[str, Any]:
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
            if start < at or not 1 <= count < MAX_SECTORS or start + count > after:
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


def _entry(chunk: Buffer, index: ChunkIndex, digest: bytes, data: bytes | None) -> Entry:
    """Describe a chunk with that digest; ``data`` is the digest of what it inflates to, if known."""
    last = index.regions[-1].end - 1
    relocated = any(
        relocation.type != RELOC_SHORT_SECTOR or relocation.sector != last for relocation in index.relocations
    )
    size = sum(length for _, length in data_ranges(index))
    if data is None or index.relocations:
        sums = sha256()
        for _, piece in contents(chunk, index):
            sums.update(piece)
        data = sums.digest()
    return Entry(
        index.number,
        digest,
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
        self._gathered: list[Buffer] = []
        self._size = 0
        self._queue: SimpleQueue[tuple[list[Buffer], bytes | None] | None] = SimpleQueue()
        self._room = threading.Semaphore(_QUEUED)
        self._data = sha256()
        self._version = 0
        self._entries = Entries()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="manifest", daemon=True)
        self._thread.start()

    def data(self, data: Buffer) -> None:
        """Take in bytes before compression."""
        self._gathered.append(data)
        self._size += len(data)
        if self._size >= _HANDED_OVER:
            self._hand_over(None)

    def chunk(self, chunk: bytes) -> None:
        """Take in a finished chunk of 1 MiB: all data since the last one is in it."""
        self._hand_over(chunk)

    def _hand_over(self, chunk: bytes | None) -> None:
        self._room.acquire()
        self._queue.put((self._gathered, chunk))
        self._gathered, self._size = [], 0

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                if self._error is None:
                    self._take(*job)
            except BaseException as error:
                # Raised again by finish(), in the thread that cares.
                self._error = error
            self._room.release()

    def _take(self, pieces: list[Buffer], chunk: bytes | None) -> None:
        for piece in pieces:
            self._data.update(piece)
        if chunk is None:
            return
        # The index alone: it was just written, its checksum need not be verified.
        index = parse_index(memoryview(chunk)[:INDEX_SIZE], len(self._entries))
        self._version = index.version
        self._entries.append(_entry(chunk, index, bytes(_DIGEST_SIZE), self._data.digest()))
        self._data = sha256()

    def finish(self, image: int, identity: str = "") -> Manifest:
        """Return the manifest of the finished image, which is open for reading as ``image``.

        Its digest is made here, as the first chunk has changed since it was taken in; those of the chunks are
        made beside it, so that two processors have something to do. Raises what went wrong in the thread, and
        :class:`NdzError` when the file is not what was taken in.
        """
        self.close()
        if self._error is not None:
            raise self._error
        # Imported here: clients load this module, too.
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1, thread_name_prefix="manifest") as other:
            whole = other.submit(_digest_of, image)
            for number, chunk in zip(range(len(self._entries)), _pieces(image), strict=False):
                self._entries.amend(number, sha256(chunk).digest())
        state = os.fstat(image)
        size = len(self._entries) * CHUNK_SIZE
        if state.st_size != size:
            raise NdzError(f"{state.st_size} bytes instead of {size}: it changed while it was written")
        return Manifest(self._version, size, state.st_mtime_ns, whole.result(), self._entries, identity)

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
    entries = Entries()
    version = 0
    with open(name, "rb") as file:
        before = os.fstat(file.fileno())
        chunks = -(-before.st_size // CHUNK_SIZE)
        if not chunks:
            raise NdzError("is empty", name=name, remedy="give an image made by imagezip")
        for number, chunk in enumerate(_pieces(file.fileno())):
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
                entries.append(_entry(chunk, index, sha256(chunk).digest(), None))
            except NdzError as error:
                error.name = name
                raise
            image.update(chunk)
        after = os.fstat(file.fileno())
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise NdzError("changed while it was read", name=name, remedy="try again")
    return Manifest(version, before.st_size, before.st_mtime_ns, image.digest(), entries, identity)


def _pieces(fd: int) -> Iterator[memoryview]:
    """Yield the chunks of a file, the last one perhaps shorter; each is good until the next."""
    memory = memoryview(bytearray(CHUNK_SIZE))
    at = 0
    while size := os.preadv(fd, [memory], at):
        yield memory[:size]
        at += size


def _digest_of(fd: int) -> bytes:
    digest = sha256()
    for piece in _pieces(fd):
        digest.update(piece)
    return digest.digest()


# -- belonging ---------------------------------------------------------------------------------------------


def belongs(manifest: Manifest, image: str | Path) -> bool:
    """Whether a manifest is that of an image file, by its size and time stamp or else by its digest."""
    with open(image, "rb") as file:
        state = os.fstat(file.fileno())
        if state.st_size != manifest.size:
            return False
        if state.st_mtime_ns == manifest.mtime_ns:
            return True
        return _digest_of(file.fileno()) == manifest.digest
