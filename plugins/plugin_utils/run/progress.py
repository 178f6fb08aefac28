# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One progress for many nodes: an event for all that changes, a line per group every few seconds."""

from __future__ import annotations

import collections
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import printable
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.events import Events
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Event, NodeState

# In this order a node goes through the states; a line shows them in this order too.
STATES: tuple[NodeState, ...] = t.get_args(NodeState)

# So many events a second tell how far the nodes are, however many nodes there are.
_EVENTS = 50.0
# Seconds over which a rate is taken: clients write in bursts.
_WINDOW = 10.0


def line_of(event: Event) -> str:
    """Return what has happened to a node, for people."""
    parts = [event["node"], event.get("state"), event.get("cause"), event.get("msg")]
    if event["event"] == "attempt":
        parts = [event["node"], event.get("msg")]
    return printable(": ".join(part for part in parts if part))


class Progress:
    """Tells what the nodes of the groups are doing, as events, and through ``say`` (one line each call).

    Nothing is said while a callback shows the events to the user.
    """

    def __init__(
        self,
        groups: t.Sequence[t.Mapping[str, t.Any]],
        say: t.Callable[[str], None],
        events: Events | None = None,
        step: str | None = None,
    ) -> None:
        self._groups = groups
        self._group_of = {name: group for group in groups for name in group["nodes"]}
        self._say = say
        self._events = events or Events("", None)
        self._step = step
        self._state: dict[str, NodeState] = {}
        self._percent: dict[str, int] = {}
        self._doing: dict[str, str | None] = {}
        self._bytes: dict[str, collections.deque[tuple[float, int]]] = {}
        self._told: dict[str, float] = {}
        self._pause = max(1.0, len(self._group_of) / _EVENTS)
        self._start = time.monotonic()
        self._said: dict[str, str] = {}

    def leave_out(self, node: str) -> None:
        """A node has failed before, which was told then."""
        self._state[node] = "failed"

    def change(
        self, node: str, state: NodeState, words: str = "", *, cause: str | None = None, quiet: bool = False
    ) -> None:
        """A node has reached ``state``; ``quiet`` leaves the line out."""
        if state not in STATES:
            raise ValueError(f"{state!r} is no state of a node")
        self._state[node] = state
        event = self._events.emit("node", **self._about(node), state=state, cause=cause, msg=words or None)
        if not quiet:
            self._speak(line_of(event))

    def again(self, node: str, words: str, *, attempt: int, cause: str | None) -> None:
        """A node begins its attempt number ``attempt``, after ``cause``; ``words`` say so."""
        for known in (self._percent, self._doing, self._bytes):
            known.pop(node, None)
        self._state[node] = STATES[0]
        about = self._about(node)
        self._speak(line_of(self._events.emit("attempt", **about, attempt=attempt, cause=cause, msg=words)))

    def percent(self, node: str, value: int, doing: str | None = None) -> None:
        """The client of a node says how far it is; ``doing`` is what it does when that is not writing."""
        self._percent[node], self._doing[node] = value, doing
        self._tell(node, done=value == 100)

    def amount(self, node: str, written: int) -> None:
        """The client of a node has written so many bytes."""
        now = time.monotonic()
        known = self._bytes.setdefault(node, collections.deque())
        known.append((now, written))
        while known[0][0] < now - _WINDOW and len(known) > 2:
            known.popleft()
        self._tell(node)

    def summary(self) -> None:
        """Say one line for each group whose line would differ from the last one."""
        self._events.flush()
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
                self._speak(line)

    def _about(self, node: str) -> dict[str, t.Any]:
        group = self._group_of.get(node, {})
        return {"step": self._step, "node": node, "group": group.get("label"), "image": group.get("image")}

    def _tell(self, node: str, *, done: bool = False) -> None:
        """Tell how far a node is, unless that was told a moment ago."""
        now = time.monotonic()
        if not done and now - self._told.get(node, -self._pause) < self._pause:
            return
        self._told[node] = now
        known = self._bytes.get(node) or [(now, None)]
        (then, before), (last, written) = known[0], known[-1]
        rate = None
        if before is not None and written is not None and last > then:
            rate = max(0, round((written - before) / (last - then)))
        self._events.emit(
            "progress",
            **self._about(node),
            percent=self._percent.get(node),
            bytes=written,
            rate=rate,
            msg=self._doing.get(node),
        )

    def _speak(self, line: str) -> None:
        if not self._events.live:
            self._say(f"[{time.monotonic() - self._start:6.1f} s]  {line}")
