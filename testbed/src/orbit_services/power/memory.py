# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A power driver without nodes: it only remembers what it was told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .base import Action, PowerState


class MemoryPower:
    """Keeps states in memory; ``log`` holds every command as (command, node)."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self._states = dict.fromkeys(nodes, PowerState.OFF)
        self.log: list[tuple[str, str]] = []

    async def states(self, nodes: Sequence[str]) -> dict[str, PowerState]:
        """Return what was remembered."""
        return {node: self._states.get(node, PowerState.UNKNOWN) for node in nodes}

    async def switch(self, action: Action, nodes: Sequence[str]) -> dict[str, str | None]:
        """Remember the nodes as on or off."""
        return {node: self._switch(action, node) for node in nodes}

    def _switch(self, action: Action, node: str) -> str | None:
        if node not in self._states:
            return "no such node"
        self.log.append((action.value, node))
        off = action in (Action.OFF, Action.OFF_SOFT)
        self._states[node] = PowerState.OFF if off else PowerState.ON
        return None
