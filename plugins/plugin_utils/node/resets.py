# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Power actions for single nodes while a fleet is at work, put together into few calls."""

from __future__ import annotations

import asyncio
import collections
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.node.boot_wait import Failed, Node
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import plan

#: Runs the module ``orbit.imaging.cmc_power`` with these arguments and returns its results.
Run = t.Callable[[dict[str, t.Any]], t.Mapping[str, t.Any]]

# Seconds in which requests are gathered: nodes that fail together are switched together, and a module's start
# costs more than this.
_GATHER = 0.3


class _Wish(t.NamedTuple):
    node: Node
    action: str
    granted: asyncio.Future[tuple[float, float]]


class Resets:
    """Gives nodes their power actions, as many in one call as ask for it at about the same time.

    One call runs at a time, in a thread, so that the other nodes are looked after meanwhile. Calls to one
    service keep to its window: no more nodes in an interval than fit into one burst.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._wishes: list[_Wish] = []
        self._worker: asyncio.Task[None] | None = None
        self._given: dict[str, collections.deque[tuple[float, int]]] = {}

    async def act(self, node: Node, action: str) -> tuple[float, float]:
        """Do ``action`` (``reset`` or ``cycle``) with ``node``; return the moments before and after it.

        :raises Failed: ``power_failed``, when the service does not do it.
        """
        wish = _Wish(node, action, asyncio.get_running_loop().create_future())
        self._wishes.append(wish)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await wish.granted

    async def _work(self) -> None:
        while self._wishes:
            await asyncio.sleep(_GATHER)
            wishes, self._wishes = self._wishes, []
            try:
                await self._grant_all(wishes)
            except Exception as error:
                # A mistake of ours must not leave nodes waiting for ever.
                for wish in wishes:
                    if not wish.granted.done():
                        wish.granted.set_exception(error)

    async def _grant_all(self, wishes: t.Sequence[_Wish]) -> None:
        by_action: dict[str, dict[str, _Wish]] = {}
        for wish in wishes:
            by_action.setdefault(wish.action, {})[wish.node["name"]] = wish
        for action, by_name in by_action.items():
            for batch in plan.batches([wish.node for wish in by_name.values()], "cmc"):
                await self._grant(action, batch, by_name)

    async def _grant(self, action: str, batch: t.Mapping[str, t.Any], by_name: t.Mapping[str, _Wish]) -> None:
        wishes = [by_name[node["name"]] for node in batch["nodes"]]
        await self._keep_pace(batch)
        before = time.time()
        arguments = {key: value for key, value in batch.items() if key != "images"}
        arguments.update(state=action, escalate=batch["verify"])
        try:
            results = await asyncio.to_thread(self._run, arguments)
        except Exception as error:
            # Whatever it was, it is the end of these nodes' attempt, not of the run.
            results = {"msg": f"the module cmc_power could not be run: {error}"}
        said = {entry.get("name"): entry for entry in results.get("nodes") or []}
        for wish in wishes:
            entry = said.get(wish.node["name"]) or {}
            if wish.granted.done():
                continue
            if entry.get("ok"):
                wish.granted.set_result((before, time.time()))
            else:
                reason = entry.get("msg") or results.get("msg") or "the service did not answer for this node"
                wish.granted.set_exception(Failed("power_failed", str(reason)))

    async def _keep_pace(self, batch: t.Mapping[str, t.Any]) -> None:
        given = self._given.setdefault(batch["url"], collections.deque())
        count = min(len(batch["nodes"]), batch["window"])
        while True:
            now = time.monotonic()
            while given and given[0][0] <= now - batch["interval"]:
                given.popleft()
            if not given or sum(number for _moment, number in given) + count <= batch["window"]:
                break
            await asyncio.sleep(given[0][0] + batch["interval"] - now)
        given.append((now, count))
