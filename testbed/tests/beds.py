# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real testbeds for tests: own name, number and folder each, taken down whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from orbit_testbed.bed import lifecycle
from orbit_testbed.nodes.layout import Settings, State
from orbit_testbed.tiers.light import disk as light_disk

T = TypeVar("T")
#: Seconds for anything that takes well below one second on an idle machine.
PATIENCE = 180.0


def eventually(check: Callable[[], T | None], what: str, timeout: float = PATIENCE) -> T:
    """Return the first true result of ``check``; fail when there is none in time."""
    end = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < end, f"not within {timeout:g} s: {what}"
        pause.wait(0.02)


def make_raw(store: tuple[Path, Path], disk: Path) -> None:
    """Make the disk that has the first image, for the keys of the store."""
    keys, _cache = store
    recipe = light_disk.RECIPES[0]
    light_disk.make_raw(
        disk,
        recipe,
        hostkey=keys / "keys" / recipe.name,
        authorized_key=(keys / "id_ed25519.pub").read_text(),
    )


class Bed:
    """A testbed driven by its command line and used through its sockets."""

    def __init__(
        self, folder: Path, *, name: str, cache: Path | None = None, keys: Path | None = None
    ) -> None:
        self.state = State(folder)
        self.name = name
        self.prefix: Sequence[str] = ()
        self.python = sys.executable
        self.module = ["-m", "orbit_testbed"]
        self.environment = dict(os.environ)
        if cache is not None:
            self.environment["ORBIT_TESTBED_CACHE"] = str(cache)
        if keys is not None:
            # Images are made for the keys they let in: with the same keys they come out of the cache.
            shutil.copytree(keys, folder)

    def command(self, *arguments: str) -> list[str]:
        return [
            *self.prefix,
            self.python,
            *self.module,
            arguments[0],
            "--name",
            self.name,
            "--dir",
            str(self.state.root),
            *arguments[1:],
        ]

    def run(self, *arguments: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=timeout,
            check=False,
        )

    def up(self, nodes: str = "2x1", *options: str, number: int | None = None) -> str:
        """Bring it up under a number that is free; return what ``up`` printed."""
        numbers = (
            [number] if number is not None else [100 + (os.getpid() + 37 * step) % 150 for step in range(20)]
        )
        for candidate in numbers:
            result = self.run("up", "--nodes", nodes, "--number", str(candidate), *options, timeout=600)
            if result.returncode == 0:
                return result.stdout
            if "is taken" not in result.stderr:
                raise AssertionError(f"up failed: {result.stderr}{result.stdout}")
        raise AssertionError(f"all of the numbers {numbers} are taken")

    def down(self, *options: str) -> None:
        result = self.run("down", *options)
        assert result.returncode == 0, result.stderr

    @property
    def settings(self) -> Settings:
        return Settings.from_json(self.state.settings.read_text())

    def call(self, path: str, **arguments: str) -> str:
        """Call a service in the dialect of 2006."""
        query = urllib.parse.urlencode(arguments)
        with urllib.request.urlopen(
            f"http://{self.settings.outside_ip}:5012/{path}?{query}", timeout=60
        ) as reply:
            body: bytes = reply.read()
        return body.decode()

    def link(self, *nodes: str) -> None:
        ips = ",".join(self.settings.node(node).control_ip for node in nodes)
        assert self.call("pxe/setBootImage", img="memory", ip=ips) == "OK"

    def unlink(self, *nodes: str) -> None:
        for node in nodes:
            (self.state.pxe / self.settings.node(node).hex_ip).unlink()

    def power(self, action: str, node_name: str) -> None:
        node = self.settings.node(node_name)
        assert self.call(f"cmc/{action}", x=str(node.x), y=str(node.y)) == "OK"

    def ssh(self, node: str, command: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*lifecycle.ssh_command(self.state, node), command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def wait_ssh(self, node: str, command: str = "true", timeout: float = PATIENCE) -> str:
        """Return the output of a command on a node as soon as the node answers."""

        def attempt() -> subprocess.CompletedProcess[str] | None:
            # How long a command takes is the machine's affair; ssh itself gives up what does not answer.
            result = self.ssh(node, command, timeout)
            return None if result.returncode == 255 else result

        result = eventually(attempt, f"{node} answers ssh; its console:\n{self.console(node)}", timeout)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def console(self, node: str) -> str:
        return self.state.console(self.settings.node(node)).read_text(errors="replace")

    def wait_console(self, node: str, text: str, timeout: float = PATIENCE) -> str:
        return eventually(
            lambda: self.console(node) if text in self.console(node) else None,
            f"{text!r} on the console of {node}",
            timeout,
        )

    def status(self) -> dict[str, Any]:
        result = self.run("status", "--json")
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    def node_status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(node for node in self.status()["nodes"] if node["name"] == name)
        return found

    def processes(self) -> list[str]:
        """Return the command lines of all processes that work for this testbed."""
        return processes_about(str(self.state.root))


def processes_about(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if text.encode() in line:
                found.append(line.replace(b"\0", b" ").decode(errors="replace")[:200])
    return found
