# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hear of changes of files without asking again and again (inotify(7)), in an asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

#: A file was written; a file was moved into the folder (inotify.h).
MODIFY, MOVED_TO = 0x2, 0x80
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Calls ``changed`` after one or many changes of ``path``, until it is closed."""

    def __init__(self, path: Path, mask: int, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._handle: int = _libc.inotify_init1(_NONBLOCK_CLOEXEC)
        if self._handle < 0 or _libc.inotify_add_watch(self._handle, os.fsencode(path), mask) < 0:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, os.strerror(number), str(path))
        asyncio.get_running_loop().add_reader(self._handle, self._on_events)

    def _on_events(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._handle, 65536)
        self._changed()

    def close(self) -> None:
        """Watch no longer; nothing happens the second time."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            asyncio.get_running_loop().remove_reader(handle)
            os.close(handle)
