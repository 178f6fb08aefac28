# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A client at work on a node: what it says, whether it moves, how it ends."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import re
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.bounds import number
from ansible_collections.orbit.imaging.plugins.module_utils.outcome import Outcome
from ansible_collections.orbit.imaging.plugins.plugin_utils.node import ssh
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.boot_wait import Failed, said
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.verification import Agreed, Amounts
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.progress import Progress
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Node

Report = dict[str, t.Any]

# What the client says of its way: writing, and reading back what it has written.
_PROGRESS = re.compile(r"(Progress|Flushing|Verifying|Comparing): ([0-9]{1,3})%")
# Not anchored: the client's messages may run into each other. No more digits than a counter has.
_N = r"([0-9]{1,19})"
_WROTE = re.compile(rf"Wrote {_N} bytes \({_N} actual\)")
_KEPT = re.compile(rf"Kept {_N} of {_N} chunks")
_VERIFIED = re.compile(rf"Verified {_N} bytes")
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

    def __init__(self, node: Node, progress: Progress) -> None:
        self._node = node
        self._progress = progress
        self._patience: float = node["settings"]["orbit_stall_timeout"]
        self._moved = time.monotonic()
        # Bytes that the client had written when it last moved, and bytes of its messages since then.
        self._wrote = -1
        self._seen = 0
        self._messages = 0
        self._last_progress = ""
        # A connection that is taken up again brings all messages again.
        self._heard = self._messages_here = 0
        self._status: int | None = None
        self._log: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)

    @property
    def patience_ends(self) -> float:
        """When a client that does not move is given up (of time.monotonic), one more login allowed."""
        return max(self._moved + self._patience, time.monotonic() + _LOGIN)

    async def watch(self, session: ssh.Session) -> bool:
        """Read until the client has ended (true) or the session is lost (false).

        :raises Failed: ``stalled`` when the client does not move any more, ``client_failed`` when it cannot
            be started.
        """
        # Of this session: one that is taken up again brings all messages again.
        self._messages_here = 0
        while True:
            left = self._moved + self._patience - time.monotonic()
            try:
                lines = await asyncio.wait_for(session.lines(), max(left, 0.1))
            except asyncio.TimeoutError:
                lines = []
            if lines is None:
                return False
            for line in lines:
                if self._hear(line):
                    return True
            if time.monotonic() - self._moved > self._patience:
                await self._stop(session)
                raise Failed(
                    "stalled",
                    f"nothing was written for {self._patience} s; the client was stopped\n{self._tail()}",
                )

    def _hear(self, line: str) -> bool:
        """Take a line of output; return whether it says that the client has ended."""
        word, rest = said(line)
        if word == "refused":
            raise Failed("client_failed", rest)
        if word == "exit":
            status = number(rest)
            if status is not None:
                self._status = status
                self._log.clear()
        elif word == "heartbeat":
            self._heartbeat(*(number(word) for word in rest.split(" ", 1)))
        elif not word and line:
            self._messages_here += 1
            self._message(line, new=self._messages_here > self._heard)
            self._heard = max(self._heard, self._messages_here)
        return word == "end"

    def _message(self, line: str, *, new: bool) -> None:
        self._log.append(line)
        if not new:
            return
        self._messages += len(line) + 1
        match = _PROGRESS.search(line)
        # A client that says the same again and again does not come further.
        if match and line != self._last_progress:
            self._last_progress = line
            doing = None if match[1] == "Progress" else match[1].lower()
            self._progress.percent(self._node["name"], min(100, int(match[2])), doing)
            self._moves()

    def _heartbeat(self, wrote: int | None, seen: int | None = None) -> None:
        """Take what the client has written to and read from all its files; its messages are no progress."""
        if wrote is None:
            return
        self._progress.amount(self._node["name"], wrote)
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
        return "\n".join([*self._log][-_LAST_LINES:])

    def judge(self, agreed: Agreed) -> Report:
        """Return the report of a client that ended well; anything else is a failure with its last words.

        ``agreed`` is what the client was told to check: what it was told must have been seen.
        """
        wrote, kept, verified = (self._last(pattern) for pattern in (_WROTE, _KEPT, _VERIFIED))
        if self._status != 0:
            last = next((line for line in reversed(self._log) if line.strip()), "no message")
            differs = agreed.manifest is not None and self._status in _DIFFERS
            self._fail(
                f"{last} (exit status {self._status})", "verify_failed" if differs else "client_failed"
            )
        if not wrote:
            self._fail("exit status 0, but no word of a written disk")
        covered, written = wrote
        there, chunks = kept or (0, 0)
        self._check_written(agreed.amounts, covered, written, there, chunks)
        report: Report = {"bytes_covered": covered, "bytes_written": written, "verified": agreed.verify}
        if agreed.verify:
            if not verified or verified[0] == 0:
                self._fail("exit status 0, but no word of a disk that was read back", "verify_failed")
            must = max(written, agreed.amounts.data if agreed.amounts else 0)
            if verified[0] < must:
                words = f"the client read back {verified[0]} bytes of {must} that must be on the disk"
                self._fail(words, "verify_failed")
            report["verified_bytes"] = verified[0]
        else:
            report["verified_reason"] = agreed.reason
        if agreed.manifest is not None:
            report["digest"] = agreed.manifest["digest"]
        if kept:
            report.update(kept_chunks=there, chunks=chunks)
        return report

    def _check_written(
        self, must: Amounts | None, covered: int, written: int, there: int, chunks: int
    ) -> None:
        """Refuse what a client says to have written when it cannot be the whole image."""
        if there > chunks or (must is not None and chunks not in (0, must.chunks)):
            of = f"; the image has {must.chunks}" if must else ""
            self._fail(f"the client says that it kept {there} of {chunks} chunks{of}")
        if written == 0 and (there == 0 or there != chunks):
            self._fail("the client wrote no byte")
        if must is None:
            return
        if there == 0 and written < must.data:
            self._fail(f"the client wrote {written} bytes, but the image has {must.data} bytes of data")
        least = max(must.data, must.covered)
        if covered < least:
            self._fail(f"the client covered {covered} bytes of the disk, but the image is for {least}")

    def _last(self, pattern: re.Pattern[str]) -> tuple[int, ...]:
        """Return the numbers in the last message of a kind; none when there is no such message."""
        found: tuple[int, ...] = ()
        for line in self._log:
            for match in pattern.finditer(line):
                values = [value for text in match.groups() if (value := number(text)) is not None]
                found = tuple(values) if len(values) == pattern.groups else found
        return found

    def _fail(self, words: str, cause: Outcome = "client_failed") -> t.NoReturn:
        raise Failed(cause, f"{words}\n{self._tail()}")
