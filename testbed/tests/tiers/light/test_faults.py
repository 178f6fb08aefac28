# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of nodes of a real testbed. Each strikes where it should, and is over after ``none`` or once."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from beds import Bed, eventually

from orbit_testbed.tiers.light import badsectors

IMAGE = "sender.ndz"
NODE = "node5-1"


@pytest.fixture
def stream(bed: Bed) -> Iterator[tuple[str, str]]:
    """A linked node's view of a stream: address and port."""
    bed.link(NODE)
    address, port = bed.call("frisbee/getAddress", img=IMAGE).split(":")
    yield address, port
    bed.call("frisbee/stop", img=IMAGE)
    bed.unlink(NODE)
    order(bed, "none")
    bed.power("offHard", NODE)


def order(bed: Bed, fault: str, node: str = NODE) -> None:
    result = bed.run("fault", node, fault)
    assert result.returncode == 0, result.stderr


def image(bed: Bed, stream: tuple[str, str]) -> subprocess.Popen[str]:
    """Start the client on the node as soon as it answers; return the session."""
    bed.wait_ssh(NODE)
    ip = bed.settings.node(NODE).control_ip
    command = f"exec frisbee -i {ip} -m {stream[0]} -p {stream[1]} /dev/sda 2>&1"
    return subprocess.Popen(
        bed.command("ssh", NODE, command),
        env=bed.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def services(bed: Bed) -> dict[str, Any]:
    """What the services say of themselves; nothing when they do not."""
    with contextlib.suppress(OSError):
        found: dict[str, Any] = json.loads(bed.call("orbit/state"))
        return found
    return {}


@contextlib.contextmanager
def imaging(bed: Bed, stream: tuple[str, str]) -> Iterator[None]:
    """The client is at work."""
    session = image(bed, stream)
    try:
        yield
    finally:
        session.kill()
        session.wait()


def ended(session: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        output, _none = session.communicate(timeout=60)
    finally:
        session.kill()
        session.wait()
    return session.returncode, output


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("disk-full=1", 1, os.strerror(errno.ENOSPC)),
        ("disk-error=1", 1, os.strerror(errno.EIO)),
        ("disk-missing", 1, "neither a disk nor a file"),
        ("client-missing", 127, "not found"),
        ("client-killed=0.5,once", 137, ""),
    ],
)
def test_clients_that_fail(bed: Bed, stream: tuple[str, str], fault: str, status: int, words: str) -> None:
    order(bed, fault)
    bed.power("reset", NODE)
    code, output = ended(image(bed, stream))
    # A shell tells 128 + 9 of a command, ssh -9 as 255 when it was the shell itself that died.
    assert code in (status, 255 if status == 137 else status), output
    assert words.lower() in output.lower()
    assert bed.node_status(NODE)["fault"] == ("none" if "once" in fault else fault)
    if "once" not in fault:
        order(bed, "none")
    bed.power("reset", NODE)
    code, output = ended(image(bed, stream))
    assert code == 0, output


def test_a_node_that_dies_while_its_disk_is_written(bed: Bed, stream: tuple[str, str]) -> None:
    bed.power("reset", NODE)
    with imaging(bed, stream):
        order(bed, "dies=0.5,once")
        eventually(lambda: bed.node_status(NODE)["power"] == "off", "its end")
        assert not bed.node_status(NODE)["running"]
    bed.power("on", NODE)
    bed.wait_ssh(NODE)


def test_a_client_that_hangs(bed: Bed, stream: tuple[str, str]) -> None:
    bed.power("reset", NODE)
    order(bed, "client-hangs=0")
    with imaging(bed, stream):
        command = (
            "grep -l frisbee /proc/[0-9]*/cmdline | while read f; do grep State ${f%cmdline}status; done"
        )
        eventually(lambda: "T (stopped)" in bed.ssh(NODE, command).stdout, "a client that is stopped")


def test_a_cable_that_is_pulled_is_plugged_in_at_the_next_power_on(bed: Bed, stream: tuple[str, str]) -> None:
    order(bed, "unplugged=0.5,once")
    bed.power("reset", NODE)
    with imaging(bed, stream):
        log = bed.state.hub_log
        eventually(lambda: f"{NODE}: unplugged=0.5,once strikes" in log.read_text(), "the end of the cable")
        assert bed.node_status(NODE)["running"]
        with pytest.raises(subprocess.TimeoutExpired):
            bed.ssh(NODE, "true", timeout=1.0)
    bed.power("reset", NODE)
    bed.wait_ssh(NODE)


def test_a_byte_flips_behind_the_clients_back(bed: Bed, stream: tuple[str, str]) -> None:
    bed.power("reset", NODE)
    code, output = ended(image(bed, stream))
    assert code == 0, output
    disk = bed.state.disk(bed.settings.node(NODE))

    def signature() -> bytes:
        with disk.open("rb") as file:
            file.seek(440)
            return file.read(4)

    right = signature()
    order(bed, "disk-corrupt,once")
    bed.power("reset", NODE)
    code, output = ended(image(bed, stream))
    assert code == 0, output
    eventually(lambda: signature() != right, "another byte")


def test_other_systems_and_silent_servers(bed: Bed, stream: tuple[str, str]) -> None:
    order(bed, "wrong-memory,once")
    bed.power("reset", NODE)
    assert bed.wait_ssh(NODE, "cat /.omf_imageid") == "diagnostics-1.0\n"
    order(bed, "ssh-hang,once")
    bed.power("reset", NODE)

    def silent() -> bool:
        try:
            return bed.ssh(NODE, "true", timeout=2.0).returncode == 0
        except subprocess.TimeoutExpired:
            return True

    assert eventually(silent, "a server that takes connections and says nothing")


def test_power_commands_that_do_nothing(bed: Bed, stream: tuple[str, str]) -> None:
    order(bed, "power-lost=2")
    boots = bed.node_status(NODE)["boots"]
    for left in ("power-lost=1", "none"):
        bed.power("reset", NODE)
        assert (bed.node_status(NODE)["boots"], bed.node_status(NODE)["fault"]) == (boots, left)
    bed.power("on", NODE)
    assert bed.node_status(NODE)["boots"] == boots + 1
    order(bed, "power-stuck")
    bed.power("offHard", NODE)
    assert bed.node_status(NODE)["power"] == "on"
    said = {node["name"]: node["power"] for node in services(bed)["nodes"]}
    assert said[NODE] == "off"


def test_a_disk_that_nothing_boots_from(bed: Bed, stream: tuple[str, str]) -> None:
    order(bed, "disk-dead,once")
    bed.unlink(NODE)
    bed.power("reset", NODE)
    bed.wait_console(NODE, "the disk does not spin up")
    bed.link(NODE)


def test_a_service_goes_down_and_comes_back(bed: Bed, stream: tuple[str, str]) -> None:
    before = services(bed)
    pids = [one["pid"] for one in before["streams"]]
    result = bed.run("fault", "--service", "frisbee", "restart=0.3", "--method", "checkImage")
    assert result.returncode == 0, result.stderr
    # Which of them: how much of the exchange there was when the connection went.
    with pytest.raises((urllib.error.URLError, http.client.HTTPException, ConnectionError)):
        bed.call("frisbee/checkImage", img=IMAGE)
    state = eventually(lambda: services(bed), "the services again")
    assert [one["pid"] for one in state["streams"]] == pids, "streams go on"
    assert state["links"] == before["links"]
    bed.run("fault", "--service", "cmc", "refuse")
    with pytest.raises(urllib.error.URLError, match="refused"):
        bed.call("cmc/status")
    bed.run("fault", "--service", "all", "none")
    assert eventually(lambda: services(bed), "the ports open again")
    bed.run("fault", "--service", "frisbee", "die")
    eventually(lambda: [s["pid"] for s in services(bed)["streams"]] not in ([], pids), "the next server")
    bed.run("fault", "--service", "frisbee", "none")


def test_mistakes_are_told(bed: Bed) -> None:
    for words in (
        ["fault", "explodes"],
        ["fault", NODE, "explodes"],
        ["fault", NODE, "dies=now"],
        ["fault", NODE, "never-boot", "--count", "2"],
        ["fault", NODE, "error", "--service", "pxe"],
        ["fault", "error=2", "--service", "pxe"],
        ["fault", "node9-9", "none"],
    ):
        result = bed.run(*words)
        assert result.returncode == 1, words
        assert "fault" in result.stderr or "node9-9" in result.stderr


def test_bad_sectors_are_the_kernels_answer(tmp_path: Path) -> None:
    script = (
        "import os\nfd = os.open('disk', os.O_RDWR | os.O_CREAT)\n"
        "for at in (0, 999, 1000, 1 << 33):\n"
        "    for write in (os.pwrite, lambda f, b, at: os.pwritev(f, [b], at)):\n"
        "        try: print(write(fd, b'x', at))\n"
        "        except OSError as error: print(error.errno)\n"
    )
    result = subprocess.run(
        [sys.executable, badsectors.__file__, "1000", sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert result.stdout.split() == ["1"] * 4 + [str(errno.EIO)] * 4
