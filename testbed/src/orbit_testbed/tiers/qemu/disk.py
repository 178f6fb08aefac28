# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk images that virtual machines boot, made without root: a boot loader on a FAT partition, zipped.

A machine with a BIOS starts syslinux, which Debian's mtools build puts into a plain file; one with UEFI takes
the FAT partition for its system partition and starts GRUB. Both load the same kernel and a system that says
which image it is; nothing of it comes from the network.
"""

from __future__ import annotations

import random
import struct
import sys
import tempfile
import uuid
from pathlib import Path

import orbit_frisbee.ndz
from orbit_testbed.nodes import diskimage, tree
from orbit_testbed.nodes.diskimage import DISK_SECTORS, SECTOR, Recipe
from orbit_testbed.tiers.qemu import memory as qemu_memory
from orbit_testbed.tiers.qemu.packages import MBR, Packages, program

#: The one partition: 63 MiB of FAT16 from sector 2048 to the end.
START = 2048
SECTORS = DISK_SECTORS - START
_FAT16_LBA, _ACTIVE = 0x0E, 0x80
_BOOT_CODE_SIZE = 440

#: Two systems that nobody can take for one another.
RECIPES = (Recipe("vm-sender.ndz", 1_800_000), Recipe("vm-receiver.ndz", 6_000_000))

_SYSLINUX = """\
DEFAULT linux
PROMPT 0
LABEL linux
  KERNEL vmlinuz
  INITRD initrd
  APPEND {options}
"""

#: GRUB finds it beside itself.
_GRUB = """\
linux /vmlinuz {options}
initrd /initrd
boot
"""


def master_boot_record(boot_code: bytes, signature: int) -> bytes:
    """Return sector 0: boot code that starts the active partition, and that partition alone."""
    beyond = b"\xfe\xff\xff"  # cylinders that do not fit; the LBA fields count
    entry = struct.pack("<B3sB3sII", _ACTIVE, beyond, _FAT16_LBA, beyond, START, SECTORS)
    return (
        struct.pack("<440sIH", boot_code[:_BOOT_CODE_SIZE], signature, 0)
        + entry.ljust(64, b"\0")
        + b"\x55\xaa"
    )


def make_raw(disk: Path, recipe: Recipe, packages: Packages, *, hostkey: Path, authorized_key: str) -> None:
    """Write the raw disk of a recipe: a new sparse file of 64 MiB."""
    identity = uuid.uuid5(diskimage.IDENTITIES, recipe.name)
    with tempfile.TemporaryDirectory(prefix="stage-", dir=disk.parent) as folder:
        root, files = Path(folder, "root"), Path(folder, "files")
        qemu_memory.make_system(root, packages, hostkey=hostkey, authorized_key=authorized_key)
        tree.write_file(root / "etc/orbit-image", recipe.name + "\n")
        files.mkdir()
        (files / "initrd").write_bytes(qemu_memory.pack(root))
        tree.write_file(files / "syslinux.cfg", _SYSLINUX.format(options=qemu_memory.KERNEL_OPTIONS))
        tree.write_file(files / "grub.cfg", _GRUB.format(options=qemu_memory.KERNEL_OPTIONS))
        (files / "ballast").write_bytes(random.Random(recipe.name).randbytes(recipe.ballast))
        with disk.open("xb") as stream:
            stream.truncate(DISK_SECTORS * SECTOR)
            stream.write(master_boot_record(MBR.read_bytes(), identity.fields[0]))
        diskimage.run_tool(
            f"mkfs.fat for {recipe.name}",
            [
                program("mkfs.fat"),
                "-F",
                "16",
                "-i",
                f"{identity.fields[0]:08x}",
                "--invariant",
                "--offset",
                str(START),
                "-n",
                "ORBIT",
                str(disk),
                str(SECTORS // 2),
            ],
        )
        partition = f"{disk}@@{START * SECTOR}"
        diskimage.run_tool(
            f"mmd for {recipe.name}",
            [program("mmd"), "-i", partition, "::EFI", "::EFI/BOOT"],
            MTOOLS_SKIP_CHECK="1",
        )
        for name, source in {
            "vmlinuz": packages.vmlinuz,
            "initrd": files / "initrd",
            "syslinux.cfg": files / "syslinux.cfg",
            "EFI/BOOT/BOOTX64.EFI": packages.grub_image("grubx64.efi"),
            "EFI/BOOT/grub.cfg": files / "grub.cfg",
            "ballast": files / "ballast",
        }.items():
            diskimage.run_tool(
                f"mcopy of {name} for {recipe.name}",
                [program("mcopy"), "-i", partition, str(source), f"::{name}"],
                MTOOLS_SKIP_CHECK="1",
            )
        diskimage.run_tool(
            f"syslinux for {recipe.name}",
            [program("syslinux"), "--offset", str(START * SECTOR), "--install", str(disk)],
            MTOOLS_SKIP_CHECK="1",
        )


def _build(target: Path, recipe: Recipe, packages: Packages, hostkey: Path, authorized_key: str) -> None:
    with tempfile.TemporaryDirectory(prefix=".disk-", dir=target.parent) as folder:
        disk = Path(folder, "disk.raw")
        make_raw(disk, recipe, packages, hostkey=hostkey, authorized_key=authorized_key)
        diskimage.run_tool(
            f"imagezip for {recipe.name}",
            [sys.executable, "-m", "orbit_frisbee.ndz.zip_cli", "--no-manifest", str(disk), str(target)],
        )


def build(cache: Path, recipe: Recipe, packages: Packages, *, hostkey: Path, authorized_key: str) -> Path:
    """Return the .ndz of a recipe, from the cache when it has been made before."""
    sources = sorted(Path(next(iter(orbit_frisbee.ndz.__path__))).glob("*.py"))
    loader = packages.grub_image("grubx64.efi")
    key = tree.digest(
        [
            *qemu_memory.system_inputs(packages, hostkey),
            packages.vmlinuz,
            loader,
            MBR,
            *sources,
            Path(__file__),
            Path(diskimage.__file__),
        ],
        repr(recipe),
        authorized_key,
        *qemu_memory.system_texts(),
    )
    return tree.cached(
        cache,
        f"disk-{key}-{recipe.name}",
        lambda path: _build(path, recipe, packages, hostkey, authorized_key),
    )


def build_all(
    cache: Path, images: Path, packages: Packages, *, keys: Path, authorized_key: str
) -> list[Path]:
    """Put the images of all recipes into the image folder; return where they are in the cache."""
    images.mkdir(parents=True, exist_ok=True)
    made = []
    for recipe in RECIPES:
        hostkey = tree.make_hostkey(keys / recipe.name)
        made.append(build(cache, recipe, packages, hostkey=hostkey, authorized_key=authorized_key))
        diskimage.copy_unless_same(made[-1], images / recipe.name, recipe.name)
    return made
