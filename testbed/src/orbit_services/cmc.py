# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cmc service: power of the nodes, for all dialects on one back end.

Unlike the historic stubs it never says ``OK`` to a node it does not know (only ``on`` and ``status`` of the
5.x stubs do, in faithful mode, and the sets of the 2006 service then skip such nodes).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from .call import Call, Fault, Outcome, Text, Xml
from .config import NodeRecord
from .dialects import Identity, Problem
from .power.base import Power, PowerError, PowerState
from .xml import element, elements

_Switch = Callable[[Sequence[str]], Awaitable[None]]


class Cmc:
    """Switches nodes through the power back end."""

    def __init__(self, power: Power) -> None:
        self._power = power

    async def _off_hard(self, nodes: Sequence[str]) -> None:
        await self._power.off(nodes)

    async def _off_soft(self, nodes: Sequence[str]) -> None:
        await self._power.off(nodes, soft=True)

    def actions(self) -> dict[str, Callable[[Call], Awaitable[Outcome]]]:
        """Return the actions of the dialect table."""
        commands: dict[str, _Switch] = {
            "on": self._power.on,
            "off_hard": self._off_hard,
            "off_soft": self._off_soft,
            "reset": self._power.reset,
            # The historic service logs in and restarts the system; a power back end has only the cycle.
            "reboot": self._power.reset,
        }
        actions: dict[str, Callable[[Call], Awaitable[Outcome]]] = {
            "node_status": self.node_status,
            "testbed_status": self.testbed_status,
            "all_nodes": self.all_nodes,
        }
        for name, switch in commands.items():
            actions[f"node_{name}"] = _bound(self._one, switch)
            actions[f"set_{name}"] = _bound(self._set, switch)
            actions[f"all_{name}"] = _bound(self._all, switch)
        return actions

    # -- commands ------------------------------------------------------------------------------------------

    async def _one(self, call: Call, switch: _Switch) -> Outcome:
        name, node = call.find_node()
        if call.faithful and call.method.blind and (node is None or not call.knows_domain(False)):
            return None
        _need_domain(call)
        await self._switch(switch, [node or _refuse(call, name)])
        return None

    async def _set(self, call: Call, switch: _Switch) -> Outcome:
        text = call.get("nodes")
        if text is None and call.faithful:
            return None
        call.need_domain(missing_is_ours=True)
        nodes = call.find_nodes(text or "", always_coordinates=True)
        if call.faithful:
            await self._switch(switch, [node for _, node in nodes if node is not None])
        else:
            await self._switch(switch, [node or _refuse(call, name) for name, node in nodes])
        return None

    async def _all(self, call: Call, switch: _Switch) -> Outcome:
        call.need_domain(missing_is_ours=True)
        await self._switch(switch, call.config.in_rows)
        return None

    async def _switch(self, switch: _Switch, nodes: Sequence[NodeRecord]) -> None:
        if not nodes:
            return
        try:
            await switch([node.name for node in nodes])
        except PowerError as error:
            raise Fault(Problem.POWER, str(error)) from error

    # -- states --------------------------------------------------------------------------------------------

    async def node_status(self, call: Call) -> Outcome:
        """State of one node (5.4)."""
        name, node = call.find_node()
        if call.faithful and node is None:
            return _node_status(call.get("hrn"), "POWERON")
        _need_domain(call)
        node = node or _refuse(call, name)
        return _node_status(node.hrn, self._word(call, node))

    async def testbed_status(self, call: Call) -> Outcome:
        """States of all nodes, in the shape of the dialect."""
        nodes = call.config.in_rows
        if not call.knows_domain(missing_is_ours=False):
            if call.dialect.identity is not Identity.HRN:
                call.need_domain()
            nodes = ()
        rows: list[dict[str, str | None]] = []
        for node in nodes:
            state = self._word(call, node)
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

    def _word(self, call: Call, node: NodeRecord) -> str:
        state = self._power.state(node.name)
        if state is PowerState.UNKNOWN:
            return "UNKNOWN" if call.dialect.identity is Identity.HRN else "NODE NOT AVAILABLE"
        return "POWERON" if state is PowerState.ON else "POWEROFF"


def _bound(
    action: Callable[[Call, _Switch], Awaitable[Outcome]], switch: _Switch
) -> Callable[[Call], Awaitable[Outcome]]:
    return lambda call: action(call, switch)


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
