# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk of file systems with free space, through a bad network, onto a disk of something else.

What must arrive is told by the file systems' own tools, or by what was put there.
"""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from orbit_frisbee.frisbee import pace
from orbit_frisbee.ndz import zip_cli

from .stand import Fetch, Stand

SECTOR = 512
EXT, EXT_SECTORS = 2048, 12 << 11
FAT, FAT_SECTORS = EXT + EXT_SECTORS, 6 << 11
SWAP, SWAP_SECTORS = FAT + FAT_SECTORS, 2 << 11
SECTORS = SWAP + SWAP_SECTORS + 100
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_TOOLS = ("mke2fs", "dumpe2fs", "debugfs", "e2fsck", "mkfs.fat")

pytestmark = pytest.mark.skipif(
    not all(shutil.which(name, path=_PATH) for name in _TOOLS), reason="e2fsprogs or dosfstools is missing"
)

FEATURES = (
    "-t ext2 -b 1024",
    "-t ext3 -b 2048",
    "-t ext4 -b 4096",
    "-t ext4 -b 1024 -O metadata_csum,64bit -g 2048",
    "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^flex_bg -g 2048",
    "-t ext4 -b 1024 -O bigalloc -C 16384",
)


def run(*command: str | Path, stdin: str = "", good: tuple[int, ...] = (0,)) -> str:
    name = shutil.which(str(command[0]), path=_PATH)
    assert name
    done = subprocess.run(
        [name, *map(str, command[1:])], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in good, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def ext(path: Path, features: str, source: random.Random) -> set[int]:
    """Make a file system with files and holes where files were; returns its free sectors."""
    path.write_bytes(source.randbytes(EXT_SECTORS * SECTOR))
    tree = path.parent / "tree"
    tree.mkdir()
    for number in range(40):
        (tree / f"file{number}").write_bytes(source.randbytes(int(2 ** source.uniform(0, 17.5))))
    run("mke2fs", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0", "-d", tree, *features.split(), path)
    run("debugfs", "-w", "-f", "/dev/stdin", path, stdin="".join(f"rm file{n}\n" for n in range(0, 40, 3)))
    run("e2fsck", "-fy", path, good=(0, 1))
    text = run("dumpe2fs", path)
    size = int(re.findall(r"^Block size: +(\d+)", text, re.MULTILINE)[0])
    clusters = re.findall(r"^Cluster size: +(\d+)", text, re.MULTILINE)
    # Of a cluster, only the first block is listed.
    unit = int(clusters[0]) // size if clusters else 1
    free: set[int] = set()
    for line in re.findall(r"^  Free blocks: (.*)$", text, re.MULTILINE):
        for part in filter(None, line.strip().split(", ")):
            low, _, high = part.partition("-")
            free.update(range(int(low) * size // SECTOR, (int(high or low) + unit) * size // SECTOR))
    return free


def fat(path: Path, source: random.Random) -> set[int]:
    """Make a FAT16 with clusters in use here and there; returns its free sectors."""
    path.write_bytes(source.randbytes(FAT_SECTORS * SECTOR))
    run("mkfs.fat", "-F", "16", "-s", "2", path)
    content = bytearray(path.read_bytes())
    reserved, fats, roots = struct.unpack_from("<HBH", content, 14)
    (size,) = struct.unpack_from("<H", content, 22)
    data = reserved + fats * size + roots * 32 // SECTOR
    clusters = (FAT_SECTORS - data) // 2
    used: set[int] = set()
    while len(used) < clusters // 3:
        start = source.randrange(clusters)
        used.update(range(start, min(clusters, start + source.randrange(1, 400))))
    for table in range(fats):
        for cluster in used:
            struct.pack_into("<H", content, (reserved + table * size) * SECTOR + 2 * (cluster + 2), 0xFFFF)
    path.write_bytes(content)
    return {data + 2 * c + i for c in range(clusters) if c not in used for i in (0, 1)}


def disk_of(folder: Path, features: str, source: random.Random) -> tuple[bytes, set[int]]:
    """Return a disk with an ext, a FAT and a swap partition, and its free sectors."""
    free = {EXT + sector for sector in ext(folder / "ext", features, source)}
    free |= {FAT + sector for sector in fat(folder / "fat", source)}
    swap = bytes(1024) + struct.pack("<II", 1, 100).ljust(4096 - 1034, b"\0") + b"SWAPSPACE2"
    free |= set(range(SWAP + 64, SWAP + SWAP_SECTORS)) | set(range(SWAP + SWAP_SECTORS, SECTORS))
    entries = ((0x83, EXT, EXT_SECTORS), (0x06, FAT, FAT_SECTORS), (0x82, SWAP, SWAP_SECTORS))
    table = b"".join(struct.pack("<B3xB3xII", 0, *entry) for entry in entries)
    disk = source.randbytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"
    disk += source.randbytes((EXT - 1) * SECTOR)
    disk += (folder / "ext").read_bytes() + (folder / "fat").read_bytes() + swap
    return disk + source.randbytes(SECTORS * SECTOR - len(disk)), free


@settings(max_examples=6, deadline=None)
@given(
    features=st.sampled_from(FEATURES),
    options=st.sampled_from(["-V2", "-V3", "-V4", "-aV4"]),
    loss=st.sampled_from([0.0, 0.01, 0.05]),
    double=st.sampled_from([0.0, 0.05]),
    overtake=st.sampled_from([0.0, 0.05]),
    clients=st.integers(1, 2),
    seed=st.integers(0, 1 << 20),
)
def test_what_file_systems_hold_survives_a_bad_network(
    features: str, options: str, loss: float, double: float, overtake: float, clients: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stand = Stand(folder)
        try:
            disk, free = disk_of(folder, features, random.Random(seed))
            image = folder / "x.ndz"
            assert zip_cli.main([options, str(stand.file(disk)), str(image)]) == 0
            assert len(free) > SECTORS // 3
            assert image.stat().st_size < len(disk) * 2 // 3
            running = stand.serve(image, rate=pace.rate_of_bandwidth(400_000_000))
            proxy = stand.bad_network(running, loss=loss, double=double, overtake=overtake, seed=seed)
            before = b"\xa5" * len(disk)
            fetches = [Fetch(stand.file(before), proxy.group, proxy.port) for _ in range(clients)]
            for fetch in fetches:
                found = fetch.wait().disk.read_bytes()
                wrong = [
                    sector
                    for sector in range(SECTORS)
                    if (here := found[(at := sector * SECTOR) : at + SECTOR]) != disk[at : at + SECTOR]
                    and not (sector in free and here == before[:SECTOR])
                ]
                assert not wrong
                (folder / "back").write_bytes(found[EXT * SECTOR : FAT * SECTOR])
                run("e2fsck", "-fn", folder / "back")
        finally:
            stand.close()
