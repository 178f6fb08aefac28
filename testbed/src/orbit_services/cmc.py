# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cmc service: power of the nodes, for all dialects on one driver.

Unlike the historic stubs it never says ``OK`` to a node it does not know (only ``on`` and ``status`` of the
5.x stubs do, in faithful mode, and the sets of the 2006 service then skip such nodes).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from .call import Call, Fault, Outcome, Text, Xml
from .config import NodeRecord
from .dialects import Identity, Problem
from .power.base import Action, Power, PowerState
from .xml import element, elements

#: What the commands of the dialect table do.
_COMMANDS = {
    "on": Action.ON,
    "off_hard": Action.OFF,
    "off_soft": Action.OFF_SOFT,
    "reset": Action.RESET,
    # The historic service logs in and restarts the system; a power supply has only the cycle.
    "reboot": Action.RESET,
}


class Cmc:
    """Switches nodes through a power driver."""

    def __init__(self, power: Power) -> None:
        self._power = power

    def actions(self) -> dict[str, Callable[[Call], Awaitable[Outcome]]]:
        """Return the actions of the dialect table."""
        actions: dict[str, Callable[[Call], Awaitable[Outcome]]] = {
            "node_status": self.node_status,
            "testbed_status": self.testbed_status,
            "all_nodes": self.all_nodes,
        }
        for name, action in _COMMANDS.items():
            actions[f"node_{name}"] = _bound(self._one, action)
            actions[f"set_{name}"] = _bound(self._set, action)
            actions[f"all_{name}"] = _bound(self._all, action)
        return actions

    # -- commands ------------------------------------------------------------------------------------------

    async def _one(self, call: Call, action: Action) -> Outcome:
        name, node = call.find_node()
        if call.faithful and call.method.blind and (node is None or not call.knows_domain(False)):
            return None
        _need_domain(call)
        await self._switch(action, [node or _refuse(call, name)])
        return None

    async def _set(self, call: Call, action: Action) -> Outcome:
        text = call.get("nodes")
        if text is None and call.faithful:
            return None
        call.need_domain(missing_is_ours=True)
        nodes = call.find_nodes(text or "", always_coordinates=True)
        if call.faithful:
            await self._switch(action, [node for _, node in nodes if node is not None])
        else:
            await self._switch(action, [node or _refuse(call, name) for name, node in nodes])
        return None

    async def _all(self, call: Call, action: Action) -> Outcome:
        call.need_domain(missing_is_ours=True)
        await self._switch(action, call.config.in_rows)
        return None

    async def _switch(self, action: Action, nodes: Sequence[NodeRecord]) -> None:
        if not nodes:
            return
        results = await self._power.switch(action, [node.name for node in nodes])
        failed = [f"{node}: {reason}" for node, reason in results.items() if reason is not None]
        if failed:
            raise Fault(Problem.POWER, "; ".join(failed))

    # -- states --------------------------------------------------------------------------------------------

    async def node_status(self, call: Call) -> Outcome:
        """State of one node (5.4)."""
        name, node = call.find_node()
        if call.faithful and node is None:
            return _node_status(call.get("hrn"), "POWERON")
        _need_domain(call)
        node = node or _refuse(call, name)
        return _node_status(node.hrn, _word(call, node, await self._power.states([node.name])))

    async def testbed_status(self, call: Call) -> Outcome:
        """States of all nodes, in the shape of the dialect."""
        nodes = call.config.in_rows
        if not call.knows_domain(missing_is_ours=False):
            if call.dialect.identity is not Identity.HRN:
                call.need_domain()
            nodes = ()
        states = await self._power.states([node.name for node in nodes]) if nodes else {}
        rows: list[dict[str, str | None]] = []
        for node in nodes:
            state = _word(call, node, states)
            if call.dialect.identity is Identity.HRN:
                rows.append({"name": node.hrn, "state": state})
            else:
                x, y = str(node.x), str(node.y)
                rows.append({"name": f"n_{x}_{y}", "state": state, "x": x, "y": y})
        detail = element("detail", elements("node", rows))
        if call.dialect.status_counts:
            active = sum(str(row["state"]).startswith("POWER") for row in rows)
            powered = sum(row["state"] == "POWERON" for row in rows)
            detail = (
                element("nodeCount", str(len(rows)))
                + element("activeNodeCount", str(active))
                + element("poweredOnNodeCount", str(powered))
                + detail
            )
        return Xml(element("TESTBED_STATUS", detail))

    async def all_nodes(self, call: Call) -> Outcome:
        """Names or coordinates of all nodes as the text of an array."""
        if call.dialect.identity is Identity.HRN:
            known = call.knows_domain(missing_is_ours=False)
            return Text("[" + ", ".join(f'"{node.hrn}"' for node in call.config.in_rows if known) + "]")
        call.need_domain()
        return Text("[" + ", ".join(f"[{node.x}, {node.y}]" for node in call.config.in_rows) + "]")


def _word(call: Call, node: NodeRecord, states: Mapping[str, PowerState]) -> str:
    state = states.get(node.name, PowerState.UNKNOWN)
    if state is PowerState.UNKNOWN:
        return "UNKNOWN" if call.dialect.identity is Identity.HRN else "NODE NOT AVAILABLE"
    return "POWERON" if state is PowerState.ON else "POWEROFF"


def _bound(
    work: Callable[[Call, Action], Awaitable[Outcome]], action: Action
) -> Callable[[Call], Awaitable[Outcome]]:
    return lambda call: work(call, action)


def _need_domain(call: Call) -> None:
    """A call about a node: without a domain the node is unknown (5.3 and 5.4)."""
    if call.get("domain") is None and not call.knows_domain(missing_is_ours=_optional(call)):
        raise Fault(Problem.UNKNOWN_NODE_CMC, "no domain given")
    call.need_domain(missing_is_ours=True)


def _optional(call: Call) -> bool:
    return any(arg.name == "domain" and arg.value.startswith("[") for arg in call.method.args)


def _refuse(call: Call, name: str) -> NodeRecord:
    raise Fault(Problem.UNKNOWN_NODE_CMC, f"Node {name} is not registered for {call.config.domain}")


def _node_status(hrn: str | None, state: str) -> Outcome:
    row = element("node", attributes={"hrn": hrn, "state": state})
    return Xml(element("NODE_STATUS", element("detail", row)))
