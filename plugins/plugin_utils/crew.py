# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All nodes of a run at the same time: wait for each, start its client, follow it, judge it.

Every node is one coroutine that goes its own way; nothing waits for the slowest. The only meeting point is
the gate of an image group, where nodes that become ready within a few seconds of each other start together so
that they share one pass of the stream. All failures of a node end in its report, as a named cause with
evidence.
"""

from __future__ import annotations

import asyncio
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils import scripts
from ansible_collections.orbit.imaging.plugins.plugin_utils.follow import Following, Report
from ansible_collections.orbit.imaging.plugins.plugin_utils.reach import (
    Facts,
    Failed,
    Logins,
    Node,
    Reaching,
    files_of,
)
from ansible_collections.orbit.imaging.plugins.plugin_utils.voice import Voice


class Gate:
    """Lets the nodes of one image start together, without ever waiting for a node that may not come."""

    def __init__(self, nodes: t.Iterable[str], patience: float) -> None:
        self._expected = set(nodes)
        self._patience = patience
        self._open = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def ready(self, name: str) -> None:
        """Wait here until the group starts; the first node that arrives starts the clock."""
        self.gone(name)
        if self._timer is None and not self._open.is_set():
            self._timer = asyncio.get_running_loop().call_later(self._patience, self._open.set)
        await self._open.wait()

    def gone(self, name: str) -> None:
        """The node ``name`` needs no waiting for any more; the last one opens the gate."""
        self._expected.discard(name)
        if not self._expected:
            self._open.set()


class Crew:
    """The nodes of one task of a run."""

    def __init__(
        self,
        record: t.Mapping[str, t.Any],
        nodes: t.Sequence[Node],
        voice: Voice,
        *,
        known_hosts: str,
        interval: float,
    ) -> None:
        self._run_id: str = record["id"]
        self._nodes = nodes
        self._voice = voice
        self._interval = interval
        self._logins = Logins(known_hosts)
        by_image: dict[str, list[str]] = {}
        for node in nodes:
            by_image.setdefault(node["image"], []).append(node["name"])
        self._gates = {
            image: Gate(names, min(n["settings"]["orbit_gather"] for n in nodes if n["image"] == image))
            for image, names in by_image.items()
        }

    async def image(self) -> dict[str, Report]:
        """Bring the nodes' disks to their images; return a report for each node."""
        return await self._all(self._image_one)

    async def prove(self) -> dict[str, Report]:
        """See that the nodes run the system on their disks; return a report for each node."""
        return await self._all(self._prove_one)

    async def _all(self, work: t.Callable[[Node], t.Awaitable[Report]]) -> dict[str, Report]:
        reports: dict[str, Report] = {}

        async def one(node: Node) -> None:
            name = node["name"]
            try:
                reports[name] = await work(node)
            except Failed as failure:
                reports[name] = {"cause": failure.cause, "evidence": str(failure)}
                self._voice.change(name, "failed", f"{failure.cause}: {str(failure).splitlines()[0]}")
            finally:
                self._gates[node["image"]].gone(name)

        async def speak() -> None:
            while True:
                await asyncio.sleep(self._interval)
                self._voice.summary()

        speaker = asyncio.create_task(speak())
        try:
            await asyncio.gather(*(one(node) for node in self._nodes))
        finally:
            speaker.cancel()
        self._voice.summary()
        return reports

    # -- one node, from its reset to a written disk

    async def _image_one(self, node: Node) -> Report:
        name = node["name"]
        async with Reaching(
            self._logins, node, scripts.CLIENT, self._client_input(node), memory=True
        ) as reached:
            session, facts = reached
            facts.check_disk(node)
            booted = time.time()
            self._voice.change(name, "ready", quiet=True)
            await self._gates[node["image"]].ready(name)
            await session.send("go")
            self._voice.change(name, "imaging")
            started = time.time()
            following = Following(node, self._voice, started)
            finished = await following.watch(session)
        while not finished:
            finished = await self._resume(node, facts, following)
        report = following.judge()
        report.update(booted_at=booted, started_at=started, ended_at=time.time(), boot_id=facts.boot_id)
        seconds = report["ended_at"] - started
        self._voice.change(name, "imaged", f"{report['bytes_written'] / 1e6:.1f} MB in {seconds:.1f} s")
        return report

    def _client_input(self, node: Node) -> list[str]:
        setting = node["settings"]
        stream = node["stream"]
        return [
            *files_of(node),
            ".",
            f"{self._run_id}-{node['name']}",
            setting["orbit_client"],
            node["control_ip"],
            str(stream["address"]),
            str(stream["port"]),
            setting["orbit_disk"],
            setting["orbit_disk_type"],
        ]

    async def _resume(self, node: Node, before: Facts, following: Following) -> bool:
        """Take up a client that went on by itself when the connection was lost."""
        lines = self._client_input(node)
        patience = node["settings"]["orbit_stall_timeout"]
        try:
            async with Reaching(
                self._logins,
                node,
                scripts.CLIENT,
                lines,
                memory=True,
                since=time.time(),
                patience=patience,
                fresh=False,
            ) as (session, facts):
                if facts.boot_id != before.boot_id or not facts.running:
                    raise Failed("client_failed", "the node rebooted while its disk was being written")
                await session.send("go")
                return await following.watch(session)
        except Failed as failure:
            if failure.cause in ("no_boot", "ssh_refused"):
                raise Failed(
                    "stalled", f"contact lost while the disk was being written: {failure}"
                ) from failure
            raise

    # -- one node, from its last reset to the proof

    async def _prove_one(self, node: Node) -> Report:
        async with Reaching(self._logins, node, scripts.SYSTEM, [*files_of(node), "."], memory=False) as (
            _session,
            facts,
        ):
            identity = facts.identity(node)
            wanted = node["settings"]["orbit_identity"]
            if wanted is not None and identity != wanted:
                raise Failed(
                    "no_boot_from_disk", f"the system that came up is {identity or 'nameless'}, not {wanted}"
                )
            if facts.boot_id and facts.boot_id == node["steps"].get("client", {}).get("boot_id"):
                raise Failed("no_boot_from_disk", "the node did not boot again")
            self._voice.change(
                node["name"], "up", f"runs {identity or 'a system without a name'} from its disk"
            )
            return {"up_at": time.time(), "identity": identity}
