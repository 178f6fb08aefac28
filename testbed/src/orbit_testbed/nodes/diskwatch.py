# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches what a node writes to its disk, so that faults strike in the middle of the work, not by the clock.

The kernel tells of each write (inotify); the writer is the process of the node that has the disk open, and
how much it has written is what the kernel counts for it (``wchar`` in /proc/PID/io).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from orbit_testbed import inotify


def _writer(disk: os.stat_result) -> int | None:
    """Return the process that has the disk open; the nodes' processes are in our PID namespace, too."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            for handle in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.path.samestat(handle.stat(), disk):
                        return int(process.name)
    return None


def _written(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith("wchar:"):
                return int(line.split()[1])
    return 0


class DiskWatch:
    """Calls ``strike`` once, with a handle (pidfd) of the writer, when it has written ``limit`` bytes."""

    def __init__(self, disk: Path, limit: int, strike: Callable[[int], None]) -> None:
        self._disk = disk.stat()
        self._limit = limit
        self._strike = strike
        self._pid: int | None = None
        self._writer = -1
        self._watch = inotify.Watch(disk, inotify.MODIFY, self._changed)

    def _changed(self) -> None:
        if self._pid is not None and not Path(f"/proc/{self._pid}").exists():
            self._forget()
        if self._pid is None:
            pid = _writer(self._disk)
            if pid is None:
                return
            with contextlib.suppress(ProcessLookupError):
                self._writer = os.pidfd_open(pid)
                self._pid = pid
        if self._pid is not None and _written(self._pid) >= self._limit:
            self._watch.close()
            self._strike(self._writer)

    def _forget(self) -> None:
        self._pid = None
        handle, self._writer = self._writer, -1
        if handle >= 0:
            os.close(handle)

    def close(self) -> None:
        """Watch no longer."""
        self._watch.close()
        self._forget()
