# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the events of a run make of it, for those who draw it."""

from __future__ import annotations

import dataclasses
import statistics
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.run.progress import STATES, line_of
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Event

#: All states of a node here; before its first boot it waits.
ALL_STATES = ("waiting", *STATES)
# The steps before a node is touched: they are over in a moment, unless a service is silent.
_EARLY = ("images", "known", "linkable")
# The steps after which a node that has not failed has its image.
_WRITTEN = ("unlink", "stop", "boot", "proof")
# Of a node that has less than this, nobody knows how long the rest takes.
_KNOWN = 3
# A node is slow when it is so many per cent behind the middle one of its group.
_BEHIND = 25


@dataclasses.dataclass
class Cell:
    """A node: where it is, and what was last heard of it."""

    name: str
    group: str
    x: int | None = None
    y: int | None = None
    state: str = "waiting"
    percent: int = 0
    #: When its client began to write, in seconds since 1970; None until it does.
    since: float | None = None
    rate: float | None = None
    doing: str = ""
    attempt: int = 1
    cause: str = ""
    words: str = ""

    @property
    def done(self) -> int:
        """How much of the image the node has, in per cent."""
        if self.state in ("imaged", "up") or self.doing in ("verifying", "flushing"):
            return 100
        return self.percent if self.state == "imaging" and not self.doing else 0


class Board:
    """A run as its events tell it; of several runs, the last one."""

    def __init__(self) -> None:
        #: Lines of the reports of all runs, of what people must know at once, and of attempts.
        self.report: list[str] = []
        self.news: list[str] = []
        self.retries: list[str] = []
        #: How the step is called; its own name unless somebody knows better.
        self.title = ""
        self._begin("", 0.0)

    def _begin(self, run: str, now: float) -> None:
        self.run = run
        self.began = now
        self.step = ""
        self.step_began = now
        self.over = False
        self.check = False
        self.nodes: dict[str, Cell] = {}
        self.groups: dict[str, str] = {}

    @property
    def shown(self) -> bool:
        """Whether there is something to see."""
        return bool(self.groups and self.step) and not self.over

    @property
    def early(self) -> bool:
        """Whether no node has been touched yet."""
        return self.step in _EARLY

    @property
    def heading(self) -> str:
        """What is done now."""
        return (self.title or self.step) + (" (check mode)" if self.check else "")

    def entitle(self, title: str, now: float) -> None:
        """What begins now is called ``title``."""
        self.title, self.step_began = title, now

    def hear(self, event: Event) -> None:
        """Take an event."""
        kind = event.get("event")
        if kind == "run" and event.get("run") != self.run:
            self._begin(event["run"], event["at"])
        if kind == "report":
            self.report += event.get("lines", [])
        # Of a run inside of a run, such as one that a task starts, only the report is shown.
        if event.get("run") == self.run and kind in _HEAR:
            _HEAR[kind](self, event)

    def _run(self, event: Event) -> None:
        self.check = event.get("check", False)
        for group in event.get("groups", []):
            self.groups[group["group"]] = group["image"]
        for node in event.get("nodes", []):
            cell = Cell(node["node"], node["group"], node.get("x"), node.get("y"))
            self.nodes[node["node"]] = cell

    def _step(self, event: Event) -> None:
        if event.get("state") != "began":
            return
        self.step, self.step_began = event["step"], event["at"]
        # In check mode no node boots.
        waiting = {"client": "waiting", "proof": "imaged"}.get(self.step) if not self.check else None
        for cell in self.nodes.values():
            if cell.state == waiting:
                cell.state = "booting"

    def _node(self, event: Event) -> None:
        cell = self.nodes.get(event["node"])
        if cell is None:
            return
        cell.state = event.get("state", cell.state)
        cell.cause, cell.words = event.get("cause", ""), event.get("msg", "")
        if cell.state == "imaging":
            cell.since = event["at"]
        if cell.state == "failed":
            self.news.append(f"{self._clock(event['at'])}  {line_of(event)}")

    def _progress(self, event: Event) -> None:
        cell = self.nodes.get(event["node"])
        if cell is not None:
            cell.percent = event.get("percent", cell.percent)
            cell.rate = event.get("rate", cell.rate)
            cell.doing = event.get("msg", "")

    def _attempt(self, event: Event) -> None:
        cell = self.nodes.get(event["node"])
        if cell is not None:
            cell.state, cell.percent, cell.since, cell.rate, cell.doing = "booting", 0, None, None, ""
            cell.attempt, cell.cause = event.get("attempt", cell.attempt), event.get("cause", "")
            self.retries.append(f"{self._clock(event['at'])}  {line_of(event)}")

    def _report(self, event: Event) -> None:
        self.over = True
        for name, outcome in event.get("outcomes", {}).items():
            if name in self.nodes and outcome != "imaged":
                self.nodes[name].state = "failed"

    # -- what can be seen

    def members(self, group: str) -> list[Cell]:
        """Return the nodes of a group, in the order of the plan."""
        return [cell for cell in self.nodes.values() if cell.group == group]

    def counts(self, group: str) -> dict[str, int]:
        """Return how many nodes of a group are in each state; states that none is in are left out."""
        found = [cell.state for cell in self.members(group)]
        return {state: found.count(state) for state in ALL_STATES if state in found}

    def percent(self, group: str) -> int:
        """Return how far a group is with its image, nodes that failed left aside."""
        rest = [cell for cell in self.members(group) if cell.state != "failed"]
        if self.step in _WRITTEN and not self.check:
            return 100 if rest else 0
        return sum(cell.done for cell in rest) // len(rest) if rest else 0

    def rate(self, group: str) -> float | None:
        """Return how fast a node is written now, in bytes a second; None when nobody knows.

        It is the mean of the nodes that are written: each writes in bursts, at moments of its own.
        """
        rates = [cell.rate for cell in self._written(group) if cell.rate is not None]
        return statistics.fmean(rates) if rates else None

    def seconds_left(self, group: str, now: float) -> float | None:
        """Return when the last of the nodes that are written now has its image, if each goes on as it does.

        None when nobody knows.
        """
        left = [
            (now - cell.since) * (100 - cell.done) / cell.done
            for cell in self._written(group)
            if cell.since is not None and cell.done >= _KNOWN
        ]
        return max(left) if left and self.step == "client" else None

    def _written(self, group: str) -> list[Cell]:
        return [cell for cell in self.members(group) if cell.state == "imaging" and not cell.doing]

    def troubles(self) -> list[tuple[str, str, str]]:
        """Return name, state and words of the nodes that failed, and then of those that are slow."""
        failed = [
            (cell.name, "failed", ": ".join(filter(None, [cell.cause, cell.words])))
            for cell in self.nodes.values()
            if cell.state == "failed"
        ]
        return failed + [trouble for group in self.groups for trouble in self._slow(group)]

    def _slow(self, group: str) -> list[tuple[str, str, str]]:
        alive = [cell for cell in self.members(group) if cell.state != "failed"]
        if self.step not in ("client", "proof") or not alive:
            return []
        middle = int(statistics.median(cell.done for cell in alive))
        behind = 2 * sum(cell.state == "booting" for cell in alive) < len(alive)
        found = []
        for cell in alive:
            if cell.attempt > 1 and cell.state not in ("imaged", "up"):
                found.append((cell.name, cell.state, f"try {cell.attempt} after {cell.cause or 'a failure'}"))
            elif cell.state == "booting" and behind:
                found.append((cell.name, cell.state, "still booting"))
            elif cell.state == "imaging" and cell.done + _BEHIND <= middle:
                found.append((cell.name, cell.state, f"at {cell.done} %, others at {middle} %"))
        return found

    def grid(self) -> dict[tuple[int, int], Cell] | None:
        """Return the nodes by their coordinates; None when not each has a place of its own."""
        found: dict[tuple[int, int], Cell] = {}
        for cell in self.nodes.values():
            if cell.x is None or cell.y is None or (cell.x, cell.y) in found:
                return None
            found[cell.x, cell.y] = cell
        return found or None

    def lines(self, now: float | None = None) -> list[str]:
        """Return a line of text for each group."""
        now = time.time() if now is None else now
        width = max(map(len, self.groups), default=0)
        return [f"{self._clock(now)}  {g:<{width}}  {self.line(g, now)}" for g in self.groups]

    def line(self, group: str, now: float) -> str:
        """Return in words what a group does, without the time."""
        words = [f"{number} {state}" for state, number in self.counts(group).items()]
        if self.step == "client" and not self.check:
            words += [f"{self.percent(group)} %", *self.pace(group, now)]
        return f"{self.groups[group]}: {self.heading}: {', '.join(words)}"

    def pace(self, group: str, now: float) -> list[str]:
        """Return in words how fast a group is written and how long that goes on, as far as it is known."""
        rate, left = self.rate(group), self.seconds_left(group, now)
        # What is less are the messages of the clients.
        words = [f"{rate / 1e6:.1f} MB/s"] if rate is not None and rate >= 0.05e6 else []
        return words if left is None else [*words, f"{left:.0f} s left"]

    def _clock(self, now: float) -> str:
        return f"[{max(0.0, now - self.began):6.1f} s]"


_HEAR: dict[str, t.Callable[[Board, Event], None]] = {
    "run": Board._run,
    "step": Board._step,
    "node": Board._node,
    "progress": Board._progress,
    "attempt": Board._attempt,
    "report": Board._report,
}
