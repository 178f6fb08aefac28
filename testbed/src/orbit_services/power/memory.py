# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A power back end without nodes: it only remembers what it was told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .base import PowerError, PowerState


class MemoryPower:
    """Keeps states in memory; ``log`` holds every command as (command, node)."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self._states = dict.fromkeys(nodes, PowerState.OFF)
        self.log: list[tuple[str, str]] = []

    async def on(self, nodes: Sequence[str]) -> None:
        """Remember the nodes as on."""
        self._set("on", nodes, PowerState.ON)

    async def off(self, nodes: Sequence[str], *, soft: bool = False) -> None:
        """Remember the nodes as off."""
        self._set("off_soft" if soft else "off", nodes, PowerState.OFF)

    async def reset(self, nodes: Sequence[str]) -> None:
        """Remember the nodes as on."""
        self._set("reset", nodes, PowerState.ON)

    def state(self, node: str) -> PowerState:
        """Return what was remembered."""
        return self._states.get(node, PowerState.UNKNOWN)

    def _set(self, command: str, nodes: Sequence[str], state: PowerState) -> None:
        for node in nodes:
            if node not in self._states:
                raise PowerError(f"{node}: no such node")
        for node in nodes:
            self.log.append((command, node))
            self._states[node] = state
