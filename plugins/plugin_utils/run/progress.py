# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One progress for many nodes: a line per group every few seconds, one per node that changes."""

from __future__ import annotations

import time
import typing as t

# In this order a node goes through the states; a line shows them in this order too.
STATES = ("booting", "ready", "imaging", "imaged", "up", "failed")


class Progress:
    """Says what the nodes of the groups are doing, through ``say`` (one line each call)."""

    def __init__(self, groups: t.Sequence[t.Mapping[str, t.Any]], say: t.Callable[[str], None]) -> None:
        self._groups = groups
        self._say = say
        self._state: dict[str, str] = {}
        self._percent: dict[str, int] = {}
        self._start = time.monotonic()
        self._said: dict[str, str] = {}

    def change(self, node: str, state: str, words: str = "", *, quiet: bool = False) -> None:
        """A node has reached ``state``; ``quiet`` leaves the line out."""
        if state not in STATES:
            raise ValueError(f"{state!r} is no state of a node")
        self._state[node] = state
        if not quiet:
            self._say(f"{self._clock()}  {node}: {state}{': ' if words else ''}{words}")

    def again(self, node: str, words: str) -> None:
        """A node begins anew; ``words`` say why."""
        self._percent.pop(node, None)
        self._state[node] = STATES[0]
        self._say(f"{self._clock()}  {node}: {words}")

    def percent(self, node: str, value: int) -> None:
        """The client of a node says how far it is."""
        self._percent[node] = value

    def summary(self) -> None:
        """Say one line for each group whose line would differ from the last one."""
        width = max((len(group["label"]) for group in self._groups), default=0)
        for group in self._groups:
            counts = dict.fromkeys(STATES, 0)
            for node in group["nodes"]:
                counts[self._state.get(node, "booting")] += 1
            words = [f"{number} {state}" for state, number in counts.items() if number]
            busy = [self._percent.get(n, 0) for n in group["nodes"] if self._state.get(n) == "imaging"]
            if busy:
                words.append(f"slowest at {min(busy)} %")
            line = f"{group['label']:<{width}}  {group['image']}: {', '.join(words)}"
            if self._said.get(group["label"]) != line:
                self._said[group["label"]] = line
                self._say(f"{self._clock()}  {line}")

    def _clock(self) -> str:
        return f"[{time.monotonic() - self._start:6.1f} s]"
