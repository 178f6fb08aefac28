# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The datagrams of the frisbee protocol.

A datagram is a header of 16 bytes (type, subtype, length of the body, IPv4 address of the sender) and a
body. Integers are in the byte order of the sender's machine, which in the field is little-endian
everywhere; the address is in network order. There is no magic, no version and no checksum but UDP's.

Quirks of the two generations that this module knows:

* Both programs act on a JOIN whatever its type field says, so that two servers on one group answer each
  other's answers for ever. Here the type decides: type 1 is a request, type 2 an answer.
* BLOCKs carry type 1 although they are answers.
* The answer to a JOIN has the number of blocks in the place of the client's id: it cannot be matched
  to a client. Only JOIN2 (2016) carries both.
* LEAVE2 has a body of 1036 bytes, but 2064 from a 64-bit build of the 2004 client. Each generation's
  server drops the other's; both are a leave here, only the first kind's numbers are read.
* Both take a negative body length (and then use bytes of an earlier datagram), and the 2004 server ends
  with an assertion on a REQUEST of 0 blocks. Here both are a :class:`WireError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

BLOCK_SIZE: Final = 1024
"""Bytes of a block."""
CHUNK_BLOCKS: Final = 1024
"""Blocks of a chunk."""
CHUNK_SIZE: Final = BLOCK_SIZE * CHUNK_BLOCKS
"""Bytes of a chunk."""
FULL: Final = (1 << CHUNK_BLOCKS) - 1
"""The bitmap of all blocks of a chunk."""

TYPE_REQUEST: Final = 1
TYPE_REPLY: Final = 2

JOIN: Final = 1
LEAVE: Final = 2
BLOCK: Final = 3
REQUEST: Final = 4
LEAVE2: Final = 5
PREQUEST: Final = 6
JOIN2: Final = 7

HEADER_SIZE: Final = 16
BLOCK_HEAD_SIZE: Final = HEADER_SIZE + 8
"""Bytes of a BLOCK before its data."""
BLOCK_DATAGRAM: Final = BLOCK_HEAD_SIZE + BLOCK_SIZE
"""Bytes of a BLOCK as UDP payload."""
FRAME_OVERHEAD: Final = 66
"""What Ethernet adds to a UDP payload: IPv4 and UDP 28, Ethernet 18, preamble 8, gap 12 bytes."""
BLOCK_ON_WIRE: Final = BLOCK_DATAGRAM + FRAME_OVERHEAD
"""Bytes of cable time that a BLOCK takes."""
MAX_DATAGRAM: Final = 65507

_HEADER: Final = struct.Struct("<IIi4s")
_U32: Final = struct.Struct("<I")
_I32: Final = struct.Struct("<i")
_JOIN2: Final = struct.Struct("<IiiiQ")
_LEAVE: Final = struct.Struct("<II")
_BLOCK: Final = struct.Struct("<ii")
_REQUEST: Final = struct.Struct("<iii")
_PREQUEST: Final = struct.Struct("<ii")
_BITMAP_SIZE: Final = CHUNK_BLOCKS // 8
_STATISTICS: Final = struct.Struct("<4I2Q24I900x")
LEAVE2_BODY: Final = 8 + _STATISTICS.size

_NAMES: Final = {
    JOIN: "JOIN",
    LEAVE: "LEAVE",
    BLOCK: "BLOCK",
    REQUEST: "REQUEST",
    LEAVE2: "LEAVE2",
    PREQUEST: "PREQUEST",
    JOIN2: "JOIN2",
}
_BODY: Final = {
    JOIN: 4,
    LEAVE: 8,
    BLOCK: 8 + BLOCK_SIZE,
    REQUEST: 12,
    LEAVE2: 8,
    PREQUEST: 8 + _BITMAP_SIZE,
    JOIN2: 24,
}

Buffer = bytes | bytearray | memoryview


class WireError(ValueError):
    """Bytes that are no valid datagram; the text names the message and the field."""


class Join(NamedTuple):
    """A client asks whether there is a server and how long the file is."""

    client: int


class JoinReply(NamedTuple):
    """The answer to a JOIN: the length of the file in blocks, a short last block counted as one."""

    blocks: int


class Join2(NamedTuple):
    """A client of the 2016 generation asks for the exact size of the file."""

    client: int
    chunk_blocks: int
    block_size: int


class Join2Reply(NamedTuple):
    """The answer to a JOIN2; ``size`` is in bytes, ``blocks`` follow from it: servers in the field send 0."""

    client: int
    blocks: int
    chunk_blocks: int
    block_size: int
    size: int


class Statistics(NamedTuple):
    """What a client says of its run in a LEAVE2: the packed record of 1028 bytes."""

    version: int = 1
    seconds: int = 0
    milliseconds: int = 0
    start_delay_ms: int = 0
    bytes_written: int = 0
    bytes_covered: int = 0
    chunk_buffers: int = 0
    read_ahead: int = 0
    max_in_progress: int = 0
    receive_timeout_us: int = 0
    start_delay_option: int = 0
    idle_count: int = 0
    writer_idle_delay_us: int = 0
    again_delay_us: int = 0
    randomize: int = 0
    no_chunk_ready: int = 0
    blocks_dropped: int = 0
    duplicates_of_finished: int = 0
    duplicates_in_progress: int = 0
    prequests: int = 0
    receive_idles: int = 0
    join_attempts: int = 0
    requests: int = 0
    inflate_waits: int = 0
    writer_idles: int = 0
    write_buffer_mb: int = 0
    blocks_asked_again: int = 0
    asked_again: int = 0
    partial_chunks_dropped: int = 0
    full_chunks_asked_again: int = 0


class Leave(NamedTuple):
    """A client goes; ``statistics`` comes with a LEAVE2 of the common layout."""

    client: int
    seconds: int
    statistics: Statistics | None = None


class Block(NamedTuple):
    """One block of the file. ``data`` is a view of the datagram."""

    chunk: int
    block: int
    data: memoryview


class Request(NamedTuple):
    """A client wants ``number`` blocks from ``block`` on."""

    chunk: int
    block: int
    number: int

    @property
    def bits(self) -> int:
        """The bitmap of the wanted blocks."""
        return ((1 << self.number) - 1) << self.block


class PartialRequest(NamedTuple):
    """A client wants the blocks of a bitmap (PREQUEST); ``retry``: it had asked for this chunk before."""

    chunk: int
    bits: int
    retry: bool


Message = Join | JoinReply | Join2 | Join2Reply | Leave | Block | Request | PartialRequest


def decode(datagram: Buffer, chunks: int | None = None) -> tuple[Message, bytes]:
    """Return the message in a datagram and the sender's address from its header (4 bytes).

    ``chunks`` is the number of chunks of the file; without it chunk numbers are only known not to be
    negative. Bytes behind the stated length are ignored, as the programs in the field do.

    Raises :class:`WireError` for whatever is no such message, and nothing else.
    """
    if len(datagram) < HEADER_SIZE:
        raise WireError(f"{len(datagram)} bytes are less than a header")
    kind, subtype, length, source = _HEADER.unpack_from(datagram)
    name = _NAMES.get(subtype)
    if name is None:
        raise WireError(f"unknown subtype {subtype}")
    if kind not in (TYPE_REQUEST, TYPE_REPLY):
        raise WireError(f"{name}: unknown type {kind}")
    if length < _BODY[subtype]:
        raise WireError(f"{name}: body length {length} is less than {_BODY[subtype]}")
    if len(datagram) - HEADER_SIZE < length:
        raise WireError(f"{name}: body length {length}, but only {len(datagram) - HEADER_SIZE} bytes came")
    if kind == TYPE_REPLY:
        return _decode_reply(datagram, subtype, name), source
    return _decode_request(datagram, subtype, name, length, chunks), source


def _decode_reply(datagram: Buffer, subtype: int, name: str) -> Message:
    if subtype == JOIN:
        (blocks,) = _I32.unpack_from(datagram, HEADER_SIZE)
        if blocks < 0:
            raise WireError(f"{name} reply: {blocks} blocks")
        return JoinReply(blocks)
    if subtype == JOIN2:
        client, blocks, chunk_blocks, block_size, size = _JOIN2.unpack_from(datagram, HEADER_SIZE)
        if blocks < 0 or chunk_blocks <= 0 or block_size <= 0:
            raise WireError(f"{name} reply: {blocks} blocks, {chunk_blocks} of {block_size} bytes a chunk")
        known = -(-size // block_size)
        if blocks not in (0, known):
            raise WireError(f"{name} reply: {size} bytes are not {blocks} blocks of {block_size}")
        return Join2Reply(client, known, chunk_blocks, block_size, size)
    raise WireError(f"{name}: has no reply")


def _decode_request(datagram: Buffer, subtype: int, name: str, length: int, chunks: int | None) -> Message:
    if subtype == JOIN:
        return Join(_U32.unpack_from(datagram, HEADER_SIZE)[0])
    if subtype == JOIN2:
        client, _, chunk_blocks, block_size, _ = _JOIN2.unpack_from(datagram, HEADER_SIZE)
        return Join2(client, chunk_blocks, block_size)
    if subtype in (LEAVE, LEAVE2):
        client, seconds = _LEAVE.unpack_from(datagram, HEADER_SIZE)
        statistics = None
        if subtype == LEAVE2 and length == LEAVE2_BODY:
            statistics = Statistics(*_STATISTICS.unpack_from(datagram, HEADER_SIZE + 8))
        return Leave(client, seconds, statistics)
    (chunk,) = _I32.unpack_from(datagram, HEADER_SIZE)
    if chunk < 0 or (chunks is not None and chunk >= chunks):
        raise WireError(f"{name}: chunk {chunk} of {chunks if chunks is not None else 'unknown'}")
    if subtype == BLOCK:
        _, block = _BLOCK.unpack_from(datagram, HEADER_SIZE)
        if not 0 <= block < CHUNK_BLOCKS:
            raise WireError(f"{name}: block {block}")
        return Block(chunk, block, memoryview(datagram)[BLOCK_HEAD_SIZE:BLOCK_DATAGRAM])
    if subtype == REQUEST:
        _, block, count = _REQUEST.unpack_from(datagram, HEADER_SIZE)
        if block < 0 or count <= 0 or block + count > CHUNK_BLOCKS:
            raise WireError(f"{name}: {count} blocks from {block}")
        return Request(chunk, block, count)
    _, retry = _PREQUEST.unpack_from(datagram, HEADER_SIZE)
    at = HEADER_SIZE + _PREQUEST.size
    bits = int.from_bytes(datagram[at : at + _BITMAP_SIZE], "little")
    if not bits:
        raise WireError(f"{name}: an empty bitmap")
    return PartialRequest(chunk, bits, bool(retry))


def encode_join(source: bytes, client: int) -> bytes:
    """Return a JOIN; ``source`` is the sender's IPv4 address, 4 bytes, here and below."""
    return _HEADER.pack(TYPE_REQUEST, JOIN, 4, source) + _U32.pack(client)


def encode_join_reply(source: bytes, blocks: int) -> bytes:
    """Return the answer to a JOIN."""
    return _HEADER.pack(TYPE_REPLY, JOIN, 4, source) + _I32.pack(blocks)


def encode_join2(source: bytes, client: int) -> bytes:
    """Return a JOIN2."""
    body = _JOIN2.pack(client, 0, CHUNK_BLOCKS, BLOCK_SIZE, 0)
    return _HEADER.pack(TYPE_REQUEST, JOIN2, _JOIN2.size, source) + body


def encode_join2_reply(source: bytes, client: int, size: int) -> bytes:
    """Return the answer to a JOIN2 for a file of ``size`` bytes; as in the field, it counts no blocks."""
    body = _JOIN2.pack(client, 0, CHUNK_BLOCKS, BLOCK_SIZE, size)
    return _HEADER.pack(TYPE_REPLY, JOIN2, _JOIN2.size, source) + body


def encode_leave(source: bytes, client: int, seconds: int) -> bytes:
    """Return a LEAVE; ``seconds`` since the client joined."""
    return _HEADER.pack(TYPE_REQUEST, LEAVE, 8, source) + _LEAVE.pack(client, seconds & 0xFFFFFFFF)


def encode_leave2(source: bytes, client: int, statistics: Statistics) -> bytes:
    """Return a LEAVE2 with the packed record that all but the 64-bit 2004 servers understand."""
    clipped = [
        min(value, 0xFFFFFFFFFFFFFFFF if i in (4, 5) else 0xFFFFFFFF) for i, value in enumerate(statistics)
    ]
    head = _HEADER.pack(TYPE_REQUEST, LEAVE2, LEAVE2_BODY, source)
    return head + _LEAVE.pack(client, clipped[1]) + _STATISTICS.pack(*clipped)


def encode_block(source: bytes, chunk: int, block: int, data: Buffer) -> bytes:
    """Return a BLOCK; data shorter than a block (the end of a file) is padded with zeros."""
    head = _HEADER.pack(TYPE_REQUEST, BLOCK, 8 + BLOCK_SIZE, source) + _BLOCK.pack(chunk, block)
    return head + bytes(data).ljust(BLOCK_SIZE, b"\0")


def encode_request(source: bytes, chunk: int, block: int = 0, count: int = CHUNK_BLOCKS) -> bytes:
    """Return a REQUEST."""
    return _HEADER.pack(TYPE_REQUEST, REQUEST, 12, source) + _REQUEST.pack(chunk, block, count)


def encode_prequest(source: bytes, chunk: int, bits: int, *, retry: bool) -> bytes:
    """Return a PREQUEST for the blocks of the bitmap ``bits`` (block *b* is bit *b*)."""
    head = _HEADER.pack(TYPE_REQUEST, PREQUEST, 8 + _BITMAP_SIZE, source) + _PREQUEST.pack(chunk, retry)
    return head + bits.to_bytes(_BITMAP_SIZE, "little")


# The block number of every BLOCK of a chunk, low and high byte: rows to be laid into strided headers.
_LOW: Final = bytes(block & 0xFF for block in range(CHUNK_BLOCKS))
_HIGH: Final = bytes(block >> 8 for block in range(CHUNK_BLOCKS))


class BlockHeads:
    """The headers of all BLOCKs of one chunk, ready to be compared or sent in one piece.

    ``heads`` holds 1024 headers of 24 bytes in order. Setting another chunk costs a few microseconds:
    each byte of the number is laid into all headers by one strided assignment.
    """

    def __init__(self, source: bytes) -> None:
        one = _HEADER.pack(TYPE_REQUEST, BLOCK, 8 + BLOCK_SIZE, source) + bytes(8)
        self.heads = bytearray(one * CHUNK_BLOCKS)
        self.chunk = 0
        self.heads[20::BLOCK_HEAD_SIZE] = _LOW
        self.heads[21::BLOCK_HEAD_SIZE] = _HIGH

    def set_chunk(self, chunk: int) -> None:
        """Make these the headers of ``chunk``."""
        if chunk == self.chunk:
            return
        for i, byte in enumerate(chunk.to_bytes(4, "little")):
            self.heads[16 + i :: BLOCK_HEAD_SIZE] = bytes((byte,)) * CHUNK_BLOCKS
        self.chunk = chunk


def place_of(head: Buffer) -> tuple[int, int]:
    """Return chunk and block from the first 24 bytes of a BLOCK, unchecked."""
    chunk, block = _BLOCK.unpack_from(head, HEADER_SIZE)
    return chunk, block


_SIGNATURE: Final = struct.Struct("<QQ")
_NEXT_BLOCK: Final = 1 << 32


def signature_of(head: Buffer) -> tuple[int, int]:
    """Return what the headers of all BLOCKs of one source begin with, two numbers, from one of them."""
    first, second = _SIGNATURE.unpack_from(head)
    return first, second


def split_row(
    heads: Buffer, count: int, signature: tuple[int, int]
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield chunk and runs (first block, number of blocks) of a row of ``count`` BLOCKs by their headers.

    Consecutive runs of one chunk come together. Ends at the first header that has another ``signature`` or
    a block that no chunk has; whether there is such a chunk, the caller knows.
    """
    words = struct.unpack_from(f"<{3 * count}Q", heads)
    places = words[2::3]
    alike = words[0::3].count(signature[0]) == words[1::3].count(signature[1]) == count
    if not alike or max(places, default=0) >= CHUNK_BLOCKS * _NEXT_BLOCK:
        for at in range(count):
            if words[3 * at : 3 * at + 2] != signature or places[at] >= CHUNK_BLOCKS * _NEXT_BLOCK:
                count = at
                break
    at = 0
    while at < count:
        chunk = places[at] % _NEXT_BLOCK
        found: list[tuple[int, int]] = []
        while at < count and places[at] % _NEXT_BLOCK == chunk:
            first = following = places[at]
            begin = at
            while at < count and places[at] == following:
                at += 1
                following += _NEXT_BLOCK
            found.append((first // _NEXT_BLOCK, at - begin))
        yield chunk, found


def runs(bits: int) -> Iterator[tuple[int, int]]:
    """Yield (first block, count) of each run of set bits, ascending."""
    at = 0
    while bits:
        skip = (bits & -bits).bit_length() - 1
        bits >>= skip
        count = ((bits + 1) & ~bits).bit_length() - 1
        yield at + skip, count
        bits >>= count
        at += skip + count


def blocks_of(size: int) -> int:
    """Return the number of blocks of a file of ``size`` bytes."""
    return -(-size // BLOCK_SIZE)


def chunk_bits(chunk: int, blocks: int) -> int:
    """Return the bitmap of the blocks that chunk ``chunk`` of a file of ``blocks`` blocks has."""
    return (1 << min(CHUNK_BLOCKS, blocks - chunk * CHUNK_BLOCKS)) - 1
