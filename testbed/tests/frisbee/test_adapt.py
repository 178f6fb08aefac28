# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a server without a fixed rate sends, and whose repairs wait; with a clock of our own."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from orbit_frisbee.frisbee import wire
from orbit_frisbee.frisbee.adapt import LAGGARD_SHARE, LEAST, MOST, WINDOW, Adapter
from orbit_frisbee.frisbee.work import ALONE_SECONDS, WorkQueue

CLIENTS = [f"10.0.0.{i + 1}" for i in range(4)]
STEP = round(MOST * WINDOW)
"""Blocks sent in a window at the end of the scale."""


def heard_of(clients: int, now: float = 0.0) -> Adapter:
    """Return an adapter that has just heard of some clients."""
    adapter = Adapter(now)
    for client in CLIENTS[:clients]:
        adapter.heard(client, now)
    return adapter


class Cable:
    """Clients that take ``limit`` blocks a second and ask for the rest again, all of them alike."""

    def __init__(self, limit: float, demand: float = 1e9) -> None:
        self.limit, self.demand = limit, demand
        self.now = 100.0
        self.adapter = Adapter(self.now)
        self.sent = self.lost = 0.0

    def run(self, seconds: float) -> float:
        """Let time pass; returns the mean rate at which blocks arrived."""
        self.sent = self.lost = 0.0
        end = self.now + seconds
        while self.now < end:
            self.now += WINDOW
            sent = min(self.adapter.rate, self.demand) * WINDOW
            lost = max(0.0, sent - self.limit * WINDOW)
            self.adapter.sent(round(sent))
            self.adapter.lost(CLIENTS[0], round(lost))
            if self.adapter.due(self.now):
                self.adapter.look(self.now)
            self.sent += sent
            self.lost += lost
        return (self.sent - self.lost) / seconds


def test_the_rate_finds_what_the_clients_can_take() -> None:
    for limit in (2_000.0, 20_000.0, 80_000.0):
        cable = Cable(limit)
        cable.run(3.0)
        assert cable.run(20.0) > 0.7 * limit
        assert cable.lost < 0.1 * cable.sent


def test_without_loss_the_rate_stays_at_the_end_of_the_scale() -> None:
    cable = Cable(1e9)
    cable.run(0.5)
    assert cable.adapter.rate == MOST


def test_a_rate_that_fell_grows_only_while_it_is_made_use_of() -> None:
    cable = Cable(20_000.0)
    cable.run(1.0)
    cable.limit, fallen = 1e9, cable.adapter.rate
    cable.demand = fallen / 10
    cable.run(2.0)
    assert cable.adapter.rate == fallen
    cable.demand = 1e9
    cable.run(2.0)
    assert cable.adapter.rate > 2 * fallen


def test_loss_on_the_cable_does_not_slow_the_stream() -> None:
    adapter = heard_of(1)
    for step in range(1, 100):
        adapter.sent(STEP)
        adapter.lost(CLIENTS[0], STEP // 20)
        assert adapter.look(step * WINDOW) == MOST


def test_four_clients_that_each_lose_a_twentieth_do_not_slow_the_stream() -> None:
    adapter = heard_of(4)
    together = 1 - 0.95**4
    for step in range(1, 100):
        adapter.sent(STEP)
        for client in CLIENTS:
            adapter.again(client, round(STEP * together / 4))
            adapter.lost(client, round(STEP * together / 4))
        assert adapter.look(step * WINDOW) == MOST


def test_one_client_of_several_that_loses_most_does_not_slow_the_stream() -> None:
    adapter = heard_of(4)
    for step in range(1, 100):
        adapter.sent(STEP)
        adapter.lost(CLIENTS[3], STEP * 9 // 10)
        assert adapter.look(step * WINDOW) == MOST


def test_it_slows_the_stream_when_nobody_else_is_served() -> None:
    adapter = heard_of(4)
    for step in range(1, 4):
        adapter.sent(STEP)
        adapter.lost(CLIENTS[3], STEP * 9 // 10)
        adapter.look(step * WINDOW, shared=False)
    assert adapter.rate < MOST


def test_it_slows_the_stream_when_the_others_have_left_or_are_heard_no_more() -> None:
    left, silent = heard_of(4), heard_of(4)
    for client in CLIENTS[:3]:
        left.gone(client)
    for step in range(1, 300):
        for adapter in (left, silent):
            adapter.heard(CLIENTS[3], step * WINDOW)
            adapter.sent(STEP)
            adapter.lost(CLIENTS[3], STEP * 9 // 10)
            adapter.look(step * WINDOW)
        if step == 100:
            assert left.rate < MOST == silent.rate
    assert silent.rate < MOST


def test_a_laggard_stays_one_beside_the_last_of_the_others() -> None:
    adapter = heard_of(4)
    slow, *rest = CLIENTS
    assert adapter.again(slow, 4096)
    for client in rest[:2]:
        adapter.gone(client)
        assert adapter.again(slow, 1)
    for step in range(1, 5):
        adapter.sent(STEP)
        adapter.lost(slow, STEP)
        assert adapter.look(step * WINDOW) == MOST
        assert not adapter.again(rest[2], 100)
    adapter.gone(rest[2])
    assert not adapter.again(slow, 4096), "it has the stream for itself"


def test_a_laggard_is_none_any_more_when_the_others_ask_for_as_much() -> None:
    adapter = heard_of(4)
    assert adapter.again(CLIENTS[0], 4096)
    assert not any(adapter.again(client, 4096) for client in CLIENTS[1:])
    assert not adapter.laggard(CLIENTS[0])


def test_of_two_none_is_a_laggard() -> None:
    adapter = heard_of(2)
    assert not adapter.again(CLIENTS[0], 100_000)


def test_a_few_blocks_do_not_decide() -> None:
    adapter = heard_of(1)
    adapter.sent(1000)
    adapter.lost(CLIENTS[0], 900)
    assert adapter.look(WINDOW) == MOST


def test_after_a_fall_only_what_was_sent_since_counts() -> None:
    adapter, queue = heard_of(1), WorkQueue(4 * 1024)
    queue.add(0, wire.FULL, 1.0, exact=False)
    queue.take(1024, 1.0)
    for step in range(1, 5):
        adapter.sent(STEP)
        adapter.lost(CLIENTS[0], STEP)
        adapter.look(1.0 + step * WINDOW)
    assert adapter.rate < MOST
    assert queue.sent_since(0, 1.0) == wire.FULL
    assert queue.sent_since(0, adapter.since) == queue.sent_since(1, 0.0) == 0
    queue.add(0, 0b110, adapter.since + 1.0, exact=True)
    queue.take(1, adapter.since + 1.0)
    assert queue.sent_since(0, adapter.since) == 0b010


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.03, 10)), max_size=50))
def test_the_rate_stays_within_its_scale(steps: list[tuple[int, int, float]]) -> None:
    adapter = heard_of(1)
    now = 0.0
    for sent, lost, passed in steps:
        now += passed
        adapter.sent(sent)
        adapter.lost(CLIENTS[0], lost)
        assert LEAST <= adapter.look(now) <= MOST


def test_who_alone_asks_again_for_much_is_a_laggard() -> None:
    adapter = heard_of(4)
    assert not adapter.again(CLIENTS[0], 1000)
    assert adapter.again(CLIENTS[0], 9000)
    assert not adapter.again(CLIENTS[1], 100)
    assert not adapter.again(CLIENTS[1], 9900)
    assert not adapter.laggard(CLIENTS[0])


def test_of_two_clients_none_is_a_laggard() -> None:
    assert not heard_of(2).again(CLIENTS[0], 100_000)


def test_a_laggard_is_forgiven_in_time() -> None:
    adapter = heard_of(4)
    assert adapter.again(CLIENTS[0], 9000)
    adapter.look(2.0)
    assert not adapter.laggard(CLIENTS[0])


# -- the queue of laggards ------------------------------------------------------------------------------


def sent_before(chunks: int) -> WorkQueue:
    """Return the queue of a file of ``chunks`` chunks of which the first half was sent."""
    queue = WorkQueue(chunks * 1024)
    for chunk in range(chunks // 2):
        queue.add(chunk, wire.FULL, 1.0, exact=False)
    while queue:
        queue.take(60, 1.0)
    return queue


def test_a_laggards_repairs_get_a_small_share_while_there_is_other_work() -> None:
    queue = sent_before(80)
    for chunk in range(40):
        assert queue.add(chunk, wire.FULL, 9.0, exact=True, late=True)
    for chunk in range(40, 80):
        assert queue.add(chunk, wire.FULL, 9.0, exact=False)
    sent = {"late": 0, "fresh": 0}
    while sent["fresh"] < 40 * 1024:
        for chunk, _, count in queue.take(60, 9.0):
            sent["late" if chunk < 40 else "fresh"] += count
    # One item more or less: an item that was begun is finished.
    assert abs(sent["late"] - LAGGARD_SHARE * sent["fresh"]) <= 1024
    rest = 0
    while queue:
        rest += sum(count for _, _, count in queue.take(60, 9.0 + ALONE_SECONDS))
    assert rest + sent["late"] == 40 * 1024


def test_a_moment_without_other_work_is_not_the_laggards() -> None:
    queue = sent_before(80)
    for chunk in range(40):
        queue.add(chunk, wire.FULL, 9.0, exact=True, late=True)
    sent = {"late": 0, "fresh": 0}
    for chunk in range(40, 80):
        # The others ask for the next chunk only when they have looked at this one.
        queue.add(chunk, wire.FULL, 9.0, exact=False)
        while queue.ready(9.0):
            for taken, _, count in queue.take(60, 9.0):
                sent["late" if taken < 40 else "fresh"] += count
    assert sent["fresh"] == 40 * 1024
    assert abs(sent["late"] - LAGGARD_SHARE * sent["fresh"]) <= 1024
    assert queue.ready_at == pytest.approx(9.0 + ALONE_SECONDS)
    assert queue.shared(9.1)
    assert queue.ready(9.0 + ALONE_SECONDS)
    assert not queue.shared(9.0 + ALONE_SECONDS)


def test_what_somebody_else_wants_too_moves_over_and_is_sent_once() -> None:
    queue = sent_before(4)
    queue.add(0, 0b1111, 9.0, exact=True, late=True)
    assert queue.add(0, 0b0011, 9.0, exact=True)
    queue.add(2, 1, 9.0, exact=False)
    assert len(queue) == 3
    assert queue.take(2, 9.0) == [(0, 0, 2)]
    rest = queue.take(60, 9.0) + queue.take(60, 9.0 + ALONE_SECONDS)
    assert sorted(rest) == [(0, 2, 2), (2, 0, 1)]
    assert not queue


def in_debt() -> WorkQueue:
    """Return a queue of which a laggard has just got a whole chunk while others have work."""
    queue = sent_before(8)
    queue.add(1, wire.FULL, 9.0, exact=True, late=True)
    queue.add(4, 1, 9.0, exact=False)
    assert queue.take(1025, 9.0) == [(4, 0, 1), (1, 0, 1024)]
    assert not queue
    return queue


def test_a_laggard_that_asks_for_a_chunk_at_a_time_gets_no_more_than_its_share() -> None:
    queue = in_debt()
    fresh = 0
    for chunk in range(5, 8):
        queue.add(chunk, wire.FULL, 9.0, exact=False)
        queue.add((chunk - 3) % 4, wire.FULL, 9.0, exact=True, late=True)
        while queue.ready(9.0):
            for taken, _, count in queue.take(60, 9.0):
                assert taken == chunk
                fresh += count
    assert fresh == 3 * 1024


def test_a_laggard_wants_of_the_same_chunk_what_the_others_have() -> None:
    queue = in_debt()
    assert queue.add(0, 0b0001, 9.0, exact=True)
    assert queue.add(0, 0b1111, 9.0, exact=True, late=True)
    assert queue.add(5, 0b11, 9.0, exact=False)
    assert queue.take(60, 9.0) == [(0, 0, 1), (5, 0, 2)]
    assert queue.take(60, 9.0 + ALONE_SECONDS) == [(0, 1, 3)]
    assert not queue


def test_a_laggard_adds_nothing_to_a_repair_that_was_begun() -> None:
    queue = in_debt()
    assert queue.add(0, 0b0101, 9.0, exact=True)
    assert queue.take(1, 9.0) == [(0, 0, 1)]
    assert queue.add(0, 0b1110, 9.0, exact=True, late=True)
    assert queue.take(60, 9.0) == [(0, 2, 1)]
    assert queue.take(60, 9.0 + ALONE_SECONDS) == [(0, 1, 1), (0, 3, 1)]
    assert not queue


@given(
    asked=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 0xFFFF), st.booleans(), st.integers(0, 9)), max_size=30
    )
)
def test_whoever_misses_blocks_they_are_sent_once(asked: list[tuple[int, int, bool, int]]) -> None:
    queue = sent_before(4)
    waiting: set[tuple[int, int]] = set()
    now = 9.0

    def take(limit: int) -> None:
        for chunk, first, count in queue.take(limit, now):
            for block in range(first, first + count):
                # Nobody asked for it since it was sent the last time: a repair for nothing.
                assert (chunk, block) in waiting
                waiting.remove((chunk, block))

    for chunk, bits, late, limit in asked:
        now += 1.0
        queue.add(chunk, bits, now, exact=True, late=late)
        waiting |= {(chunk, block) for block in range(16) if bits >> block & 1}
        take(limit)
    for _ in range(len(queue) + 1):
        now += ALONE_SECONDS
        take(4 * 1024)
    assert not queue
    assert not waiting


def test_what_was_never_sent_is_nobodys_repair() -> None:
    queue = sent_before(4)
    queue.add(1, 1, 9.0, exact=True, late=True)
    queue.add(3, 1, 9.0, exact=True, late=True)
    assert queue.take(60, 9.0) + queue.take(60, 9.0 + ALONE_SECONDS) == [(3, 0, 1), (1, 0, 1)]
    # Of one chunk some were and some were not.
    queue.add(3, 0b111, 19.0, exact=True, late=True)
    assert queue.take(60, 19.0) + queue.take(60, 19.0 + ALONE_SECONDS) == [(3, 1, 2), (3, 0, 1)]


def test_repeated_blocks_are_counted() -> None:
    queue = sent_before(2)
    assert queue.repeated == 0
    queue.add(0, 0b101, 9.0, exact=True, late=True)
    queue.take(60, 9.0)
    assert queue.repeated == 2
    assert queue.sent_once(0) == wire.FULL
    assert queue.sent_once(1) == 0
