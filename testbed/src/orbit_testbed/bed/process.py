# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes told apart by pid *and* start time, so that a recycled pid is never taken for one of ours."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from orbit_frisbee.whole import replace_file


def start_time(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot, None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    # Field 3 is the state; a zombie has ended and only waits for its parent.
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@dataclass(frozen=True)
class ProcessId:
    """One process for ever."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Return the identity of a running process, None when it has ended."""
        started = start_time(pid)
        return None if started is None else cls(pid, started)

    @classmethod
    def load(cls, path: Path) -> ProcessId | None:
        """Read an identity from a file; None when there is none or it is unreadable."""
        try:
            document = json.loads(path.read_text())
            return cls(int(document["pid"]), int(document["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, path: Path) -> None:
        """Write the identity to a file, at once or not at all."""
        replace_file(path, json.dumps({"pid": self.pid, "started": self.started}) + "\n")

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return start_time(self.pid) == self.started

    def wait(self, timeout: float) -> bool:
        """Wait until the process has ended, at most ``timeout`` seconds; return whether it has."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive():
                return True
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            end = time.monotonic() + timeout
            while (left := end - time.monotonic()) > 0:
                if poll.poll(left * 1000):
                    return True
            return False
        finally:
            os.close(handle)

    def kill(self, timeout: float = 10.0) -> bool:
        """Kill the process and wait for its end; return whether it has ended."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if self.alive():
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            return True
        finally:
            os.close(handle)
        return self.wait(timeout)
