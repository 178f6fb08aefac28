# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cmc service asks of whatever switches the nodes' power."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

log = logging.getLogger(__name__)
_T = TypeVar("_T")


class PowerState(enum.StrEnum):
    """State of a node's power supply, as far as the driver can tell."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class Action(enum.StrEnum):
    """What can be done to a power supply."""

    ON = "on"
    """Switch on; a node that is on stays as it is."""
    OFF = "off"
    """Switch off at once."""
    OFF_SOFT = "off_soft"
    """Let the running system stop, then switch off; also when it does not stop in its time."""
    RESET = "reset"
    """Power-cycle; a node that is off is switched on."""


class Power(Protocol):
    """Switches nodes, many at a time; a driver. Nodes are named as in the services' configuration.

    Each node has a result of its own: what one of them suffers is no reason to leave another as it was.
    Neither method raises for what happens to a node, and both come back in bounded time.
    """

    async def states(self, nodes: Sequence[str]) -> Mapping[str, PowerState]:
        """Return the state of each node; one that cannot be told is ``UNKNOWN``."""

    async def switch(self, action: Action, nodes: Sequence[str]) -> Mapping[str, str | None]:
        """Do it to all nodes at the same time; return None for each where it is done, else why not.

        Done is when the power has been switched, not when the node has booted.
        """


class Bounded:
    """A driver that is held to the interface, whatever it does: it may be somebody else's program."""

    def __init__(self, power: Power, seconds: float) -> None:
        """``seconds`` is how long a call of the driver may take."""
        self._power = power
        self._seconds = seconds
        self._tasks: set[asyncio.Future[Any]] = set()

    async def states(self, nodes: Sequence[str]) -> dict[str, PowerState]:
        """Return the state of each node."""
        found, error = await self._within(self._power.states(nodes))
        if error is not None:
            log.error("power states: %s", error)
        found = found or {}
        return {node: found.get(node, PowerState.UNKNOWN) for node in nodes}

    async def switch(self, action: Action, nodes: Sequence[str]) -> dict[str, str | None]:
        """Do it to all nodes; a node of which the driver says nothing has failed."""
        found, error = await self._within(self._power.switch(action, nodes))
        silence = error or "the power driver says nothing of this node"
        found = found or {}
        return {node: found.get(node, silence) for node in nodes}

    async def _within(self, call: Awaitable[_T]) -> tuple[_T | None, str | None]:
        """Return the driver's answer, or why there is none."""
        task = asyncio.ensure_future(call)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        # It is not broken off: half of a power cycle is worse than one that nobody has waited for.
        await asyncio.wait((task,), timeout=self._seconds)
        if not task.done():
            return None, f"the power driver has not answered for {self._seconds:g} s"
        if task.cancelled():
            return None, "the power driver was interrupted"
        error = task.exception()
        if error is not None:
            log.error("the power driver failed", exc_info=error)
            return None, f"the power driver failed: {error or type(error).__name__}"
        return task.result(), None

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()
