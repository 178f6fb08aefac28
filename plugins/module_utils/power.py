# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Power that is seen to follow: commands, the state read back, harder commands for nodes that stay behind.

The OK of a cmc service means that a command was accepted. Cards lose commands, and ``reset`` did not always
wake a node that is off. So a node that does not get to the state asked for is given the next command of
:data:`HARDER`, until it is there or the time is over.
"""

from __future__ import annotations

import time
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.cmc import (
    ACTIONS,
    NOT_AVAILABLE,
    OFF,
    ON,
    CmcClient,
    PowerResult,
)
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import Node

#: Off, seen to be off, and on again: what is left when a node does not follow ``reset``.
CYCLE = "cycle"

#: What is tried next, by the state that a node does not get to.
HARDER: t.Dict[str, t.Tuple[str, ...]] = {ON: ("reset", CYCLE), OFF: ("off",)}


class Power:
    """Brings nodes to a power state and sees that they get there.

    :param window: nodes that get a command in one burst.
    :param interval: seconds from the start of one burst to the start of the next.
    :param timeout: seconds, after the first commands, within which the states must be as asked. Half of it is
        for the first command, the rest is shared by the harder ones.
    """

    def __init__(
        self,
        client: CmcClient,
        *,
        window: int = 50,
        interval: float = 0.0,
        timeout: float = 30.0,
        sleep: t.Callable[[float], None] = time.sleep,
        clock: t.Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._window = window
        self._interval = interval
        self._timeout = timeout
        self._sleep = sleep
        self._clock = clock

    def expect(
        self, nodes: t.Sequence[Node], action: str, *, look: bool = False
    ) -> t.List[t.Tuple[t.Tuple[str, ...], str]]:
        """Return for each node the commands that :meth:`bring` would begin with, and its state before."""
        if action != CYCLE:
            plan = self._client.plan(nodes, action, look=look)
            return [((command,) if command else (), state.state) for command, state in plan]
        if not self._client.can_read():
            return self.expect(nodes, "reset")
        plan = self._client.plan(nodes, "off")
        return [((command, "on") if command else ("on",), state.state) for command, state in plan]

    def bring(
        self, nodes: t.Sequence[Node], action: str, *, verify: bool, escalate: bool
    ) -> t.List[PowerResult]:
        """Give nodes the command; every node is tried.

        :param action: :data:`CYCLE`, or one of :data:`ACTIONS`. Without states to read, a cycle is a reset.
        :param verify: read the states until they are as asked.
        :param escalate: go on with harder commands when a state does not follow, where states can be read.
        :raises ServiceError: when the service does not have the action; no node has been touched then.
        """
        can_read = self._client.can_read() if escalate or action == CYCLE else False
        if action == CYCLE and can_read:
            for command in ("off", "on"):
                self._client.check_action(command)
            results = self._cycle(nodes, self._clock() + self._timeout / 2)
            action = "on"
        else:
            action = "reset" if action == CYCLE else action
            results = self._client.switch(
                nodes,
                action,
                window=self._window,
                interval=self._interval,
                look=escalate and can_read,
                sleep=self._sleep,
            )
        if not verify:
            return results
        if not (escalate and can_read):
            return self._wait(results, action, self._timeout)
        return self._insist(results, action)

    def _insist(self, results: t.List[PowerResult], action: str) -> t.List[PowerResult]:
        """Wait for the state, and give harder commands to the nodes that do not get there."""
        deadline = self._clock() + self._timeout
        final = self._wait(results, action, self._timeout / 2)
        harder = [command for command in HARDER[ACTIONS[action]] if self._has(command)]
        for number, command in enumerate(harder):
            behind = [
                index
                for index, result in enumerate(final)
                if not result.ok and result.state != NOT_AVAILABLE  # out of service: commands are refused
            ]
            left = deadline - self._clock()
            if not behind or left <= 0:
                break
            share = left / (len(harder) - number)
            nodes = [final[index].node for index in behind]
            if command == CYCLE:
                given = self._cycle(nodes, self._clock() + share / 2)
            else:
                given = self._client.switch(
                    nodes, command, window=self._window, interval=self._interval, look=True, sleep=self._sleep
                )
            seen = self._wait(given, action, share - share / 2 if command == CYCLE else share)
            for index, result in zip(behind, seen):
                before = final[index]
                final[index] = result._replace(
                    changed=before.changed or result.changed, steps=before.steps + result.steps
                )
        return [_told(result) for result in final]

    def _has(self, command: str) -> bool:
        wanted = ("off", "on") if command == CYCLE else (command,)
        return all(self._client.speaker.can(name) for name in wanted)

    def _cycle(self, nodes: t.Sequence[Node], deadline: float) -> t.List[PowerResult]:
        """Switch off, see the nodes off before ``deadline``, and switch those on again that were seen."""
        off = self._client.switch(
            nodes, "off", window=self._window, interval=self._interval, sleep=self._sleep
        )
        off = self._wait(off, "off", max(0.0, deadline - self._clock()))
        # Without the gap between off and on there is no proof that the power was ever away.
        on = iter(
            self._client.give(
                [(result.node, "on") for result in off if result.ok],
                window=self._window,
                interval=self._interval,
                sleep=self._sleep,
            )
        )
        results = []
        for result in off:
            if result.ok:
                then = next(on)
                result = then._replace(
                    changed=result.changed or then.changed, steps=result.steps + then.steps
                )
            results.append(result)
        return results

    def _wait(self, results: t.Sequence[PowerResult], action: str, timeout: float) -> t.List[PowerResult]:
        return self._client.verify(results, action, timeout, sleep=self._sleep, clock=self._clock)


def _told(result: PowerResult) -> PowerResult:
    """Name the commands in the message when there was more than one."""
    if len(result.steps) < 2:
        return result
    words = "after" if result.ok else "; given were"
    return result._replace(
        message=f"{result.message}{' ' if result.ok else ''}{words} {', '.join(result.steps)}"
    )
