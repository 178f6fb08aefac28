# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Client of the cmc service: the power of nodes."""

from __future__ import annotations

import contextlib
import re
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.dialects import Request, Speaker
from ansible_collections.orbit.imaging.plugins.module_utils.names import MAX_HOST_NAME, whole_number
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import MAX_COORDINATE, Node
from ansible_collections.orbit.imaging.plugins.module_utils.service import (
    Connection,
    Reply,
    ServiceError,
    run_parallel,
    shorten,
    unexpected,
)

ON = "on"
OFF = "off"
UNKNOWN = "unknown"
NOT_AVAILABLE = "not_available"
STATES = (ON, OFF, UNKNOWN, NOT_AVAILABLE)

#: What can be done, as :data:`dialects.DIALECTS` names it, and the state it leads to.
ACTIONS: t.Dict[str, str] = {"on": ON, "off": OFF, "off_soft": OFF, "reset": ON, "reboot": ON}

#: Seconds between two readings of the state while waiting for it.
POLL = 0.5

_NAME_XY = re.compile(r"(?:n_|node)([0-9]{1,3})[_-]([0-9]{1,3})(?:\..*)?", re.ASCII)


class PowerState(t.NamedTuple):
    """The power of one node as the service tells it.

    :ivar name: the node as the service names it; "" when it gave no name.
    :ivar state: ``on``, ``off``, ``unknown`` or ``not_available``.
    :ivar raw: the service's own word; None when there was no answer for this node.
    :ivar message: why there was none.
    :ivar code: the same for programs, a :data:`service.Code`; "" when there was one.
    """

    name: str
    state: str
    raw: t.Optional[str]
    message: str = ""
    code: str = ""


class PowerResult(t.NamedTuple):
    """What became of one node.

    :ivar ok: the service accepted the command, or none was needed; and the state was read back when that was
        asked.
    :ivar changed: a command was accepted.
    :ivar state: the state as last read, ``unknown`` when it was not.
    :ivar steps: the commands that were accepted, in order.
    :ivar code: why it is not ok, a :data:`service.Code`; "" when it is.
    """

    node: Node
    ok: bool
    changed: bool
    state: str
    message: str = ""
    steps: t.Tuple[str, ...] = ()
    code: str = ""


def normalise_state(raw: str) -> str:
    """Return one of :data:`STATES` for the word of a service.

    Services say POWERON, POWEROFF, UNKNOWN, and of nodes out of service ``NODE NOT AVAILABLE``, ``NODE NOT
    ACTIVE``; the portals of today UNREACHABLE.
    """
    word = " ".join(raw.upper().replace("_", " ").split())
    if word in ("POWERON", "POWER ON", "ON"):
        return ON
    if word in ("POWEROFF", "POWER OFF", "OFF"):
        return OFF
    if word.startswith("NODE") or word == "UNREACHABLE":
        return NOT_AVAILABLE
    return UNKNOWN


class CmcClient:
    """Switches nodes and reads their power.

    :param connection: to the gateway.
    :param dialect: a dialect name or ``auto``.
    :param domain: the testbed, "" to leave it to the service.
    """

    def __init__(self, connection: Connection, dialect: str = "auto", domain: str = "") -> None:
        self.connection = connection
        self.speaker = Speaker(connection, "cmc", dialect)
        self.domain = domain

    # Reading

    def can_list(self) -> bool:
        """Whether the service tells the state of all nodes in one call."""
        return self.speaker.can("all_status")

    def can_read(self) -> bool:
        """Whether the service tells the state of nodes at all."""
        return self.speaker.can("status") or self.can_list()

    def all_states(self) -> t.List[t.Tuple[PowerState, t.Optional[t.Tuple[int, int]]]]:
        """Return the state, and the coordinates where they can be told, of all nodes of the domain.

        :raises ServiceError: when the service cannot list or does not answer.
        """
        if not self.can_list():
            raise ServiceError(
                "the service does not list its nodes: "
                f"dialect {self.speaker.dialect.name} has no method for it",
                code="unsupported",
                service="cmc",
                url=f"{self.connection.url}/cmc",
                remedy="Name the nodes",
            )
        method, arguments = self.speaker.request("all_status", Request((), "", self.domain))
        reply = self.connection.call("cmc", method.name, arguments, question=True)
        found = _detail(reply)
        if found is None:
            raise unexpected(self.connection, "cmc", method.name, arguments, reply)
        states = []
        for attributes in found:
            name = shorten(attributes.get("hrn") or attributes.get("name") or "", MAX_HOST_NAME)
            raw = _word(attributes.get("state", ""))
            states.append((PowerState(name, normalise_state(raw), raw), _coordinates(attributes, name)))
        return states

    def listed(self) -> t.List[PowerState]:
        """Return the state of all nodes of the domain under their short names.

        :raises ServiceError: when the service cannot list or does not answer.
        """
        states = []
        for state, coordinates in self.all_states():
            # The services up to 5.2 call node (1,2) n_1_2.
            name = "node{}-{}".format(*coordinates) if coordinates is not None else state.name
            states.append(state._replace(name=name))
        return states

    def states(self, nodes: t.Sequence[Node]) -> t.List[PowerState]:
        """Return the state of nodes in order, by one call for all where the service has that.

        A node that could not be asked about has the state ``unknown``, no ``raw`` and the reason as message.

        :raises ServiceError: when one call for all failed.
        """
        if not nodes:
            return []
        # One call for all is only worth more than calls of one node each when it is one.
        if self.speaker.dialect.methods.get("cmc.status") and (len(nodes) == 1 or not self.can_list()):
            answers = run_parallel(self._one_state, nodes, self.connection.parallel)
            return [
                PowerState(node.name, UNKNOWN, None, answer.brief, answer.code)
                if isinstance(answer, ServiceError)
                else answer
                for node, answer in zip(nodes, answers)
            ]
        by_key: t.Dict[t.Union[str, t.Tuple[int, int]], PowerState] = {}
        for state, coordinates in self.all_states():
            if state.name:
                by_key.setdefault(state.name.lower(), state)
            if coordinates is not None:
                by_key.setdefault(coordinates, state)
        result = []
        for node in nodes:
            found = by_key.get(node.hrn.lower()) or by_key.get(node.name.lower())
            if found is None and node.x is not None and node.y is not None:
                found = by_key.get((node.x, node.y))
            result.append(
                found._replace(name=node.name)
                if found is not None
                else PowerState(
                    node.name, UNKNOWN, None, "cmc: the service does not list this node", "unknown_node"
                )
            )
        return result

    def _one_state(self, node: Node) -> PowerState:
        method, arguments = self.speaker.request("status", Request((node,), "", self.domain))
        reply = self.connection.call("cmc", method.name, arguments, question=True)
        found = _detail(reply)
        # A service of another dialect may take the call for that of all nodes.
        names = {attributes.get("hrn", node.hrn).lower() for attributes in found or ()}
        if not found or len(found) != 1 or names != {node.hrn.lower()} or "state" not in found[0]:
            raise unexpected(self.connection, "cmc", method.name, arguments, reply)
        raw = _word(found[0]["state"])
        return PowerState(node.name, normalise_state(raw), raw)

    # Switching

    def check_action(self, action: str) -> None:
        """Refuse an action that the service does not have, before any node is touched.

        :raises ServiceError: when there is no method for it.
        """
        if action not in ACTIONS:
            raise ValueError(f"there is no action '{action}'")
        if not self.speaker.can(action):
            remedy = {"reboot": "Use reset", "off_soft": "Switch off without soft"}.get(action, "")
            raise ServiceError(
                f"the service cannot {action.replace('_', ' ')}: dialect {self.speaker.dialect.name} "
                f"({self.speaker.dialect.system}) has no method for it",
                code="unsupported",
                service="cmc",
                url=f"{self.connection.url}/cmc",
                remedy=remedy,
            )

    def plan(
        self, nodes: t.Sequence[Node], action: str, *, look: bool = False
    ) -> t.List[t.Tuple[str, PowerState]]:
        """Return for each node the command it needs ("" for none) and its state before.

        A node that is seen in the state asked for needs no ``on`` or ``off``. Where ``reset`` does not wake a
        node that is off, such a node needs ``on``. When states cannot be read, every node gets the command.

        :param look: do not trust the service's ``reset`` to wake: hardware behind it did not always.
        """
        self.check_action(action)
        unasked = [("", PowerState(node.name, UNKNOWN, None)) for node in nodes]
        before = [state for _command, state in unasked]
        wake = action == "reset" and (look or not self.speaker.dialect.reset_wakes)
        if action in ("on", "off", "off_soft") or wake:
            # Switching does not depend on it.
            with contextlib.suppress(ServiceError):
                before = self.states(nodes)
        commands = []
        for state in before:
            if action in ("on", "off", "off_soft") and state.state == ACTIONS[action]:
                commands.append("")
            elif wake and state.state == OFF:
                commands.append("on")
            else:
                commands.append(action)
        return list(zip(commands, before))

    def switch(
        self,
        nodes: t.Sequence[Node],
        action: str,
        *,
        window: int = 50,
        interval: float = 0.0,
        look: bool = False,
        sleep: t.Callable[[float], None] = time.sleep,
    ) -> t.List[PowerResult]:
        """Give nodes a power command; every node is tried.

        :param action: a key of :data:`ACTIONS`.
        :param window: nodes that get their command in one burst.
        :param interval: seconds from the start of one burst to the start of the next; 0 for no wait.
        :param look: see :meth:`plan`.
        :raises ServiceError: when the service does not have the action; no node has been touched then.
        """
        plan = self.plan(nodes, action, look=look)
        given = iter(
            self.give(
                [(node, command) for node, (command, _state) in zip(nodes, plan) if command],
                window=window,
                interval=interval,
                sleep=sleep,
            )
        )
        return [
            next(given) if command else PowerResult(node, True, False, state.state, f"already {state.state}")
            for node, (command, state) in zip(nodes, plan)
        ]

    def give(
        self,
        commands: t.Sequence[t.Tuple[Node, str]],
        *,
        window: int = 50,
        interval: float = 0.0,
        sleep: t.Callable[[float], None] = time.sleep,
    ) -> t.List[PowerResult]:
        """Give each node its command, whatever its state; the parameters are those of :meth:`switch`."""
        results: t.List[PowerResult] = []
        size = max(1, window)
        for first in range(0, len(commands), size):
            started = time.monotonic()
            burst = commands[first : first + size]
            answers = run_parallel(self._command, burst, self.connection.parallel)
            for (node, command), answer in zip(burst, answers):
                if isinstance(answer, ServiceError):
                    results.append(PowerResult(node, False, False, UNKNOWN, answer.brief, code=answer.code))
                else:
                    results.append(PowerResult(node, True, True, UNKNOWN, "accepted", (command,)))
            left = started + interval - time.monotonic()
            if first + size < len(commands) and left > 0:
                sleep(left)
        return results

    def _command(self, item: t.Tuple[Node, str]) -> None:
        node, command = item
        method, arguments = self.speaker.request(command, Request((node,), "", self.domain))
        reply = self.connection.call("cmc", method.name, arguments)
        if not reply.is_ok:
            raise unexpected(self.connection, "cmc", method.name, arguments, reply)

    def verify(
        self,
        results: t.Sequence[PowerResult],
        action: str,
        timeout: float,
        *,
        sleep: t.Callable[[float], None] = time.sleep,
        clock: t.Callable[[], float] = time.monotonic,
    ) -> t.List[PowerResult]:
        """Read the state of the nodes whose command was accepted until it is the one asked for.

        :param timeout: seconds after which a node in another state has failed.
        """
        wanted = ACTIONS[action]
        final = list(results)
        deadline = clock() + timeout

        def waiting() -> t.List[int]:
            return [index for index, result in enumerate(final) if result.ok and result.state != wanted]

        indices = waiting()
        while indices:
            try:
                states = self.states([final[index].node for index in indices])
            except ServiceError as error:
                states = [
                    PowerState(final[index].node.name, UNKNOWN, None, error.brief, error.code)
                    for index in indices
                ]
            expired = clock() >= deadline
            for index, state in zip(indices, states):
                if state.state == wanted:
                    final[index] = final[index]._replace(state=wanted, message=f"seen {wanted}")
                elif expired:
                    seen = f"still {state.state}" + (f" ({state.message})" if state.message else "")
                    final[index] = final[index]._replace(
                        ok=False,
                        state=state.state,
                        code=state.code or "wrong_state",
                        message=f"cmc: accepted, but {seen} after {timeout:g} s instead of {wanted}",
                    )
            indices = waiting()
            if indices:
                sleep(POLL)
        return final


def _detail(reply: Reply) -> t.Optional[t.List[t.Dict[str, str]]]:
    """Return the attributes of the nodes in any ``detail`` element; None when there is no such element.

    The root is not looked at: it differs between services, and that of the oldest is not known.
    """
    if reply.is_error_page or reply.kind != "xml":
        return None
    details = [reply.root] if reply.root.tag == "detail" else list(reply.root.iter("detail"))
    if not details:
        return None
    return [dict(node.attrib) for detail in details for node in detail]


def _word(raw: str) -> str:
    """Return a service's word for a state as it is kept: nobody needs more of it."""
    return shorten(raw, 60)


def _coordinates(attributes: t.Mapping[str, str], name: str) -> t.Optional[t.Tuple[int, int]]:
    match = _NAME_XY.fullmatch(name)
    for x, y in ((attributes.get("x"), attributes.get("y")), match.groups() if match else (None, None)):
        column, row = whole_number(x, MAX_COORDINATE), whole_number(y, MAX_COORDINATE)
        if column is not None and row is not None:
            return column, row
    return None
