# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Raw SSH to a node: the command line, and a session of lines in both directions.

The collection runs the ``ssh`` program itself instead of going through the connection of the task,
for two reasons. A node that does not answer is then a fact about the node, never an *unreachable*
host, which Ansible takes out of the play together with its clean-up. And one process can look after all
nodes of a run, whatever ``forks`` is.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import re
import signal
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import bounds
from ansible_collections.orbit.imaging.plugins.plugin_utils.node import ssh_options

# What holds, whatever else is set. A session must never share a connection from before a reset: through the
# master connection to a machine that has lost its power, ssh waits for ever. Nor may it become such a master,
# ask a question that nobody answers, or lose its input and output to something else.
_HELD = {
    "ControlMaster": "no",
    "ControlPath": "none",
    "ControlPersist": "no",
    "BatchMode": "yes",
    "RequestTTY": "no",
    "RemoteCommand": "none",
    "PermitLocalCommand": "no",
    "ClearAllForwardings": "yes",
    "Tunnel": "no",
}
# The same, for versions of ssh that know them (8.5 and 8.7).
_HELD_IF_KNOWN = {
    "ForkAfterAuthentication": "no",
    "KnownHostsCommand": "none",
    "SessionType": "default",
    "StdinNull": "no",
}
# What holds unless the user says otherwise in options of this run. A node that loses its power does not say
# good-bye: without keep-alives a session to it never ends. The key exchange named first costs the client a
# sixth of OpenSSH's default one. Below INFO, ssh keeps to itself why no key exchange came about. The rest is
# what files of ssh's own (~/.ssh/config) may not change: how a node is reached is theirs, what is done there
# is not.
_USUAL = {
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "GSSAPIAuthentication": "no",
    "KexAlgorithms": "^curve25519-sha256",
    "LogLevel": "INFO",
    "AddKeysToAgent": "no",
    "EscapeChar": "none",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "SetEnv": "LC_ALL=C",
    "UpdateHostKeys": "no",
    "VisualHostKey": "no",
    "StrictHostKeyChecking": "accept-new",
    "GlobalKnownHostsFile": "/dev/null",
}
# Seconds that a connection may take unless somebody says otherwise.
_CONNECT = 5

_LOOPBACK = ("127.", "::1", "localhost")


def command(
    node: t.Mapping[str, t.Any], known_hosts: str, remote: str, *, key: str | None = None
) -> list[str]:
    """Return the argument list of one ``ssh`` call.

    ``node["ssh"]`` is as :mod:`connection` makes it. ``remote`` must be a constant text: whatever differs
    from node to node goes through the session's input. Host keys are remembered in ``known_hosts``, a file
    for one kind of system on one node and one run: a memory image and the system on the disk have different
    keys at the same address, so a lasting file would only hold contradictions. In its name, and in ``key``
    (that of the private key when it is not the node's own setting), ssh must find nothing to expand.
    """
    ssh = node["ssh"]
    # ssh keeps the first value it sees. So what holds comes first, then what the user says, in the order of
    # Ansible's own connection plugin, then what else is needed.
    arguments = [ssh["executable"], "-T", *_given(_HELD)]
    arguments += ["-v"] * ssh["verbosity"]
    arguments += ["-l", ssh["user"]]
    arguments += ssh["ssh_args"]
    if not ssh["host_key_checking"]:
        arguments += _given({"StrictHostKeyChecking": "no"})
    if ssh["port"]:
        arguments += ["-p", str(ssh["port"])]
    key = key or ssh["private_key_file"]
    if key:
        # In quotes, as Ansible gives it; -i would look for a file before it has expanded the name.
        arguments += _given({"IdentityFile": f'"{os.path.expanduser(key)}"'})
    if ssh["timeout"]:
        arguments += _given({"ConnectTimeout": str(ssh["timeout"])})
    arguments += [*ssh["ssh_common_args"], *ssh["ssh_extra_args"]]
    # Older versions of ssh end at an option they do not know. Not by name: the first IgnoreUnknown counts,
    # and the user's own file may have one for other names.
    arguments += _given({"IgnoreUnknown": "*", **_HELD_IF_KNOWN, **_USUAL, "UserKnownHostsFile": known_hosts})
    arguments += _given({"ConnectTimeout": str(_CONNECT)})
    if key:
        arguments += _given({"IdentitiesOnly": "yes"})
    return [*arguments, "--", address(node), remote]


def _given(options: t.Mapping[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def address(node: t.Mapping[str, t.Any]) -> str:
    """Return the address or name at which ssh looks for ``node``."""
    return str(node["ssh"]["host"] or node["control_ip"])


def _option(node: t.Mapping[str, t.Any], name: str) -> str | None:
    """Return what the user's arguments for ssh give to an option."""
    return ssh_options.first([word for part in ssh_options.ARGUMENTS for word in node["ssh"][part]], name)


def connect_seconds(node: t.Mapping[str, t.Any]) -> int:
    """Return how long ssh waits for a connection to ``node``, in seconds."""
    said = node["ssh"]["timeout"] or bounds.number(_option(node, "connecttimeout") or "")
    return said or _CONNECT


def checks_host_key(node: t.Mapping[str, t.Any]) -> bool:
    """Whether somebody between us and the node would be noticed: false when the user's options forbid it.

    On loopback nobody is between, so there it is true in any case.
    """
    if address(node).startswith(_LOOPBACK):
        return True
    said = _option(node, "stricthostkeychecking")
    return bool(node["ssh"]["host_key_checking"]) and (said or "").lower() not in ("no", "off")


# What of the environment would change what is done: the language of messages, and programs that ask.
_LANGUAGE = re.compile(r"LC_.*|LANG|LANGUAGE|SSH_ASKPASS.*")
# Bytes of a line, and of all that ssh has to say, that are kept.
_LINE = 4096
_HEAD, _TAIL = 16 << 10, 48 << 10


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not _LANGUAGE.fullmatch(name)}
    return {**kept, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}


class Session:
    """One running ``ssh`` with line-wise input and output; use it as an asynchronous context manager.

    Whatever the other end sends, and however much of it, what is kept of it is bounded.
    """

    def __init__(self, arguments: t.Sequence[str]) -> None:
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self._lines: collections.deque[str] = collections.deque()
        self._begun = b""
        self._words = b""
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Session:
        # Its own session and process group: ssh must not read the terminal, and is ended as a whole.
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=_environment(),
            umask=0o077,
        )
        # A full pipe would stop ssh.
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        process = self._running()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if self._listener is not None:
            self._listener.cancel()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the session is not open")
        return self._process

    def processor_time(self) -> int | None:
        """Return how much processor time ssh has used so far, in ticks of the system.

        None when it wants more just now, which it may have to wait for; -1 when it is over.
        """
        try:
            with open(f"/proc/{self._running().pid}/stat", encoding="utf-8", errors="replace") as stream:
                # Behind the name, which may have anything in it.
                fields = stream.read().rpartition(")")[2].split()
            return None if fields[0] == "R" else int(fields[11]) + int(fields[12])
        except (OSError, IndexError, ValueError):
            return -1

    async def _listen(self) -> None:
        stderr = t.cast(asyncio.StreamReader, self._running().stderr)
        while piece := await stderr.read(_HEAD):
            self._words += piece
            if len(self._words) > _HEAD + _TAIL:
                self._words = self._words[:_HEAD] + self._words[-_TAIL:]

    async def send(self, *lines: str) -> None:
        """Write lines; a session that is gone is noticed by :meth:`lines`, not here."""
        for line in lines:
            if "\n" in line:
                raise ValueError(f"a line must not hold a line break: {line!r}")
        await self.pour("".join(f"{line}\n" for line in lines).encode())

    async def pour(self, data: bytes) -> None:
        """Write bytes as they are; a session that is gone is noticed as with :meth:`send`."""
        stdin = t.cast(asyncio.StreamWriter, self._running().stdin)
        try:
            stdin.write(data)
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return

    async def line(self) -> str | None:
        """Return the next line of output without its end, or ``None`` when the session is over."""
        while not self._lines:
            if not await self._read():
                return None
        return self._lines.popleft()

    async def lines(self) -> list[str] | None:
        """Return all lines that are there, at least one, or ``None`` when the session is over."""
        line = await self.line()
        if line is None:
            return None
        found = [line, *self._lines]
        self._lines.clear()
        return found

    async def _read(self) -> bool:
        """Take what has come; return false at the end. Of a long line only the beginning is kept."""
        stdout = t.cast(asyncio.StreamReader, self._running().stdout)
        # Data that is there already would be had without a pause: one node's flood is not to keep out others.
        await asyncio.sleep(0)
        piece = await stdout.read(1 << 16)
        if piece:
            *whole, rest = (self._begun + piece).split(b"\n")
        elif self._begun:
            whole, rest = [self._begun], b""
        else:
            return False
        self._begun = rest[:_LINE]
        self._lines.extend(line[:_LINE].decode("utf-8", "replace").rstrip("\r") for line in whole)
        return True

    async def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit status of ssh (255: the connection) and what it had to say."""
        if self._listener is not None:
            await self._listener
        return await self._running().wait(), self._words.decode("utf-8", "replace").strip()
