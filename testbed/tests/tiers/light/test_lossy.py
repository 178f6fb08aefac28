# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client hears behind a cable that loses datagrams."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from orbit_frisbee.frisbee import wire
from orbit_frisbee.frisbee.net import BlockSender, Endpoint, Receiver
from orbit_testbed.tiers.light.lossy import losing

HOME = "127.0.0.1"
ROWS, ROW = 100, 60


@pytest.fixture
def wires() -> Iterator[tuple[BlockSender, Endpoint]]:
    """A sender and the endpoint that hears it, both on loopback."""
    with (
        closing(Endpoint(HOME, 0, interface=HOME, server=False)) as end,
        closing(Endpoint(HOME, 0, interface=HOME, server=False)) as other,
    ):
        other.target = (HOME, end.port)
        yield BlockSender(other), end


def contents(number: int) -> bytes:
    return number.to_bytes(4, "little") * 256


def row(first: int, count: int) -> memoryview:
    """Return BLOCKs one behind the other."""
    own = socket.inet_aton(HOME)
    blocks = range(first, first + count)
    return memoryview(b"".join(wire.encode_block(own, n >> 10, n & 1023, contents(n)) for n in blocks))


def heard(receiver: Receiver) -> list[int]:
    """Take all that has come; returns the numbers of the blocks, which must be whole."""
    numbers: list[int] = []
    while receiver.receive() is not None:
        assert receiver.size
        for at in range(receiver.blocks):
            size = wire.BLOCK_HEAD_SIZE
            chunk, block = wire.place_of(receiver.heads[at * size : (at + 1) * size])
            numbers.append(chunk << 10 | block)
            assert receiver.data[at * 1024 : (at + 1) * 1024] == contents(numbers[-1])
    return numbers


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("in_rows", [True, False])
def test_its_share_is_lost_and_the_rest_is_whole(
    wires: tuple[BlockSender, Endpoint], share: float, in_rows: bool
) -> None:
    sender, end = wires
    receiver = losing(share, random.Random(7).random)(end.rx, gro=end.gro)
    came = []
    for first in range(0, ROWS * ROW, ROW):
        batches = [(first, ROW)] if in_rows else [(number, 1) for number in range(first, first + ROW)]
        for batch in batches:
            blocks = row(*batch)
            assert sender.send(blocks) == len(blocks)
        came += heard(receiver)
    assert came == sorted(set(came))
    lost = 1 - len(came) / (ROWS * ROW)
    # Four standard deviations of so many throws.
    assert abs(lost - share) <= 4 * (share * (1 - share) / (ROWS * ROW)) ** 0.5


def test_other_datagrams_are_lost_too(wires: tuple[BlockSender, Endpoint]) -> None:
    sender, end = wires
    receiver = losing(0.5, iter([0.6, 0.3, 0.3, 0.3]).__next__)(end.rx, gro=end.gro)
    came = []
    for number in range(4):
        request = wire.encode_request(socket.inet_aton(HOME), number)
        assert sender.send(memoryview(request)) == len(request)
        if receiver.receive() is not None:
            came += [wire.decode(datagram)[0] for datagram in receiver.datagrams()]
    assert [message.chunk for message in came if isinstance(message, wire.Request)] == [0]
