# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The frisbee client behind a cable that loses datagrams: ``frisbee`` of nodes in a testbed with ``--loss``.

Not every kernel can lose packets (netem), so the client does it to itself, before it looks at what came.
"""

from __future__ import annotations

import math
import os
import random
import sys
from collections.abc import Callable

from orbit_frisbee.frisbee import client, client_cli
from orbit_frisbee.frisbee.net import Receiver
from orbit_frisbee.frisbee.wire import BLOCK_DATAGRAM, BLOCK_HEAD_SIZE, BLOCK_SIZE

#: Per cent of datagrams to lose.
VARIABLE = "ORBIT_TESTBED_LOSS"


def losing(share: float, draw: Callable[[], float] = random.random) -> type[Receiver]:
    """Return a receiver that loses each datagram with the probability ``share``."""

    def until_a_loss() -> float:
        """Draw how many datagrams come before one is lost: much less work than to draw for each of them."""
        if share <= 0:
            return math.inf
        return math.floor(math.log(1 - draw()) / math.log(1 - share)) if share < 1 else 0

    class LossyReceiver(Receiver):
        _good = until_a_loss()

        def receive(self) -> tuple[str, int] | None:
            while (source := super().receive()) is not None:
                if self._lose():
                    return source
            return None

        def _lose(self) -> bool:
            """Take lost datagrams out of what came; return whether anything is left."""
            row = self.size == self.blocks * BLOCK_DATAGRAM
            count = self.blocks if row and self.size else 1
            if self._good >= count:
                self._good -= count
                return True
            # One datagram, or a row of BLOCKs.
            kept = at = 0
            while at < count:
                run = min(int(self._good), count - at)
                for view, size in ((self.heads, BLOCK_HEAD_SIZE), (self.data, BLOCK_SIZE)):
                    view[kept * size : (kept + run) * size] = view[at * size : (at + run) * size]
                kept, at, self._good = kept + run, at + run, self._good - run
                if at < count:
                    at += 1
                    self._good = until_a_loss()
            self.size = kept * BLOCK_DATAGRAM
            return kept > 0

    return LossyReceiver


def main() -> int:
    """Run the client with the losses that the environment asks for."""
    # The client has no option for this, and should have none: it is a property of this testbed's cables.
    setattr(client, "Receiver", losing(float(os.environ.get(VARIABLE, "0")) / 100))  # noqa: B010
    return client_cli.main()


if __name__ == "__main__":
    sys.exit(main())
