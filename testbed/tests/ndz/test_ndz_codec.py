# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The codec, by ISA-L and by zlib: exact ends, and pieces that make one stream."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from orbit_frisbee.ndz import codec
from orbit_frisbee.ndz.format import Buffer, NdzError

TEXT = b"some text that repeats itself, " * 5000
PACKED = zlib.compress(TEXT, 4)


@pytest.fixture(params=["libdeflate", "isal", "zlib"], autouse=True)
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param != "libdeflate":
        monkeypatch.setattr(codec, "libdeflate", lambda: None)
    if request.param == "zlib":
        monkeypatch.setattr(codec, "isal", lambda: None)
    elif getattr(codec, request.param)() is None:
        pytest.skip(f"{request.param} is not installed")
    return


def inflate(data: Buffer, size: int, **place: Any) -> bytes:
    return bytes(codec.Workspace(1 << 20).inflate(data, size, **place))


def test_exact_data_is_inflated() -> None:
    assert inflate(PACKED, len(TEXT)) == TEXT
    assert inflate(memoryview(PACKED), len(TEXT)) == TEXT
    assert inflate(zlib.compress(b""), 0) == b""


def test_it_is_read_in_pieces_of_any_size() -> None:
    stream = codec.Inflater(PACKED)
    rest, got = len(TEXT), []
    while rest:
        size = min(rest, random.Random(rest).randrange(1, 30000))
        got.append(stream.read(size))
        rest -= size
    stream.finish()
    assert b"".join(got) == TEXT


@pytest.mark.parametrize(
    ("data", "size", "problem"),
    [
        (PACKED[:-1], len(TEXT), "ends in the middle"),
        (PACKED[:-4], len(TEXT), "ends in the middle"),
        (PACKED[:200], len(TEXT), "less than the regions hold"),
        (PACKED + b"\0", len(TEXT), "goes on behind the end"),
        (PACKED, len(TEXT) - 1, "more than the regions hold"),
        (PACKED, len(TEXT) + 1, "less than the regions hold"),
        (PACKED[:-1] + b"\xff", len(TEXT), "does not inflate"),
        (b"\x79" + PACKED[1:], len(TEXT), "does not inflate"),
        (b"", 5, "less than the regions hold"),
        (b"x", 0, "ends in the middle"),
    ],
)
def test_every_other_end_is_refused(data: bytes, size: int, problem: str) -> None:
    with pytest.raises(NdzError) as caught:
        inflate(data, size, name="x.ndz", chunk=3)
    assert str(caught.value).startswith("x.ndz: chunk 3: compressed data: ")
    assert problem in str(caught.value)


@given(st.data())
def test_no_single_byte_can_be_wrong(data: st.DataObject) -> None:
    packed = bytearray(PACKED)
    # Not the first two bytes: zlib ignores the level noted there, as long as their check sum is right.
    packed[data.draw(st.integers(2, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        result = inflate(packed, len(TEXT))
    except NdzError:
        return
    # Bits of the padding before a byte border are nobody's.
    assert result == TEXT


@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 40)), min_size=1), st.integers(0, 9))
def test_pieces_make_one_stream(items: list[tuple[bytes, int]], level: int) -> None:
    pieces = [data * times for data, times in items]
    before, packed = b"", [codec.STREAM_HEAD]
    for piece in pieces:
        packed.append(codec.deflate(piece, level, before=before))
        before += piece
    packed += [codec.STREAM_TAIL, zlib.adler32(before).to_bytes(4, "big")]
    stream = zlib.decompressobj()
    assert stream.decompress(b"".join(packed)) == before
    assert stream.eof
    assert inflate(b"".join(packed), len(before)) == before


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 9000)), max_size=6))
def test_check_sums_are_joined(items: list[tuple[bytes, int]]) -> None:
    pieces = [data * count for data, count in items]
    value = 1
    for piece in pieces:
        value = codec.joined_adler32(value, codec.adler32(piece), len(piece))
    assert value == zlib.adler32(b"".join(pieces))


def test_a_piece_refers_to_the_data_before_it() -> None:
    noise = random.Random(1).randbytes(30000)
    assert len(codec.deflate(noise, 1, before=noise)) < 1000 < len(codec.deflate(noise, 1))


@pytest.mark.parametrize("level", codec.LEVELS)
def test_a_flush_ends_every_piece(level: int) -> None:
    packed = codec.deflate(TEXT, level)
    assert packed.endswith(b"\0\0\xff\xff")
    assert (len(packed) > len(TEXT)) == (level == 0)


def test_a_workspace_is_used_again() -> None:
    space = codec.Workspace(1 << 20)
    assert space.inflate(PACKED, len(TEXT)) == TEXT
    with pytest.raises(NdzError):
        space.inflate(PACKED[:-1], len(TEXT))
    assert space.inflate(bytearray(zlib.compress(b"other")), 5) == b"other"


def test_what_is_larger_than_the_workspace_is_inflated_elsewhere() -> None:
    assert codec.Workspace(1000).inflate(PACKED, len(TEXT)) == TEXT
