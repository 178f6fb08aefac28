# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A testbed of the tests' own, and playbook runs against it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import jsonschema

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "result.schema.json").read_text())
# Seconds after which a run is taken for hung. The longest takes less than a minute on idle cores, and many
# times that on a busy laptop.
LIMIT = 1200
#: The playbook of most tests, and the groups that it images.
IMAGE = "playbooks/image.yml"
TWO_GROUPS = """\
groups:
  senders:
    nodes: "[1..3,1]"
    image: sender.ndz
  receivers:
    nodes: "[1..3,2]"
    image: receiver.ndz
"""
# Seconds in which a playbook that runs says what is waited for, or ends.
_LISTEN = 600.0

_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


def program(name: str) -> str:
    """Return the path of a command of the environment that runs the tests."""
    beside = pathlib.Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is not installed: run tools/setup"
    return found


def read_result(folder: pathlib.Path) -> dict:
    """Read the result file in the folder of a run; it must be as its published schema says."""
    document: dict = json.loads((folder / "result.json").read_text())
    jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)
    return document


@dataclasses.dataclass
class Played:
    """An ansible-playbook that has ended."""

    status: int
    output: str

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """What Ansible counted for each host."""
        return {
            host: dict(zip(("ok", "changed", "unreachable", "failed"), map(int, counts), strict=True))
            for host, *counts in _RECAP.findall(self.output)
        }

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the run."""
        match = re.search(r"^Record of the run: (.*)$", self.output, re.MULTILINE)
        assert match, self.output
        return pathlib.Path(match[1]).parent

    @property
    def result(self) -> dict:
        """The result file of the run, which is as its published schema says."""
        document = read_result(self.folder)
        assert document["passed"] == (self.status == 0), self.output
        return document

    @property
    def outcomes(self) -> dict[str, str]:
        """Outcome of each node."""
        return {name: node["outcome"] for name, node in self.result["nodes"].items()}

    @property
    def identities(self) -> dict[str, str]:
        """The image that each node says it runs."""
        return {name: node["identity"] for name, node in self.result["nodes"].items()}


class Testbed:
    """An embedded testbed with its own name, number and state folder."""

    __test__ = False

    def __init__(self, folder: pathlib.Path, nodes: str, *options: str) -> None:
        self.folder = folder
        self.number = free_number()
        self.name = f"it{os.getpid()}-{self.number}"
        self._common = ("--name", self.name, "--dir", str(folder / "state"))
        self._up = ("up", *self._common, "--number", str(self.number), "--nodes", nodes, *options)
        self.columns, self.rows = map(int, nodes.split("x"))

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``orbit-testbed``."""
        done = subprocess.run(
            [program("orbit-testbed"), *arguments], capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def __enter__(self) -> Testbed:
        self.command(*self._up)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.command("down", *self._common, "--purge")

    def fault(self, node: str, fault: str) -> None:
        """Order a fault for a node."""
        self.command("fault", *self._common, node, fault)

    def service_fault(self, fault: str, *options: str) -> None:
        """Order a fault for a service, for example ``"silent", "--service", "cmc"``."""
        self.command("fault", *self._common, *options, fault)

    def boots(self) -> dict[str, int]:
        """How often each node's power came on or was cycled."""
        status = json.loads(self.command("status", *self._common, "--json").stdout)
        return {node["name"]: node["boots"] for node in status["nodes"]}

    def state(self) -> dict:
        """Links, streams and power as the services see them."""
        with urllib.request.urlopen(f"http://127.{self.number}.0.1:5012/orbit/state", timeout=180) as reply:
            return json.load(reply)

    def links(self) -> list[str]:
        """The links that are really there, whatever the services say."""
        folder = self.folder / "state" / "tftpboot" / "pxelinux.cfg"
        return sorted(path.name for path in folder.iterdir() if path.is_symlink())

    def inventory(
        self, groups: str = "", *, port: int = 5012, variables: str = "", name: str = "nodes.yml"
    ) -> str:
        """Write an inventory for this testbed; return its path."""
        folder = self.folder / f"inventory-{len(list(self.folder.glob('inventory-*')))}"
        folder.mkdir()
        path = folder / name
        path.write_text(
            f"""\
plugin: orbit.imaging.nodes
domain: {self.name}
size: [{self.columns}, {self.rows}]
control_ip: "10.{self.number}.{{x}}.{{y}}"
ansible_host: "127.{self.number}.{{x}}.{{y}}"
nodes: all
vars:
  ansible_port: 2222
  ansible_ssh_private_key_file: {self.folder}/state/id_ed25519
  orbit_pxe_url: http://127.{self.number}.0.1:{port}
  orbit_frisbee_url: http://127.{self.number}.0.1:{port}
  orbit_cmc_url: http://127.{self.number}.0.1:{port}
  orbit_memory_image: memory
  orbit_disk_type: file
  orbit_run_dir: {self.folder}/runs
  orbit_claim_dir: {self.folder}/claims
{variables}
{groups}
"""
        )
        return str(path)


#: Locks of the numbers that this process has taken; they go when it ends.
_numbers: list[int] = []


def free_number() -> int:
    """Return a testbed number whose loopback addresses nobody listens on, and that no other test will take.

    Between this and the first listening socket of the testbed another process may ask: the lock tells it.
    """
    start = 100 + os.getpid() % 100
    for number in [*range(start, 250), *range(100, start)]:
        path = pathlib.Path(tempfile.gettempdir(), f"orbit-tests-{os.getuid()}-{number}.lock")
        lock = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind((f"127.{number}.0.1", 5012))
        except OSError:
            os.close(lock)
            continue
        _numbers.append(lock)
        return number
    raise AssertionError("no free testbed number")


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start ``ansible-playbook``."""
    # What tasks say, and the recap, are read by the tests; the live view has tests of its own.
    usual = {"ANSIBLE_STDOUT_CALLBACK": "default"}
    environment = {**usual, **os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    return subprocess.Popen(
        [
            # Who runs the tests in the background or by nohup has signals ignored, also by what they start.
            *("env", "--default-signal=INT,HUP"),
            os.environ.get("ORBIT_ANSIBLE_PLAYBOOK") or program("ansible-playbook"),
            *arguments,
        ],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], limit: float = LIMIT) -> Played:
    """Wait for a started ``ansible-playbook``."""
    try:
        output, _none = process.communicate(timeout=limit)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return Played(process.returncode, output)


def play(*arguments: str) -> Played:
    """Run ``ansible-playbook`` to its end."""
    return finish(start(*arguments))


class Watched:
    """An ``ansible-playbook`` whose output is read while it runs."""

    def __init__(self, *arguments: str) -> None:
        self.process = start(*arguments)
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()
        with self._news:
            self.lines.append("")
            self._news.notify_all()

    def hears(self, words: str) -> bool:
        """Wait until the playbook says ``words`` (true) or has ended without (false)."""
        with self._news:
            self._news.wait_for(
                lambda: any(words in line for line in self.lines) or self.lines[-1:] == [""], _LISTEN
            )
            return any(words in line for line in self.lines)

    def wait_for(self, words: str) -> None:
        """Wait until the playbook says ``words``; fail when it does not."""
        assert self.hears(words), f"nothing heard of {words!r}\n{''.join(self.lines)}"

    def end(self, number: int) -> int:
        """Send a signal until the playbook has ended; return its status.

        Once is not always enough: an interrupt in the middle of a callback of Ansible may get lost there.
        """
        deadline = time.monotonic() + _LISTEN
        while time.monotonic() < deadline:
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(1.0)
        raise AssertionError("the playbook does not end")

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_LISTEN)
        self._reader.join(_LISTEN)
        self.process.stdout.close()
