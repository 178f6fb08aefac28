# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reach a node: ask until the right system answers, and hear what it says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import re
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.bounds import bound, number
from ansible_collections.orbit.imaging.plugins.module_utils.outcome import Outcome
from ansible_collections.orbit.imaging.plugins.plugin_utils import private
from ansible_collections.orbit.imaging.plugins.plugin_utils.node import ssh
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import sizes
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Node

# Where a line of the program on the node begins.
_SPEAKS = "@orbit "
# The age of a system is known to the second, at both ends.
_AGE_SLACK = 2.0
# Later attempts wait longer, up to this many seconds: a boot takes minutes, its end should be seen soon.
_LONGEST_PAUSE = 3.0
# Seconds a node has from the beginning of a login to its last fact, beyond those that the connection may
# take. So the reason that ssh gives when it gives up is heard, also when the time to boot ends meanwhile.
_ANSWER = 10.0
# So many logins at once keep the controller's processors busy; more only make each of them slower. A login
# that only waits for its node costs nothing; this often, in seconds, it is looked whether it does.
_LOGINS = 24
_LOOK = 0.1
# Facts of a kind that a node may have. A node that says more of them is no worse known by fewer.
_MANY = 64
_FACT = 1000
# Characters of the file names that can be given to ssh.
_PLAIN = re.compile(r"[A-Za-z0-9_.,+@:/-]+")


class Failed(Exception):
    """A node has failed; ``cause`` is one of the named causes, the text is the evidence, within bounds."""

    def __init__(self, cause: Outcome, evidence: str) -> None:
        super().__init__(bound(evidence))
        self.cause = cause


class NotYet(Failed):
    """The node does not answer as it should; it may do so later."""


@dataclasses.dataclass
class Facts:
    """What a system says of itself at the beginning of a session.

    ``size`` is that of the disk in bytes, ``can`` are the options by which the client checks what it does.
    """

    boot_id: str = ""
    age: float | None = None
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    disk: str = ""
    size: int | None = None
    serial: str = ""
    used: list[str] = dataclasses.field(default_factory=list)
    client: str = ""
    can: set[str] = dataclasses.field(default_factory=set)
    running: bool = False

    def is_memory_image(self, node: Node) -> bool:
        """Whether one of the node's marker files begins as a memory image's does."""
        setting = node["settings"]
        return any(
            self.files.get(marker, "").startswith(setting["orbit_memory_id"])
            for marker in setting["orbit_memory_markers"]
            if marker in self.files
        )

    def other_marker(self, node: Node) -> str:
        """Return file and text of a marker that is not that of the node's memory image, or an empty text.

        A system that has an identity besides is an installed one, whatever else it says.
        """
        setting = node["settings"]
        markers = setting["orbit_memory_markers"]
        if any(f in self.files for f in setting["orbit_identity_files"] if f not in markers):
            return ""
        return next((f"{f} says {self.files[f]!r}" for f in markers if self.files.get(f)), "")

    def identity(self, node: Node) -> str:
        """Return the name an installed system gives itself, or an empty text."""
        return next((self.files[f] for f in node["settings"]["orbit_identity_files"] if f in self.files), "")

    def check_disk(self, node: Node) -> None:
        """Refuse what would write the wrong disk; this is the last look before the first byte.

        :raises Failed: when the node's disk, or its client, is not what the run expects.
        """
        setting = node["settings"]
        disk, kind = setting["orbit_disk"], setting["orbit_disk_type"]
        if self.disk != kind:
            raise Failed("wrong_disk", f"{disk} is {self.disk or 'unknown'} on this node, expected {kind}")
        if self.used:
            used = ", ".join(dict.fromkeys(self.used))
            raise Failed("wrong_disk", f"{disk} is in use on this node: {used}")
        serial, least = setting["orbit_disk_serial"], setting["orbit_disk_min_size"]
        if serial and self.serial != serial:
            raise Failed(
                "wrong_disk", f"the serial number of {disk} is {self.serial or 'unknown'}, expected {serial}"
            )
        if least and (self.size is None or self.size < sizes.parse(least)):
            known = "unknown" if self.size is None else f"{self.size} bytes"
            raise Failed("wrong_disk", f"the size of {disk} is {known}, expected at least {least}")
        needed = node.get("manifest", {}).get("disk_bytes", 0)
        if self.size is not None and self.size < needed:
            raise Failed(
                "wrong_disk",
                f"{disk} has {self.size} bytes, but {node['image']} has data up to byte {needed}",
            )
        if self.client != "found":
            raise Failed("client_missing", f"no {setting['orbit_client']} in this memory image")


def _split(text: str) -> tuple[str, str]:
    """Return the first word of a text and what follows it."""
    word, _blank, rest = text.partition(" ")
    return word, rest


def said(line: str) -> tuple[str, str]:
    """Return word and rest of what the program on the node says; no word for output of the client."""
    return _split(line[len(_SPEAKS) :]) if line.startswith(_SPEAKS) else ("", line)


async def read_facts(session: ssh.Session) -> Facts | None:
    """Return what the system at the other end says of itself; ``None`` when it hangs up before its end."""
    facts = Facts()
    while (line := await session.line()) is not None:
        word, rest = said(bound(line, width=_FACT))
        if word == "ready":
            return facts
        if word == "boot":
            facts.boot_id = rest
        elif word == "age" and number(rest) is not None:
            facts.age = float(rest)
        elif word == "file" and len(facts.files) < _MANY:
            path, text = _split(rest)
            facts.files[path] = text
        elif word == "disk":
            facts.disk = rest
        elif word in ("bytes", "sectors") and number(rest) is not None:
            facts.size = int(rest) * (512 if word == "sectors" else 1)
        elif word == "serial":
            facts.serial = rest
        elif word == "can" and len(facts.can) < _MANY:
            facts.can.add(rest)
        elif word == "used" and len(facts.used) < _MANY:
            facts.used.append(rest)
        elif word == "client":
            facts.client = rest
        elif word == "running":
            facts.running = True
    return None


@dataclasses.dataclass
class Boot:
    """A boot that is waited for. Moments are those of ``time.monotonic``: nobody sets that clock.

    :ivar before: a moment before the power action that began it; what is older is another boot.
    :ivar after: when that action was over; patience counts from here.
    :ivar old: boot ids of systems that ran on the node before.
    :ivar number: 1 for the first boot of the node in its step of the run.
    :ivar seen: boot ids heard of meanwhile.
    """

    before: float
    after: float
    old: frozenset[str] = frozenset()
    number: int = 1
    seen: set[str] = dataclasses.field(default_factory=set)

    @classmethod
    def since(cls, before: float, after: float, patience: float) -> Boot:
        """Return the boot after a power action between two moments in seconds since 1970.

        They are from another process, and the clock may have been set since. When the action would be yet to
        come, or over for longer than the ``patience`` with a boot, the clock is not believed: patience counts
        from now, and a system may be as old as that patience.
        """
        now, ago, took = time.monotonic(), time.time() - after, max(0.0, after - before)
        if 0 <= ago <= patience:
            return cls(now - ago - took, now - ago)
        return cls(now - patience - took, now)

    def again(self, before: float, after: float) -> Boot:
        """Return the next boot of the same node; whatever answered so far is not it."""
        return Boot(before, after, self.old | self.seen, self.number + 1)


class Logins:
    """How the nodes of a run are logged in to: where their host keys are kept, and whose turn it is.

    ``known_hosts`` is a folder of the run; it is made when it is not there. Its name may have anything in it
    that ssh would expand or split, so ssh is told of it by a name that the kernel gives to open folders.
    """

    def __init__(self, known_hosts: str) -> None:
        private.make_folder(known_hosts)
        self._folder = known_hosts
        self._opened = os.open(known_hosts, os.O_RDONLY | os.O_DIRECTORY)
        self.turn = asyncio.Semaphore(_LOGINS)

    def close(self) -> None:
        """Give back what is open; no login is under way any more."""
        os.close(self._opened)

    def _name(self, name: str) -> str:
        return f"/proc/{os.getpid()}/fd/{self._opened}/{name}"

    def known_hosts(self, node: Node, system: str) -> str:
        """Return the name of the file with the host keys of one kind of system on ``node``."""
        return self._name(f"{_file_name(node['name'])}.{system}")

    def key(self, node: Node) -> str | None:
        """Return another name of the node's private key; None when its own can be told to ssh as it is."""
        said = node["ssh"]["private_key_file"]
        path = os.path.abspath(os.path.expanduser(said)) if said else ""
        # What is no file may hold names that ssh expands, which is the user's to say.
        if not path or _PLAIN.fullmatch(path) or not os.path.exists(path):
            return None
        name = f"key-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
        for suffix in ("", ".pub", "-cert.pub"):
            if os.path.exists(path + suffix):
                with contextlib.suppress(FileExistsError):
                    os.symlink(path + suffix, os.path.join(self._folder, name + suffix))
        return self._name(name)


def _file_name(name: str) -> str:
    """Return a name of a file for the host ``name``, which may be any text."""
    if _PLAIN.fullmatch(name) and "/" not in name and len(name) <= 100:
        return name
    return f"host-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


class BootWait:
    """Asks a node until the right system answers, then hands over the open session with its facts."""

    def __init__(
        self,
        logins: Logins,
        node: Node,
        script: str,
        lines: t.Sequence[str],
        boot: Boot,
        *,
        memory: bool,
        until: float | None = None,
    ) -> None:
        """Prepare to reach the system that ``boot`` brings up: the memory image or that of the disk.

        ``until`` (a moment of ``time.monotonic``) is given to take up a system that was reached before;
        whether it is the same one is then the caller's to see.
        """
        self._logins = logins
        self._node = node
        self._lines = lines
        self._boot = boot
        self._memory = memory
        self._resumes = until is not None
        began = time.monotonic() if until is not None else boot.after
        self._deadline = boot.after + node["settings"]["orbit_boot_timeout"] if until is None else until
        self._patience = self._deadline - began
        # A memory image may make its host key at each boot.
        known = logins.known_hosts(node, f"{'memory' if memory else 'disk'}.{boot.number}")
        self._command = ssh.command(node, known, script, key=logins.key(node))
        self._answer = ssh.connect_seconds(node) + _ANSWER
        self._session: ssh.Session | None = None

    async def __aenter__(self) -> tuple[ssh.Session, Facts]:
        pause = 0.2
        while True:
            try:
                return await self._attempt()
            except NotYet as reason:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    words = f"nothing better within {self._patience:.0f} s than: {reason}"
                    raise Failed(reason.cause, words) from reason
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    async def __aexit__(self, *exc: t.Any) -> None:
        if self._session is not None:
            await self._session.send("bye")
            await self._session.__aexit__(*exc)

    async def _attempt(self) -> tuple[ssh.Session, Facts]:
        await self._logins.turn.acquire()
        turn = contextlib.ExitStack()
        turn.callback(self._logins.turn.release)
        with turn:
            try:
                session = await ssh.Session(self._command).__aenter__()
            except (OSError, ValueError) as error:
                raise NotYet("ssh_refused", f"this host cannot run {self._command[0]}: {error}") from error
            waits = asyncio.create_task(self._pass_on(session, turn))
            try:
                await session.send(*self._lines)
                try:
                    facts = await asyncio.wait_for(self._hear(session), self._answer)
                except asyncio.TimeoutError:
                    words = f"SSH was taken, but not all was said within {self._answer:.0f} s"
                    raise NotYet("ssh_refused", words) from None
                self._judge(facts)
            except BaseException:
                await session.__aexit__()
                raise
            finally:
                waits.cancel()
        self._session = session
        return session, facts

    @staticmethod
    async def _pass_on(session: ssh.Session, turn: contextlib.ExitStack) -> None:
        """Give the turn to the next login while this one only waits for its node."""
        used = session.processor_time()
        while True:
            await asyncio.sleep(_LOOK)
            before, used = used, session.processor_time()
            if used is not None and used == before:
                turn.close()
                return

    async def _hear(self, session: ssh.Session) -> Facts:
        facts = await read_facts(session)
        if facts is None:
            raise _no_session(*await session.end())
        return facts

    def _judge(self, facts: Facts) -> None:
        """Accept the system that answers, wait for another one, or give the node up."""
        passed = time.monotonic() - self._boot.before
        too_old = facts.age is not None and facts.age > passed + _AGE_SLACK
        if not self._resumes and (too_old or facts.boot_id in self._boot.old):
            raise NotYet("power_failed", "the system from before the reset still answers")
        if facts.boot_id:
            self._boot.seen.add(facts.boot_id)
        memory = facts.is_memory_image(self._node)
        if memory == self._memory:
            return
        name = facts.identity(self._node) or "a system without a name"
        marker = facts.other_marker(self._node)
        failure: tuple[Outcome, str]
        if self._memory and marker:
            wanted = self._node["settings"]["orbit_memory_id"]
            failure = (
                "wrong_memory_image",
                f"{marker} on the system that came up; that of the memory image begins with {wanted!r}",
            )
        elif self._memory:
            failure = ("booted_disk", f"the node booted {name} instead of the memory image")
        else:
            failure = ("no_boot_from_disk", "the node booted the memory image again")
        if facts.age is None:
            # Without an age it may be the system from before the reset: only time tells.
            raise NotYet(*failure)
        raise Failed(*failure)


# What ssh says when something at the node's address has turned it away, or when it cannot begin at all; all
# else is silence. So is a connection that is taken and never spoken on: gateways take connections for nodes
# that are down. What stands first says most. They are sentences of ssh's: banners and warnings of others may
# hold any of these words.
_REFUSALS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"Host key for .{1,300} has changed and you have requested strict checking",
        r"No .{1,300} host key is known for .{1,300} and you have requested strict checking",
        r"Unable to negotiate with .{1,300}: no matching ",
        r"(\S{1,300}: )?(Permission denied|No more authentication methods) \(",
        r"(Received disconnect|Disconnected) from .{1,300}",
        r".{0,300}Too many authentication failures",
        r"Host key verification failed",
        r"ssh: connect to (host|address) .{1,300}: Connection (refused|reset by peer)",
        r"(kex|ssh)_exchange_identification: ",
        r".{0,300}Bad configuration option",
        r"Bad owner or permissions on ",
        r".{0,300}(unsupported option|(garbage|extra arguments) at end of line|missing argument)",
        r"(ssh_dispatch_run_fatal|ssh_packet_\w+|Connection (closed|reset) by)\b.{0,300}",
        r".{0,300}(Connection refused|reset by peer|closed by remote host)\W*\Z",
    )
]
# Lines that never say why: frames, the system's own warnings, traces.
_NOISE = re.compile(r"@+|@ .* @|\*\* .*|debug[0-9]: .*|Warning: Permanently added .*", re.DOTALL)
# Further lines of ssh's that an evidence shows.
_MORE = 12


def _no_session(status: int, words: str) -> NotYet:
    """Say why a session ended before the node had said who it is."""
    lines = [line for raw in words.splitlines() if (line := raw.strip()) and not _NOISE.fullmatch(line)]
    last = lines[-1] if lines else ""
    if status != 255:
        return NotYet("ssh_refused", f"the node's shell ended with status {status}: {last or 'no message'}")
    for pattern in _REFUSALS:
        for line in reversed(lines):
            if pattern.match(line):
                others = [other for other in lines if other != line]
                return NotYet("ssh_refused", "\n".join([line, *others[-_MORE:]]))
    return NotYet("no_boot", last or "no answer")


def files_of(node: Node) -> list[str]:
    """Return the files by which the systems of a node are told apart."""
    setting = node["settings"]
    return list(dict.fromkeys([*setting["orbit_memory_markers"], *setting["orbit_identity_files"]]))
