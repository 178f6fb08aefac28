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
import dataclasses
import os
import re
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils import scripts, ssh
from ansible_collections.orbit.imaging.plugins.plugin_utils.voice import Voice

Node = t.Mapping[str, t.Any]
Report = dict[str, t.Any]

# Where a line of the program on the node begins.
_SPEAKS = "@orbit "
_PROGRESS = re.compile(r"Progress: (\d+)%")
# Not anchored: the client's messages may run into each other.
_WROTE = re.compile(r"Wrote (\d+) bytes \((\d+) actual\)")
# The age of a system is known to the second, at both ends.
_AGE_SLACK = 2.0
# Later attempts wait longer, up to this many seconds: a boot takes minutes, its end should be seen soon.
_LONGEST_PAUSE = 3.0
# Seconds a node has from the beginning of a login to its last fact. Longer than ssh needs to give up by
# itself, so that the reason it then gives is heard, also when the time to boot ends meanwhile.
_ANSWER = 15.0
# So many logins at once keep the controller's processors busy; more only make each of them slower.
_LOGINS = 24
_LAST_LINES = 20


class Failed(Exception):
    """A node has failed; ``cause`` is one of the named causes, the text is the evidence."""

    def __init__(self, cause: str, evidence: str) -> None:
        super().__init__(evidence)
        self.cause = cause


@dataclasses.dataclass
class Facts:
    """What a system says of itself at the beginning of a session."""

    boot_id: str = ""
    age: float | None = None
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    disk: str = ""
    used: list[str] = dataclasses.field(default_factory=list)
    client: str = ""
    running: bool = False

    def is_memory_image(self, node: Node) -> bool:
        """Whether one of the node's marker files begins as a memory image's does."""
        setting = node["settings"]
        return any(
            self.files.get(marker, "").startswith(setting["orbit_memory_id"])
            for marker in setting["orbit_memory_markers"]
            if marker in self.files
        )

    def identity(self, node: Node) -> str:
        """Return the name an installed system gives itself, or an empty text."""
        return next((self.files[f] for f in node["settings"]["orbit_identity_files"] if f in self.files), "")


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
        self._known_hosts = known_hosts
        self._interval = interval
        self._logins = asyncio.Semaphore(_LOGINS)
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
        os.makedirs(self._known_hosts, mode=0o700, exist_ok=True)
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
        async with self._reach(node, scripts.CLIENT, self._client_input(node), memory=True) as reached:
            session, facts = reached
            self._check(node, facts)
            booted = time.time()
            self._voice.change(name, "ready", quiet=True)
            await self._gates[node["image"]].ready(name)
            await session.send("go")
            self._voice.change(name, "imaging")
            started = time.time()
            following = _Following(node, self._voice, started)
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
            *_files(node),
            ".",
            f"{self._run_id}-{node['name']}",
            setting["orbit_client"],
            node["control_ip"],
            str(stream["address"]),
            str(stream["port"]),
            setting["orbit_disk"],
            setting["orbit_disk_type"],
        ]

    @staticmethod
    def _check(node: Node, facts: Facts) -> None:
        """Refuse what would write the wrong disk; this is the last look before the first byte."""
        setting = node["settings"]
        disk, kind = setting["orbit_disk"], setting["orbit_disk_type"]
        if facts.disk != kind:
            raise Failed("wrong_disk", f"{disk} is {facts.disk or 'unknown'} on this node, expected {kind}")
        if facts.used:
            raise Failed("wrong_disk", f"the node runs from {disk}: {', '.join(facts.used)} is mounted")
        if facts.client != "found":
            raise Failed("client_missing", f"no {setting['orbit_client']} in this memory image")

    async def _resume(self, node: Node, before: Facts, following: _Following) -> bool:
        """Take up a client that went on by itself when the connection was lost."""
        lines = self._client_input(node)
        patience = node["settings"]["orbit_stall_timeout"]
        try:
            async with self._reach(
                node, scripts.CLIENT, lines, memory=True, since=time.time(), patience=patience, fresh=False
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
        async with self._reach(node, scripts.SYSTEM, [*_files(node), "."], memory=False) as (_session, facts):
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

    # -- a session with the right system

    def _reach(self, node: Node, script: str, lines: t.Sequence[str], **expected: t.Any) -> _Reaching:
        return _Reaching(self, node, script, lines, **expected)


class _Reaching:
    """Asks a node until the right system answers, then hands over the open session with its facts."""

    def __init__(
        self,
        crew: Crew,
        node: Node,
        script: str,
        lines: t.Sequence[str],
        *,
        memory: bool,
        since: float | None = None,
        patience: float | None = None,
        fresh: bool = True,
    ) -> None:
        self._crew = crew
        self._node = node
        self._lines = lines
        self._memory = memory
        self._fresh = fresh
        self._since = node["power"]["before"] if since is None else since
        self._patience = node["settings"]["orbit_boot_timeout"] if patience is None else patience
        self._deadline = (node["power"]["after"] if since is None else since) + self._patience
        known = os.path.join(crew._known_hosts, f"{node['name']}.{'memory' if memory else 'disk'}")
        self._command = ssh.command(node, known, script)
        self._session: ssh.Session | None = None

    async def __aenter__(self) -> tuple[ssh.Session, Facts]:
        last = Failed("no_boot", "the node was never asked")
        pause = 0.2
        while True:
            try:
                return await self._attempt()
            except _NotYet as reason:
                last = Failed(reason.cause, str(reason))
            left = self._deadline - time.time()
            if left <= 0:
                raise Failed(last.cause, f"nothing better within {self._patience:.0f} s than: {last}")
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    async def __aexit__(self, *exc: t.Any) -> None:
        if self._session is not None:
            await self._session.send("bye")
            await self._session.__aexit__(*exc)

    async def _attempt(self) -> tuple[ssh.Session, Facts]:
        async with self._crew._logins:
            session = await ssh.Session(self._command).__aenter__()
            try:
                await session.send(*self._lines)
                try:
                    facts = await asyncio.wait_for(_read_facts(session), _ANSWER)
                except asyncio.TimeoutError:
                    raise _NotYet("ssh_refused", "SSH was taken, but the node said nothing") from None
                if facts is None:
                    raise _no_session(*await session.end())
                self._judge(facts)
            except BaseException:
                await session.__aexit__()
                raise
        self._session = session
        return session, facts

    def _judge(self, facts: Facts) -> None:
        """Accept the system that answers, wait for another one, or give the node up."""
        if self._fresh and facts.age is not None and facts.age > time.time() - self._since + _AGE_SLACK:
            raise _NotYet("power_failed", "the system from before the reset still answers")
        memory = facts.is_memory_image(self._node)
        if memory == self._memory:
            return
        name = facts.identity(self._node) or "a system without a name"
        if self._memory:
            failure: tuple[str, str] = ("booted_disk", f"the node booted {name} instead of the memory image")
        else:
            failure = ("no_boot_from_disk", "the node booted the memory image again")
        if facts.age is None:
            # Without an age it may be the system from before the reset: only time tells.
            raise _NotYet(*failure)
        raise Failed(*failure)


# What ssh says when something at the node's address has turned it away; all else is silence.
_REFUSALS = (
    "connection refused",
    "reset by peer",
    "closed by remote host",
    "permission denied",
    "host key",
    "no matching",
    "too many authentication",
)


class _NotYet(Exception):
    """The node does not answer as it should; it may do so later."""

    def __init__(self, cause: str, words: str) -> None:
        super().__init__(words)
        self.cause = cause


def _no_session(status: int, words: str) -> _NotYet:
    """Say why a session ended before the node had said who it is."""
    if status != 255:
        return _NotYet("ssh_refused", f"the node's shell ended with status {status}: {words or 'no message'}")
    cause = "ssh_refused" if any(text in words.lower() for text in _REFUSALS) else "no_boot"
    return _NotYet(cause, words or "no answer")


def _files(node: Node) -> list[str]:
    setting = node["settings"]
    return list(dict.fromkeys([*setting["orbit_memory_markers"], *setting["orbit_identity_files"]]))


def _split(text: str) -> tuple[str, str]:
    """Return the first word of a text and what follows it."""
    word, _blank, rest = text.partition(" ")
    return word, rest


def _said(line: str) -> tuple[str, str]:
    """Return word and rest of what the program on the node says; no word for output of the client."""
    return _split(line[len(_SPEAKS) :]) if line.startswith(_SPEAKS) else ("", line)


async def _read_facts(session: ssh.Session) -> Facts | None:
    facts = Facts()
    while (line := await session.line()) is not None:
        word, rest = _said(line)
        if word == "ready":
            return facts
        if word == "boot":
            facts.boot_id = rest
        elif word == "age":
            facts.age = float(rest)
        elif word == "file":
            path, text = _split(rest)
            facts.files[path] = text
        elif word == "disk":
            facts.disk = rest
        elif word == "used":
            facts.used.append(rest)
        elif word == "client":
            facts.client = rest
        elif word == "running":
            facts.running = True
    return None


class _Following:
    """A client at work: what it says, whether it moves, how it ends."""

    def __init__(self, node: Node, voice: Voice, started: float) -> None:
        self._node = node
        self._voice = voice
        self._patience = node["settings"]["orbit_stall_timeout"]
        self._wrote = -1
        self._moved = time.monotonic()
        self._started = started
        self._status: int | None = None
        self._log: list[str] = []

    async def watch(self, session: ssh.Session) -> bool:
        """Read until the client has ended (true) or the session is lost (false)."""
        while True:
            left = self._moved + self._patience - time.monotonic()
            try:
                line = await asyncio.wait_for(session.line(), max(left, 0.1))
            except asyncio.TimeoutError:
                line = ""
            if line is None:
                return False
            word, rest = _said(line)
            if word:
                if word == "pulse":
                    self._pulse(int(rest))
                elif word == "exit":
                    self._status = int(rest)
                    self._log.clear()
                elif word == "refused":
                    raise Failed("client_failed", rest)
                elif word == "end":
                    return True
            elif line:
                self._log = [*self._log[-_LAST_LINES:], line]
                match = _PROGRESS.search(line)
                if match:
                    self._voice.percent(self._node["name"], int(match[1]))
                    self._moved = time.monotonic()
            if time.monotonic() - self._moved > self._patience:
                await session.send("stop")
                raise Failed(
                    "stalled",
                    f"nothing was written for {self._patience} s; the client was stopped\n{self._tail()}",
                )

    def _pulse(self, wrote: int) -> None:
        if wrote != self._wrote:
            self._wrote = wrote
            self._moved = time.monotonic()

    def _tail(self) -> str:
        return "\n".join(self._log[-_LAST_LINES:])

    def judge(self) -> Report:
        """Return the report of a client that ended well; anything else is a failure with its last words."""
        wrote = _WROTE.search("\n".join(self._log))
        if self._status != 0:
            last = next((line for line in reversed(self._log) if line.strip()), "no message")
            raise Failed("client_failed", f"{last} (exit status {self._status})\n{self._tail()}")
        if wrote is None:
            raise Failed("client_failed", f"exit status 0, but no word of a written disk\n{self._tail()}")
        covered, written = int(wrote[1]), int(wrote[2])
        if written == 0:
            raise Failed("client_failed", f"the client wrote no byte\n{self._tail()}")
        return {"bytes_covered": covered, "bytes_written": written}
