# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power drivers: found by name, held to the interface, one result per node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence

import pytest

from orbit_services.power.base import Action, Bounded, PowerState
from orbit_services.power.drivers import DriverError, driver
from orbit_services.power.memory import MemoryPower

from .stand import DOMAIN, World

MakeWorld = Callable[..., World]
NODES = ("node1-1", "node1-2", "node2-1")


class Odd:
    """A lab's driver that is not as good as it should be."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.go_on = asyncio.Event()
        self.done: list[str] = []

    async def states(self, nodes: Sequence[str]) -> Mapping[str, PowerState]:
        await self._behave()
        return dict.fromkeys(nodes[1:], PowerState.ON)

    async def switch(self, action: Action, nodes: Sequence[str]) -> Mapping[str, str | None]:
        await self._behave()
        self.done += nodes
        return {nodes[1]: None, nodes[2]: "its card is silent"}

    async def _behave(self) -> None:
        if self.behaviour == "raises":
            raise OSError("no route to chassis 3")
        if self.behaviour == "hangs":
            await self.go_on.wait()


def test_each_node_has_its_own_result() -> None:
    async def run() -> None:
        power = Bounded(Odd("forgets"), 20)
        assert await power.switch(Action.ON, NODES) == {
            "node1-1": "the power driver says nothing of this node",
            "node1-2": None,
            "node2-1": "its card is silent",
        }
        assert list((await power.states(NODES)).values()) == [PowerState.UNKNOWN, "on", "on"]

    asyncio.run(run())


def test_a_driver_that_fails_has_failed_for_all() -> None:
    async def run() -> None:
        power = Bounded(Odd("raises"), 20)
        reason = "the power driver failed: no route to chassis 3"
        assert await power.switch(Action.OFF, NODES) == dict.fromkeys(NODES, reason)
        assert await power.states(NODES) == dict.fromkeys(NODES, PowerState.UNKNOWN)

    asyncio.run(run())


def test_a_driver_that_hangs_is_not_waited_for_and_not_broken_off() -> None:
    async def run() -> None:
        odd = Odd("hangs")
        power = Bounded(odd, 0.05)
        reason = "the power driver has not answered for 0.05 s"
        assert await power.switch(Action.RESET, NODES) == dict.fromkeys(NODES, reason)
        assert await power.states(NODES) == dict.fromkeys(NODES, PowerState.UNKNOWN)
        (work, *_) = power._tasks
        odd.go_on.set()
        await asyncio.wait(power._tasks)
        assert not work.cancelled()
        assert odd.done == list(NODES)

    asyncio.run(run())


@pytest.mark.parametrize(("dialect", "said"), [("A", "internal error"), ("C", "node1-1: no such node")])
def test_one_failed_node_does_not_stop_the_others(dialect: str, said: str, make_world: MakeWorld) -> None:
    world = make_world()
    del world.power._states["node1-1"]
    reply = world.send(dialect, f"/cmc/nodeSetOn?nodes=[[1,1],[2,1]]&domain={DOMAIN}")
    assert reply.status == 500
    assert said in reply.text
    assert world.power.log == [("on", "node2-1")]
    states = {
        node["name"]: node["power"] for node in json.loads(world.send("A", "/orbit/state").text)["nodes"]
    }
    assert (states["node1-1"], states["node2-1"], states["node3-1"]) == ("unknown", "on", "off")


def test_drivers_are_found_by_name() -> None:
    assert driver("memory") is MemoryPower
    for name in ("light", "qemu"):
        power = driver(name)({})
        assert asyncio.run(power.switch(Action.ON, ["node1-1"])) == {"node1-1": "no such node"}
        assert asyncio.run(power.states(["node1-1"])) == {"node1-1": PowerState.UNKNOWN}
    with pytest.raises(DriverError, match=r"'ipmi'.*there are light, memory, qemu"):
        driver("ipmi")
