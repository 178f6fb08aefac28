# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a server without a fixed rate may send, and whose repairs may wait.

The wire has no acknowledgements. What tells the server that it is too fast is what clients ask for again.

* **Rate.** It begins at the top of its scale: a slower start that grows until something is lost would be
  there before the first request for it has come back. When at least a tenth of what was lately sent is asked
  for again, it falls towards what arrived. Less than that is the cable's loss, which a lower rate would not
  mend. Of several clients with bad cables each loses other blocks, so when three or more ask it takes a
  quarter. While little is asked for again the rate grows, if it is made use of: slowly where the last loss
  was, faster below. What was sent before the last fall says nothing of the rate since then. How long "lately"
  is goes by blocks where the rate is low: a client notices a loss when the next chunk begins.
* **Laggards.** With three clients or more, one that alone asks again for several times what the others do
  is slower than they are. As long as there is other work, the rate is not for it to decide, and its repairs
  get a small share of the stream (:data:`LAGGARD_SHARE`). The same for one that joined late and wants the
  beginning.

A client counts while it is heard of: one that vanished must not make a laggard of the one that is left.

Times are seconds of one clock, amounts are blocks.
"""

from __future__ import annotations

from typing import Final

LEAST: Final = 200.0
MOST: Final = 800_000.0
"""7.1 Gbit/s: more than nodes inflate and write. Who has faster ones says so by a fixed rate."""
WINDOW: Final = 0.02
"""Seconds after which the rate is looked at; longer where fewer than 256 blocks are sent in that time."""
LAGGARD_SHARE: Final = 1 / 32
"""Blocks a laggard gets for each block of other work: the stream alone is more than it can take."""

_GROW: Final = 1.06
_GROW_NEAR: Final = 1.01
_NEAR: Final = 0.8
_FALL: Final = 0.7
_FALL_MOST: Final = 0.25
_TOO_MUCH: Final = 0.1
_TOO_MUCH_OF_SEVERAL: Final = 0.25
_SEVERAL: Final = 3
_MADE_USE_OF: Final = 0.5
_WINDOW_BLOCKS: Final = 256.0
_LATELY_SECONDS: Final = 0.3
_LATELY_BLOCKS: Final = 4096.0
_SAMPLE_SECONDS: Final = 0.04
_SAMPLE_BLOCKS: Final = 1024.0
_LAGGARD_LEAST: Final = 2048.0
_LAGGARD_TIMES: Final = 4.0
_FORGET_SECONDS: Final = 1.0
_HEARD_SECONDS: Final = 3.0


class Adapter:
    """Watches what is sent and what is asked for again.

    ``rate`` is in blocks per second; ``since`` is when it last fell.
    """

    def __init__(self, now: float) -> None:
        self.rate = self._ceiling = MOST
        self._looked_at = self.since = now
        self._window = 0
        self._sent = 0.0
        self._heard: dict[str, float] = {}
        self._lost: dict[str, float] = {}
        self._again: dict[str, float] = {}
        self._laggards: set[str] = set()

    def heard(self, client: str, now: float) -> None:
        """Say that a client joined or asked for something."""
        self._heard[client] = now

    def gone(self, client: str) -> None:
        """Say that a client has left."""
        for kept in (self._heard, self._lost, self._again):
            kept.pop(client, None)
        self._laggards.discard(client)

    def sent(self, blocks: int) -> None:
        """Say what was sent."""
        self._window += blocks

    def lost(self, client: str, blocks: int) -> None:
        """Say how many blocks that were sent after ``since`` did not reach a client."""
        self._lost[client] = self._lost.get(client, 0.0) + blocks

    def again(self, client: str, blocks: int) -> bool:
        """Say what a client wants that was sent before; returns whether it is a laggard."""
        self._again[client] = self._again.get(client, 0.0) + blocks
        return self.laggard(client)

    def laggard(self, client: str) -> bool:
        """Tell whether a client falls behind the others. Beside the last of them it stays what it was."""
        stays = client in self._laggards and 0 < self._others(client) < _SEVERAL - 1
        much = self._again.get(client, 0.0) >= _LAGGARD_LEAST
        if much and (stays or self._alone(client, self._again)):
            self._laggards.add(client)
            return True
        self._laggards.discard(client)
        return False

    def _others(self, client: str) -> int:
        return len(self._heard.keys() - {client})

    def _alone(self, client: str, amounts: dict[str, float]) -> bool:
        """Whether a client has several times what each of the others has, which are two at least."""
        others, mine = self._others(client), amounts[client]
        return others >= _SEVERAL - 1 and mine * others > _LAGGARD_TIMES * (sum(amounts.values()) - mine)

    def _shared_loss(self) -> float:
        """Return what was lost, but not by a laggard nor by a client that alone loses much."""
        return sum(
            blocks
            for client, blocks in self._lost.items()
            if client not in self._laggards and not self._alone(client, self._lost)
        )

    def due(self, now: float) -> bool:
        """Whether the rate is to be looked at; :meth:`look` does it."""
        return now >= self._looked_at + max(WINDOW, _WINDOW_BLOCKS / self.rate)

    def look(self, now: float, *, shared: bool = True) -> float:
        """Return the rate from now on. ``shared``: somebody besides laggards is served."""
        span, self._looked_at = now - self._looked_at, now
        sent, self._window = self._window, 0
        used = sent / span
        self._sent += sent
        lost = self._shared_loss() if shared else sum(self._lost.values())
        enough = max(_SAMPLE_SECONDS * self.rate, _SAMPLE_BLOCKS)
        if self._sent >= enough and lost >= self._too_much() * self._sent:
            arrived = max(_FALL_MOST, min(_FALL, 1.0 - lost / self._sent))
            self._ceiling = self.rate
            self.rate = max(LEAST, self.rate * _FALL_MOST, min(self.rate, used) * arrived)
            self.since, self._sent = now, 0.0
            self._lost.clear()
        elif used >= _MADE_USE_OF * self.rate:
            self.rate = min(MOST, self.rate * (_GROW if self.rate < _NEAR * self._ceiling else _GROW_NEAR))
        forgotten = sent / max(_LATELY_SECONDS * self.rate, _LATELY_BLOCKS)
        self._sent *= max(0.0, 1.0 - forgotten)
        self._lost = _faded(self._lost, forgotten)
        self._again = _faded(self._again, span / _FORGET_SECONDS)
        for client in [client for client, at in self._heard.items() if now - at > _HEARD_SECONDS]:
            self.gone(client)
        return self.rate

    def _too_much(self) -> float:
        return _TOO_MUCH if len(self._again) < _SEVERAL else _TOO_MUCH_OF_SEVERAL


def _faded(amounts: dict[str, float], share: float) -> dict[str, float]:
    """Return what is left of amounts after ``share`` of them was forgotten; less than a block is nothing."""
    left = max(0.0, 1.0 - share)
    return {client: left * blocks for client, blocks in amounts.items() if left * blocks >= 1}
