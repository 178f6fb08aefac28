# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which thread runs first where there are more than processors.

Who receives goes before who inflates and writes: a full socket buffer loses blocks, a chunk that waits
loses nothing. So does who sends: what is sent late is a hole in the stream. A rate that was promised is kept
on a busy machine only by a thread that waits for nobody; its share of a processor must be small and known.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

NICE = -10
_REALTIME = 1


@contextlib.contextmanager
def raised(*, realtime: bool = False) -> Iterator[None]:
    """Give the calling thread precedence while this lasts, where it may have it.

    ``realtime``: over all that is not real-time, instead of over most. For threads that mostly sleep.
    """
    thread = threading.get_native_id()
    nice, policy = os.getpriority(os.PRIO_PROCESS, thread), os.sched_getscheduler(thread)
    usual = os.sched_getparam(thread)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, NICE)
    if realtime:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(_REALTIME))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread, policy, usual)
            os.setpriority(os.PRIO_PROCESS, thread, nice)
