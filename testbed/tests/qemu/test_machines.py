# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual machines: what they boot by PXE and from their disk, power, faults. At most two run at a time."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from beds import Bed, eventually

from orbit_testbed.nodes import lifecycle
from orbit_testbed.nodes.layout import DISK_SIZE
from orbit_testbed.nodes.memoryimage import MARKER

#: Seconds for a boot under emulation, which takes seven on two idle cores.
BOOT = 150.0


@pytest.fixture(autouse=True)
def _two_at_a_time(bed: Bed) -> Iterator[None]:
    """Tests of several processes wait for each other; whatever one did, its machines are off in the end."""
    with Path(f"/tmp/orbit-testbed-machines-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        switch_off(bed)


def switch_off(bed: Bed) -> None:
    for node in bed.settings.nodes:
        bed.run("fault", node.name, "none")
        bed.power("offHard", node.name)
    assert [node["power"] for node in bed.status()["nodes"]] == ["off", "off"]


def virtual_machines(bed: Bed) -> list[str]:
    return [line for line in bed.processes() if "qemu-system-x86_64" in line]


def put_on_disk(bed: Bed, node: str, image: str) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "orbit_testbed.ndz.unzip_cli"),
            *(str(bed.state.images / image), str(bed.state.disk(bed.settings.node(node)))),
        ],
        check=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, "ORBIT_TESTBED_DISK": "1"},
    )


def test_a_link_leads_to_the_memory_image_and_no_link_to_the_disk(bed: Bed) -> None:
    put_on_disk(bed, "node2-1", "vm-receiver.ndz")
    bed.link("node1-1")
    bed.power("on", "node1-1")
    bed.power("on", "node2-1")
    out = bed.wait_ssh(
        "node1-1",
        "cat /.omf_imageid; cat /sys/block/vda/size; cat /proc/cmdline; test -b /dev/vda && echo block;"
        "cat /proc/sys/kernel/random/boot_id; test -e /etc/orbit-image || echo no name",
        timeout=BOOT,
    )
    marker, sectors, cmdline, kind, boot, name = out.splitlines()
    assert (marker, kind, name) == (MARKER, "block", "no name")
    assert int(sectors) * 512 == DISK_SIZE
    node = bed.settings.node("node1-1")
    assert f"ip={node.control_ip}:{bed.settings.server_ip}:" in cmdline
    tftp = (bed.state.logs / "tftp.log").read_text()
    assert f"pxelinux.cfg/{node.hex_ip} to {node.control_ip}" in tftp
    without_python = bed.ssh("node1-1", "command -v python || command -v python3 || command -v perl")
    assert (without_python.returncode != 0, without_python.stdout) == (True, "")
    for tool in ("frisbee", "imagezip", "imageunzip"):
        assert f"usage: {tool}" in bed.ssh("node1-1", f"{tool} --help").stdout

    out = bed.wait_ssh(
        "node2-1",
        "cat /etc/orbit-image; hostname; test -e /.omf_imageid || echo no memory image",
        timeout=BOOT,
    )
    assert out.splitlines() == ["vm-receiver.ndz", "node2-1", "no memory image"]
    console = bed.run("console", "node2-1").stdout
    for text in ("iPXE", "PXELINUX", "Booting from local disk", "SYSLINUX", "READY vm-receiver.ndz"):
        assert text in console
    assert "\x1b" not in console
    assert bed.node_status("node1-1")["link"] == "memory"
    bed.unlink("node1-1")

    # Power off in the middle of a command: nobody says good-bye to ssh, whose keep-alives notice.
    began = time.monotonic()
    hanging = subprocess.Popen(
        [*lifecycle.ssh_command(bed.state, "node2-1"), "echo on; sleep 1000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert hanging.stdout is not None
        assert hanging.stdout.readline() == b"on\n"
        bed.power("offHard", "node2-1")
        assert len(virtual_machines(bed)) == 1
        assert hanging.wait(60) == 255
        assert time.monotonic() - began > 3, "a machine without power cannot have closed the connection"
    finally:
        hanging.kill()
        hanging.wait()

    # Without its link, a reset leads to the disk, which is blank.
    bed.power("reset", "node1-1")
    bed.wait_console("node1-1", "No bootable device", BOOT)
    assert bed.ssh("node1-1", "true").returncode == 255
    status = bed.node_status("node1-1")
    assert (status["power"], status["running"], status["boots"]) == ("on", True, 2)
    assert boot


def test_faults_and_a_system_that_switches_itself_off(bed: Bed) -> None:
    put_on_disk(bed, "node2-1", "vm-sender.ndz")
    before = {node: len(bed.console(node)) for node in ("node1-1", "node2-1")}
    assert bed.run("fault", "node1-1", "never-boot").returncode == 0
    assert bed.run("fault", "node2-1", "boot-disk").returncode == 0
    bed.link("node2-1")  # in vain: its firmware does not look at the network
    bed.power("on", "node1-1")
    bed.power("on", "node2-1")
    assert bed.wait_ssh("node2-1", "cat /etc/orbit-image", timeout=BOOT) == "vm-sender.ndz\n"
    bed.unlink("node2-1")
    assert "PXELINUX" not in bed.console("node2-1")[before["node2-1"] :]
    status = bed.node_status("node1-1")
    assert (status["power"], status["running"]) == ("on", True)
    assert len(bed.console("node1-1")) == before["node1-1"]
    bed.power("offHard", "node1-1")

    bed.ssh("node2-1", "poweroff -f")
    eventually(lambda: bed.node_status("node2-1")["power"] == "off", "node2-1 is off")
    assert not virtual_machines(bed)

    bed.run("fault", "node2-1", "ssh-refuse")
    bed.power("on", "node2-1")
    eventually(
        lambda: bed.console("node2-1")[before["node2-1"] :].count("READY vm-sender.ndz") == 2,
        f"node2-1 boots once more; its console:\n{bed.console('node2-1')}",
        BOOT,
    )
    assert bed.ssh("node2-1", "true").returncode == 255
