# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shows a run while it goes on: a picture on a terminal, or else a line for each group now and then."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.report.board import Board
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Event

# Seconds: between two pictures, between two when nothing has happened, and between two lines.
_SHORTEST = 0.1
_CLOCK = 1.0
_LINES = 10.0
# A picture of many nodes takes a while: this part of the time at most is spent on pictures.
_PART = 0.1


class Pictures(t.Protocol):
    """What draws a run."""

    def draw(self, board: Board) -> None:
        """Draw the run, in place of what was drawn before."""

    def hide(self) -> None:
        """Take the picture away."""


class View:
    """A run, shown by ``screen``, or without one by ``say``, which always says what people must know."""

    def __init__(self, say: t.Callable[[str], None], screen: Pictures | None = None) -> None:
        self.board = Board()
        self._say = say
        self._screen = screen
        # Nothing is printed by others while this is held, so it cannot be part of a deadlock.
        self._lock = threading.RLock()
        self._printing = 0
        # Whether a task runs that is not of this collection.
        self._among_others = False
        self._news = False
        self._next = 0.0
        self._clock = 0.0
        self._step = ""
        self._said: dict[str, str] = {}

    def hear(self, event: Event) -> None:
        """Take an event."""
        with self._lock:
            self.board.hear(event)
            self._news = True

    def entitle(self, title: str) -> None:
        """What begins now is called so."""
        with self._lock:
            self.board.entitle(title, time.time())
            self._among_others, self._news = False, True

    def leave(self) -> None:
        """What begins now is none of the run's: it must not be drawn over."""
        with self._lock:
            self._among_others = True
            self._hide()

    def tick(self) -> None:
        """Show what there is to show; to be called ten times a second."""
        with self._lock:
            board = self.board
            # A table names the nodes that are tried again.
            news = [*board.retries, *board.news] if self._screen is None else board.news
            board.news, board.retries = [], []
        for line in news:
            self._say(line)
        if self._screen is not None:
            self._draw(self._screen)
        else:
            self._tell(again=bool(news))

    def take_report(self) -> list[str]:
        """Return the lines of the reports so far, which are not returned again."""
        with self._lock:
            lines, self.board.report = self.board.report, []
        return lines

    @contextlib.contextmanager
    def aside(self) -> t.Iterator[None]:
        """Have no picture while somebody prints something."""
        with self._lock:
            self._printing += 1
            self._hide()
        try:
            yield
        finally:
            with self._lock:
                self._printing -= 1
                self._news = True

    def end(self) -> None:
        """Show nothing any more."""
        with self._lock:
            self._hide()
            self._screen = None
            self._printing += 1

    def _hide(self) -> None:
        if self._screen is not None:
            # The terminal may be gone.
            with contextlib.suppress(OSError):
                self._screen.hide()

    def _draw(self, screen: Pictures) -> None:
        now = time.monotonic()
        with self._lock:
            if self._printing or now < self._next or not (self._news or now >= self._clock):
                return
            self._news = False
            try:
                if self.board.shown and not self._among_others:
                    screen.draw(self.board)
                else:
                    screen.hide()
            except OSError:
                self._screen = None
            took = time.monotonic() - now
            self._next = now + max(_SHORTEST, took / _PART)
            self._clock = now + _CLOCK

    def _tell(self, *, again: bool) -> None:
        """Say a line for each group: when a step begins or a node fails, and every now and then."""
        moment = time.monotonic()
        with self._lock:
            board = self.board
            if not board.shown or self._among_others or self._printing:
                return
            step = f"{board.run} {'' if board.early else board.step}"
            begins = step != self._step
            if not (begins or again or moment >= self._next):
                return
            self._step, self._next = step, moment + _LINES
            if begins and board.early:
                return
            now = time.time()
            words = {group: board.line(group, now) for group in board.groups}
            lines = [
                line
                for group, line in zip(board.groups, board.lines(now))
                if self._said.get(group) != words[group]
            ]
            self._said = words
        for line in lines:
            self._say(line)
