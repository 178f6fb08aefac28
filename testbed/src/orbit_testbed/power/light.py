# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power supplies of light nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence

from orbit_testbed.nodes.machine import Machine
from orbit_testbed.power.base import PowerError, PowerState


class LightPower:
    """Switches light nodes; implements :class:`orbit_testbed.power.base.Power`."""

    def __init__(self, machines: Mapping[str, Machine]) -> None:
        self._machines = machines

    async def on(self, nodes: Sequence[str]) -> None:
        """Switch nodes on; a node that is on stays as it is."""
        await self._all({machine: machine.on() for machine in self._find(nodes)})

    async def off(self, nodes: Sequence[str], *, soft: bool = False) -> None:
        """Switch nodes off; ``soft`` asks the system to stop and cuts the power after some seconds."""
        await self._all({machine: machine.off(soft) for machine in self._find(nodes)})

    async def reset(self, nodes: Sequence[str]) -> None:
        """Power-cycle nodes; a node that is off is switched on."""
        await self._all({machine: machine.reset() for machine in self._find(nodes)})

    def state(self, node: str) -> PowerState:
        """Return whether a node has power; its system may hang all the same."""
        return PowerState.ON if self._find([node])[0].powered else PowerState.OFF

    def _find(self, nodes: Sequence[str]) -> list[Machine]:
        unknown = [name for name in nodes if name not in self._machines]
        if unknown:
            raise PowerError(f"unknown node: {', '.join(unknown)}")
        return [self._machines[name] for name in dict.fromkeys(nodes)]

    @staticmethod
    async def _all(actions: Mapping[Machine, Coroutine[None, None, None]]) -> None:
        results = await asyncio.gather(*actions.values(), return_exceptions=True)
        failed = [
            f"{machine.node.name}: {result}"
            for machine, result in zip(actions, results, strict=True)
            if isinstance(result, BaseException)
        ]
        if failed:
            raise PowerError("; ".join(failed))
