# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power supplies of the embedded testbed's nodes, whatever a node is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from orbit_services.power.base import Action, Power, PowerState
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
    """Switches a tier's nodes; the power driver of all tiers."""

    def __init__(self, machines: Mapping[str, Machine]) -> None:
        self._machines = machines

    async def states(self, nodes: Sequence[str]) -> dict[str, PowerState]:
        """Return whether nodes have power; their systems may hang all the same."""
        return {node: self._state(node) for node in nodes}

    def _state(self, node: str) -> PowerState:
        machine = self._machines.get(node)
        if machine is None:
            return PowerState.UNKNOWN
        return PowerState.ON if machine.powered else PowerState.OFF

    async def switch(self, action: Action, nodes: Sequence[str]) -> dict[str, str | None]:
        """Switch nodes. A soft off asks the system to stop and cuts the power after some seconds."""
        results = await asyncio.gather(*(self._switch(action, node) for node in nodes))
        return dict(zip(nodes, results, strict=True))

    async def _switch(self, action: Action, node: str) -> str | None:
        machine = self._machines.get(node)
        if machine is None:
            return "no such node"
        try:
            if action is Action.ON:
                await machine.on()
            elif action is Action.RESET:
                await machine.reset()
            else:
                await machine.off(soft=action is Action.OFF_SOFT)
        except Exception as error:
            return str(error) or type(error).__name__
        return None


class FaultyPower:
    """A driver behind power supplies with the faults that were ordered for their nodes."""

    def __init__(self, power: Power, machines: Mapping[str, Machine]) -> None:
        self._power = power
        self._machines = machines
        self._pretended: dict[str, PowerState] = {}

    async def states(self, nodes: Sequence[str]) -> dict[str, PowerState]:
        """Return the states that the power supplies tell."""
        states = dict(await self._power.states(nodes))
        for node in nodes:
            if node in self._pretended and self._machines[node].fault.kind == "power-stuck":
                states[node] = self._pretended[node]
        return states

    async def switch(self, action: Action, nodes: Sequence[str]) -> dict[str, str | None]:
        """Switch the nodes whose supply does not just say that it does."""
        off = action in (Action.OFF, Action.OFF_SOFT)
        obedient = [node for node in nodes if self._obeys(node, PowerState.OFF if off else PowerState.ON)]
        results = await self._power.switch(action, obedient)
        return {**results, **{node: None for node in nodes if node not in obedient}}

    def _obeys(self, node: str, state: PowerState) -> bool:
        machine = self._machines.get(node)
        if machine is None:
            return True
        fault = machine.fault
        if fault.kind == "power-stuck":
            self._pretended[node] = state
            return False
        if fault.kind == "power-lost" and fault.value >= 1:
            left = fault.value - 1
            machine.fault = replace(fault, value=left) if left >= 1 else Fault()
            return False
        self._pretended.pop(node, None)
        return True
