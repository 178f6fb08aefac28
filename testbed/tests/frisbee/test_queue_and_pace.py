# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server sends next, and when; with a clock of our own."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from orbit_frisbee.frisbee import pace, wire
from orbit_frisbee.frisbee.work import ECHO_SECONDS, WorkQueue

FULL = wire.FULL


def drain(queue: WorkQueue, now: float = 10.0, limit: int = 60) -> list[tuple[int, int]]:
    """Take everything; returns (chunk, block) in order."""
    sent = []
    while batch := queue.take(limit, now):
        sent += [(chunk, first + i) for chunk, first, count in batch for i in range(count)]
    return sent


@given(
    blocks=st.integers(1, 5000),
    asked=st.lists(st.tuples(st.integers(0, 4), st.integers(1, FULL), st.booleans()), max_size=12),
    limit=st.integers(1, 60),
)
def test_everything_asked_for_is_sent_once(
    blocks: int, asked: list[tuple[int, int, bool]], limit: int
) -> None:
    chunks = -(-blocks // 1024)
    queue = WorkQueue(blocks)
    expected = set()
    for chunk, bits, exact in asked:
        chunk %= chunks
        queue.add(chunk, bits, 1.0, exact=exact)
        inside = bits & wire.chunk_bits(chunk, blocks)
        expected |= {(chunk, b) for b in range(1024) if inside >> b & 1}
    sent = drain(queue, limit=limit)
    assert len(sent) == len(set(sent))
    assert set(sent) == expected
    assert not queue


def test_first_come_first_served_and_merged() -> None:
    queue = WorkQueue(4096)
    assert queue.add(2, 0b1, 0.0, exact=True)
    assert queue.add(1, 0b1, 0.0, exact=True)
    assert not queue.add(2, 0b10, 0.0, exact=True)
    assert len(queue) == 2
    assert drain(queue) == [(2, 0), (2, 1), (1, 0)]


def test_a_whole_request_for_the_chunk_being_sent_adds_nothing() -> None:
    queue = WorkQueue(2048)
    queue.add(0, FULL, 1.0, exact=False)
    queue.take(60, 1.0)
    assert not queue.add(0, FULL, 1.01, exact=False)
    assert len(drain(queue)) == 964


def test_an_exact_request_for_blocks_already_sent_goes_to_the_end() -> None:
    queue = WorkQueue(2048)
    queue.add(0, FULL, 1.0, exact=False)
    queue.add(1, 1, 1.0, exact=True)
    queue.take(60, 1.0)
    assert queue.add(0, 0b101, 1.5, exact=True)
    sent = drain(queue, 1.5)
    assert sent[-3:] == [(1, 0), (0, 0), (0, 2)]


def test_a_block_in_flight_is_not_sent_again() -> None:
    queue = WorkQueue(1024)
    queue.add(0, FULL, 1.0, exact=False)
    queue.take(60, 1.0)
    assert not queue.add(0, 0b1, 1.0, exact=True)
    assert queue.add(0, 0b1, 1.1, exact=True)


def test_echo_of_a_pass_is_dropped_unless_the_asker_joined_after_it_began() -> None:
    queue = WorkQueue(2048)
    queue.add(0, FULL, 1.0, exact=False)
    assert len(drain(queue, 1.0)) == 1024
    assert not queue.add(0, FULL, 1.1, exact=False)
    assert queue.add(0, FULL, 1.1, exact=False, joined=1.05)
    drain(queue, 1.1)
    assert queue.add(0, FULL, 1.2 + ECHO_SECONDS, exact=False)


def test_a_late_joiner_gets_what_it_missed_of_the_chunk_in_progress() -> None:
    queue = WorkQueue(1024)
    queue.add(0, FULL, 1.0, exact=False)
    queue.take(60, 1.0)
    assert queue.add(0, FULL, 1.5, exact=False, joined=1.4)
    sent = drain(queue, 1.5)
    assert sent[:964] == [(0, b) for b in range(60, 1024)]
    assert sent[964:] == [(0, b) for b in range(60)]


def test_short_last_chunk() -> None:
    queue = WorkQueue(1024 + 5)
    queue.add(1, FULL, 1.0, exact=False)
    assert drain(queue) == [(1, b) for b in range(5)]
    assert not queue.add(1, 1 << 5, 1.0, exact=True)
    assert not queue


# -- pace -------------------------------------------------------------------------------------------------


@given(
    rate=st.floats(50, 2e6),
    steps=st.lists(st.floats(0, 0.01), min_size=5, max_size=200),
)
def test_never_faster_than_the_rate_plus_a_burst(rate: float, steps: list[float]) -> None:
    """In any window of time no more than the window and a burst of the rate, and one block.

    Every second step is the time between the decision to send and the end of sending.
    """
    now, sent = 100.0, 0
    pacer = pace.Pacer(rate, now)
    history = [(now, 0)]
    for step, delay in zip(steps[::2], steps[1::2], strict=False):
        now += step
        blocks = min(60, pacer.allowed(now))
        now += delay
        pacer.sent(blocks, now)
        sent += blocks
        history.append((now, sent))
    for i, (start, before) in enumerate(history):
        for end, after in history[i + 1 :]:
            assert after - before <= rate * (end - start + pace.BURST_SECONDS) + 1 + 1e-6


@pytest.mark.parametrize("bits", [5_000_000, 50_000_000, 200_000_000, 1_000_000_000, 10_000_000_000])
@pytest.mark.parametrize("late", [0.0, 0.0004])
def test_rate_is_exact_when_sleeps_end_late(bits: int, late: float) -> None:
    rate = pace.rate_of_bandwidth(bits)
    now, sent = 0.0, 0
    pacer = pace.Pacer(rate, now)
    while now < 2.0:
        blocks = min(60, pacer.allowed(now))
        if blocks:
            pacer.sent(blocks, now)
            sent += blocks
        else:
            now += pacer.wait() + late
    assert sent * wire.BLOCK_ON_WIRE * 8 / now == pytest.approx(bits, rel=0.01)


def test_no_rate_no_wait() -> None:
    pacer = pace.Pacer(None, 0.0)
    assert pacer.allowed(0.0) == 60
    pacer.sent(60, 0.0)
    assert pacer.allowed(0.0) == 60


def test_defaults_are_the_old_servers() -> None:
    assert pace.rate_of_burst(pace.DEFAULT_BURST, pace.DEFAULT_GAP_US) == 8000
    assert pace.rate_of_burst(16, 0) is None


def test_a_delay_is_made_up_for_slowly_and_in_part() -> None:
    pacer = pace.Pacer(10_000.0, 0.0, make_up=pace.MAKE_UP_SECONDS)
    sent = 0

    def run(start: float, end: float) -> int:
        nonlocal sent
        before, step = sent, 0
        while (now := start + step / 1000) < end:
            step += 1
            blocks = pacer.allowed(now)
            assert blocks <= 10_000 * pace.BURST_SECONDS + 1
            pacer.sent(blocks, now)
            sent += blocks
        return sent - before

    run(0.0, 1.0)
    # 50 ms late: 1.75 ms at once, 10 ms in the time after, the rest never.
    assert 10_000 + 105 <= run(1.05, 2.05) <= 10_000 + 130
    pacer.idle()
    assert run(3.0, 4.0) <= 10_000 + 25
