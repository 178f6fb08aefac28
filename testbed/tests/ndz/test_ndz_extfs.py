# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ext2/3/4: real file systems, with dumpe2fs as the judge of what is free."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from ndz_tools import SECTOR, assert_same_where_stored, fill, mbr, put, run, tool

from orbit_frisbee.ndz import extfs
from orbit_frisbee.ndz.format import CHUNK_SIZE, parse_index
from orbit_frisbee.ndz.plan import plan_disk, plan_filesystem
from orbit_frisbee.ndz.ranges import Range, scale, total, union
from orbit_frisbee.ndz.source import NotUnderstood, Source
from orbit_frisbee.ndz.unpack import Target
from orbit_frisbee.ndz.write import write_image

pytestmark = pytest.mark.skipif(
    not all(map(tool, ("mke2fs", "dumpe2fs", "debugfs", "e2fsck"))), reason="e2fsprogs is not installed"
)

KINDS = {
    "ext2": "-t ext2",
    "ext2-revision-0": "-t ext2 -r 0 -b 1024",
    "ext2-no-sparse_super": "-t ext2 -O ^sparse_super,^resize_inode -b 1024 -g 2048",
    "ext3": "-t ext3",
    "ext4": "-t ext4",
    "ext4-1k": "-t ext4 -b 1024",
    "ext4-2k": "-t ext4 -b 2048",
    "ext4-4k": "-t ext4 -b 4096",
    "ext4-64k": "-t ext4 -b 65536",
    "ext4-small-groups": "-t ext4 -b 1024 -g 1024",
    "ext4-no-flex_bg": "-t ext4 -b 1024 -O ^flex_bg -g 2048",
    "ext4-uninit_bg": "-t ext4 -b 1024 -O ^metadata_csum,^64bit,uninit_bg -g 2048",
    "ext4-uninit_bg-64bit": "-t ext4 -b 1024 -O ^metadata_csum,64bit,uninit_bg -g 2048",
    "ext4-csum-32bit": "-t ext4 -b 1024 -O metadata_csum,^64bit",
    "ext4-csum_seed": "-t ext4 -b 1024 -O metadata_csum,metadata_csum_seed",
    "ext4-bigalloc": "-t ext4 -O bigalloc -b 4096 -C 65536",
    "ext4-bigalloc-1k": "-t ext4 -O bigalloc -b 1024 -C 16384",
    "ext4-bigalloc-small-groups": "-t ext4 -O bigalloc -b 1024 -C 4096 -g 8192",
    "ext4-meta_bg": "-t ext4 -O meta_bg,^resize_inode -b 1024 -g 1024",
    "ext4-meta_bg-no-flex": "-t ext4 -O meta_bg,^resize_inode,^flex_bg -b 1024 -g 1024",
    "ext4-sparse_super2": "-t ext4 -O sparse_super2,^resize_inode -b 1024 -g 2048",
    "ext4-inline_data": "-t ext4 -O inline_data -I 256",
    "ext4-quota-project": "-t ext4 -O quota,project",
}
SIZE = 20 << 20


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some files of all sizes."""
    folder = tmp_path_factory.mktemp("tree")
    generator = random.Random(11)
    for i in range(60):
        parent = folder / f"folder{i % 7}"
        parent.mkdir(exist_ok=True)
        (parent / f"file{i}").write_bytes(generator.randbytes(int(2 ** generator.uniform(0, 17))))
    (folder / "hole").touch()
    os.truncate(folder / "hole", 1 << 20)
    (folder / "link").symlink_to("folder1")
    return folder


def make(path: Path, tree: Path, options: str) -> None:
    """Make a file system on a disk full of something else, with holes where files were removed."""
    size = SIZE * 3 if "65536" in options else SIZE
    fill(path, size)
    run("mke2fs", "-q", "-F", "-E", "nodiscard", "-d", tree, *options.split(), path)
    commands = [f"rm folder{i % 7}/file{i}" for i in range(0, 60, 3)]
    commands += [f"write {tree}/folder1/file1 new{i}" for i in range(3)]
    run("debugfs", "-w", "-f", "/dev/stdin", path, stdin="\n".join(commands) + "\n")
    # Groups' figures are made to agree with what debugfs did.
    done = run_fsck(path, "-fy")
    assert done in (0, 1), done


def run_fsck(path: Path, *options: str) -> int:
    return subprocess.run(
        [str(tool("e2fsck")), *options, str(path)], capture_output=True, timeout=60, check=False
    ).returncode


def free_by_dumpe2fs(path: Path) -> list[Range]:
    """Free sectors, in the words of the file system's own tools."""
    text = run("dumpe2fs", path)
    size = int(re.search(r"^Block size: +(\d+)", text, re.M)[1])  # type: ignore[index]
    found = re.search(r"^Cluster size: +(\d+)", text, re.M)
    # Of a cluster, only the first block is listed.
    unit = int(found[1]) // size if found else 1
    blocks: list[Range] = []
    for line in re.findall(r"^  Free blocks: (.*)$", text, re.M):
        for part in filter(None, line.strip().split(", ")):
            low, _, high = part.partition("-")
            blocks.append((int(low), int(high or low) + unit))
    return union(scale(blocks, size // SECTOR))


def free_of(path: Path) -> list[Range]:
    with Source.open(path) as source:
        return union(extfs.free_ranges(source))


@pytest.mark.parametrize("kind", KINDS)
def test_free_space_is_what_dumpe2fs_says(tmp_path: Path, tree: Path, kind: str) -> None:
    path = tmp_path / "fs"
    make(path, tree, KINDS[kind])
    free = free_of(path)
    assert free == free_by_dumpe2fs(path)
    assert len(free) > 1, "not fragmented"
    assert total(free) > SIZE // SECTOR // 8

    # Everything else goes through an image onto a disk of other content, and is the file system again.
    chunks: list[bytes] = []
    with Source.open(path) as source:
        plan = plan_filesystem(source)
        write_image(plan, chunks.append)
    assert_same_where_stored(b"".join(chunks), path.read_bytes())
    other = tmp_path / "other"
    other.write_bytes(b"\xa5" * path.stat().st_size)
    with Target.open(other, allow_file=True) as target:
        for number, chunk in enumerate(chunks):
            target.write_chunk(chunk, parse_index(chunk, number))
    assert len(chunks) * CHUNK_SIZE < path.stat().st_size / 2
    assert run_fsck(other, "-fn") == 0
    shutil.rmtree(tmp_path / "back", ignore_errors=True)
    (tmp_path / "back").mkdir()
    run("debugfs", "-R", f"rdump / {tmp_path / 'back'}", other)
    assert (tmp_path / "back/folder1/file1").read_bytes() == (tree / "folder1/file1").read_bytes()
    assert (tmp_path / "back/new2").read_bytes() == (tree / "folder1/file1").read_bytes()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Path:
    path = tmp_path_factory.mktemp("pristine") / "fs"
    make(path, tree, "-t ext4 -b 1024")
    return path


@pytest.fixture
def fs(tmp_path: Path, pristine: Path) -> Path:
    path = tmp_path / "fs"
    shutil.copyfile(pristine, path)
    return path


def damage(path: Path, at: int, bits: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)


def debugfs(path: Path, *commands: str) -> None:
    run("debugfs", "-w", "-f", "/dev/stdin", path, stdin="\n".join(commands) + "\n")


@pytest.mark.parametrize(
    ("commands", "problem"),
    [
        (["feature needs_recovery"], "dirty"),
        (["ssv state 0"], "dirty"),
        (["ssv state 3"], "marked as having errors"),
        (["feature +FEATURE_I28"], "unknown incompatible features"),
        (["feature +FEATURE_R30"], "unknown features"),
        (["ssv blocks_count 999999"], "larger than its partition"),
        (["ssv blocks_per_group 77"], "make no sense"),
        (["ssv inodes_per_group 0"], "make no sense"),
        (["ssv log_block_size 9"], "block size"),
    ],
)
def test_what_is_dirty_or_odd_is_not_read(fs: Path, commands: Sequence[str], problem: str) -> None:
    debugfs(fs, *commands)
    with pytest.raises(NotUnderstood, match=problem):
        free_of(fs)


def test_a_file_system_in_use_elsewhere_is_not_read(tmp_path: Path, tree: Path) -> None:
    path = tmp_path / "fs"
    fill(path, SIZE)
    run("mke2fs", "-q", "-F", "-E", "nodiscard", "-d", tree, "-t", "ext4", "-O", "mmp", path)
    assert free_of(path) == free_by_dumpe2fs(path)
    text = run("dumpe2fs", path)
    block = int(re.search(r"MMP block number: +(\d+)", text)[1])  # type: ignore[index]
    size = int(re.search(r"^Block size: +(\d+)", text, re.M)[1])  # type: ignore[index]
    damage(path, block * size + 4, 0x10)
    with pytest.raises(NotUnderstood, match="in use by some host"):
        free_of(path)


def _group_places(path: Path) -> tuple[int, int]:
    text = run("dumpe2fs", path)
    bitmap = int(re.search(r"Block bitmap at (\d+)", text)[1])  # type: ignore[index]
    return 2 * 1024, bitmap * 1024


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("where", ["superblock", "descriptor", "bitmap"])
def test_a_damaged_bit_is_found(tmp_path: Path, tree: Path, where: str, checksums: bool) -> None:
    path = tmp_path / "fs"
    make(path, tree, "-t ext4 -b 1024" if checksums else "-t ext2 -b 1024")
    descriptors, bitmap = _group_places(path)
    at = {"superblock": 1024 + 0x21, "descriptor": descriptors + 0xC, "bitmap": bitmap + 700}[where]
    damage(path, at)
    with pytest.raises(NotUnderstood) as caught:
        free_of(path)
    if checksums:
        assert "checksum" in str(caught.value)


def test_two_damaged_bits_that_cancel_out_are_found_by_the_checksum(fs: Path) -> None:
    _, bitmap = _group_places(fs)
    data = fs.read_bytes()
    used = next(i for i in range(bitmap, bitmap + 1024) if data[i] == 0xFF)
    free = next(i for i in range(bitmap, bitmap + 1024) if data[i] == 0)
    damage(fs, used)
    damage(fs, free)
    with pytest.raises(NotUnderstood, match="checksum of the block bitmap of group 0"):
        free_of(fs)


def test_sectors_behind_the_file_system_are_kept(fs: Path) -> None:
    size = fs.stat().st_size // SECTOR
    with fs.open("ab") as file:
        file.write(b"x" * SECTOR * 1000)
    assert free_of(fs)[-1][1] <= size
    with Source.open(fs) as source:
        assert plan_filesystem(source).data[-1][1] == size + 1000


def test_too_small_or_empty_is_no_file_system(tmp_path: Path) -> None:
    path = tmp_path / "fs"
    for size, problem in ((1000, "too small"), (1 << 20, "no ext superblock")):
        path.write_bytes(bytes(size))
        with pytest.raises(NotUnderstood, match=problem):
            free_of(path)


def test_a_file_system_in_a_partition(tmp_path: Path, fs: Path) -> None:
    disk = tmp_path / "disk"
    fill(disk, 40 << 20)
    sectors = fs.stat().st_size // SECTOR
    put(disk, 0, mbr([(0x83, 2048, sectors), (0x83, 60000, 10000)]))
    put(disk, 2048, fs.read_bytes())
    with Source.open(disk) as source:
        plan = plan_disk(source, min_free=1)
    free = [(low + 2048, high + 2048) for low, high in free_of(fs)]
    assert total(plan.data) == 2048 + sectors - total(free) + 10000
    assert plan.warnings == [f"{disk}: partition 2: stored whole: it has no ext superblock"]
    debugfs(fs, "ssv state 0")
    put(disk, 2048, fs.read_bytes())
    with Source.open(disk) as source:
        plan = plan_disk(source)
    assert plan.data == [(0, 2048 + sectors), (60000, 70000)]
    assert "partition 1: stored whole: it is dirty" in plan.warnings[0]


@pytest.fixture(scope="module")
def unchecked(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file system without checksums, with meta_bg, so that damage gets far into the reader."""
    path = tmp_path_factory.mktemp("unchecked") / "fs"
    fill(path, 4 << 20)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-g", "1024", "-O", UNCHECKED, path)
    return path.read_bytes()


UNCHECKED = "meta_bg,^resize_inode,^metadata_csum,^uninit_bg,^has_journal"


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(1024, 1024 + 0x170), st.integers(2048, 2048 + 200)), st.integers(0, 255)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_damage_is_understood_or_not_but_no_crash(
    tmp_path: Path, unchecked: bytes, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(unchecked)
    for at, value in changes:
        data[at] = value
    path = tmp_path / "fs"
    path.write_bytes(data)
    try:
        free = free_of(path)
    except NotUnderstood:
        return
    assert all(0 <= low < high <= len(data) // SECTOR for low, high in free)
