# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that may be ours or left over from a former run of the services."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

#: Seconds between two looks at a process of which the kernel gives no handle.
_LOOK_AGAIN = 0.2


def start_time(pid: int) -> int | None:
    """Return when a process was started (clock ticks since boot), None when it does not exist or is dead.

    Together with the number this names a process for good: numbers are used again, start times are not.
    Raises :class:`OSError` when that cannot be told now (too many open files, say).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if not fields or fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def is_running(pid: int, started: int) -> bool:
    """Return whether the process of that number and start time runs.

    When the start time cannot be read now, the number alone has to do: a server is not taken for dead because
    this process has too many files open.
    """
    try:
        return start_time(pid) == started
    except OSError:
        return _exists(pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


async def wait_gone(pid: int, started: int) -> None:
    """Return when the process has ended, also when it is not a child of ours."""
    while True:
        try:
            handle = os.pidfd_open(pid)
            break
        except ProcessLookupError:
            return
        except OSError:
            # No handle to be had now: look again and again, until there is one or nothing to wait for.
            if not is_running(pid, started):
                return
            await asyncio.sleep(_LOOK_AGAIN)
    try:
        if not is_running(pid, started):
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(handle, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(handle)
    finally:
        os.close(handle)


async def terminate(pid: int, started: int, patience: float) -> bool:
    """End a process and its group: politely, and after ``patience`` seconds without asking.

    Returns whether it is gone; ``patience`` seconds after SIGKILL it may still be there.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_running(pid, started):
            return True
        # A group is led by the process itself (it was started as a session of its own).
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wait_gone(pid, started), patience)
    return not is_running(pid, started)
