# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client logic against server logic, in simulated time and on a simulated network that loses datagrams."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings, strategies as st

from orbit_frisbee.frisbee import wire
from orbit_frisbee.frisbee.asking import Ask, Asker
from orbit_frisbee.frisbee.assembly import Assembly
from orbit_frisbee.frisbee.work import WorkQueue

FULL = wire.FULL


def contents(chunk: int, block: int) -> bytes:
    return b"%d/%d " % (chunk, block) * 4


class Node:
    """A client without sockets and disk; keeps what it completed."""

    def __init__(self, blocks: int, start: float, seed: int, buffers: int) -> None:
        self.start = start
        self.assembly = Assembly(blocks, buffers)
        self.asker: Asker | None = None
        self.random = random.Random(seed)
        self.chunks: dict[int, bytes] = {}
        self.done_at: float | None = None

    def hear_block(self, chunk: int, first: int, count: int, data: memoryview, now: float) -> None:
        assert self.asker is not None
        began = self.assembly.is_untouched(chunk)
        new = self.assembly.take(chunk, first, count, data)
        self.asker.block(chunk, new, now, began=began and new > 0, end=first + count)
        if new and not self.assembly.missing(chunk):
            memory = self.assembly.collect(chunk)
            self.chunks[chunk] = bytes(memory)
            self.assembly.release(memory)
            self.asker.freed(now)
            if self.assembly.complete == self.assembly.chunks:
                self.done_at = now


class Net:
    """A server of ``rate`` blocks a millisecond and some nodes; one step is a millisecond."""

    def __init__(self, blocks: int, starts: list[float], *, loss: float, seed: int, rate: int, buffers: int):
        self.random = random.Random(seed)
        self.blocks, self.loss, self.rate = blocks, loss, rate
        self.queue = WorkQueue(blocks)
        self.nodes = [Node(blocks, start, seed + i, buffers) for i, start in enumerate(starts)]
        self.sent = self.asked = 0
        self.now = 0.0
        self.file = b"".join(contents(*divmod(b, 1024)).ljust(1024, b".") for b in range(blocks))

    def lost(self) -> bool:
        return self.loss > 0 and self.random.random() < self.loss

    def step(self) -> None:
        self.now = now = round(self.now + 0.001, 3)
        for node in self.nodes:
            if now < node.start or node.done_at is not None:
                continue
            if node.asker is None:
                node.asker = Asker(node.assembly, now, node.random.random)
            if now >= node.asker.due():
                for ask in node.asker.asks(now):
                    assert ask.bits & ~node.assembly.missing(ask.chunk) == 0
                    self.asked += 1
                    if not self.lost():
                        self.queue.add(ask.chunk, ask.bits, now, exact=not ask.whole, joined=node.start)
                    for other in self.nodes:
                        if other.asker is not None and not self.lost():
                            other.asker.request(ask.chunk, ask.bits, now, exact=not ask.whole)
                assert node.asker.due() > now, "asks again at once: the client would spin"
        for chunk, first, count in self.queue.take(self.rate, now):
            self.sent += count
            for node in self.nodes:
                if node.asker is None or node.done_at is not None:
                    continue
                for at, number in self.pieces(first, count):
                    low = (chunk * 1024 + at) * 1024
                    node.hear_block(chunk, at, number, memoryview(self.file)[low : low + number * 1024], now)

    def pieces(self, first: int, count: int) -> list[tuple[int, int]]:
        if not self.loss:
            return [(first, count)]
        bits = sum(1 << i for i in range(count) if not self.lost())
        return [(first + at, number) for at, number in wire.runs(bits)]

    def run(self, limit: float) -> None:
        while any(node.done_at is None for node in self.nodes):
            assert self.now < limit, "not finished in time"
            self.step()
        for node in self.nodes:
            whole = b"".join(node.chunks[c] for c in sorted(node.chunks))
            assert whole[: len(self.file)] == self.file
            assert not any(whole[len(self.file) :])


@pytest.mark.parametrize("nodes", [1, 2, 8, 40])
def test_nodes_that_start_together_share_one_pass(nodes: int) -> None:
    net = Net(12 * 1024, [0.0] * nodes, loss=0, seed=1, rate=40, buffers=64)
    net.run(2.0)
    assert net.sent == net.blocks
    # Requests do not grow with the number of nodes: after the first round each is made by few.
    assert net.asked <= 4 * nodes + 3 * 12
    # The wire is never idle: 25.6 ms a chunk, and the first few milliseconds.
    assert net.now < 12 * 0.0256 + 0.05


def test_late_joiner_costs_no_more_than_what_it_missed() -> None:
    alone = 16 * 1024 / 40 * 0.001
    net = Net(16 * 1024, [0.0, alone / 2], loss=0, seed=2, rate=40, buffers=64)
    net.run(2.0)
    first, late = net.nodes
    assert first.done_at is not None
    assert late.done_at is not None
    assert first.done_at < alone * 1.1 + 0.05, "the first is not slowed down"
    assert net.sent < net.blocks * 1.6


@settings(max_examples=15, deadline=None)
@given(
    blocks=st.integers(1, 5 * 1024),
    starts=st.lists(st.floats(0, 0.3), min_size=1, max_size=4),
    loss=st.sampled_from([0.0, 0.001, 0.05, 0.3]),
    seed=st.integers(0, 1 << 30),
    rate=st.integers(5, 200),
    buffers=st.integers(1, 64),
)
def test_everybody_gets_everything(
    blocks: int, starts: list[float], loss: float, seed: int, rate: int, buffers: int
) -> None:
    net = Net(blocks, starts, loss=loss, seed=seed, rate=rate, buffers=buffers)
    net.run(60.0)
    assert net.sent >= blocks


def test_one_percent_of_loss_costs_little() -> None:
    net = Net(16 * 1024, [0.0] * 4, loss=0.01, seed=3, rate=40, buffers=64)
    net.run(2.0)
    # Four nodes miss about 4 % between them, and again a little of that.
    assert net.sent < net.blocks * 1.08
    assert net.now < 16 * 0.0256 * 1.08 + 0.15


def test_idle_rounds_get_rarer() -> None:
    assembly = Assembly(4096, 64)
    asker = Asker(assembly, 0.0, lambda: 0.5)
    now, rounds = 0.0, []
    while now < 30.0:
        now = asker.due()
        if asker.asks(now):
            rounds.append(now)
    gaps = [round(b - a, 6) for a, b in itertools.pairwise(rounds[1:])]
    assert gaps[0] < 0.2
    # The re-request delay of 1 s comes before the idle limit of 1.2 s.
    assert max(gaps) == pytest.approx(1.0)
    assert gaps == sorted(gaps)
    assert len(rounds) < 60


def test_somebody_elses_request_is_enough() -> None:
    assembly = Assembly(8 * 1024, 64)
    asker = Asker(assembly, 0.0, lambda: 0.0, read_ahead=2)
    asker.request(5, FULL, 0.001, exact=False)
    asker.request(6, FULL, 0.001, exact=False)
    assert asker.asks(0.01) == []
    # The re-request delay over, nobody having sent anything: now it asks itself.
    asks = asker.asks(1.1)
    assert [(a.chunk, a.whole) for a in asks] == [(5, True), (6, True)]


def test_a_hole_is_asked_for_when_the_server_moves_on() -> None:
    assembly = Assembly(2 * 1024, 64)
    asker = Asker(assembly, 0.0, lambda: 0.5)
    asker.asks(0.01)
    data = memoryview(bytes(1 << 20))

    def come(chunk: int, first: int, count: int, now: float) -> None:
        began = assembly.is_untouched(chunk)
        new = assembly.take(chunk, first, count, data[: count * 1024])
        asker.block(chunk, new, now, began=began, end=first + count)

    come(0, 0, 1000, 0.02)
    come(0, 1010, 4, 0.03)
    assert asker.asks(0.03) == []
    come(1, 0, 10, 0.04)
    assert the_next_ask(asker, 0.04) == (0, [(1000, 10), (1014, 10)])


def test_a_hole_of_the_last_chunk_is_asked_for_when_the_server_is_past_it() -> None:
    assembly = Assembly(1024, 64)
    asker = Asker(assembly, 0.0, lambda: 0.5)
    asker.asks(0.01)
    data = memoryview(bytes(1 << 20))

    def come(first: int, count: int, now: float) -> None:
        began = assembly.is_untouched(0)
        asker.block(0, assembly.take(0, first, count, data), now, began=began, end=first + count)

    come(0, 100, 0.02)
    come(110, 900, 0.03)
    assert asker.asks(0.05) == [], "the rest may still come"
    come(1014, 10, 0.06)
    assert the_next_ask(asker, 0.06) == (0, [(100, 10), (1010, 4)])
    come(100, 5, 0.07)
    come(1010, 3, 0.07)
    assert asker.asks(0.08) == []
    # Of what somebody else lost: what was asked for from here should have come before.
    come(1020, 1, 0.08)
    assert the_next_ask(asker, 0.08) == (0, [(105, 5), (1013, 1)])


def the_next_ask(asker: Asker, now: float) -> tuple[int, list[tuple[int, int]]]:
    """Return chunk and runs of what is asked for next, by somebody who has begun the chunk: soon."""
    asks: list[Ask] = []
    while not asks:
        due = asker.due()
        assert now <= due < now + 0.02
        asks = asker.asks(due)
    (ask,) = asks
    assert not ask.whole
    assert ask.retry
    return ask.chunk, list(wire.runs(ask.bits))


def come(asker: Asker, assembly: Assembly, chunk: int, now: float) -> None:
    """Let the whole of a chunk come."""
    assert assembly.is_untouched(chunk)
    new = assembly.take(chunk, 0, 1024, memoryview(bytes(1 << 20)))
    asker.block(chunk, new, now, began=True, end=1024)


def test_what_waits_at_the_server_is_not_lost() -> None:
    assembly = Assembly(8 * 1024, 64)
    asker = Asker(assembly, 0.0, lambda: 0.0, read_ahead=4)
    assert [a.chunk for a in asker.asks(0.01)] == [0, 1, 2, 3]
    # It hears its own requests, the server's first blocks before the last of them.
    asker.request(0, FULL, 0.011, exact=False)
    come(asker, assembly, 0, 0.012)
    for chunk in (1, 2, 3):
        asker.request(chunk, FULL, 0.013, exact=False)
    assert [(a.chunk, a.whole) for a in asker.asks(0.05)] == [(4, True)]
    come(asker, assembly, 1, 0.06)
    assert [(a.chunk, a.whole) for a in asker.asks(0.08)] == [(5, True)]


def test_a_request_that_was_lost_is_made_again_when_a_later_one_is_answered() -> None:
    assembly = Assembly(8 * 1024, 64)
    asker = Asker(assembly, 0.0, lambda: 0.0, read_ahead=4)
    asker.asks(0.01)
    come(asker, assembly, 0, 0.02)
    come(asker, assembly, 2, 0.03)
    again = asker.asks(0.05)
    assert (1, False, True) in [(a.chunk, a.whole, a.retry) for a in again]
    # Now it waits at the end of the queue, behind 3: that 3 comes first proves nothing.
    come(asker, assembly, 3, 0.06)
    assert 1 not in [a.chunk for a in asker.asks(0.08)]
    # Behind what was asked for later than that, it does.
    for chunk in (4, 5, 6):
        asker.request(chunk, FULL, 0.08, exact=False)
    come(asker, assembly, 6, 0.09)
    assert (1, False) in [(a.chunk, a.whole) for a in asker.asks(0.11)]


def test_without_a_buffer_nothing_new_is_asked_for() -> None:
    assembly = Assembly(4 * 1024, 1)
    asker = Asker(assembly, 0.0, lambda: 0.0)
    assert [a.chunk for a in asker.asks(0.01)] == [0]
    data = memoryview(bytes(1 << 20))
    assembly.take(0, 0, 1024, data)
    asker.block(0, 1024, 0.02, began=True, end=1024)
    assert asker.asks(0.02) == []
    assert assembly.take(1, 0, 1, data) == 0
    assert assembly.dropped == 1
    assembly.release(assembly.collect(0))
    asker.freed(0.03)
    assert [a.chunk for a in asker.asks(asker.due())] == [1]
