# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample of what ``fuzz_server`` does by the million, and proof that it would notice."""

from __future__ import annotations

from typing import Any

import pytest

from orbit_frisbee.frisbee import server as server_module, wire
from orbit_frisbee.frisbee.server import Server
from orbit_frisbee.frisbee.work import WorkQueue

from . import fuzz_server, fuzz_sockets, stand


def test_the_server_survives_any_datagram() -> None:
    done = fuzz_server.fuzz(60_000, seed=20261122)
    count = done.server.count
    assert count.messages_in >= 60_000
    assert min(count.invalid, count.joins, count.leaves, count.requests, count.partial_requests) > 1000
    assert min(count.foreign, done.replies, done.blocks) > 100


def test_the_server_survives_any_datagram_through_its_sockets() -> None:
    done = fuzz_sockets.fuzz(20_000, seed=20261122)
    count = done.server.count
    assert min(count.invalid, count.joins, count.requests, done.rows, done.filtered) > 300
    assert count.foreign > 100


def test_what_the_sockets_do_not_hand_on_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    hear = server_module.split

    def lose(*arguments: Any) -> list[memoryview]:
        return list(hear(*arguments))[:3]

    monkeypatch.setattr(server_module, "split", lose)
    monkeypatch.setattr(stand, "DEADLINE", 0.5)
    with pytest.raises(AssertionError, match="the hearing of"):
        fuzz_sockets.fuzz(2000, seed=1)


def test_a_seed_repeats_a_run() -> None:
    first, second = (fuzz_server.fuzz(3000, seed=5) for _ in range(2))
    assert first.last == second.last
    assert (first.blocks, first.replies) == (second.blocks, second.replies)


def test_faults_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        answer = Server._answer
        patch.setattr(Server, "_answer", lambda self, now: (answer(self, now), self._reply(bytes(41))))
        with pytest.raises(fuzz_server.Finding, match="an answer of 41 bytes"):
            fuzz_server.fuzz(3000, seed=1)
    with monkeypatch.context() as patch:
        add = WorkQueue.add
        patch.setattr(
            WorkQueue, "add", lambda self, chunk, bits, *a, **k: add(self, chunk, wire.FULL, *a, **k)
        )
        with pytest.raises(fuzz_server.Finding, match="was not asked for"):
            fuzz_server.fuzz(5000, seed=1)


def test_what_waits_twice_is_sent_once() -> None:
    """Found by fuzzing: a block waited in one queue when its chunk was under way from the other."""
    queue = WorkQueue(2048)
    queue.add(0, wire.FULL, 1.0, exact=False)
    queue.take(1024, 1.0)
    queue.add(1, wire.FULL, 3.0, exact=False)
    queue.add(0, 0b0011, 3.0, exact=True, late=True)
    queue.add(0, 0b1000, 3.0, exact=True)
    assert queue.take(1025, 3.0) == [(1, 0, 1024), (0, 0, 1)], "the laggard's turn comes first"
    queue.add(0, 0b1000, 3.0, exact=True)
    assert queue.take(100, 3.0) == [(0, 1, 1), (0, 3, 1)]
    assert not queue
