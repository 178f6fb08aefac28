# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all power supplies of nodes have in common, whatever a node is made of."""

from __future__ import annotations

import abc
import asyncio
import logging

from orbit_testbed import inotify
from orbit_testbed.nodes.diskwatch import DiskWatch
from orbit_testbed.nodes.faults import Fault
from orbit_testbed.nodes.layout import Node

log = logging.getLogger(__name__)

#: Seconds a running system gets to stop when it is asked to.
SOFT_OFF_GRACE = 5.0


class Supply(abc.ABC):
    """Can be switched on and off. Its lock makes power actions one after another."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.fault = Fault()
        """The fault that is ordered; ``_has`` is that of this power cycle."""
        self.powered = False
        self.boots = 0
        self._has = self.fault
        self._watch: DiskWatch | inotify.Watch | None = None
        self._lock = asyncio.Lock()

    async def on(self) -> None:
        """Switch on; nothing happens when it is on."""
        async with self._lock:
            if not self.powered:
                await self._start()

    async def off(self, soft: bool = False) -> None:
        """Switch off; ``soft`` asks the system first and gives it some seconds to stop."""
        async with self._lock:
            await self._stop(soft)

    async def reset(self) -> None:
        """Switch off and on."""
        async with self._lock:
            await self._stop(soft=False)
            await self._start()

    @property
    @abc.abstractmethod
    def running(self) -> bool:
        """Whether something executes; a system that hangs does, too."""

    @abc.abstractmethod
    def order(self, fault: Fault) -> None:
        """Order a fault for the next power on; one that watches begins at once on a node that runs."""

    @abc.abstractmethod
    async def _start(self) -> None: ...

    @abc.abstractmethod
    async def _stop(self, soft: bool) -> None: ...

    def _look_away(self) -> None:
        """Watch the disk no more."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _note_strike(self) -> None:
        """Note that the fault of this power cycle has struck; one ordered for once is over."""
        log.info("%s: %s strikes", self.node.name, self._has)
        if self._has.once and self.fault == self._has:
            self.fault = Fault()
