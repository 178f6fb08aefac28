# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server has been asked for and not sent yet.

One item per chunk, first come first served. A request for a chunk that waits is merged into its item.

What is asked of a chunk while it is being sent, or just after, needs care: the request may have been on its
way while the blocks were, and answering it would send them twice to everybody.

* Blocks of it that are still to come: nothing to do.
* Blocks already sent in this pass, asked for by a REQUEST of the whole chunk: the asker knew of none of
  them when it asked. It hears the rest, and asks for what it missed when the pass is over. Dropped. The
  same for :data:`ECHO_SECONDS` after the pass, except for a client that joined after it had begun: that one
  cannot have heard it. (The programs in the field do the first and not the second.)
* Blocks already sent, asked for by a list of missing blocks (PREQUEST, or a REQUEST of a part): the asker
  has noticed a loss. They are put at the end of the queue, save those sent less than
  :data:`FLIGHT_SECONDS` before the request came: the asker cannot have missed them yet.

All this goes by when a request reached the machine, not by when the server found the time to look at it.

A second queue holds what only laggards want (:mod:`.adapt`): blocks sent before, that the others have. While
there is other work, it gets a share of the stream; what somebody else asks for as well moves over. A moment
without other work is no end of it: clients that are busy ask late, and what is sent in between takes from
them the time to look at it. Only after :data:`ALONE_SECONDS` the laggards have the stream for themselves.
"""

from __future__ import annotations

from collections import deque

from orbit_frisbee.frisbee.adapt import LAGGARD_SHARE
from orbit_frisbee.frisbee.wire import chunk_bits, runs

ECHO_SECONDS = 0.25
"""How long after a pass a request for the whole chunk may be an echo of the time before it."""
FLIGHT_SECONDS = 0.001
"""How long a block may be on its way to a client and the client's request on its way here."""
ALONE_SECONDS = 1.0
"""How long there has been no other work before laggards get all of the stream."""
_FLYING_KEPT_SECONDS = 1.0
_PASSES_KEPT = 64


class WorkQueue:
    """Items to send, for a file of ``blocks`` blocks. Times are seconds of one clock.

    ``longest`` is the largest number of items so far, ``repeated`` the blocks taken more than once.
    """

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._waiting: dict[int, int] = {}
        self._late: dict[int, int] = {}
        self._late_credit = 0.0
        self._late_now = False
        self._others_at = 0.0
        self._sent_once: dict[int, int] = {}
        self._last: dict[int, tuple[float, int]] = {}
        self._current: int | None = None
        self._left = 0
        self._sent = 0
        self._begun = 0.0
        self._passes: dict[int, tuple[float, float]] = {}
        self._flying: deque[tuple[float, int, int]] = deque()
        self.longest = 0
        self.repeated = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._late) + (self._current is not None)

    def __contains__(self, chunk: int) -> bool:
        return chunk in self._waiting or chunk in self._late or chunk == self._current

    def sent_once(self, chunk: int) -> int:
        """Return the bitmap of the blocks of a chunk that were sent at least once."""
        return self._sent_once.get(chunk, 0)

    def sent_since(self, chunk: int, since: float) -> int:
        """Return the bitmap of the blocks of a chunk that its last item was, if that was begun since then."""
        last = (self._begun, self._sent) if chunk == self._current else self._last.get(chunk)
        return last[1] if last is not None and last[0] >= since else 0

    @property
    def in_progress(self) -> bool:
        """Whether an item has been begun and not finished."""
        return self._current is not None

    def add(
        self, chunk: int, bits: int, now: float, *, exact: bool, joined: float = 0.0, late: bool = False
    ) -> bool:
        """Ask for blocks of a chunk; returns whether that made a new item. ``now``: when the request came.

        ``exact``: the bitmap names what the asker misses, as opposed to a chunk it has not seen at all.
        ``joined``: when the asker joined, if known. ``late``: the asker is a laggard. Blocks behind
        the end of the file are left out.
        """
        bits &= chunk_bits(chunk, self._blocks)
        if late:
            again = bits & self.sent_once(chunk)
            made = self._add_late(chunk, again, now, exact, joined)
            return self.add(chunk, bits & ~again, now, exact=exact, joined=joined) or made
        if chunk == self._current:
            coming = bits & ~self._sent
            self._left |= coming
            _take_off(self._waiting, chunk, coming)
            _take_off(self._late, chunk, coming)
            bits &= self._sent
        if not exact and self._is_echo(chunk, now, joined):
            return False
        if chunk in self._waiting:
            self._waiting[chunk] |= bits
            _take_off(self._late, chunk, bits)
            return False
        bits = self._not_flying(chunk, bits, now)
        if not bits:
            return False
        _take_off(self._late, chunk, bits)
        self._waiting[chunk] = bits
        self.longest = max(self.longest, len(self))
        return True

    def _add_late(self, chunk: int, bits: int, now: float, exact: bool, joined: float) -> bool:
        """Ask for blocks that were sent before, for a laggard; what others ask for as well comes soon."""
        if not exact and self._is_echo(chunk, now, joined):
            return False
        bits &= ~self._waiting.get(chunk, 0)
        if chunk == self._current:
            bits &= ~self._left
        bits = self._not_flying(chunk, bits, now)
        if not bits:
            return False
        made = chunk not in self._late
        self._late[chunk] = self._late.get(chunk, 0) | bits
        self.longest = max(self.longest, len(self))
        return made

    def _is_echo(self, chunk: int, now: float, joined: float) -> bool:
        """Tell whether who asks for a whole chunk hears it, or heard it a moment ago."""
        if chunk == self._current:
            return joined <= self._begun
        begun, ended = self._passes.get(chunk, (0.0, -ECHO_SECONDS))
        return joined <= begun and now - ended < ECHO_SECONDS

    def _not_flying(self, chunk: int, bits: int, now: float) -> int:
        """Return those of some blocks that may be missed: not the ones on their way."""
        for sent, which, flying in reversed(self._flying):
            if sent < now - FLIGHT_SECONDS:
                break
            if which == chunk:
                bits &= ~flying
        return bits

    def shared(self, now: float) -> bool:
        """Tell whether there is other work than that of laggards, or was a moment ago."""
        return bool(self._waiting) or now < self._others_at + ALONE_SECONDS

    def ready(self, now: float) -> bool:
        """Tell whether something may be sent."""
        return bool(self) and now >= self.ready_at

    @property
    def ready_at(self) -> float:
        """When what is there may be sent, if nothing else is asked for."""
        if self._current is not None or self._waiting or self._late_credit > 0:
            return 0.0
        return self._others_at + ALONE_SECONDS

    def _next(self) -> dict[int, int]:
        """Return the queue whose turn it is."""
        self._late_now = bool(self._late) and (not self._waiting or self._late_credit > 0)
        return self._late if self._late_now else self._waiting

    def _charge(self, blocks: int, now: float) -> None:
        """Laggards save up for their turn while others are served, and pay for it."""
        if not self._late_now:
            self._others_at = now
            self._late_credit += blocks * LAGGARD_SHARE
            if not self._late:
                # Who wants nothing saves nothing up, but still owes what it got.
                self._late_credit = min(0.0, self._late_credit)
        elif self.shared(now):
            self._late_credit -= blocks
        else:
            self._late_credit = 0.0

    def take(self, limit: int, now: float, *, begin: bool = True) -> list[tuple[int, int, int]]:
        """Take up to ``limit`` blocks off the queue, as (chunk, first block, count) in sending order.

        ``begin``: go on to the next item when one is finished.
        """
        batch: list[tuple[int, int, int]] = []
        while self._flying and self._flying[0][0] < now - _FLYING_KEPT_SECONDS:
            self._flying.popleft()
        while limit and (self._current is not None or (begin and self.ready(now))):
            if self._current is None:
                queue = self._next()
                self._current = next(iter(queue))
                self._left = queue.pop(self._current)
                self._sent = 0
                self._begun = now
            taken = 0
            for first, count in runs(self._left):
                count = min(count, limit)
                batch.append((self._current, first, count))
                taken |= ((1 << count) - 1) << first
                limit -= count
                if not limit:
                    break
            self._flying.append((now, self._current, taken))
            self._charge(taken.bit_count(), now)
            before = self._sent_once.get(self._current, 0)
            self.repeated += (before & taken).bit_count()
            self._sent_once[self._current] = before | taken
            self._left &= ~taken
            self._sent |= taken
            if not self._left:
                self._finish(now)
        return batch

    def _finish(self, now: float) -> None:
        assert self._current is not None
        self._last[self._current] = (self._begun, self._sent)
        if self._sent == chunk_bits(self._current, self._blocks):
            self._passes.pop(self._current, None)
            self._passes[self._current] = (self._begun, now)
            if len(self._passes) > _PASSES_KEPT:
                del self._passes[next(iter(self._passes))]
        self._current = None


def _take_off(queue: dict[int, int], chunk: int, bits: int) -> None:
    """Take blocks of a chunk off a queue, and the chunk with the last of them."""
    left = queue.get(chunk, 0) & ~bits
    if left:
        queue[chunk] = left
    else:
        queue.pop(chunk, None)
