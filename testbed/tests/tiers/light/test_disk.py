# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from beds import make_raw

from orbit_testbed.nodes.diskimage import SECTOR
from orbit_testbed.nodes.host import program, search_path
from orbit_testbed.tiers.light import disk as light_disk

E2FSCK = shutil.which("e2fsck", path=search_path()) or "e2fsck"
PARTITION = f"?offset={light_disk.ROOT_START * SECTOR}"


@pytest.fixture(scope="module")
def raw(store: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    disk = tmp_path_factory.mktemp("raw") / "disk.raw"
    make_raw(store, disk)
    return disk


def debugfs(disk: Path, request: str) -> str:
    return subprocess.run(
        [program("debugfs"), "-R", request, f"{disk}{PARTITION}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def test_partition_table(raw: Path) -> None:
    with raw.open("rb") as stream:
        sector = stream.read(512)
        stream.seek(light_disk.SWAP_START * 512)
        swap = stream.read(4096)
    assert sector[510:] == b"\x55\xaa"
    entries = [struct.unpack("<B3xB3xII", sector[446 + 16 * i : 462 + 16 * i]) for i in range(4)]
    assert entries[0] == (0x80, 0x83, 2048, 48 * 2048)
    assert entries[1][:2] == (0, 0x82)
    assert entries[1][2] == entries[0][2] + entries[0][3]
    assert (entries[1][2] + entries[1][3]) * 512 == raw.stat().st_size
    assert entries[2:] == [(0, 0, 0, 0)] * 2
    assert swap.endswith(b"SWAPSPACE2")


def test_file_system_is_sound_and_roots(raw: Path) -> None:
    subprocess.run([E2FSCK, "-f", "-n", f"{raw}{PARTITION}"], capture_output=True, timeout=60, check=True)
    assert debugfs(raw, "cat /etc/orbit-image") == "sender.ndz\n"
    described = debugfs(raw, "stat /root/.ssh/authorized_keys")
    assert "Mode:  0600" in described
    assert "User:     0   Group:     0" in described


def test_same_input_same_bytes(raw: Path, store: tuple[Path, Path], tmp_path: Path) -> None:
    again = tmp_path / "again.raw"
    make_raw(store, again)
    assert again.read_bytes() == raw.read_bytes()


def test_images_unzip_to_what_was_zipped(raw: Path, store: tuple[Path, Path], tmp_path: Path) -> None:
    keys, cache = store
    recipe = light_disk.RECIPES[0]
    image = light_disk.build(
        cache,
        recipe,
        hostkey=keys / "keys" / recipe.name,
        authorized_key=(keys / "id_ed25519.pub").read_text(),
    )
    target = tmp_path / "target.raw"
    with target.open("wb") as stream:
        stream.truncate(raw.stat().st_size)
    subprocess.run(
        [sys.executable, "-m", "orbit_frisbee.ndz.unzip_cli", str(image), str(target)],
        timeout=60,
        check=True,
        capture_output=True,
        env={**os.environ, "ORBIT_TESTBED_DISK": "1"},
    )
    subprocess.run([E2FSCK, "-f", "-n", f"{target}{PARTITION}"], capture_output=True, timeout=60, check=True)
    ballast = tmp_path / "ballast"
    debugfs(target, f"dump /usr/share/orbit/ballast {ballast}")
    original = tmp_path / "original"
    debugfs(raw, f"dump /usr/share/orbit/ballast {original}")
    assert ballast.read_bytes() == original.read_bytes()
    assert len(ballast.read_bytes()) == recipe.ballast


def test_the_two_images_differ_in_size(store: tuple[Path, Path]) -> None:
    keys, cache = store
    public = (keys / "id_ed25519.pub").read_text()
    sizes = [
        light_disk.build(cache, recipe, hostkey=keys / "keys" / recipe.name, authorized_key=public)
        .stat()
        .st_size
        for recipe in light_disk.RECIPES
    ]
    assert 4_000_000 < sizes[0] < 7_000_000
    assert sizes[0] * 1.5 < sizes[1] < 12_000_000
