# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job on virtual machines: firmware, kernel, disk device and boot loader that know nothing of us."""

from __future__ import annotations

import fcntl
import os
import pathlib
import subprocess

import pytest

from .kit import Testbed, play, program

IDENTITIES = {"node1-1": "vm-sender.ndz", "node1-2": "vm-receiver.ndz"}


@pytest.fixture
def machines(tmp_path):
    """Two virtual machines, one above the other: the testbed's own inventory gives each row another image."""
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
        pytest.skip(f"no virtual machines here: {doctor.stdout.strip()}")
    # All tests that boot virtual machines take this lock: two machines are what two cores boot well.
    with pathlib.Path(f"/tmp/orbit-testbed-machines-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with Testbed(tmp_path, "1x2", "--tier", "qemu") as testbed:
            yield testbed


def test_two_machines_get_two_images_and_boot_them(machines):
    own = ("-e", f"orbit_run_dir={machines.folder}/runs", "-e", f"orbit_claim_dir={machines.folder}/claims")
    played = play("-i", str(machines.folder / "state" / "testbed.orbit.yml"), "playbooks/image.yml", *own)
    assert played.status == 0, played.output
    assert "2 of 2 nodes imaged" in played.output
    assert set(played.outcomes.values()) == {"imaged"}
    assert played.identities == IDENTITIES
    for node, image in IDENTITIES.items():
        console = machines.command("console", *machines._common, node).stdout
        network, disk = console.find("READY pxe-orbit-testbed"), console.find(f"READY {image}")
        assert 0 <= network < disk, console
    assert machines.boots() == dict.fromkeys(IDENTITIES, 2)
    assert machines.links() == []
    assert machines.state()["streams"] == []
