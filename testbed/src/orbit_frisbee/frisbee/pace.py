# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the server may send.

A token bucket in units of blocks: it fills at the rate asked for and holds what the rate gives in 1.75 ms,
plus one block. So the stream keeps its rate although a sleep may end a millisecond late, and is never more
than 2 ms ahead of it on the cable, the share of kernel and network in that included. What counts is when a
batch has gone out, not when it was decided on. A longer delay and any idle time are forgotten. Time is
absolute; small errors do not add up.

A rate that nobody asked for (:mod:`.adapt`) promises nothing: there 10 ms of a longer delay (a machine that
has much else to do) are made up for, by a rate a quarter higher.

``-W`` counts bytes as the cable does: a BLOCK is 1114 (1024 of data, 24 of frisbee, 28 of IPv4 and UDP, 38 of
Ethernet with preamble and gap). The programs in the field reckon with a wrong size and round to whole
blocks per millisecond, a 64-bit 2004 server by more than half.
"""

from __future__ import annotations

from orbit_frisbee.frisbee.net import MAX_SEGMENTS
from orbit_frisbee.frisbee.wire import BLOCK_ON_WIRE

BURST_SECONDS = 0.00175
"""How much lateness is made up for at once."""
MAKE_UP_SECONDS = 0.01
"""How much more of it is made up for slowly where the rate is not a promise."""
_REPAY = 0.25
_QUANTUM_SECONDS = 0.00075
"""What is sent at once when all is on time."""

DEFAULT_BURST = 16
DEFAULT_GAP_US = 2000


def rate_of_bandwidth(bits: int) -> float:
    """Return the blocks per second that fill ``bits`` per second of cable."""
    return bits / (8 * BLOCK_ON_WIRE)


def rate_of_burst(burst: int, gap_us: int) -> float | None:
    """Return the blocks per second of ``burst`` blocks each ``gap_us`` microseconds; None: no limit."""
    return burst * 1_000_000 / gap_us if gap_us else None


class Pacer:
    """A token bucket; ``rate`` is in blocks per second, None for no limit. Times are seconds of one clock.

    ``make_up``: of a long delay, how many seconds are made up for by a higher rate.
    """

    def __init__(self, rate: float | None, now: float, *, make_up: float = 0.0) -> None:
        self._now = now
        self._make_up = make_up
        self._tokens = 1.0
        self._owed = 0.0
        self._idle = True
        self.set_rate(rate)

    def set_rate(self, rate: float | None) -> None:
        """Change the rate from now on."""
        self.rate = rate
        if rate is not None:
            self._depth = 1 + rate * BURST_SECONDS
            self._quantum = max(1.0, min(float(MAX_SEGMENTS), rate * _QUANTUM_SECONDS))

    def allowed(self, now: float) -> int:
        """Return how many blocks may be sent now."""
        if self.rate is None:
            return MAX_SEGMENTS
        self._fill(now)
        if self._idle:
            self._owed, self._idle = 0.0, False
        # Rounding must not leave a wait too short for the clock to notice.
        allowed = int(self._tokens + 1e-6)
        return allowed if allowed >= int(self._quantum) else 0

    def _fill(self, now: float) -> None:
        assert self.rate is not None
        earned = (now - self._now) * self.rate
        repaid = min(self._owed, earned * _REPAY)
        full = self._tokens + earned + repaid
        self._tokens = min(self._depth, full)
        self._owed = min(self.rate * self._make_up, self._owed - repaid + full - self._tokens)
        self._now = now

    def idle(self) -> None:
        """Say that there is nothing to send: the time until the next :meth:`allowed` is no delay."""
        self._idle = True

    def wait(self) -> float:
        """Return the seconds until sending is worth while again, after :meth:`allowed` gave 0."""
        if self.rate is None:
            return 0.0
        return max(0.0, (int(self._quantum) - self._tokens) / self.rate)

    def sent(self, blocks: int, now: float) -> None:
        """Say what was sent, and when it had gone out."""
        if self.rate is not None:
            self._fill(now)
            self._tokens -= blocks
