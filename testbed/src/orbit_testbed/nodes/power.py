# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power supplies of the embedded testbed's nodes, whatever a node is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from orbit_services.power.base import PowerError, PowerState
from orbit_testbed.nodes.faults import Fault


class Machine(Protocol):
    """One node's power supply. Actions on one node wait for each other."""

    fault: Fault

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
    """Switches nodes; implements :class:`orbit_services.power.base.Power`."""

    def __init__(self, machines: Mapping[str, Machine]) -> None:
        self._machines = machines
        self._pretended: dict[str, PowerState] = {}

    async def on(self, nodes: Sequence[str]) -> None:
        """Switch nodes on; a node that is on stays as it is."""
        found = self._obedient(nodes, PowerState.ON)
        await self._all({name: machine.on() for name, machine in found.items()})

    async def off(self, nodes: Sequence[str], *, soft: bool = False) -> None:
        """Switch nodes off; ``soft`` asks the system to stop and cuts the power after some seconds."""
        found = self._obedient(nodes, PowerState.OFF)
        await self._all({name: machine.off(soft) for name, machine in found.items()})

    async def reset(self, nodes: Sequence[str]) -> None:
        """Power-cycle nodes; a node that is off is switched on."""
        found = self._obedient(nodes, PowerState.ON)
        await self._all({name: machine.reset() for name, machine in found.items()})

    def state(self, node: str) -> PowerState:
        """Return whether a node has power; its system may hang all the same."""
        machine = self._find([node])[node]
        if machine.fault.kind == "power-stuck" and node in self._pretended:
            return self._pretended[node]
        return PowerState.ON if machine.powered else PowerState.OFF

    def _obedient(self, nodes: Sequence[str], state: PowerState) -> dict[str, Machine]:
        """Return the nodes without those whose power supply takes the command and does nothing."""
        obedient = {}
        for name, machine in self._find(nodes).items():
            fault = machine.fault
            if fault.kind == "power-stuck":
                self._pretended[name] = state
            elif fault.kind == "power-lost" and fault.value >= 1:
                left = fault.value - 1
                machine.fault = replace(fault, value=left) if left >= 1 else Fault()
            else:
                self._pretended.pop(name, None)
                obedient[name] = machine
        return obedient

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
