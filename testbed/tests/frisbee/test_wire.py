# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Datagrams, byte by byte."""

from __future__ import annotations

import contextlib
import itertools
import struct

import pytest
from hypothesis import given, strategies as st

from orbit_frisbee.frisbee import wire

HOME = bytes([127, 0, 0, 1])
U32 = st.integers(0, 0xFFFFFFFF)
CHUNK = st.integers(0, 0x7FFFFFFF)
BITS = st.integers(1, wire.FULL)

# Laid out by hand from the tables of the protocol, not by the code under test.
JOIN = bytes.fromhex("01000000 01000000 04000000 7f000001 44332211")
JOIN_REPLY = bytes.fromhex("02000000 01000000 04000000 7f000001 00080000")
JOIN2 = bytes.fromhex("01000000 07000000 18000000 7f000001 44332211 00000000 00040000 00040000") + bytes(8)
JOIN2_REPLY = bytes.fromhex(
    "02000000 07000000 18000000 7f000001 44332211 00000000 00040000 00040000 0105000000000000"
)
JOIN2_REPLY_COUNTED = JOIN2_REPLY[:20] + b"\2\0\0\0" + JOIN2_REPLY[24:]
LEAVE = bytes.fromhex("01000000 02000000 08000000 7f000001 44332211 0c000000")
REQUEST = bytes.fromhex("01000000 04000000 0c000000 7f000001 05000000 0a000000 14000000")
PREQUEST = bytes.fromhex("01000000 06000000 88000000 7f000001 05000000 01000000 03") + bytes(126) + b"\x80"
BLOCK = bytes.fromhex("01000000 03000000 08040000 7f000001 05000000 ff030000") + b"d" * 1024
LEAVE2_64_BIT = bytes.fromhex("01000000 05000000 10080000 7f000001 44332211 0c000000") + b"s" * 2056


@pytest.mark.parametrize(
    ("datagram", "message"),
    [
        (JOIN, wire.Join(0x11223344)),
        (JOIN_REPLY, wire.JoinReply(2048)),
        (JOIN2, wire.Join2(0x11223344, 1024, 1024)),
        (JOIN2_REPLY, wire.Join2Reply(0x11223344, 2, 1024, 1024, 1281)),
        (JOIN2_REPLY_COUNTED, wire.Join2Reply(0x11223344, 2, 1024, 1024, 1281)),
        (LEAVE, wire.Leave(0x11223344, 12)),
        (REQUEST, wire.Request(5, 10, 20)),
        (PREQUEST, wire.PartialRequest(5, 3 | 1 << 1023, True)),
        (BLOCK, wire.Block(5, 1023, memoryview(b"d" * 1024))),
        (LEAVE2_64_BIT, wire.Leave(0x11223344, 12)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, tuple) else "",
)
def test_known_bytes(datagram: bytes, message: wire.Message) -> None:
    assert wire.decode(datagram) == (message, HOME)


@pytest.mark.parametrize(
    ("datagram", "encoded"),
    [
        (JOIN, wire.encode_join(HOME, 0x11223344)),
        (JOIN_REPLY, wire.encode_join_reply(HOME, 2048)),
        (JOIN2, wire.encode_join2(HOME, 0x11223344)),
        (JOIN2_REPLY, wire.encode_join2_reply(HOME, 0x11223344, 1281)),
        (LEAVE, wire.encode_leave(HOME, 0x11223344, 12)),
        (REQUEST, wire.encode_request(HOME, 5, 10, 20)),
        (PREQUEST, wire.encode_prequest(HOME, 5, 3 | 1 << 1023, retry=True)),
        (BLOCK, wire.encode_block(HOME, 5, 1023, b"d" * 1024)),
    ],
)
def test_encoding_gives_known_bytes(datagram: bytes, encoded: bytes) -> None:
    assert encoded == datagram


def test_sizes_on_the_wire() -> None:
    sizes = [len(d) + 28 for d in (BLOCK, PREQUEST, REQUEST, JOIN)]
    assert sizes == [1076, 180, 56, 48]
    assert len(wire.encode_leave2(HOME, 1, wire.Statistics())) == 16 + 1036
    assert wire.BLOCK_ON_WIRE == 1114


@given(data=st.binary(max_size=2200), chunks=st.none() | st.integers(1, 100))
def test_any_bytes_raise_nothing_else(data: bytes, chunks: int | None) -> None:
    with contextlib.suppress(wire.WireError):
        wire.decode(data, chunks)


VALID = [JOIN, JOIN_REPLY, JOIN2, JOIN2_REPLY, LEAVE, REQUEST, PREQUEST, BLOCK, LEAVE2_64_BIT]


@given(
    base=st.sampled_from(VALID),
    edits=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 60),
)
def test_damaged_datagrams_raise_nothing_else(base: bytes, edits: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(base)
    for at, value in edits:
        data[at % len(data)] = value
    try:
        message, _ = wire.decode(data[: len(data) - cut], 8)
    except wire.WireError:
        return
    if isinstance(message, wire.Request):
        assert 0 <= message.chunk < 8
        assert 0 < message.bits <= wire.FULL
    elif isinstance(message, wire.PartialRequest):
        assert 0 < message.bits <= wire.FULL
    elif isinstance(message, wire.Block):
        assert len(message.data) == 1024


@given(st.binary(max_size=40), st.sampled_from(VALID))
def test_what_lies_behind_the_stated_length_is_ignored(tail: bytes, datagram: bytes) -> None:
    assert wire.decode(datagram + tail) == wire.decode(datagram)


@pytest.mark.parametrize("datagram", VALID, ids=lambda d: f"subtype{d[4]}")
def test_every_shorter_piece_is_refused(datagram: bytes) -> None:
    for size in range(len(datagram)):
        with pytest.raises(wire.WireError):
            wire.decode(datagram[:size])


def _with(datagram: bytes, offset: int, value: int) -> bytes:
    return datagram[:offset] + struct.pack("<i", value) + datagram[offset + 4 :]


@pytest.mark.parametrize(
    ("datagram", "says"),
    [
        (_with(REQUEST, 24, 0), "0 blocks"),  # ends the 2004 server
        (_with(REQUEST, 24, -1), "-1 blocks"),
        (_with(REQUEST, 24, 1015), "1015 blocks from 10"),
        (_with(REQUEST, 20, -1), "from -1"),
        (_with(REQUEST, 16, -1), "chunk -1"),
        (_with(REQUEST, 16, 8), "chunk 8 of 8"),
        (_with(REQUEST, 8, -16), "body length -16"),  # passes both programs' tests
        (_with(REQUEST, 8, 11), "body length 11"),
        (_with(REQUEST, 8, 13), "only 12 bytes"),
        (_with(REQUEST, 0, 2), "has no reply"),
        (_with(REQUEST, 0, 3), "type 3"),
        (_with(REQUEST, 4, 0), "subtype 0"),
        (_with(REQUEST, 4, 8), "subtype 8"),
        (_with(BLOCK, 20, 1024), "block 1024"),
        (_with(BLOCK, 16, 8), "chunk 8 of 8"),
        (_with(JOIN_REPLY, 16, -1), "-1 blocks"),
        (_with(JOIN2_REPLY, 20, 3), "1281 bytes are not 3 blocks"),
        (PREQUEST[:24] + bytes(128), "empty bitmap"),
    ],
)
def test_what_is_refused_is_named(datagram: bytes, says: str) -> None:
    with pytest.raises(wire.WireError, match=says):
        wire.decode(datagram, 8)


@given(client=U32, statistics=st.lists(U32, min_size=30, max_size=30))
def test_leave2_round_trip(client: int, statistics: list[int]) -> None:
    record = wire.Statistics(*statistics)
    message, _ = wire.decode(wire.encode_leave2(HOME, client, record))
    assert message == wire.Leave(client, record.seconds, record)


def test_leave2_offsets() -> None:
    record = wire.Statistics(seconds=7, bytes_written=1 << 40, again_delay_us=9, full_chunks_asked_again=11)
    body = wire.encode_leave2(HOME, 1, record)[24:]
    assert struct.unpack_from("<II", body) == (1, 7)
    assert struct.unpack_from("<Q", body, 16) == (1 << 40,)
    assert struct.unpack_from("<I", body, 60) == (9,)
    assert struct.unpack_from("<I", body, 124) == (11,)
    assert len(body) == 1028


def test_leave2_clips_what_does_not_fit() -> None:
    message, _ = wire.decode(wire.encode_leave2(HOME, 1, wire.Statistics(requests=1 << 40)))
    assert isinstance(message, wire.Leave)
    assert message.statistics is not None
    assert message.statistics.requests == 0xFFFFFFFF


@given(chunk=CHUNK, bits=BITS, retry=st.booleans())
def test_prequest_round_trip(chunk: int, bits: int, retry: bool) -> None:
    message, _ = wire.decode(wire.encode_prequest(HOME, chunk, bits, retry=retry))
    assert message == wire.PartialRequest(chunk, bits, retry)


@given(chunk=CHUNK, block=st.integers(0, 1023), data=st.binary(max_size=1024))
def test_block_round_trip_pads(chunk: int, block: int, data: bytes) -> None:
    message, source = wire.decode(wire.encode_block(HOME, chunk, block, data))
    assert source == HOME
    assert isinstance(message, wire.Block)
    assert (message.chunk, message.block) == (chunk, block)
    assert bytes(message.data) == data.ljust(1024, b"\0")


@given(bits=st.integers(0, wire.FULL))
def test_runs_are_the_bits(bits: int) -> None:
    found = list(wire.runs(bits))
    total = sum(((1 << count) - 1) << first for first, count in found)
    assert total == bits
    ends = [first + count for first, count in found]
    assert all(first > end for (first, _), end in zip(found[1:], ends, strict=False))


@given(chunks=st.lists(CHUNK, min_size=1, max_size=5))
def test_block_heads_are_the_heads_of_blocks(chunks: list[int]) -> None:
    heads = wire.BlockHeads(HOME)
    for chunk in chunks:
        heads.set_chunk(chunk)
        for block in (0, 1, 255, 256, 1023):
            expected = wire.encode_block(HOME, chunk, block, b"")[: wire.BLOCK_HEAD_SIZE]
            assert heads.heads[block * 24 : (block + 1) * 24] == expected
            assert wire.place_of(expected) == (chunk, block)


PLACE = st.tuples(st.integers(0, 2), st.integers(0, 1023))


@given(
    pieces=st.lists(st.tuples(PLACE, st.integers(1, 5)), max_size=8),
    strange=st.sampled_from([None, b"", b"\x01", b"\xff" * 24]),
    after=st.lists(PLACE, max_size=2),
)
def test_a_row_is_split_into_its_runs(
    pieces: list[tuple[tuple[int, int], int]], strange: bytes | None, after: list[tuple[int, int]]
) -> None:
    places = [(c, b + i) for (c, b), count in pieces for i in range(count) if b + i < 1024]
    heads = [wire.encode_block(HOME, *place, b"")[:24] for place in places]
    if strange is not None:
        # An empty datagram, one with another type, one of a block that no chunk has.
        heads.append(strange.ljust(24, b"\0"))
        heads += [wire.encode_block(HOME, *place, b"")[:24] for place in after]
    row = list(wire.split_row(b"".join(heads), len(heads), wire.signature_of(wire.BlockHeads(HOME).heads)))
    assert [(c, b + i) for c, runs in row for b, count in runs for i in range(count)] == places
    assert all(a != b for (a, _), (b, _) in itertools.pairwise(row)), "one chunk at a time"
    for _, runs in row:
        assert all(first + count != begin for (first, count), (begin, _) in itertools.pairwise(runs))


def test_a_row_ends_at_a_block_that_no_chunk_has() -> None:
    good = wire.encode_block(HOME, 1, 1023, b"")[:24]
    bad = good[:20] + struct.pack("<I", 1024)
    assert list(wire.split_row(good + bad + good, 3, wire.signature_of(good))) == [(1, [(1023, 1)])]
