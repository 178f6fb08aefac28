# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the program on the node says of the disk, on machines that consist of files in /sys and /proc."""

from __future__ import annotations

import os
import subprocess

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import scripts

from .test_fleet import SHELLS


class Machine:
    """The part of a machine's files that the program looks at, below a folder."""

    def __init__(self, root):
        self.root = str(root)
        self.mounts = "proc /proc proc rw 0 0\n"
        self.mountinfo = "22 27 0:21 / /proc rw - proc proc rw\n"
        self.swaps = "Filename\tType\tSize\tUsed\tPriority\n"

    def write(self, path, text):
        path = self.root + path
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb" if isinstance(text, bytes) else "w") as stream:
            stream.write(text)

    def link(self, path, target):
        os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
        os.symlink(self.root + target, self.root + path)

    def disk(self, name, number, sectors=1000, partitions=(), **files):
        """Add a disk with its partitions; ``files`` are those of its folder in sysfs."""
        folder = f"/sys/devices/pci/{name}"
        self.write(f"{folder}/size", f"{sectors}\n")
        for file, text in files.items():
            self.write(f"{folder}/{file.replace('__', '/')}", text)
        self._device(name, folder, f"8:{number}")
        for at, partition in enumerate(partitions, 1):
            self.write(f"{folder}/{partition}/partition", f"{at}\n")
            self.write(f"{folder}/{partition}/size", "100\n")
            self._device(partition, f"{folder}/{partition}", f"8:{number + at}")

    def _device(self, name, folder, number):
        os.makedirs(f"{self.root}/dev", exist_ok=True)
        os.mkfifo(f"{self.root}/dev/{name}")
        os.makedirs(f"{self.root}{folder}/holders")
        self.link(f"/sys/class/block/{name}", folder)
        self.link(f"/sys/dev/block/{number}", folder)

    def look(self, shell, disk):
        """Return what the program says of ``disk``, as (word, rest)."""
        self.write("/proc/mounts", self.mounts.replace("/dev/", f"{self.root}/dev/"))
        self.write("/proc/self/mountinfo", self.mountinfo)
        self.write("/proc/swaps", self.swaps.replace("/dev/", f"{self.root}/dev/"))
        text = scripts.CLIENT
        for old, new in (
            ('[ -b "$disk" ]', '[ -p "$disk" ]'),
            ("    /dev/*)", f"    {self.root}/dev/*)"),
            ('"/sys/', f'"{self.root}/sys/'),
            *((path, self.root + path) for path in ("/proc/mounts", "/proc/self/mountinfo", "/proc/swaps")),
        ):
            assert old in text
            text = text.replace(old, new)
        lines = [".", "r", "no-such-client", "127.0.0.1", "239.1.1.1", "7000", self.root + disk, "no", "bye"]
        done = subprocess.run(
            [*shell, "-c", text],
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stderr == ""
        said = [line[7:].partition(" ") for line in done.stdout.splitlines() if line.startswith("@orbit ")]
        return [
            (word, rest.replace(self.root, ""))
            for word, _blank, rest in said
            if word in ("disk", "bytes", "sectors", "serial", "used")
        ]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_size_and_serial_number_of_a_disk(machine, shell):
    machine.disk("sda", 0, 123456, device__serial="S1 \n")
    assert machine.look(shell, "/dev/sda") == [("disk", "block"), ("sectors", "123456"), ("serial", "S1")]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "files",
    [
        {"serial": "Virtual 1\n"},
        {"device__serial": "  Virtual 1"},
        {"device__vpd_pg80": b"\0\x80\0\x14    Virtual 1  "},
    ],
    ids=lambda files: next(iter(files)),
)
def test_where_kernels_tell_the_serial_number(machine, shell, files):
    machine.disk("sda", 0, 5, ["sda1"], **files)
    assert ("serial", "Virtual 1") in machine.look(shell, "/dev/sda")
    # A partition has that of its disk, and its own size.
    assert machine.look(shell, "/dev/sda1") == [
        ("disk", "block"),
        ("sectors", "100"),
        ("serial", "Virtual 1"),
    ]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_link_is_the_device_it_leads_to(machine, shell):
    machine.disk("nvme0n1", 0, 5, ["nvme0n1p1"], device__serial="N1")
    machine.link("/dev/disk/by-id/nvme-N1", "/dev/nvme0n1")
    machine.mounts += "/dev/nvme0n1p1 /data ext4 rw 0 0\n"
    assert machine.look(shell, "/dev/disk/by-id/nvme-N1") == [
        ("disk", "block"),
        ("sectors", "5"),
        ("serial", "N1"),
        ("used", "mounted on /data"),
    ]


def used(machine, shell, disk):
    return {rest for word, rest in machine.look(shell, disk) if word == "used"}


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_mounted_from_the_disk_or_anything_on_it(machine, shell):
    machine.disk("sda", 0, 5, ["sda1", "sda2"])
    machine.disk("sdb", 16, 5, ["sdb1"])
    machine.link("/dev/disk/by-label/root", "/dev/sda1")
    machine.mounts += "/dev/disk/by-label/root / ext4 rw 0 0\n/dev/sdb1 /data ext4 rw 0 0\n"
    for disk in ("/dev/sda", "/dev/sda1", "/dev/sda2"):
        assert used(machine, shell, disk) == {"mounted on /"}
    assert used(machine, shell, "/dev/sdb") == {"mounted on /data"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_root_whose_name_is_no_device(machine, shell):
    """Without an initramfs the kernel calls the root /dev/root, which is not there."""
    machine.disk("sda", 0, 5, ["sda1"])
    machine.disk("sdb", 16, 5, ["sdb1"])
    machine.mounts += "/dev/root / ext4 rw 0 0\n"
    machine.mountinfo += "27 1 8:1 / / rw - ext4 /dev/root rw\n"
    assert used(machine, shell, "/dev/sda") == {"mounted on /"}
    assert used(machine, shell, "/dev/sdb") == set()


@pytest.mark.parametrize("shell", SHELLS)
def test_swap_and_holders(machine, shell):
    machine.disk("sda", 0, 5, ["sda1", "sda2"])
    machine.disk("sdb", 16, 5)
    machine.swaps += "/dev/sda2                               partition\t524284\t0\t-2\n"
    machine.link("/sys/devices/pci/sda/sda1/holders/dm-0", "/sys/devices/pci/sdb")
    machine.link("/sys/devices/pci/sdb/holders/md127", "/sys/devices/pci/sda")
    assert used(machine, shell, "/dev/sda") == {"/dev/sda2 is swap", "dm-0 lies on it"}
    assert used(machine, shell, "/dev/sdb") == {"md127 lies on it"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_system_without_sysfs_goes_by_the_names(machine, shell):
    machine.disk("sda", 0, 5, ["sda1"])
    os.rename(machine.root + "/sys", machine.root + "/elsewhere")
    machine.mounts += "/dev/sda1 /data ext4 rw 0 0\n/dev/sdb1 /other ext4 rw 0 0\n"
    assert machine.look(shell, "/dev/sda") == [("disk", "block"), ("used", "mounted on /data")]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_file_and_nothing(machine, shell):
    machine.write("/disk", "x" * 5000)
    assert machine.look(shell, "/disk") == [("disk", "file"), ("bytes", "5000")]
    assert machine.look(shell, "/missing") == [("disk", "missing")]
