# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing a testbed up and taking it down, from outside its namespaces."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from orbit_testbed.bed import control, inventory
from orbit_testbed.bed.listeners import listen
from orbit_testbed.bed.process import ProcessId
from orbit_testbed.nodes import host, tree
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.layout import DISK_SIZE, SSH_PORT, Settings, State
from orbit_testbed.tiers.base import Made, tier

Say = Callable[[str], None]

#: Name of the memory image that all nodes use unless told otherwise.
MEMORY_IMAGE = "memory"
#: Seconds for the hub to get everything up; 400 nodes take a few.
READY_TIMEOUT = 120.0
#: Seconds for the hub to end streams and switch nodes off before it is killed.
STOP_TIMEOUT = 20.0


def running_hub(state: State) -> ProcessId | None:
    """Return the identity of the running hub, None when the testbed is down."""
    hub = ProcessId.load(state.hub_pid)
    return hub if hub is not None and hub.alive() else None


def running_settings(state: State) -> Settings:
    """Return the settings of a testbed that is up; raises when it is down."""
    if running_hub(state) is None:
        raise TestbedError(f"the testbed in {state.root} is not up", "orbit-testbed up")
    return Settings.from_json(state.settings.read_text())


@contextlib.contextmanager
def _locked(state: State) -> Iterator[None]:
    """Keep other ups and downs of this testbed away."""
    try:
        state.root.mkdir(parents=True, exist_ok=True)
        handle = os.open(state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TestbedError(
            f"state folder {state.root}: {error.strerror}",
            "choose another one with --dir or ORBIT_TESTBED_HOME",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TestbedError(
                f"another orbit-testbed is working on {state.root}", "wait for it to end"
            ) from None
        yield
    finally:
        os.close(handle)


def up(settings: Settings, state: State, say: Say, *, keep: bool = False) -> None:
    """Bring a testbed up; return when everything answers.

    One that is up already in this folder is replaced, or left as it is with ``keep`` when it has the same
    settings. On any failure nothing stays behind.
    """
    began = time.monotonic()
    # The hub reads them again; what is wrong is told before a testbed that is up is stopped.
    settings.access()
    host.require_programs()
    tier(settings.tier).require()
    isolation = host.find_isolation()
    with _locked(state):
        if keep and running_hub(state) is not None and running_settings(state) == settings:
            say(f"testbed {settings.name} is up already")
            return
        if running_hub(state) is not None:
            _stop(state)
            say("stopped the testbed that was up")
        sockets = listen(settings)
        try:
            made = tier(settings.tier).make(state, say)
            _fresh_state(settings, state, made)
            _start(settings, state, isolation, made, sockets)
        finally:
            for sock in sockets:
                sock.close()
        _forget(state, made.in_use)
    say(
        f"up: {len(settings.nodes)} nodes {settings.nodes[0].name} to {settings.nodes[-1].name}, "
        f"all switched off ({time.monotonic() - began:.1f} s)"
    )


def down(state: State, say: Say, *, purge: bool = False) -> None:
    """Stop everything; nothing happens when it is down. ``purge`` removes the state folder, too."""
    if not state.root.exists():
        say("already down")
        return
    with _locked(state):
        if running_hub(state) is not None:
            _stop(state)
            say("down")
        else:
            state.hub_pid.unlink(missing_ok=True)
            say("already down")
        if purge:
            if not (state.settings.exists() or state.cache.exists() or state.key.exists()):
                raise TestbedError(
                    f"{state.root} does not look like the state folder of a testbed; not removed"
                )
            tree.remove(state.root)
            say(f"removed {state.root}")


def _stop(state: State) -> None:
    hub = running_hub(state)
    if hub is not None:
        with contextlib.suppress(TestbedError):
            control.ask(state.root, {"do": "stop"}, timeout=5.0)
            hub.wait(STOP_TIMEOUT)
        if hub.alive():
            # It hangs. Its launcher ends after it, and so tells when everything inside has gone.
            with contextlib.suppress(TestbedError, ProcessLookupError):
                os.kill(control.hub_process(state.root), signal.SIGKILL)
                hub.wait(STOP_TIMEOUT)
        if hub.alive() and not hub.kill():
            raise TestbedError(f"the hub, process {hub.pid}, cannot be ended")
    state.hub_pid.unlink(missing_ok=True)
    (state.root / "hub.sock").unlink(missing_ok=True)


def _fresh_state(settings: Settings, state: State, made: Made) -> None:
    """Leave what a lab finds in the morning: no links, blank disks, empty logs. Images stay."""
    for path in (state.nodes, state.tftp, state.logs, state.services, state.hub_log, state.hub_pid):
        tree.remove(path)
    for folder in (state.pxe, state.grub, state.tftp / "boot", state.images, state.logs):
        folder.mkdir(parents=True, exist_ok=True)
    for node in settings.nodes:
        disk = state.disk(node)
        disk.parent.mkdir(parents=True)
        with disk.open("wb") as stream:
            stream.truncate(DISK_SIZE)
        state.console(node).touch()
    made.furnish(settings, state, MEMORY_IMAGE)
    tree.write_file(state.inventory, inventory.text(settings, state))
    tree.write_file(state.settings, settings.to_json() + "\n")


def _start(
    settings: Settings,
    state: State,
    isolation: host.Isolation,
    made: Made,
    sockets: list[socket.socket],
) -> None:
    """Start the hub in its namespaces and wait for its report."""
    read, write = os.pipe()
    handles = [sock.fileno() for sock in sockets]
    hub = [
        sys.executable,
        "-m",
        "orbit_testbed.bed.hub",
        str(state.root),
        "--ready-fd",
        str(write),
        "--socket-fds",
        ",".join(map(str, handles)),
    ]
    if made.launch:
        hub += ["--launch", made.launch]
    if isolation.user_namespace:
        hub.append("--nested")
    # Process 1 of the PID namespace is a shell that reaps what loses its parent, and ends with the hub.
    init = [host.program("busybox"), "sh", "-c", '"$@" & wait $!', "orbit-testbed"]
    with open(read, "rb") as report, state.hub_log.open("ab") as log:
        try:
            # The kernel's own working folder must not be one that somebody wants to unmount or remove.
            outer = subprocess.Popen(
                [host.program("unshare"), *isolation.flags, "--", *init, *hub],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                pass_fds=[write, *handles],
            )
        finally:
            os.close(write)
        try:
            identity = ProcessId.of(outer.pid)
            if identity is not None:
                identity.save(state.hub_pid)
            _wait_ready(report.fileno(), state)
        except BaseException:
            outer.kill()
            outer.wait()
            state.hub_pid.unlink(missing_ok=True)
            (state.root / "hub.sock").unlink(missing_ok=True)
            raise


def _wait_ready(report: int, state: State) -> None:
    received = b""
    end = time.monotonic() + READY_TIMEOUT
    while not received.endswith(b"\n"):
        ready, _, _ = select.select([report], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise TestbedError(f"the hub is not ready after {READY_TIMEOUT:g} s", f"see {state.hub_log}")
        data = os.read(report, 65536)
        if not data:
            break
        received += data
    try:
        answer = json.loads(received)
    except ValueError:
        lines = state.hub_log.read_text(errors="replace").strip().splitlines()
        raise TestbedError(
            f"the hub ended: {lines[-1] if lines else 'without a word'}", f"see {state.hub_log}"
        ) from None
    if "error" in answer:
        raise TestbedError(answer["error"], answer.get("remedy", ""))


def _forget(state: State, in_use: set[Path]) -> None:
    """Remove what is not in use any more from this testbed's own cache."""
    if state.cache == state.root / "cache":
        for path in set(state.cache.iterdir()) - in_use:
            tree.remove(path)


def command_prefix(state: State) -> list[str]:
    """Return the command that enters a running testbed's namespaces; append what is to be run there."""
    running_settings(state)
    pid = control.hub_process(state.root)
    user = []
    if os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino:
        user = ["--user", "--preserve-credentials"]
    return [host.program("nsenter"), "--target", str(pid), *user, "--net", "--mount", "--pid", "--"]


def ssh_command(state: State, node_name: str) -> list[str]:
    """Return the ssh command that logs in to a node; append the remote command."""
    settings = running_settings(state)
    node = settings.node(node_name)
    return [
        host.program("ssh"),
        "-F",
        "/dev/null",
        "-p",
        str(SSH_PORT),
        "-i",
        str(state.key),
        *inventory.SSH_OPTIONS,
        "-o",
        "LogLevel=ERROR",
        f"root@{node.outside_ip}",
    ]


def state_of(name: str, folder: Path | None, home: Path) -> State:
    """Return the state folder to use: the given one, or that of the name."""
    return State((folder if folder is not None else home / name).absolute())
