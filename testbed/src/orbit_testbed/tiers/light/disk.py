# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small disk images that light nodes really boot, made without root: partition table, ext4, swap, zipped."""

from __future__ import annotations

import os
import random
import struct
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import orbit_frisbee.ndz
from orbit_testbed.nodes import diskimage, tree
from orbit_testbed.nodes.diskimage import DISK_SECTORS, EPOCH, IDENTITIES, SECTOR, Recipe, run_tool
from orbit_testbed.nodes.host import program

#: Layout in sectors: of 64 MiB the file system gets 48 and swap the rest.
ROOT_START, ROOT_SECTORS = 2048, 48 * 2048
SWAP_START = ROOT_START + ROOT_SECTORS
SWAP_SECTORS = DISK_SECTORS - SWAP_START

_LINUX, _SWAP, _ACTIVE = 0x83, 0x82, 0x80
#: What every testbed starts with: two systems that nobody can take for one another.
RECIPES = (Recipe("sender.ndz", 1_800_000), Recipe("receiver.ndz", 6_000_000))


def master_boot_record(signature: int) -> bytes:
    """Return sector 0: no boot code, partition 1 active Linux, partition 2 swap."""
    beyond = b"\xfe\xff\xff"  # cylinders that do not fit; the LBA fields count
    entries = b"".join(
        struct.pack("<B3sB3sII", status, beyond, kind, beyond, start, sectors)
        for status, kind, start, sectors in (
            (_ACTIVE, _LINUX, ROOT_START, ROOT_SECTORS),
            (0, _SWAP, SWAP_START, SWAP_SECTORS),
        )
    )
    return struct.pack("<440sIH", b"", signature, 0) + entries.ljust(64, b"\0") + b"\x55\xaa"


def swap_header(sectors: int, identity: uuid.UUID) -> bytes:
    """Return the first page of a swap area, as mkswap writes it for pages of 4 KiB."""
    body = bytes(1024) + struct.pack("<III16s16s", 1, sectors // 8 - 1, 0, identity.bytes, b"swap")
    return body.ljust(4096 - 10, b"\0") + b"SWAPSPACE2"


def _stage(root: Path, recipe: Recipe, hostkey: Path, authorized_key: str) -> None:
    tree.make_base(root, hostkey=hostkey, authorized_key=authorized_key)
    tree.write_file(root / "etc/orbit-image", recipe.name + "\n")
    ballast = root / "usr/share/orbit/ballast"
    ballast.parent.mkdir(parents=True)
    ballast.write_bytes(random.Random(recipe.name).randbytes(recipe.ballast))
    for path in (*sorted(root.rglob("*")), root):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def _as_owner_root() -> Sequence[str]:
    """Return a command prefix under which our files appear to be root's."""
    return () if os.geteuid() == 0 else (program("unshare"), "--user", "--map-root-user", "--")


def make_raw(disk: Path, recipe: Recipe, *, hostkey: Path, authorized_key: str) -> None:
    """Write the raw disk of a recipe: a new sparse file of 64 MiB."""
    identity = uuid.uuid5(IDENTITIES, recipe.name)
    with tempfile.TemporaryDirectory(prefix="stage-", dir=disk.parent) as folder:
        root = Path(folder, "root")
        _stage(root, recipe, hostkey, authorized_key)
        with disk.open("xb") as stream:
            stream.truncate(DISK_SECTORS * SECTOR)
            stream.write(master_boot_record(identity.fields[0]))
            stream.seek(SWAP_START * SECTOR)
            stream.write(swap_header(SWAP_SECTORS, identity))
        run_tool(
            f"mke2fs for {recipe.name}",
            [
                *_as_owner_root(),
                program("mke2fs"),
                "-q",
                "-F",
                "-t",
                "ext4",
                "-b",
                "4096",
                "-m",
                "0",
                "-L",
                recipe.name.removesuffix(".ndz"),
                "-U",
                str(identity),
                "-E",
                f"offset={ROOT_START * SECTOR},hash_seed={identity},root_owner=0:0,lazy_itable_init=0",
                "-d",
                str(root),
                str(disk),
                f"{ROOT_SECTORS // 2}k",
            ],
        )
        _set_times(disk, recipe, [f"/{path.relative_to(root)}" for path in sorted(root.rglob("*"))])


def _set_times(disk: Path, recipe: Recipe, paths: Sequence[str]) -> None:
    """Overwrite the inode times that mke2fs took from this machine's clock."""
    commands = "".join(
        f'set_inode_field "{path}" {field} @{EPOCH}\nset_inode_field "{path}" {field}_extra 0\n'
        for path in ("/", *paths)
        for field in ("ctime", "crtime")
    )
    run_tool(
        f"debugfs for {recipe.name}",
        [program("debugfs"), "-w", "-f", "-", f"{disk}?offset={ROOT_START * SECTOR}"],
        commands,
    )


def _build(target: Path, recipe: Recipe, hostkey: Path, authorized_key: str) -> None:
    with tempfile.TemporaryDirectory(prefix=".disk-", dir=target.parent) as folder:
        disk = Path(folder, "disk.raw")
        make_raw(disk, recipe, hostkey=hostkey, authorized_key=authorized_key)
        run_tool(
            f"imagezip for {recipe.name}",
            [sys.executable, "-m", "orbit_frisbee.ndz.zip_cli", "--no-manifest", str(disk), str(target)],
        )


def build(cache: Path, recipe: Recipe, *, hostkey: Path, authorized_key: str) -> Path:
    """Return the .ndz of a recipe, from the cache when it has been made before."""
    sources = sorted(Path(next(iter(orbit_frisbee.ndz.__path__))).glob("*.py"))
    key = tree.digest(
        [*tree.base_inputs(), hostkey, *sources, Path(__file__), Path(diskimage.__file__)],
        repr(recipe),
        authorized_key,
        tree.INIT,
    )
    return tree.cached(
        cache, f"disk-{key}-{recipe.name}", lambda path: _build(path, recipe, hostkey, authorized_key)
    )


def build_all(cache: Path, images: Path, *, keys: Path, authorized_key: str) -> list[Path]:
    """Put the images of all recipes into the image folder; return where they are in the cache."""
    images.mkdir(parents=True, exist_ok=True)
    made = []
    for recipe in RECIPES:
        hostkey = tree.make_hostkey(keys / recipe.name)
        made.append(build(cache, recipe, hostkey=hostkey, authorized_key=authorized_key))
        diskimage.copy_unless_same(made[-1], images / recipe.name, recipe.name)
    return made
