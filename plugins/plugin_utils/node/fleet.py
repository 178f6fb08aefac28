# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All nodes of a run at the same time: wait for each, start its client, follow it, judge it.

Every node is one coroutine that goes its own way; nothing waits for the slowest. The only meeting point is
the start barrier of an image group, where nodes that become ready within a few seconds of each other start
together so that they share one pass of the stream. A node that fails is reset and tried again while others
go on, and its last failure ends in its report, as a named cause with evidence.
"""

from __future__ import annotations

import asyncio
import time
import traceback
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.bounds import bound
from ansible_collections.orbit.imaging.plugins.plugin_utils.node import scripts, verification
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.attempts import Attempts
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.boot_wait import (
    Boot,
    BootWait,
    Facts,
    Failed,
    Logins,
    files_of,
)
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.monitor import ClientMonitor, Report
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.resets import Resets
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import manifests, record as records
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.progress import Progress
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Node

Work = t.Callable[[Node, Boot], t.Awaitable[Report]]

# Why a node does not come up, as causes of the time before its disk was written.
_NOT_UP = ("no_boot", "ssh_refused", "power_failed")

_REBOOTED = "the node rebooted while its disk was being written"


class StartBarrier:
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
        """The node ``name`` needs no waiting for any more; the last one opens the barrier."""
        self._expected.discard(name)
        if not self._expected:
            self._open.set()


class Fleet:
    """The nodes of one task of a run."""

    def __init__(
        self,
        record: t.Mapping[str, t.Any],
        nodes: t.Sequence[Node],
        progress: Progress,
        *,
        known_hosts: str,
        interval: float,
        resets: Resets,
    ) -> None:
        self._run_id: str = record["id"]
        self._nodes = nodes
        self._progress = progress
        self._interval = interval
        self._resets = resets
        self._logins = Logins(known_hosts)
        by_group: dict[str, list[Node]] = {}
        for node in nodes:
            by_group.setdefault(node["group"], []).append(node)
        self._barriers = {
            group: StartBarrier(
                [node["name"] for node in members],
                min(node["settings"]["orbit_gather"] for node in members),
            )
            for group, members in by_group.items()
        }

    async def image(self) -> dict[str, Report]:
        """Bring the nodes' disks to their images; return a report for each node."""
        return await self._all("client", self._image_one)

    async def prove(self) -> dict[str, Report]:
        """See that the nodes run the system on their disks; return a report for each node."""
        reports = await self._all("proof", self._prove_one)
        for report in reports.values():
            if not report.get("cause") and len(report["attempts"]) == 1:
                # A proof that succeeds at once was no attempt of its own.
                del report["attempts"]
            if report.get("cause") in _NOT_UP:
                # The image was written, which these causes of the way there would deny.
                report["evidence"] = f"{report['cause']}: {report['evidence']}"
                report["cause"] = "no_boot_from_disk"
        return reports

    async def _all(self, step: str, work: Work) -> dict[str, Report]:
        reports: dict[str, Report] = {}

        async def one(node: Node) -> None:
            name = node["name"]
            try:
                reports[name] = await self._persist(node, step, work)
            except Exception:
                # A mistake of ours with one node must not take the others down.
                reports[name] = {"cause": "interrupted", "evidence": bound(traceback.format_exc().rstrip())}
                words = bound(traceback.format_exc(0).strip())
                self._progress.change(name, "failed", words, cause="interrupted")
            finally:
                self._barriers[node["group"]].gone(name)

        async def speak() -> None:
            while True:
                await asyncio.sleep(self._interval)
                self._progress.summary()

        speaker = asyncio.create_task(speak())
        try:
            await asyncio.gather(*(one(node) for node in self._nodes))
        finally:
            speaker.cancel()
            self._logins.close()
        self._progress.summary()
        return reports

    async def _persist(self, node: Node, step: str, work: Work) -> Report:
        """Do ``work`` with ``node``, again after a power action when it fails; return its report."""
        name = node["name"]
        attempts = Attempts(node, step, node["settings"]["orbit_retries"])
        while True:
            try:
                if attempts.done:
                    action = attempts.next()
                    self._progress.again(
                        name, attempts.words, attempt=len(attempts.done) + 1, cause=attempts.done[-1]["cause"]
                    )
                    # Every session with the node is closed by now: none may outlive its power.
                    attempts.powered(*await self._resets.act(node, action))
                report = await work(node, attempts.boot)
            except Failed as failure:
                # Nobody waits for a node on its second try; it starts when it is there.
                self._barriers[node["group"]].gone(name)
                if attempts.failed(failure):
                    continue
                self._progress.change(name, "failed", records.first_line(str(failure)), cause=failure.cause)
                return {"cause": failure.cause, "evidence": attempts.evidence, "attempts": attempts.done}
            attempts.succeeded()
            return {**report, "attempts": attempts.done}

    # -- one node, from its reset to a written disk

    async def _image_one(self, node: Node, boot: Boot) -> Report:
        name = node["name"]
        again = boot.number > 1
        lines = self._client_input(node, again)
        async with BootWait(self._logins, node, scripts.CLIENT, lines, boot, memory=True) as reached:
            session, facts = reached
            facts.check_disk(node)
            agreed = await verification.agree(session, node, facts, again)
            booted = time.time()
            self._progress.change(name, "ready", quiet=True)
            await self._barriers[node["group"]].ready(name)
            await session.send(agreed.go)
            self._progress.change(name, "imaging")
            started, moment = time.time(), time.monotonic()
            following = ClientMonitor(node, self._progress)
            finished = await following.watch(session)
        while not finished:
            finished = await self._resume(node, boot, facts, following)
        report = following.judge(agreed)
        report.update(booted_at=booted, started_at=started, ended_at=time.time(), boot_id=facts.boot_id)
        seconds = time.monotonic() - moment
        words = f"{report['bytes_written'] / 1e6:.1f} MB in {seconds:.1f} s"
        self._progress.change(name, "imaged", f"{words}, read back" if report["verified"] else words)
        return report

    def _client_input(self, node: Node, again: bool = False) -> list[str]:
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
            verification.question(node, again),
            str(stream.get("server") or ""),
        ]

    async def _resume(self, node: Node, boot: Boot, before: Facts, following: ClientMonitor) -> bool:
        """Take up a client that went on by itself when the connection was lost."""
        lines = self._client_input(node)
        try:
            async with BootWait(
                self._logins, node, scripts.CLIENT, lines, boot, memory=True, until=following.patience_ends
            ) as (session, facts):
                if facts.boot_id != before.boot_id:
                    raise Failed("client_failed", _REBOOTED)
                if not facts.running:
                    raise Failed("client_failed", "contact was lost before the client had started")
                await session.send("go")
                return await following.watch(session)
        except Failed as failure:
            if failure.cause in ("no_boot", "ssh_refused"):
                raise Failed(
                    "stalled", f"contact lost while the disk was being written: {failure}"
                ) from failure
            if failure.cause in ("booted_disk", "wrong_memory_image"):
                raise Failed("client_failed", f"{_REBOOTED}: {failure}") from failure
            raise

    # -- one node, from its last reset to the proof

    async def _prove_one(self, node: Node, boot: Boot) -> Report:
        lines = [*files_of(node), "."]
        async with BootWait(self._logins, node, scripts.SYSTEM, lines, boot, memory=False) as reached:
            _session, facts = reached
        identity = facts.identity(node)
        wanted = manifests.expected_identity(node)
        if wanted is not None and identity != wanted:
            raise Failed(
                "no_boot_from_disk", f"the system that came up is {identity or 'nameless'}, not {wanted}"
            )
        self._progress.change(
            node["name"], "up", f"runs {identity or 'a system without a name'} from its disk"
        )
        return {"up_at": time.time(), "identity": identity, "identity_checked": wanted is not None}
