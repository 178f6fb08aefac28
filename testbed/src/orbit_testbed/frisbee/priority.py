# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which thread runs first where there are more than processors.

Who receives goes before who inflates and writes: a full socket buffer loses blocks, a chunk that waits
loses nothing. So does who sends at a fixed rate: what is sent late is a hole in the stream. No more than
that: a sender with real-time priority keeps its rate on any machine, but where clients share it, it
takes from them what they need to keep up.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

NICE = -10


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
