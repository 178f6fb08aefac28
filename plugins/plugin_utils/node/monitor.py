# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A client at work on a node: what it says, whether it moves, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import ssh
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.boot_wait import Failed, Node, said
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.verification import Agreed
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.progress import Progress

Report = dict[str, t.Any]

# What the client says of its way: writing, and reading back what it has written.
_PROGRESS = re.compile(r"(?:Progress|Flushing|Verifying|Comparing): (\d+)%")
# Not anchored: the client's messages may run into each other.
_WROTE = re.compile(r"Wrote (\d+) bytes \((\d+) actual\)")
_KEPT = re.compile(r"Kept (\d+) of (\d+) chunks")
_VERIFIED = re.compile(r"Verified (\d+) bytes")
# Exit statuses of a client with a manifest: a chunk is another one, the disk gives back something else.
_DIFFERS = (3, 4)
# Lines of the log that are kept to be judged, and how many of them an evidence shows.
_KEPT_LINES = 60
_LAST_LINES = 20
# Bytes: a disk is written in sectors. What a client writes beyond its messages is at least one.
_SECTOR = 512
# Seconds that a client has to end when it is told to, and seconds that one login takes at most.
_STOP = 5.0
_LOGIN = 15.0


class ClientMonitor:
    """A client at work: what it says, whether it moves, how it ends.

    Patience is about progress, never about the time that all takes: a slow client may go on for hours, one
    that neither writes nor comes further is given up.
    """

    def __init__(self, node: Node, progress: Progress, started: float) -> None:
        self._node = node
        self._progress = progress
        self._patience: float = node["settings"]["orbit_stall_timeout"]
        self._moved = time.monotonic()
        self._started = started
        # Bytes that the client had written when it last moved, and bytes of its messages since then.
        self._wrote = -1
        self._seen = 0
        self._messages = 0
        self._last_progress = ""
        # A connection that is taken up again brings all messages again.
        self._heard = 0
        self._status: int | None = None
        self._log: list[str] = []

    @property
    def patience_ends(self) -> float:
        """When a client that does not move is given up (seconds since 1970), one more login allowed."""
        left = self._moved + self._patience - time.monotonic()
        return time.time() + max(left, _LOGIN)

    async def watch(self, session: ssh.Session) -> bool:
        """Read until the client has ended (true) or the session is lost (false).

        :raises Failed: ``stalled`` when the client does not move any more, ``client_failed`` when it cannot
            be started.
        """
        messages = 0
        while True:
            left = self._moved + self._patience - time.monotonic()
            try:
                line = await asyncio.wait_for(session.line(), max(left, 0.1))
            except asyncio.TimeoutError:
                line = ""
            if line is None:
                return False
            word, rest = said(line)
            if word == "refused":
                raise Failed("client_failed", rest)
            if word == "end":
                return True
            if word == "exit":
                status = _number(rest)
                if status is not None:
                    self._status = status
                    self._log.clear()
            elif word == "heartbeat":
                self._heartbeat(*(_number(word) for word in rest.split(" ", 1)))
            elif not word and line:
                messages += 1
                self._message(line, new=messages > self._heard)
                self._heard = max(self._heard, messages)
            if time.monotonic() - self._moved > self._patience:
                await self._stop(session)
                raise Failed(
                    "stalled",
                    f"nothing was written for {self._patience} s; the client was stopped\n{self._tail()}",
                )

    def _message(self, line: str, *, new: bool) -> None:
        self._log = [*self._log[-_KEPT_LINES:], line]
        if not new:
            return
        self._messages += len(line) + 1
        match = _PROGRESS.search(line)
        # A client that says the same again and again does not come further.
        if match and line != self._last_progress:
            self._last_progress = line
            self._progress.percent(self._node["name"], int(match[1]))
            self._moves()

    def _heartbeat(self, wrote: int | None, seen: int | None = None) -> None:
        """Take what the client has written to and read from all its files; its messages are no progress."""
        if wrote is None:
            return
        read_on = seen is not None and seen - self._seen >= _SECTOR
        if self._wrote < 0 or wrote - self._wrote - self._messages >= _SECTOR or read_on:
            self._wrote, self._seen = wrote, seen or 0
            self._moves()

    def _moves(self) -> None:
        self._messages = 0
        self._moved = time.monotonic()

    @staticmethod
    async def _stop(session: ssh.Session) -> None:
        """Tell the client to end, and hear that it has: it must not write on when the node is given up."""

        async def hear_the_end() -> None:
            while (line := await session.line()) is not None and said(line)[0] != "end":
                pass

        for word in ("stop", "kill"):
            await session.send(word)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(hear_the_end(), _STOP)
                return

    def _tail(self) -> str:
        return "\n".join(self._log[-_LAST_LINES:])

    def judge(self, agreed: Agreed) -> Report:
        """Return the report of a client that ended well; anything else is a failure with its last words.

        ``agreed`` is what the client was told to check: what it was told must have been seen.
        """
        log = "\n".join(self._log)
        wrote, kept, verified = (pattern.search(log) for pattern in (_WROTE, _KEPT, _VERIFIED))
        if self._status != 0:
            last = next((line for line in reversed(self._log) if line.strip()), "no message")
            differs = agreed.manifest is not None and self._status in _DIFFERS
            cause = "verify_failed" if differs else "client_failed"
            raise Failed(cause, f"{last} (exit status {self._status})\n{self._tail()}")
        if wrote is None:
            raise Failed("client_failed", f"exit status 0, but no word of a written disk\n{self._tail()}")
        covered, written = int(wrote[1]), int(wrote[2])
        if written == 0 and (kept is None or kept[1] != kept[2]):
            raise Failed("client_failed", f"the client wrote no byte\n{self._tail()}")
        report: Report = {"bytes_covered": covered, "bytes_written": written, "verified": agreed.verify}
        if agreed.verify:
            if verified is None or int(verified[1]) == 0:
                words = "exit status 0, but no word of a disk that was read back"
                raise Failed("verify_failed", f"{words}\n{self._tail()}")
            report["verified_bytes"] = int(verified[1])
        else:
            report["verified_reason"] = agreed.reason
        if agreed.manifest is not None:
            report["digest"] = agreed.manifest["digest"]
        if kept is not None:
            report.update(kept_chunks=int(kept[1]), chunks=int(kept[2]))
        return report


def _number(text: str) -> int | None:
    """Return a number that a node has said; none when it is no such thing."""
    return int(text) if text.isascii() and text.isdigit() else None
