# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a client asks the server for what.

Knows neither sockets nor threads: it is told what was heard and when, says when it next wants to be asked,
and then what to send. Times are seconds of one clock.

The rules are those of the programs in the field, with timers instead of ticks of 30 ms:

* A few untouched chunks are asked for ahead (read-ahead), in turn as chunks begin to arrive.
* A chunk that *anybody* asked for is stamped; it is left alone until the stamp is older than the
  re-request delay. Blocks that come renew the stamp.
* With no block from the server for a while (0.1 s, each time 0.033 s longer up to 1.2 s), all that is
  missing is asked for whatever the stamps say.

What differs, and why the wire allows it:

* **One order for all.** The programs in the field walk a random permutation each, so that their requests
  differ. Here all walk upwards and round, from the chunk first heard of on the group (a late joiner goes
  along with the others and fetches the beginning afterwards), so that all want the same few chunks at a
  time. The server's queue then is no longer than one client's read-ahead, which a socket buffer can hold.
  What keeps them from asking all at once is a random delay, short against the time the chunks under way
  take: whoever is first stamps the chunk for all.
* **Holes at once.** The server sends one chunk after the other, and of each what was asked for, ascending.
  When blocks behind all that is missing of a chunk come, or blocks of another chunk, what is
  missing is lost (or was sent before we joined). It is asked for after a few
  milliseconds, unless somebody else asks for it first, instead of after a second. Blocks that were only
  overtaken come within that delay. The same for a chunk of which nothing came, when one begins that was
  asked for later: the server's queue is first come, first served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from orbit_frisbee.frisbee.assembly import Assembly
from orbit_frisbee.frisbee.wire import chunk_bits

READ_AHEAD = 4
MAX_IN_PROGRESS = 32
AGAIN_SECONDS = 1.0
IDLE_SECONDS = 0.1
IDLE_STEP_SECONDS = 0.033
IDLE_LIMIT_SECONDS = 1.2

_HOLE_SECONDS = (0.002, 0.010)
_START_SECONDS = (0.002, 0.010)
_REFILL_LIMIT_SECONDS = 0.02
_NEVER = float("inf")


class Ask(NamedTuple):
    """Blocks to ask the server for. ``whole``: all of an untouched chunk, by a REQUEST."""

    chunk: int
    bits: int
    whole: bool
    retry: bool


class Asker:
    """Decides what to ask for. ``uniform`` gives random numbers in [0, 1).

    ``interval`` is how many seconds a chunk takes at present, 0 while that is not known.
    """

    def __init__(
        self,
        assembly: Assembly,
        now: float,
        uniform: Callable[[], float],
        *,
        read_ahead: int = READ_AHEAD,
        max_in_progress: int = MAX_IN_PROGRESS,
        again: float = AGAIN_SECONDS,
        ascending: bool = False,
    ) -> None:
        self._assembly = assembly
        self._uniform = uniform
        self._read_ahead = read_ahead
        self._max_in_progress = max_in_progress
        self._again = again
        self._start: int | None = 0 if ascending else None
        self._stamps: dict[int, float] = {}
        self._turns: dict[int, int] = {}
        self._turn = 0
        self._asked: set[int] = set()
        self._holes: dict[int, float] = {}
        self._current: int | None = None
        self._refill_at = self._between(now, _START_SECONDS)
        self._again_at = _NEVER
        self._idle_rounds = 0
        self._idle_at = now + IDLE_SECONDS
        self._begun_at: float | None = None
        self.interval = 0.0
        self.requests = self.partial_requests = self.asked_again = self.blocks_again = self.idle_rounds = 0

    def _between(self, now: float, span: tuple[float, float]) -> float:
        low, high = span
        return now + low + self._uniform() * (high - low)

    # -- what was heard -----------------------------------------------------------------------------------

    def block(self, chunk: int, new: int, now: float, *, began: bool, end: int) -> None:
        """Blocks of one chunk came from the server, and were taken.

        ``new`` of them were missing; ``began``: they were the first of their chunk; ``end``: the number of
        the one behind the last of them.
        """
        if new:
            self._idle_rounds = 0
        self._idle_at = now + self._idle_delay()
        if chunk != self._current:
            self._moved_on(now)
            self._current = chunk
            if self._start is None:
                self._start = chunk
        missing = self._assembly.filling.get(chunk, 0)
        if missing and not missing >> end:
            self._lost_of(chunk, now)
        if not new:
            return
        if began:
            if self._begun_at is not None:
                self.interval += (now - self._begun_at - self.interval) / 4
            self._begun_at = now
            self._passed_over(chunk, now)
            self._refill(now)
        if chunk in self._assembly.filling:
            self._stamp(chunk, now)
        else:
            self._complete(chunk, now)

    def _complete(self, chunk: int, now: float) -> None:
        self._stamps.pop(chunk, None)
        self._holes.pop(chunk, None)
        self._asked.discard(chunk)
        self._refill(now)

    def _moved_on(self, now: float) -> None:
        if self._current is not None:
            self._lost_of(self._current, now)

    def _lost_of(self, chunk: int, now: float) -> None:
        """Of a chunk that is begun, what is missing will not come unless it is asked for."""
        if chunk in self._assembly.filling and chunk not in self._holes:
            self._holes[chunk] = self._between(now, _HOLE_SECONDS)

    def _passed_over(self, begun: int, now: float) -> None:
        """Find chunks that were asked for before the one that now begins, and of which nothing came."""
        turn = self._turns.pop(begun, 0)
        for chunk in self._assembly.untouched(self._start or 0, self._read_ahead):
            if self._turns.get(chunk, turn) < turn and chunk not in self._holes:
                self._holes[chunk] = self._between(now, _HOLE_SECONDS)

    def _queue(self, chunk: int, *, behind: bool) -> None:
        """Somebody asked for an untouched chunk: ``behind`` those that were asked for before, if it was, too.

        The server merges requests: one more for a chunk that waits there does not make it wait longer.
        """
        if behind or chunk not in self._turns:
            self._turn += 1
            self._turns[chunk] = self._turn

    def request(self, chunk: int, bits: int, now: float, *, exact: bool) -> None:
        """Somebody (perhaps this client) asked for blocks; ``exact``: for a list of missing ones."""
        missing = self._assembly.missing(chunk)
        if not bits & missing:
            return
        if self._start is None:
            self._start = chunk
        self._idle_at = max(self._idle_at, now + self._idle_delay())
        # A hole is not filled by somebody's request for the whole: the server may drop that as an echo.
        untouched = self._assembly.is_untouched(chunk)
        if exact or untouched:
            self._stamp(chunk, now)
        if untouched:
            self._queue(chunk, behind=exact)
        if exact and not missing & ~bits:
            self._holes.pop(chunk, None)

    def freed(self, now: float) -> None:
        """A buffer became free."""
        self._refill(now)

    # -- what to do ---------------------------------------------------------------------------------------

    def due(self) -> float:
        """Return when :meth:`asks` should be called."""
        due = min(self._refill_at, self._again_at, self._idle_at)
        return min(due, *self._holes.values()) if self._holes else due

    def asks(self, now: float) -> list[Ask]:
        """Return what to ask for now."""
        idle = now >= self._idle_at
        if idle:
            self.idle_rounds += 1
            self._idle_rounds += 1
            self._idle_at = now + self._idle_delay()
        found: list[Ask] = []
        oldest = _NEVER
        assembly = self._assembly
        for chunk, missing in assembly.filling.items():
            stamp = self._stamps.get(chunk, 0.0)
            if idle or now - stamp >= self._again or self._holes.get(chunk, _NEVER) <= now:
                found.append(self._ask(chunk, missing, whole=False))
                stamp = now
                self._stamps[chunk] = now
            oldest = min(oldest, stamp)
        self._refill_at = _NEVER
        if assembly.free and len(assembly.filling) < self._max_in_progress:
            for chunk in assembly.untouched(self._start or 0, min(self._read_ahead, assembly.free)):
                stamp = self._stamps.get(chunk, -_NEVER)
                hole = self._holes.get(chunk, _NEVER) <= now
                if idle or hole or now - stamp >= self._again:
                    whole = not hole and chunk not in self._asked
                    self._queue(chunk, behind=not whole)
                    found.append(self._ask(chunk, chunk_bits(chunk, assembly.blocks), whole=whole))
                    stamp = now
                    self._stamps[chunk] = now
                oldest = min(oldest, stamp)
        if found:
            self._idle_at = max(self._idle_at, now + self._idle_delay())
        self._again_at = oldest + self._again
        self._holes = {chunk: at for chunk, at in self._holes.items() if at > now}
        return found

    def _ask(self, chunk: int, bits: int, *, whole: bool) -> Ask:
        retry = chunk in self._asked
        self._asked.add(chunk)
        if whole:
            self.requests += 1
        else:
            self.partial_requests += 1
            self.blocks_again += bits.bit_count()
        self.asked_again += retry
        return Ask(chunk, bits, whole, retry)

    def _refill(self, now: float) -> None:
        if self._refill_at == _NEVER:
            spare = self.interval * (self._read_ahead - 1) / 4
            self._refill_at = now + self._uniform() * min(_REFILL_LIMIT_SECONDS, spare)

    def _stamp(self, chunk: int, now: float) -> None:
        self._stamps[chunk] = now
        self._again_at = min(self._again_at, now + self._again)

    def _idle_delay(self) -> float:
        return min(IDLE_LIMIT_SECONDS, IDLE_SECONDS + IDLE_STEP_SECONDS * self._idle_rounds)
