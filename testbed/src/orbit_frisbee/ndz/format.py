# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The on-disk layout of an image: chunk indexes, regions and relocations.

An image is a row of chunks of exactly 1 MiB without header or trailer. A chunk is an index of 4096 bytes,
one zlib stream, and padding. Addresses are 512-byte sectors, 32 bit, little-endian. The layout is that
of the 2004 (versions 1 to 3) and 2016 (versions 1 to 4) programs.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SECTOR = 512
CHUNK_SIZE = 1 << 20
INDEX_SIZE = 4096
DATA_MAX = CHUNK_SIZE - INDEX_SIZE
"""Most bytes of compressed data that fit a chunk."""

MAGIC_BASE = 0x69696968
VERSIONS = (1, 2, 3, 4)
MAX_SECTORS = 1 << 32
REGION_LIMIT = {1: 507, 2: 507, 3: 507, 4: 469}
"""Most regions a writer puts into a chunk of each version; each relocation takes the room of two."""

CIPHER_NONE, CIPHER_BLOWFISH = 0, 1
CHECKSUM_NONE, CHECKSUM_SHA1, CHECKSUM_SIGNED = 0, 1, 0x8000

RELOC_BSD_LABEL = 1
RELOC_OPENBSD_LABEL = 2
RELOC_LILO_ADDRESS = 3
RELOC_LILO_MAP = 4
RELOC_LILO_CHECKSUM = 5
RELOC_SHORT_SECTOR = 6

_COMMON = struct.Struct("<IIiiii")
_RANGE = struct.Struct("<IIi")
_PROTECTION = struct.Struct("<HH32s256s16s")
_REGION = struct.Struct("<II")
_RELOCATION = struct.Struct("<IIII")
_HEADER_SIZE = {1: 24, 2: 36, 3: 36, 4: 344}
_DIGEST_AT, _DIGEST_FIELD, _DIGEST_SIZE = 72, 256, 20
TOTAL_AT, TOTAL_SIZE = 12, 4
"""Place and size in an index of the number of chunks."""

Buffer = bytes | bytearray | memoryview

_DAMAGED = "the image is damaged: fetch or make it again"


class NdzError(Exception):
    """An image or target cannot be used.

    The text reads ``<file>: chunk <n>: <field>: <problem>; <remedy>``, leaving out what does not apply.
    """

    def __init__(
        self,
        problem: str,
        *,
        name: str | None = None,
        chunk: int | None = None,
        field: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.name, self.chunk, self.field, self.remedy = problem, name, chunk, field, remedy
        super().__init__(problem)

    def __str__(self) -> str:
        place = [self.name, None if self.chunk is None else f"chunk {self.chunk}", self.field, self.problem]
        text = ": ".join(part for part in place if part)
        return f"{text}; {self.remedy}" if self.remedy else text


class Region(NamedTuple):
    """A run of allocated sectors."""

    start: int
    count: int  # type: ignore[assignment]  # the name hides tuple.count, which nothing here needs

    @property
    def end(self) -> int:
        """First sector behind the region."""
        return self.start + self.count


class Relocation(NamedTuple):
    """Bytes that depend on where the partition lies: ``length`` bytes at ``offset`` of ``sector``."""

    type: int
    sector: int
    offset: int
    length: int


class Patch(NamedTuple):
    """Bytes of a target that are others than the image's: at ``offset``, ``there`` instead of ``image``."""

    offset: int
    there: bytes
    image: bytes


class ChunkIndex:
    """A validated chunk index.

    ``number`` counts chunks from 0; ``total`` is the number of chunks of the image or 0 when not stored;
    ``length`` is the size of the compressed data in bytes. The chunk speaks for the sectors from
    ``first`` up to, not including, ``after``: what lies there outside ``regions`` is free space. Version
    1 does not store that range; there it goes from the first region's start to the last one's end.
    ``digest`` is the stored SHA-1 (20 bytes) or None; ``signed`` says that the checksum field holds a
    signature instead, which is not verified. ``uuid`` is None before version 4.
    """

    __slots__ = (
        "after",
        "digest",
        "first",
        "length",
        "number",
        "regions",
        "relocations",
        "signed",
        "total",
        "uuid",
        "version",
    )

    def __init__(
        self,
        version: int,
        number: int,
        length: int,
        regions: Sequence[Region],
        *,
        relocations: Sequence[Relocation] = (),
        first: int,
        after: int,
        total: int = 0,
        digest: bytes | None = None,
        signed: bool = False,
        uuid: bytes | None = None,
    ) -> None:
        self.version, self.number, self.total, self.length = version, number, total, length
        self.regions, self.relocations = tuple(regions), tuple(relocations)
        self.first, self.after = first, after
        self.digest, self.signed, self.uuid = digest, signed, uuid

    @property
    def sectors(self) -> int:
        """Number of sectors of data: the inflated length divided by 512."""
        return sum(count for _, count in self.regions)

    def free(self) -> list[Region]:
        """Return the free ranges this chunk speaks for, ascending."""
        ranges, at = [], self.first
        for start, count in self.regions:
            if start > at:
                ranges.append(Region(at, start - at))
            at = start + count
        if self.after > at:
            ranges.append(Region(at, self.after - at))
        return ranges


def version_of(head: Buffer) -> int | None:
    """Return the image version a file begins with, None when it is no image. Needs 4 bytes."""
    if len(head) < 4:
        return None
    version = int.from_bytes(head[:4], "little") - MAGIC_BASE
    return version if version in VERSIONS else None


def parse_index(
    chunk: Buffer, number: int | None = None, *, name: str | None = None, chunks: int | None = None
) -> ChunkIndex:
    """Parse and validate the index of a chunk.

    ``chunk`` is a whole chunk, or at least its first 4096 bytes; a stored SHA-1 is verified when all of
    the compressed data is there. ``number`` is the place of the chunk in its file and ``chunks`` the
    number of chunks of the file, if known. ``name`` goes into errors.

    Raises :class:`NdzError` for anything a writer of the field does not produce, and for encrypted data.
    """

    def bad(field: str, problem: str, remedy: str = _DAMAGED) -> NdzError:
        return NdzError(problem, name=name, chunk=number, field=field, remedy=remedy)

    if len(chunk) < INDEX_SIZE:
        raise bad("index", f"only {len(chunk)} of {INDEX_SIZE} bytes are there")
    magic, length, own, total, index_size, region_count = _COMMON.unpack_from(chunk)
    version = magic - MAGIC_BASE
    if version not in VERSIONS:
        raise bad("magic", f"0x{magic:08x} is no image", "give an image made by imagezip")
    if number is None:
        number = own
    if own != number or own < 0:
        raise bad("chunk number", f"the index says {own}")
    if total < 0 or (total and (total <= own or (chunks is not None and total != chunks))):
        there = f" but {chunks} are there" if chunks is not None else ""
        raise bad("number of chunks", f"the index says {total}{there}")
    if index_size != INDEX_SIZE:
        raise bad("index size", f"{index_size} instead of {INDEX_SIZE}")
    if not 0 < length <= DATA_MAX:
        raise bad("compressed length", f"{length} is not between 1 and {DATA_MAX}")

    header = _HEADER_SIZE[version]
    first = after = relocation_count = 0
    digest = uuid = None
    signed = False
    if version >= 2:
        first, after, relocation_count = _RANGE.unpack_from(chunk, 24)
    if version == 4:
        cipher, checksum, _, digest_field, uuid = _PROTECTION.unpack_from(chunk, 36)
        if cipher != CIPHER_NONE:
            what = "is encrypted (Blowfish)" if cipher == CIPHER_BLOWFISH else f"has unknown cipher {cipher}"
            raise bad("cipher", f"the data {what}", "decrypt it with the program and key that made it")
        if checksum & ~CHECKSUM_SIGNED not in (CHECKSUM_NONE, CHECKSUM_SHA1):
            raise bad("checksum type", f"0x{checksum:04x} is unknown")
        signed = bool(checksum & CHECKSUM_SIGNED)
        if checksum == CHECKSUM_SHA1:
            digest = digest_field[:_DIGEST_SIZE]

    room = INDEX_SIZE - header
    if not 0 < region_count <= room // _REGION.size:
        raise bad("region count", f"{region_count} is not between 1 and {room // _REGION.size}")
    room -= region_count * _REGION.size
    if not 0 <= relocation_count <= room // _RELOCATION.size:
        raise bad("relocation count", f"{relocation_count} is not between 0 and {room // _RELOCATION.size}")
    relocations_at = header + region_count * _REGION.size
    view = memoryview(chunk)
    regions = tuple(map(Region._make, _REGION.iter_unpack(view[header:relocations_at])))
    if version == 1:
        first, after = regions[0].start, regions[-1].start + regions[-1].count
    at = first
    for i, (start, count) in enumerate(regions):
        if not count:
            raise bad(f"region {i}", f"empty, at sector {start}")
        if start < at:
            before = f"the first sector {first}" if i == 0 else f"sector {at}, the end of the region before"
            raise bad(f"region {i}", f"sector {start} lies before {before}")
        at = start + count
    if at > MAX_SECTORS:
        raise bad(f"region {region_count - 1}", f"ends at sector {at}, behind the last possible one")
    if after < at:
        raise bad("sector after", f"{after} lies before sector {at}, the end of the last region")

    relocations: tuple[Relocation, ...] = ()
    if relocation_count:
        end = relocations_at + relocation_count * _RELOCATION.size
        relocations = tuple(map(Relocation._make, _RELOCATION.iter_unpack(view[relocations_at:end])))
        short: set[int] = set()
        for i, relocation in enumerate(relocations):
            problem = _relocation_problem(relocation, regions)
            if relocation.type == RELOC_SHORT_SECTOR:
                if relocation.sector in short:
                    problem = f"sector {relocation.sector} is short twice"
                short.add(relocation.sector)
            if problem:
                raise bad(f"relocation {i}", problem)

    index = ChunkIndex(
        version,
        number,
        length,
        regions,
        relocations=relocations,
        first=first,
        after=after,
        total=total,
        digest=digest,
        signed=signed,
        uuid=uuid,
    )
    if digest is not None and len(chunk) >= INDEX_SIZE + length and _sha1(chunk, length) != digest:
        raise bad("checksum", "the SHA-1 of index and data is another")
    return index


def _relocation_problem(relocation: Relocation, regions: Sequence[Region]) -> str | None:
    _, sector, offset, length = relocation
    if offset >= SECTOR:
        return f"offset {offset} is not inside a sector"
    if not 0 < length <= INDEX_SIZE:
        return f"length {length} is not between 1 and {INDEX_SIZE}"
    last = sector + (offset + length - 1) // SECTOR
    for start, count in regions:
        if start <= sector and last < start + count:
            if relocation.type == RELOC_SHORT_SECTOR and (
                sector != start + count - 1 or offset or length >= SECTOR
            ):
                return f"a short sector of {length} bytes at {offset} of sector {sector} ends no region"
            return None
    return f"{length} bytes at {offset} of sector {sector} lie in no region of the chunk"


def _sha1(chunk: Buffer, length: int) -> bytes:
    # Imported here: hashlib takes longer to load than all the rest, and few images have checksums.
    import hashlib

    view = memoryview(chunk)
    digest = hashlib.sha1(view[:_DIGEST_AT], usedforsecurity=False)
    digest.update(bytes(_DIGEST_FIELD))
    digest.update(view[_DIGEST_AT + _DIGEST_FIELD : INDEX_SIZE + length])
    return digest.digest()


def encode_chunk(
    data: Iterable[bytes],
    *,
    version: int,
    number: int,
    regions: Sequence[Region],
    relocations: Sequence[Relocation] = (),
    first: int = 0,
    after: int = 0,
    total: int = 0,
    uuid: bytes = bytes(16),
    checksum: bool = False,
) -> bytes:
    """Return a whole chunk of 1 MiB around compressed data.

    Bytes that no field uses are zero, so that the same input gives the same image. ``first``, ``after``
    and relocations need version 2, ``uuid`` and ``checksum`` (SHA-1) version 4; they are left out of
    lower versions. What was encoded passes :func:`parse_index`, or NdzError is raised.
    """
    pieces = list(data)
    length = sum(map(len, pieces))
    if length > DATA_MAX:
        raise NdzError(f"more than {DATA_MAX} bytes of compressed data", chunk=number)
    index = bytearray(INDEX_SIZE)
    _COMMON.pack_into(index, 0, MAGIC_BASE + version, length, number, total, INDEX_SIZE, len(regions))
    if version >= 2:
        _RANGE.pack_into(index, 24, first, after, len(relocations))
    if version == 4:
        kind = CHECKSUM_SHA1 if checksum else CHECKSUM_NONE
        _PROTECTION.pack_into(index, 36, CIPHER_NONE, kind, b"", b"", uuid)
    at = _HEADER_SIZE[version]
    if at + _REGION.size * len(regions) + _RELOCATION.size * len(relocations) > INDEX_SIZE:
        raise NdzError(f"{len(regions)} regions do not fit the index", chunk=number)
    for region in regions:
        _REGION.pack_into(index, at, *region)
        at += _REGION.size
    for relocation in relocations if version >= 2 else ():
        _RELOCATION.pack_into(index, at, *relocation)
        at += _RELOCATION.size
    result = b"".join((index, *pieces, bytes(DATA_MAX - length)))
    if version == 4 and checksum:
        result = _with_digest(result, length)
    parse_index(result, number)
    return result


def with_total(chunk: bytes, total: int) -> bytes:
    """Return a chunk of :func:`encode_chunk` whose index says that the image has ``total`` chunks."""
    changed = bytearray(chunk)
    changed[TOTAL_AT : TOTAL_AT + TOTAL_SIZE] = total.to_bytes(TOTAL_SIZE, "little")
    index = parse_index(memoryview(chunk)[:INDEX_SIZE])
    return bytes(changed) if index.digest is None else _with_digest(changed, index.length)


def _with_digest(chunk: Buffer, length: int) -> bytes:
    view = memoryview(chunk)
    return b"".join((view[:_DIGEST_AT], _sha1(chunk, length), view[_DIGEST_AT + _DIGEST_SIZE :]))


_UNSEEN = -1
_KIND_FIELDS = ("magic", "UUID", "checksum type", "checksum type")


class Tiling:
    """Checks chunk indexes of one image against each other, in any order.

    From version 2 on the chunks of an image speak for [0, end) without holes or overlaps; in version 1
    they ascend. All chunks have one version, one UUID and one kind of checksum, and those that say how many
    there are say the same. Takes 16 bytes of memory for each chunk.
    """

    def __init__(self, *, name: str | None = None) -> None:
        self._name = name
        self._firsts, self._afters = array("q"), array("q")
        self._kind: tuple[object, ...] = ()
        self.total = 0
        """The number of chunks of the image, 0 as long as none has said it."""

    def add(self, index: ChunkIndex) -> None:
        """Take in the index of one more chunk; raises :class:`NdzError` when it does not fit the others."""
        number = index.number
        kind = (index.version, index.uuid, index.signed, index.digest is not None)
        self._kind = self._kind or kind
        for field, there, known in zip(_KIND_FIELDS, kind, self._kind, strict=True):
            if there != known:
                raise self._bad(number, field, "the chunks are of different images")
        if index.total and self.total and index.total != self.total:
            raise self._bad(number, "number of chunks", f"{index.total}, other chunks say {self.total}")
        self.total = self.total or index.total
        if index.version >= 2 and number == 0 and index.first != 0:
            raise self._bad(number, "first sector", f"{index.first} instead of 0")
        firsts, afters = self._firsts, self._afters
        missing = number + 2 - len(firsts)
        if missing > 0:
            firsts.extend([_UNSEEN] * missing)
            afters.extend([_UNSEEN] * missing)
        firsts[number], afters[number] = index.first, index.after
        for low in (number - 1, number) if number else (0,):
            after, first = afters[low], firsts[low + 1]
            if _UNSEEN in (after, first):
                continue
            if after > first or (after < first and index.version >= 2):
                raise self._bad(low + 1, "first sector", f"{first}, but chunk {low} goes up to {after}")

    def _bad(self, number: int, field: str, problem: str) -> NdzError:
        return NdzError(problem, name=self._name, chunk=number, field=field, remedy=_DAMAGED)
