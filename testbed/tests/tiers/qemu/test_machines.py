# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual machines: what they boot by PXE and from their disk, power, faults. At most two run at a time."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from beds import Bed, eventually

from orbit_testbed.bed import lifecycle
from orbit_testbed.nodes.layout import DISK_SIZE
from orbit_testbed.nodes.memoryimage import MARKER

#: Seconds for a boot under emulation, which takes seven on two idle cores.
BOOT = 900.0


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


def unlink(bed: Bed, node: str) -> None:
    """Let the service do it: there is a link for each kind of firmware."""
    assert bed.call("pxe/clearBootImage", node=node) == "OK"


def put_on_disk(bed: Bed, node: str, image: str) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "orbit_frisbee.ndz.unzip_cli"),
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
        "test -e /sys/firmware/efi || echo bios; test -e /etc/orbit-image || echo no name",
        timeout=BOOT,
    )
    marker, sectors, cmdline, kind, firmware, name = out.splitlines()
    assert (marker, kind, firmware, name) == (MARKER, "block", "bios", "no name")
    assert int(sectors) * 512 == DISK_SIZE
    node = bed.settings.node("node1-1")
    assert f"ip={node.control_ip}:{bed.settings.server_ip}:" in cmdline
    tftp = (bed.state.logs / "tftp.log").read_text()
    assert f"pxelinux.cfg/{node.hex_ip} to {node.control_ip}" in tftp
    # Again and again: under emulation, a machine may be silent for longer than ssh waits.
    languages = "command -v python || command -v python3 || command -v perl || echo none"
    assert bed.wait_ssh("node1-1", languages, BOOT) == "none\n"
    for tool in ("frisbee", "imagezip", "imageunzip"):
        assert f"usage: {tool}" in bed.wait_ssh("node1-1", f"{tool} --help", BOOT)

    # The other machine has UEFI: GRUB finds no link, and starts the GRUB on the disk.
    out = bed.wait_ssh(
        "node2-1",
        "cat /etc/orbit-image; hostname; ls -d /sys/firmware/efi; test -e /.omf_imageid || echo from disk",
        timeout=BOOT,
    )
    assert out.splitlines() == ["vm-receiver.ndz", "node2-1", "/sys/firmware/efi", "from disk"]
    console = bed.run("console", "node2-1").stdout
    for text in ("iPXE", "GRUB", "Booting from local disk", "READY vm-receiver.ndz"):
        assert text in console
    assert "\x1b" not in console
    assert bed.node_status("node1-1")["link"] == "memory"
    unlink(bed, "node1-1")

    # Power off in the middle of a command: nobody says good-bye to ssh, whose keep-alives notice.
    ssh, *options = lifecycle.ssh_command(bed.state, "node2-1")
    hanging = subprocess.Popen(
        [ssh, "-o", "LogLevel=INFO", *options, "echo on; sleep 1000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert hanging.stdout is not None
        assert hanging.stderr is not None
        assert hanging.stdout.readline() == b"on\n"
        bed.power("offHard", "node2-1")
        assert len(virtual_machines(bed)) == 1
        assert hanging.wait(BOOT) == 255
        assert b"not responding" in hanging.stderr.read(), "a machine without power closes no connection"
    finally:
        hanging.kill()
        hanging.wait()

    # Without its link, a reset leads to the disk, which is blank.
    bed.power("reset", "node1-1")
    bed.wait_console("node1-1", "No bootable device", BOOT)
    assert bed.ssh("node1-1", "true").returncode == 255
    status = bed.node_status("node1-1")
    assert (status["power"], status["running"], status["boots"]) == ("on", True, 2)


def test_uefi_with_a_link_and_a_blank_disk_without(bed: Bed) -> None:
    node = bed.settings.node("node2-1")
    with bed.state.disk(node).open("r+b") as disk:
        disk.truncate(0)
        disk.truncate(DISK_SIZE)
    bed.link("node2-1")
    assert (bed.state.grub / f"grub.cfg-{node.hex_ip}").is_symlink()
    bed.power("on", "node2-1")
    out = bed.wait_ssh(
        "node2-1", "cat /.omf_imageid; ls -d /sys/firmware/efi; cat /proc/cmdline", timeout=BOOT
    )
    marker, firmware, cmdline = out.splitlines()
    assert (marker, firmware) == (MARKER, "/sys/firmware/efi")
    assert f"ip={node.control_ip}:{bed.settings.server_ip}:" in cmdline
    tftp = (bed.state.logs / "tftp.log").read_text()
    assert f"grub.cfg-{node.hex_ip} to {node.control_ip}" in tftp
    unlink(bed, "node2-1")
    assert not (bed.state.grub / f"grub.cfg-{node.hex_ip}").is_symlink()
    before = len(bed.console("node2-1"))
    bed.power("reset", "node2-1")
    eventually(
        lambda: "No bootable device" in bed.console("node2-1")[before:],
        f"node2-1 finds nothing to boot; its console:\n{bed.console('node2-1')[before:]}",
        BOOT,
    )
    assert bed.node_status("node2-1")["power"] == "on"


def test_faults_and_a_system_that_switches_itself_off(bed: Bed) -> None:
    put_on_disk(bed, "node2-1", "vm-sender.ndz")
    before = {node: len(bed.console(node)) for node in ("node1-1", "node2-1")}
    assert bed.run("fault", "node1-1", "never-boot").returncode == 0
    assert bed.run("fault", "node2-1", "boot-disk").returncode == 0
    bed.link("node2-1")  # in vain: its firmware does not look at the network
    bed.power("on", "node1-1")
    bed.power("on", "node2-1")
    assert bed.wait_ssh("node2-1", "cat /etc/orbit-image", timeout=BOOT) == "vm-sender.ndz\n"
    unlink(bed, "node2-1")
    assert "iPXE" not in bed.console("node2-1")[before["node2-1"] :]
    status = bed.node_status("node1-1")
    assert (status["power"], status["running"]) == ("on", True)
    assert len(bed.console("node1-1")) == before["node1-1"]
    bed.power("offHard", "node1-1")

    def switched_off() -> bool:
        bed.ssh("node2-1", "poweroff -f", BOOT)
        return bool(bed.node_status("node2-1")["power"] == "off")

    eventually(switched_off, "node2-1 is off", BOOT)
    assert not virtual_machines(bed)

    bed.run("fault", "node2-1", "ssh-refuse")
    bed.power("on", "node2-1")
    eventually(
        lambda: bed.console("node2-1")[before["node2-1"] :].count("READY vm-sender.ndz") == 2,
        f"node2-1 boots once more; its console:\n{bed.console('node2-1')}",
        BOOT,
    )
    assert bed.ssh("node2-1", "true").returncode == 255


def test_faults_in_the_middle_of_the_work(bed: Bed) -> None:
    """They count what a machine has written. The one loses its network, the other one its power."""
    bed.link("node1-1", "node2-1")
    bed.run("fault", "node1-1", "unplugged=1")
    bed.run("fault", "node2-1", "dies=1")
    assert bed.run("fault", "node2-1", "disk-error=1").returncode == 1
    before = {node: bed.node_status(node)["boots"] for node in ("node1-1", "node2-1")}
    for node in before:
        bed.power("on", node)
    for node in before:
        bed.wait_ssh(node, timeout=BOOT)
    writing = {
        node: subprocess.Popen(
            # Without an end of its own: who counts may be late on a busy machine.
            [
                *lifecycle.ssh_command(bed.state, node),
                "while dd if=/dev/zero of=/dev/vda bs=64k count=64 conv=fsync; do :; done",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for node in before
    }
    try:
        for process in writing.values():
            assert process.wait(BOOT) == 255
    finally:
        for process in writing.values():
            process.kill()
            process.wait()
    cut, dead = bed.node_status("node1-1"), bed.node_status("node2-1")
    assert (dead["power"], dead["running"]) == ("off", False)
    assert (cut["power"], cut["running"]) == ("on", True)
    assert bed.ssh("node1-1", "true").returncode == 255
    bed.run("fault", "node1-1", "none")
    bed.power("reset", "node1-1")  # which plugs the cable in
    assert bed.wait_ssh("node1-1", "cat /.omf_imageid", timeout=BOOT).strip() == MARKER
    for node, boots in before.items():
        assert bed.node_status(node)["boots"] == boots + (2 if node == "node1-1" else 1)
        unlink(bed, node)


def test_a_power_command_that_is_lost(bed: Bed) -> None:
    bed.run("fault", "node1-1", "power-lost=1")
    before = bed.node_status("node1-1")["boots"]
    bed.power("on", "node1-1")  # the service says OK
    assert bed.node_status("node1-1")["power"] == "off"
    assert not virtual_machines(bed)
    bed.power("on", "node1-1")
    status = bed.node_status("node1-1")
    assert (status["power"], status["boots"]) == ("on", before + 1)
