# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power supplies of the embedded testbed's nodes, whatever a node is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Protocol

from orbit_testbed.power.base import PowerError, PowerState


class Machine(Protocol):
    """One node's power supply. Actions on one node wait for each other."""

    @property
    def powered(self) -> bool:
        """Whether it has power."""

    async def on(self) -> None:
        """Switch on; nothing happens when it is on."""

    async def off(self, soft: bool = False) -> None:
        """Switch off; ``soft`` asks the running system first."""

    async def reset(self) -> None:
        """Switch off and on."""


class MachinePower:
    """Switches nodes; implements :class:`orbit_testbed.power.base.Power`."""

    def __init__(self, machines: Mapping[str, Machine]) -> None:
        self._machines = machines

    async def on(self, nodes: Sequence[str]) -> None:
        """Switch nodes on; a node that is on stays as it is."""
        await self._all({name: machine.on() for name, machine in self._find(nodes).items()})

    async def off(self, nodes: Sequence[str], *, soft: bool = False) -> None:
        """Switch nodes off; ``soft`` asks the system to stop and cuts the power after some seconds."""
        await self._all({name: machine.off(soft) for name, machine in self._find(nodes).items()})

    async def reset(self, nodes: Sequence[str]) -> None:
        """Power-cycle nodes; a node that is off is switched on."""
        await self._all({name: machine.reset() for name, machine in self._find(nodes).items()})

    def state(self, node: str) -> PowerState:
        """Return whether a node has power; its system may hang all the same."""
        return PowerState.ON if self._find([node])[node].powered else PowerState.OFF

    def _find(self, nodes: Sequence[str]) -> dict[str, Machine]:
        unknown = [name for name in nodes if name not in self._machines]
        if unknown:
            raise PowerError(f"unknown node: {', '.join(unknown)}")
        return {name: self._machines[name] for name in nodes}

    @staticmethod
    async def _all(actions: Mapping[str, Coroutine[None, None, None]]) -> None:
        results = await asyncio.gather(*actions.values(), return_exceptions=True)
        failed = [
            f"{name}: {result}"
            for name, result in zip(actions, results, strict=True)
            if isinstance(result, BaseException)
        ]
        if failed:
            raise PowerError("; ".join(failed))
