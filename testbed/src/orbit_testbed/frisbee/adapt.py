# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a server without a fixed rate may send, and whose repairs may wait.

The wire has no acknowledgements. What tells the server that it is too fast is what clients ask for again.

* **Rate.** While little is asked for again the rate grows, but only while it is made use of: fast before the
  first loss, slowly where the last one was. When at least a tenth of what was lately sent is asked for
  again, it falls towards what was really sent. Less than that is the cable's loss, which a lower rate would
  not mend. Of several clients with bad cables each loses other blocks, so when three or more ask it takes a
  quarter.
* **Laggards.** With three clients or more, one that alone asks again for several times what the others do
  is slower than they are. The rate is not for it to decide, and its repairs get a small share of the stream
  (:data:`LAGGARD_SHARE`) as long as there is other work. The same for one that joined late and wants the
  beginning.

Times are seconds of one clock, amounts are blocks.
"""

from __future__ import annotations

from typing import Final

START: Final = 110_000.0
"""Blocks per second to begin with: what a cable of 1 Gbit/s takes."""
LEAST: Final = 200.0
MOST: Final = 400_000.0
"""3.6 Gbit/s: more than nodes inflate and write. Who has faster ones says so by a fixed rate."""
WINDOW: Final = 0.02
"""Seconds after which the rate is looked at."""
LAGGARD_SHARE: Final = 1 / 16
"""Blocks a laggard gets for each block of other work."""

_GROW_FIRST: Final = 1.5
_GROW: Final = 1.06
_GROW_NEAR: Final = 1.01
_NEAR: Final = 0.8
_FALL: Final = 0.7
_FALL_MOST: Final = 0.5
_TOO_MUCH: Final = 0.1
_TOO_MUCH_OF_SEVERAL: Final = 0.25
_SEVERAL: Final = 3
_MADE_USE_OF: Final = 0.5
_LATELY_SECONDS: Final = 0.3
_SETTLE_SECONDS: Final = 0.1
_LAGGARD_LEAST: Final = 2048.0
_LAGGARD_TIMES: Final = 4.0
_FORGET_SECONDS: Final = 1.0


class Adapter:
    """Watches what is sent and what is asked for again; ``rate`` is in blocks per second."""

    def __init__(self, now: float) -> None:
        self.rate = START
        self._ceiling: float | None = None
        self._looked_at = self._settled_at = now
        self._window = 0
        self._sent = self._lost = 0.0
        self._again: dict[str, float] = {}

    def sent(self, blocks: int) -> None:
        """Say what was sent."""
        self._window += blocks

    def lost(self, blocks: int) -> None:
        """Say how many blocks are to be sent again because they did not arrive."""
        self._lost += blocks

    def again(self, client: str, blocks: int, clients: int) -> bool:
        """Say what a client wants that was sent before; returns whether it is a laggard among ``clients``."""
        self._again[client] = self._again.get(client, 0.0) + blocks
        return self.laggard(client, clients)

    def laggard(self, client: str, clients: int) -> bool:
        """Tell whether a client, one of ``clients``, falls behind the others."""
        mine = self._again.get(client, 0.0)
        if clients < 3 or mine < _LAGGARD_LEAST:
            return False
        others = (sum(self._again.values()) - mine) / (clients - 1)
        return mine > _LAGGARD_TIMES * others

    def due(self, now: float) -> bool:
        """Whether the rate is to be looked at; :meth:`look` does it."""
        return now >= self._looked_at + WINDOW

    def look(self, now: float) -> float:
        """Return the rate from now on."""
        span, self._looked_at = now - self._looked_at, now
        self._sent += self._window
        used, self._window = self._window / span, 0
        if now < self._settled_at:
            # What is asked for again now was lost before the rate fell.
            self._lost = 0.0
        elif self._lost and self._lost >= self._too_much() * self._sent:
            self._ceiling = self.rate
            self.rate = max(LEAST, self.rate * _FALL_MOST, min(self.rate, used) * _FALL)
            self._settled_at = now + _SETTLE_SECONDS
        elif used >= _MADE_USE_OF * self.rate:
            self.rate = min(MOST, self.rate * self._growth())
        kept = max(0.0, 1.0 - span / _LATELY_SECONDS)
        self._sent, self._lost = self._sent * kept, self._lost * kept
        kept = max(0.0, 1.0 - span / _FORGET_SECONDS)
        self._again = {client: kept * blocks for client, blocks in self._again.items() if kept * blocks >= 1}
        return self.rate

    def _too_much(self) -> float:
        return _TOO_MUCH if len(self._again) < _SEVERAL else _TOO_MUCH_OF_SEVERAL

    def _growth(self) -> float:
        if self._ceiling is None:
            return _GROW_FIRST
        return _GROW if self.rate < _NEAR * self._ceiling else _GROW_NEAR
