# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job on virtual machines: firmware, kernel, disk device and boot loader that know nothing of us."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import subprocess
import time
import urllib.request

import pytest

from .kit import Testbed, play, program

IDENTITIES = {"node1-1": "vm-sender.ndz", "node1-2": "vm-receiver.ndz"}
#: Seconds for a boot under emulation, which takes seven (BIOS) or fifteen (UEFI) on two idle cores.
BOOT = 900


@pytest.fixture
def machines(tmp_path):
    """Two virtual machines, one above the other: the testbed's own inventory gives each row another image.

    The first one has a BIOS, the second one UEFI.
    """
    if os.environ.get("ORBIT_TEST_VM") != "1":
        pytest.skip("virtual machines are booted by `make vm`, or with ORBIT_TEST_VM=1")
    doctor = subprocess.run(
        [program("orbit-testbed"), "doctor", "--tier", "qemu"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if doctor.returncode != 0:
        # It names what is missing; one that has no word for it is broken itself.
        assert doctor.stdout.strip(), doctor.stderr
        pytest.skip(f"no virtual machines here: {doctor.stdout.strip()}")
    # All tests that boot virtual machines take this lock: two machines are what two cores boot well.
    with pathlib.Path(f"/tmp/orbit-testbed-machines-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with Testbed(tmp_path, "1x2", "--tier", "qemu", "--firmware", "bios,uefi") as testbed:
            yield testbed


@pytest.fixture
def master(machines, tmp_path):
    """A machine that runs something already, and somebody's master connection; ssh options that share it.

    It has no keep-alives: when the machine loses its power, it and all that share it hang for ever.
    """
    disk = machines.folder / "state" / "nodes" / "node1-1" / "disk.raw"
    image = machines.folder / "state" / "images" / "vm-receiver.ndz"
    # The testbed's disks are files; imageunzip writes to them only when it is told that this is meant.
    environment = {**os.environ, "ORBIT_TESTBED_DISK": "1"}
    subprocess.run([program("imageunzip"), image, disk], env=environment, check=True, timeout=60)
    url = f"http://127.{machines.number}.0.1:5012/cmc/on?x=1&y=1&domain={machines.name}"
    with urllib.request.urlopen(url, timeout=60) as reply:
        assert reply.read() == b"OK"
    path = tmp_path / "master"
    shared = f"-o ControlMaster=auto -o ControlPersist=600 -o ControlPath={path}"
    login = [
        *("ssh", "-F", "/dev/null", "-i", machines.folder / "state" / "id_ed25519", "-p", "2222"),
        *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5"),
        *("-o", "ControlMaster=yes", "-o", f"ControlPath={path}", "-N"),
        f"root@127.{machines.number}.1.1",
    ]
    deadline = time.monotonic() + BOOT
    process = None
    try:
        while not path.exists():
            assert time.monotonic() < deadline, "the machine does not come up"
            if process is None or process.poll() is not None:
                process = subprocess.Popen(login, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        yield shared
        assert process.poll() is None, "the master connection has ended: it proved nothing"
    finally:
        if process is not None:
            process.kill()
            process.wait()


def test_two_machines_get_two_images_and_boot_them(machines, master):
    own = (
        *("-e", f"orbit_run_dir={machines.folder}/runs", "-e", f"orbit_claim_dir={machines.folder}/claims"),
        *("-e", json.dumps({"ansible_ssh_common_args": master})),
    )
    played = play("-i", str(machines.folder / "state" / "testbed.orbit.yml"), "playbooks/image.yml", *own)
    assert played.status == 0, played.output
    assert "2 of 2 nodes imaged" in played.output
    assert set(played.outcomes.values()) == {"imaged"}
    assert played.identities == IDENTITIES
    loaders = {"node1-1": "PXELINUX", "node1-2": "GRUB"}
    for node, image in IDENTITIES.items():
        console = machines.command("console", *machines._common, node).stdout
        network, disk = console.find("READY pxe-orbit-testbed"), console.find(f"READY {image}")
        assert 0 <= console.find(loaders[node]) < network < disk, console
    assert machines.boots() == {"node1-1": 3, "node1-2": 2}
    assert machines.links() == []
    assert list(machines.folder.glob("state/tftpboot/grub/nodes/grub.cfg-*")) == []
    assert machines.state()["streams"] == []
