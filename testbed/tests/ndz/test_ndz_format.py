# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chunk indexes: layout, and that no damage goes unnoticed."""

from __future__ import annotations

import hashlib
import itertools
import re
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from ndz_tools import CHUNK, REGIONS_AT, make_chunk

from orbit_frisbee.ndz.format import (
    ChunkIndex,
    NdzError,
    Region,
    Relocation,
    Tiling,
    encode_chunk,
    parse_index,
    version_of,
)

REGIONS = [(10, 2), (20, 3), (40, 1)]
DATA = bytes(range(256)) * 12


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_every_field_is_found_where_the_programs_put_it(version: int) -> None:
    relocations = [] if version == 1 else [(6, 40, 0, 100), (3, 20, 508, 5)]
    total = 9 if version == 1 else 0
    chunk = make_chunk(
        version,
        REGIONS,
        DATA,
        number=7,
        total=total,
        first=5,
        after=64,
        relocations=relocations,
        garbage=b"\xee\x11",
    )
    index = parse_index(chunk, 7, chunks=9)
    assert index.version == version == version_of(chunk)
    assert (index.number, index.total) == (7, total)
    assert index.regions == tuple(itertools.starmap(Region, REGIONS))
    assert index.relocations == tuple(itertools.starmap(Relocation, relocations))
    assert index.length == int.from_bytes(chunk[4:8], "little")
    assert index.sectors == 6
    assert (index.first, index.after) == ((10, 41) if version == 1 else (5, 64))
    assert index.uuid == (bytes(16) if version == 4 else None)
    free = [(12, 8), (23, 17)]
    assert index.free() == (free if version == 1 else [(5, 5), *free, (41, 23)])


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_encoding_gives_the_described_bytes_and_zero_padding(version: int) -> None:
    expected = make_chunk(version, REGIONS, DATA, number=3, first=5, after=64)
    packed = bytes(expected[4096 : 4096 + int.from_bytes(expected[4:8], "little")])
    regions = list(itertools.starmap(Region, REGIONS))
    made = encode_chunk(
        [packed[:10], packed[10:]], version=version, number=3, regions=regions, first=5, after=64
    )
    assert made == expected


def test_checksum_and_uuid_lie_where_the_2016_programs_have_them() -> None:
    uuid = bytes(range(16))
    chunk = encode_chunk(
        [b"some bytes"], version=4, number=0, regions=[Region(0, 1)], after=1, uuid=uuid, checksum=True
    )
    assert chunk[36:40] == b"\0\0\1\0"
    assert chunk[328:344] == uuid
    blank = bytearray(chunk)
    blank[72:328] = bytes(256)
    assert chunk[72:92] == hashlib.sha1(bytes(blank[: 4096 + 10])).digest()
    assert chunk[92:328] == bytes(236)
    index = parse_index(chunk)
    assert (index.uuid, index.digest, index.signed) == (uuid, chunk[72:92], False)


# field as named in errors, offset, format, wrong values
DAMAGE = [
    ("magic", 0, "<I", [0, 0x69696968, 0x6969696D, 0xFFFFFFFF]),
    ("compressed length", 4, "<I", [0, CHUNK - 4096 + 1, 0xFFFFFFFF]),
    ("chunk number", 8, "<i", [0, 6, -1]),
    ("number of chunks", 12, "<i", [-1, 3, 5, 8, 10]),
    ("index size", 16, "<i", [0, 512, -4096, 8192]),
    ("region count", 20, "<i", [0, -1, 510, 1 << 30]),
    ("first sector", 24, "<I", [11, 0xFFFFFFFF]),
    ("sector after", 28, "<I", [0, 40]),
    ("relocation count", 32, "<i", [-1, 300]),
    ("cipher", 36, "<H", [1, 2, 0xFFFF]),
    ("checksum type", 38, "<H", [2, 0x4000, 0x8002]),
    ("region 0", 0x1000, "<I", [4]),
    ("region 1", 0x1008, "<I", [0, 11, 0xFFFFFFFF]),
    ("region 1", 0x100C, "<I", [0]),
    ("region 2", 0x100C, "<I", [21, 0xFFFFFFFF]),
    ("region 2", 0x1014, "<I", [0, 0xFFFFFFFF]),
    ("relocation 0", 0x1018 + 4, "<I", [39, 41, 0xFFFFFFFF]),
    ("relocation 0", 0x1018 + 8, "<I", [1, 512, 0xFFFFFFFF]),
    ("relocation 0", 0x1018 + 12, "<I", [0, 512, 0xFFFFFFFF]),
    ("relocation 1", 0x1028 + 4, "<I", [19, 23]),
    ("relocation 1", 0x1028 + 8, "<I", [513]),
    ("relocation 1", 0x1028 + 12, "<I", [0, 5000]),
]


def _cases() -> Iterator[tuple[int, str, int, str, int]]:
    for version, (field, offset, packing, values) in itertools.product((1, 2, 3, 4), DAMAGE):
        if offset >= 0x1000:
            there = version > 1 or not field.startswith("relocation")
            offset += REGIONS_AT[version] - 0x1000
        else:
            there = offset < REGIONS_AT[version]
        for value in values if there else ():
            if (version, field, value) != (1, "region 0", 4):  # before no first sector
                yield version, field, offset, packing, value


@pytest.mark.parametrize(("version", "field", "offset", "packing", "value"), list(_cases()))
def test_each_wrong_field_is_named(version: int, field: str, offset: int, packing: str, value: int) -> None:
    relocations = [] if version == 1 else [(6, 40, 0, 100), (3, 20, 508, 5)]
    chunk = make_chunk(version, REGIONS, DATA, number=7, first=5, after=64, relocations=relocations)
    parse_index(chunk, 7, chunks=9)
    struct.pack_into(packing, chunk, offset, value)
    # Where two fields contradict each other, the later one is named.
    if field == "first sector":
        field = "region 0"
    elif field == "region 1" and value == 0xFFFFFFFF:
        field = "region 2"
    with pytest.raises(NdzError) as caught:
        parse_index(chunk, 7, name="x.ndz", chunks=9)
    text = str(caught.value)
    assert text.startswith(f"x.ndz: chunk 7: {field}: ")
    assert "; " in text, "no remedy"


def test_a_short_index_is_refused() -> None:
    with pytest.raises(NdzError, match="only 4095 of 4096 bytes"):
        parse_index(bytes(4095))


def test_most_regions_of_each_version_are_taken() -> None:
    for version, most in ((1, 509), (2, 507), (3, 507), (4, 469)):
        regions = [(2 * i, 1) for i in range(most)]
        chunk = make_chunk(version, regions, bytes(512 * most), after=2 * most)
        assert len(parse_index(chunk).regions) == most
        struct.pack_into("<i", chunk, 20, most + 1)
        with pytest.raises(NdzError, match="region count"):
            parse_index(chunk)


def test_encrypted_chunks_are_refused_by_name() -> None:
    with pytest.raises(NdzError, match="encrypted"):
        parse_index(make_chunk(4, REGIONS, DATA, cipher=1))


def test_a_signature_is_noticed_and_not_taken_for_a_checksum() -> None:
    index = parse_index(make_chunk(4, REGIONS, DATA, checksum=0x8001))
    assert index.signed
    assert index.digest is None


CHECKED = encode_chunk(
    [b"0123456789" * 9],
    version=4,
    number=2,
    regions=[Region(8, 4), Region(20, 5)],
    first=4,
    after=40,
    relocations=[Relocation(3, 21, 7, 5)],
    checksum=True,
)


@given(st.integers(0, (4096 + 90) * 8 - 1))
def test_with_a_checksum_no_single_bit_can_be_wrong(bit: int) -> None:
    # Bits outside: the unused rest of the checksum field, and one that turns SHA-1 into "none".
    if 92 <= bit // 8 < 328 or 38 <= bit // 8 < 40:
        return
    chunk = bytearray(CHECKED)
    chunk[bit // 8] ^= 1 << bit % 8
    with pytest.raises(NdzError):
        parse_index(chunk, 2)


def test_the_checksum_needs_the_data() -> None:
    chunk = bytearray(CHECKED)
    chunk[4096] ^= 1
    assert parse_index(chunk[:4096]).digest is not None
    with pytest.raises(NdzError, match="checksum: the SHA-1"):
        parse_index(chunk)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(min_size=0, max_size=600), st.sampled_from([0, 1, 2, 3, 4]))
def test_garbage_is_refused_or_parsed_never_anything_else(raw: bytes, version: int) -> None:
    head = struct.pack("<I", 0x69696968 + version)
    try:
        index = parse_index((head + raw).ljust(4096, b"\0"))
    except NdzError:
        return
    assert index.regions
    assert index.after >= index.regions[-1].end


@st.composite
def indexes(draw: st.DrawFn) -> ChunkIndex:
    version = draw(st.sampled_from([2, 3, 4]))
    at = first = draw(st.integers(0, 1 << 20))
    regions = []
    for _ in range(draw(st.integers(1, 60))):
        at += draw(st.integers(0, 1000))
        regions.append(Region(at, draw(st.integers(1, 1 << 20))))
        at = regions[-1].end
    relocations = [
        Relocation(draw(st.sampled_from([1, 3, 100])), region.start, draw(st.integers(0, 500)), 5)
        for region in draw(st.lists(st.sampled_from(regions), max_size=4))
    ]
    return ChunkIndex(
        version,
        draw(st.integers(0, 1 << 20)),
        3,
        regions,
        relocations=relocations,
        first=first,
        after=at + draw(st.integers(0, 1 << 20)),
        uuid=draw(st.binary(min_size=16, max_size=16)),
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(indexes(), st.booleans())
def test_indexes_survive_encoding(index: ChunkIndex, checksum: bool) -> None:
    checksum = checksum and index.version == 4
    chunk = encode_chunk(
        [b"abc"],
        version=index.version,
        number=index.number,
        regions=index.regions,
        relocations=index.relocations,
        first=index.first,
        after=index.after,
        uuid=index.uuid or b"",
        checksum=checksum,
    )
    assert len(chunk) == CHUNK
    back = parse_index(chunk, index.number)
    for field in ("version", "number", "length", "regions", "relocations", "first", "after"):
        assert getattr(back, field) == getattr(index, field)
    assert back.uuid == (index.uuid if index.version == 4 else None)
    assert (back.digest is not None) == checksum


def test_what_does_not_fit_is_not_encoded() -> None:
    with pytest.raises(NdzError, match="compressed data"):
        encode_chunk([bytes(CHUNK - 4096 + 1)], version=2, number=0, regions=[Region(0, 1)], after=1)
    many = [Region(2 * i, 1) for i in range(508)]
    with pytest.raises(NdzError, match="do not fit"):
        encode_chunk([b"x"], version=2, number=0, regions=many, after=2000)
    with pytest.raises(NdzError, match="region 1"):
        encode_chunk([b"x"], version=2, number=0, regions=[Region(5, 2), Region(6, 1)], after=9)


def _chunks(version: int, bounds: list[int]) -> list[ChunkIndex]:
    return [
        parse_index(make_chunk(version, [(low, high - low)], b"", number=i, first=low, after=high))
        for i, (low, high) in enumerate(itertools.pairwise(bounds))
    ]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_chunks_that_tile_the_disk_agree_in_any_order(order: tuple[int, ...]) -> None:
    chunks = _chunks(2, [0, 10, 30, 31])
    tiling = Tiling()
    for number in order:
        tiling.add(chunks[number])
        tiling.add(chunks[number])  # a repeated chunk is no other chunk


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("wrong", [(11, 30), (9, 30), (10, 29), (10, 32)])
def test_holes_and_overlaps_between_chunks_are_found_in_any_order(
    order: tuple[int, ...], wrong: tuple[int, int]
) -> None:
    chunks = _chunks(3, [0, 10, 30, 31])
    low, high = wrong
    chunks[1] = parse_index(make_chunk(3, [(low, high - low)], b"", number=1, first=low, after=high))
    tiling = Tiling(name="x.ndz")
    errors = []
    for number in order:
        try:
            tiling.add(chunks[number])
        except NdzError as error:
            errors.append(str(error))
    assert errors
    assert all(re.match(r"x\.ndz: chunk [12]: first sector: ", text) for text in errors)


def test_version_1_may_leave_holes_but_not_go_back() -> None:
    tiling = Tiling()
    tiling.add(parse_index(make_chunk(1, [(5, 5)], b"", number=0)))
    tiling.add(parse_index(make_chunk(1, [(20, 5)], b"", number=1)))
    with pytest.raises(NdzError, match="chunk 2: first sector: 24"):
        tiling.add(parse_index(make_chunk(1, [(24, 5)], b"", number=2)))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_chunks_that_count_differently_are_not_mixed(order: tuple[int, ...]) -> None:
    def index(number: int, total: int) -> ChunkIndex:
        chunk = make_chunk(2, [(number, 1)], b"", number=number, first=number, after=number + 1, total=total)
        return parse_index(chunk)

    tiling = Tiling()
    for number in order:
        tiling.add(index(number, (3, 0, 3)[number]))
    assert tiling.total == 3
    tiling = Tiling()
    last = next(number for number in reversed(order) if number != 1)
    for number in order[: order.index(last)]:
        tiling.add(index(number, (3, 0, 4)[number]))
    with pytest.raises(NdzError, match=r"number of chunks: \d, other chunks say \d"):
        tiling.add(index(last, (3, 0, 4)[last]))


def test_a_checksum_that_one_bit_switches_off_is_missed() -> None:
    """A signature's chunk looks like that; but then all chunks of the image have one."""
    tiling = Tiling()
    chunks = [
        bytearray(
            encode_chunk(
                [b"abc"],
                version=4,
                number=n,
                regions=[Region(n, 1)],
                first=n,
                after=n + 1,
                checksum=True,
            )
        )
        for n in range(3)
    ]
    tiling.add(parse_index(chunks[0], 0))
    chunks[1][39] |= 0x80
    chunks[2][38] = 0
    for number in (1, 2):
        with pytest.raises(NdzError, match="checksum type: the chunks are of different images"):
            tiling.add(parse_index(chunks[number], number))


def test_a_sector_is_short_only_once() -> None:
    """Twice, bytes of the sector before it would be left out as well."""
    relocations = [(6, 1, 0, 100), (6, 1, 0, 200)]
    with pytest.raises(NdzError, match="relocation 1: sector 1 is short twice"):
        parse_index(make_chunk(2, [(0, 2)], b"", relocations=relocations))


def test_an_image_begins_at_sector_0() -> None:
    with pytest.raises(NdzError, match="first sector: 3 instead of 0"):
        Tiling().add(parse_index(make_chunk(2, [(3, 5)], b"", first=3)))


def test_chunks_of_different_images_are_not_mixed() -> None:
    tiling = Tiling()
    tiling.add(_chunks(4, [0, 10])[0])
    with pytest.raises(NdzError, match="magic: the chunks are of different images"):
        tiling.add(_chunks(3, [0, 10, 20])[1])
    other = make_chunk(4, [(10, 1)], b"", number=1, first=10)
    other[328] = 1
    with pytest.raises(NdzError, match="UUID"):
        tiling.add(parse_index(other))
