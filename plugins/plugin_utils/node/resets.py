# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Power actions for single nodes while a fleet is at work, put together into few calls."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import threading
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.node.boot_wait import Failed
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import plan
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Batch, Node

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

    Calls run in threads, so that the other nodes are looked after meanwhile: one at a time to each service,
    and side by side to different ones, so that nobody waits for a service that is silent for others. Calls to
    one service keep to its window: no more nodes in an interval than fit into one burst.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._wishes: dict[str, list[_Wish]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._given: dict[str, collections.deque[tuple[float, int]]] = {}

    async def act(self, node: Node, action: str) -> tuple[float, float]:
        """Do ``action`` (``reset`` or ``cycle``) with ``node``.

        Returns the moments before and after it, of ``time.monotonic``.

        :raises Failed: ``power_failed``, when the service does not do it.
        """
        service = str(node["settings"].get("orbit_cmc_url"))
        wish = _Wish(node, action, asyncio.get_running_loop().create_future())
        self._wishes.setdefault(service, []).append(wish)
        if service not in self._workers or self._workers[service].done():
            self._workers[service] = asyncio.create_task(self._work(service))
        return await wish.granted

    async def _work(self, service: str) -> None:
        while self._wishes.get(service):
            await asyncio.sleep(_GATHER)
            wishes = self._wishes.pop(service)
            try:
                await self._grant_all(wishes)
            except Exception as error:
                # A mistake of ours must not leave nodes waiting for ever.
                for wish in wishes:
                    if not wish.granted.done():
                        wish.granted.set_exception(error)

    async def _call(self, arguments: dict[str, t.Any]) -> t.Mapping[str, t.Any]:
        # A thread for each call: those that threads share may all be held by services that do not answer.
        done: asyncio.Future[t.Mapping[str, t.Any]] = asyncio.get_running_loop().create_future()
        loop, run = asyncio.get_running_loop(), contextvars.copy_context().run

        def tell(answer: t.Mapping[str, t.Any] | None, error: Exception | None) -> None:
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(answer or {})

        def call() -> None:
            answer, failure = None, None
            try:
                answer = run(self._run, arguments)
            except Exception as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(tell, answer, failure)

        threading.Thread(target=call, daemon=True).start()
        return await done

    async def _grant_all(self, wishes: t.Sequence[_Wish]) -> None:
        by_action: dict[str, dict[str, _Wish]] = {}
        for wish in wishes:
            by_action.setdefault(wish.action, {})[wish.node["name"]] = wish
        for action, by_name in by_action.items():
            for batch in plan.batches([wish.node for wish in by_name.values()], "cmc"):
                await self._grant(action, batch, by_name)

    async def _grant(self, action: str, batch: Batch, by_name: t.Mapping[str, _Wish]) -> None:
        wishes = [by_name[node["name"]] for node in batch["nodes"]]
        await self._keep_pace(batch)
        before = time.monotonic()
        arguments = {key: value for key, value in batch.items() if key != "images"}
        arguments.update(state=action, escalate=batch["verify"])
        try:
            results = await self._call(arguments)
        except Exception as error:
            # Whatever it was, it is the end of these nodes' attempt, not of the run.
            results = {"msg": f"the module cmc_power could not be run: {error}"}
        said = {entry.get("name"): entry for entry in results.get("nodes") or []}
        for wish in wishes:
            entry = said.get(wish.node["name"]) or {}
            if wish.granted.done():
                continue
            if entry.get("ok"):
                wish.granted.set_result((before, time.monotonic()))
            else:
                reason = entry.get("msg") or results.get("msg") or "the service did not answer for this node"
                wish.granted.set_exception(Failed("power_failed", str(reason)))

    async def _keep_pace(self, batch: Batch) -> None:
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
