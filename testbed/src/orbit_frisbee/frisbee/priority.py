# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which thread runs first where there are more than processors.

Who receives goes before who inflates and writes: a full socket buffer loses blocks, a chunk that waits
loses nothing. Who sends at a fixed rate goes before everybody: what is sent late is a hole in the stream,
which is not made up for, and between two batches it sleeps. Who has not the right to that goes on as it is.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

NICE = -10
REAL_TIME = 1


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Give the calling thread precedence while this lasts, where it may have it."""
    thread = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, thread)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, NICE)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, before)


@contextlib.contextmanager
def real_time() -> Iterator[None]:
    """Let the calling thread run whenever it wants to while this lasts, where it may.

    By round robin at the lowest real-time priority. The kernel leaves a twentieth of the time to others.
    """
    # 0 is the calling thread.
    before, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REAL_TIME))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, before, parameters)
