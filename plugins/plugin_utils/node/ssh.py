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
import contextlib
import os
import re
import shlex
import signal
import typing as t

# A node that loses its power does not say good-bye: without keep-alives a session to it never ends.
_KEEP_ALIVE = {"ServerAliveInterval": "5", "ServerAliveCountMax": "3", "ConnectTimeout": "5"}

# A session must never share a connection from before a reset: through the master connection to a machine that
# has lost its power, ssh waits for ever. Nor may it become such a master. Whatever else is set, this holds.
_ALONE = {"ControlMaster": "no", "ControlPath": "none", "ControlPersist": "no"}

# Nor may a session ask a question that nobody answers. The key exchange named first costs the client a sixth
# of OpenSSH's default one.
_QUIET = {
    "BatchMode": "yes",
    "GSSAPIAuthentication": "no",
    "KexAlgorithms": "^curve25519-sha256",
    "LogLevel": "ERROR",
}


# Variables with options of the user, and what in them switches the checking of host keys off.
_USER_OPTIONS = ("ansible_ssh_common_args", "ansible_ssh_extra_args")
_UNCHECKED = re.compile(r"StrictHostKeyChecking[= ]+[\"']?(?:no|off)\b", re.IGNORECASE)
_LOOPBACK = ("127.", "::1", "localhost")


def command(node: t.Mapping[str, t.Any], known_hosts: str, remote: str) -> list[str]:
    """Return the argument list of one ``ssh`` call.

    ``remote`` must be a constant text: whatever differs from node to node goes through the session's
    input. Host keys are remembered in ``known_hosts``, a file for one kind of system on one node and one run:
    a memory image and the system on the disk have different keys at the same address, so a lasting file would
    only hold contradictions.
    """
    ssh = node["ssh"]
    options = {
        **_KEEP_ALIVE,
        **_QUIET,
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
    }
    arguments = [ssh.get("ansible_ssh_executable") or "ssh", "-T"]
    # ssh keeps the first value it sees: what must hold, what the user says, what else is needed.
    for name, value in _ALONE.items():
        arguments += ["-o", f"{name}={value}"]
    for name in _USER_OPTIONS:
        arguments += shlex.split(ssh.get(name) or "")
    for name, value in options.items():
        arguments += ["-o", f"{name}={value}"]
    if ssh.get("ansible_port"):
        arguments += ["-p", str(ssh["ansible_port"])]
    if ssh.get("ansible_ssh_private_key_file"):
        key = os.path.expanduser(str(ssh["ansible_ssh_private_key_file"]))
        arguments += ["-i", key, "-o", "IdentitiesOnly=yes"]
    arguments += [
        "-l",
        ssh.get("ansible_user") or "root",
        "--",
        str(ssh.get("ansible_host") or node["control_ip"]),
    ]
    return [*arguments, remote]


def checks_host_key(node: t.Mapping[str, t.Any]) -> bool:
    """Whether somebody between us and the node would be noticed: false when the user's options forbid it.

    On loopback nobody is between, so there it is true in any case.
    """
    if str(node["ssh"].get("ansible_host") or node["control_ip"]).startswith(_LOOPBACK):
        return True
    said = " ".join(str(node["ssh"].get(name) or "") for name in _USER_OPTIONS)
    return _UNCHECKED.search(said) is None


class Session:
    """One running ``ssh`` with line-wise input and output; use it as an asynchronous context manager."""

    def __init__(self, arguments: t.Sequence[str]) -> None:
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Session:
        # Its own session and process group: ssh must not read the terminal, and is ended as a whole.
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=1 << 20,
        )
        return self

    async def __aexit__(self, *_exc: object) -> None:
        process = self._running()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the session is not open")
        return self._process

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
        stdout = t.cast(asyncio.StreamReader, self._running().stdout)
        try:
            raw = await stdout.readline()
        except ValueError:  # a line beyond the limit: nothing we asked for looks like that
            return ""
        return raw.decode("utf-8", "replace").rstrip("\r\n") if raw else None

    async def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit status of ssh (255: the connection) and what it had to say."""
        process = self._running()
        stderr = t.cast(asyncio.StreamReader, process.stderr)
        words = (await stderr.read()).decode("utf-8", "replace").strip()
        return await process.wait(), words
