# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A client at work on a node: what it says, whether it moves, how it ends."""

from __future__ import annotations

import asyncio
import re
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils import ssh
from ansible_collections.orbit.imaging.plugins.plugin_utils.reach import Failed, Node, said
from ansible_collections.orbit.imaging.plugins.plugin_utils.voice import Voice

Report = dict[str, t.Any]

_PROGRESS = re.compile(r"Progress: (\d+)%")
# Not anchored: the client's messages may run into each other.
_WROTE = re.compile(r"Wrote (\d+) bytes \((\d+) actual\)")
_LAST_LINES = 20


class Following:
    """A client at work: what it says, whether it moves, how it ends."""

    def __init__(self, node: Node, voice: Voice, started: float) -> None:
        self._node = node
        self._voice = voice
        self._patience = node["settings"]["orbit_stall_timeout"]
        self._wrote = -1
        self._moved = time.monotonic()
        self._started = started
        self._status: int | None = None
        self._log: list[str] = []

    async def watch(self, session: ssh.Session) -> bool:
        """Read until the client has ended (true) or the session is lost (false)."""
        while True:
            left = self._moved + self._patience - time.monotonic()
            try:
                line = await asyncio.wait_for(session.line(), max(left, 0.1))
            except asyncio.TimeoutError:
                line = ""
            if line is None:
                return False
            word, rest = said(line)
            if word:
                if word == "pulse":
                    self._pulse(int(rest))
                elif word == "exit":
                    self._status = int(rest)
                    self._log.clear()
                elif word == "refused":
                    raise Failed("client_failed", rest)
                elif word == "end":
                    return True
            elif line:
                self._log = [*self._log[-_LAST_LINES:], line]
                match = _PROGRESS.search(line)
                if match:
                    self._voice.percent(self._node["name"], int(match[1]))
                    self._moved = time.monotonic()
            if time.monotonic() - self._moved > self._patience:
                await session.send("stop")
                raise Failed(
                    "stalled",
                    f"nothing was written for {self._patience} s; the client was stopped\n{self._tail()}",
                )

    def _pulse(self, wrote: int) -> None:
        if wrote != self._wrote:
            self._wrote = wrote
            self._moved = time.monotonic()

    def _tail(self) -> str:
        return "\n".join(self._log[-_LAST_LINES:])

    def judge(self) -> Report:
        """Return the report of a client that ended well; anything else is a failure with its last words."""
        wrote = _WROTE.search("\n".join(self._log))
        if self._status != 0:
            last = next((line for line in reversed(self._log) if line.strip()), "no message")
            raise Failed("client_failed", f"{last} (exit status {self._status})\n{self._tail()}")
        if wrote is None:
            raise Failed("client_failed", f"exit status 0, but no word of a written disk\n{self._tail()}")
        covered, written = int(wrote[1]), int(wrote[2])
        if written == 0:
            raise Failed("client_failed", f"the client wrote no byte\n{self._tail()}")
        return {"bytes_covered": covered, "bytes_written": written}
