# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing chunks: the right bytes at the right place, and nothing where there is any doubt."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ndz_tools import SECTOR, fill, make_chunk, run, tool

from orbit_frisbee.ndz import unpack
from orbit_frisbee.ndz.format import NdzError, parse_index
from orbit_frisbee.ndz.unpack import FILE_VARIABLE, Target, contents

SECTORS = 400


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    path = tmp_path / "disk"
    fill(path, SECTORS * SECTOR)
    return path


def noise(sectors: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(sectors * SECTOR)


def write(target: Target, chunk: bytes | bytearray, number: int | None = None) -> None:
    target.write_chunk(chunk, parse_index(chunk, number))


def sector(data: bytes, start: int, count: int = 1) -> bytes:
    return data[start * SECTOR : (start + count) * SECTOR]


def test_nothing_but_the_regions_changes(disk: Path) -> None:
    before, data = disk.read_bytes(), noise(7)
    with Target.open(disk, allow_file=True) as target:
        assert target.size == SECTORS * SECTOR
        write(target, make_chunk(2, [(3, 2), (10, 5)], data, after=100))
        assert (target.bytes_covered, target.bytes_written) == (100 * SECTOR, 7 * SECTOR)
    after = disk.read_bytes()
    assert after == (
        sector(before, 0, 3)
        + data[: 2 * SECTOR]
        + sector(before, 5, 5)
        + data[2 * SECTOR :]
        + sector(before, 15, SECTORS)
    )


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_free_ranges_are_zeroed_when_asked_for(disk: Path, version: int) -> None:
    before, data = disk.read_bytes(), noise(7)
    with Target.open(disk, allow_file=True, zero_free=True) as target:
        write(target, make_chunk(version, [(3, 2), (10, 5)], data, after=100))
        low, high = (3, 15) if version == 1 else (0, 100)
        assert target.bytes_covered == target.bytes_written == (high - low) * SECTOR
    after = disk.read_bytes()
    assert sector(after, 0, low) == sector(before, 0, low)
    assert sector(after, low, 3 - low) == bytes((3 - low) * SECTOR)
    assert sector(after, 3, 2) + sector(after, 10, 5) == data
    assert sector(after, 5, 5) == bytes(5 * SECTOR)
    assert sector(after, 15, high - 15) == bytes((high - 15) * SECTOR)
    assert sector(after, high, SECTORS) == sector(before, high, SECTORS)


def test_zeroing_leaves_the_holes_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 64 << 20)
    with path.open("r+b") as file:
        file.seek(40 << 20)
        file.write(b"x" * 5000)
    before = path.stat().st_blocks
    with Target.open(path, allow_file=True, zero_free=True) as target:
        write(target, make_chunk(2, [(0, 1)], noise(1), after=(64 << 20) // SECTOR))
    data = path.read_bytes()
    assert data == noise(1) + bytes((64 << 20) - SECTOR)
    assert path.stat().st_blocks < before + 32


def test_a_pattern_fills_free_ranges(disk: Path) -> None:
    with Target.open(disk, allow_file=True, pattern=0xDEADBEEF) as target:
        write(target, make_chunk(2, [(3, 1)], noise(1), after=SECTORS))
    assert disk.read_bytes() == (
        b"\xef\xbe\xad\xde" * 384 + noise(1) + b"\xef\xbe\xad\xde" * ((SECTORS - 4) * 128)
    )


def test_free_space_beyond_the_end_does_no_harm(disk: Path) -> None:
    with Target.open(disk, allow_file=True, zero_free=True) as target:
        write(target, make_chunk(2, [(3, 1)], noise(1), after=SECTORS * 10))
    assert disk.stat().st_size == SECTORS * SECTOR


def test_chunks_come_in_any_order_and_from_several_threads(disk: Path) -> None:
    order = list(range(40))
    random.Random(5).shuffle(order)
    chunks = {
        i: make_chunk(3, [(10 * i + 2, 5)], noise(5, i), number=i, first=10 * i, after=10 * i + 10)
        for i in order
    }
    start = threading.Barrier(4)

    def work(numbers: Sequence[int]) -> None:
        start.wait(180)
        for number in numbers:
            write(target, chunks[number], number)

    with Target.open(disk, allow_file=True, zero_free=True) as target, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [order[i::4] for i in range(4)]))
    assert target.bytes_covered == target.bytes_written == SECTORS * SECTOR
    data = disk.read_bytes()
    for i in range(40):
        assert sector(data, 10 * i, 10) == bytes(2 * SECTOR) + noise(5, i) + bytes(3 * SECTOR)


def test_a_partition_is_addressed_from_its_start_and_not_left(disk: Path) -> None:
    before = disk.read_bytes()
    with Target.open(disk, allow_file=True, base_sector=100, limit_sectors=20, zero_free=True) as target:
        assert target.size == 20 * SECTOR
        write(target, make_chunk(3, [(0, 2)], noise(2), after=5))
        with pytest.raises(NdzError, match="data up to sector 21, the target ends at 20"):
            write(target, make_chunk(3, [(0, 2), (19, 2)], noise(4, 9), after=21))
    after = disk.read_bytes()
    assert after == sector(before, 0, 100) + noise(2) + bytes(3 * SECTOR) + sector(before, 105, SECTORS)


def test_damaged_data_is_not_written_in_part(disk: Path) -> None:
    before = disk.read_bytes()
    chunk = make_chunk(2, [(0, 50), (90, 50)], noise(100), after=200)
    length = int.from_bytes(chunk[4:8], "little")
    chunk[4096 + length - 1] ^= 1
    with Target.open(disk, allow_file=True, zero_free=True) as target:
        with pytest.raises(NdzError, match="chunk 0: compressed data"):
            write(target, chunk)
        assert target.bytes_written == target.bytes_covered == 0
    assert disk.read_bytes() == before


def test_a_chunk_that_inflates_to_more_than_memory_should_hold_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.touch()
    size = 48 << 20
    os.truncate(path, size)
    data = noise(3) + bytes(size - 6 * SECTOR) + noise(3, 2)
    chunk = make_chunk(2, [(0, size // SECTOR)], data)
    pieces = list(contents(chunk, parse_index(chunk)))
    assert max(len(piece) for _, piece in pieces) <= 4 << 20
    with Target.open(path, allow_file=True) as target:
        write(target, chunk)
    assert path.read_bytes() == data


@pytest.mark.parametrize("edge", [-1, 0, 1])
def test_a_relocation_is_not_torn_by_the_border_of_pieces(edge: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_PIECE_SECTORS", 8)
    monkeypatch.setattr(unpack, "_WHOLE_LIMIT", 0)
    data = bytearray(noise(40))
    at = 16 * SECTOR - 2 + edge  # five bytes about the border of the second piece
    data[at : at + 5] = b"\x10\x20\x60\x00\x00"
    chunk = make_chunk(2, [(0, 40)], data, relocations=[(3, at // SECTOR, at % SECTOR, 5)])
    data[at : at + 2] = b"\x73\x20"
    pieces = list(contents(chunk, parse_index(chunk), base=99))
    assert b"".join(bytes(piece) for _, piece in pieces) == data
    assert [start for start, _ in pieces][:2] == [0, 8]


def relocated(chunk: bytearray, base: int, sectors: int = 1000) -> bytes:
    return b"".join(
        bytes(piece) for _, piece in contents(chunk, parse_index(chunk), name="disk", base=base, size=sectors)
    )


def test_lilo_addresses_are_moved() -> None:
    data = bytearray(noise(3))
    data[100:105] = bytes([0x10, 0x20, 0x40, 0x30, 7])
    data[200:205] = bytes([0xFF, 0xFF, 0xB0, 0xFF, 0x01])  # 32 bits wide: 0x01ffffff
    data[300:305] = bytes([0xFF, 0xFF, 0x70, 0x00, 0x09])  # linear: 24 bits and a count, whatever else is set
    data[400:405] = bytes([1, 2, 0x80, 3, 4])  # cylinder, head and sector: nobody can move that
    data[512:522] = bytes([1, 0, 0x40, 0, 1, 2, 0, 0x40, 0, 1])
    data[522:527] = bytes(5)  # ends the map
    chunk = make_chunk(
        2, [(5, 3)], data, relocations=[(3, 5, at, 5) for at in (100, 200, 300, 400)] + [(4, 6, 0, 512)]
    )
    data[100:105] = bytes([0x0F, 0x21, 0x40, 0x30, 7])
    data[200:205] = bytes([0xFE, 0x00, 0xB0, 0x00, 0x02])
    data[300:305] = bytes([0xFE, 0x00, 0x70, 0x01, 0x09])
    data[512:522] = bytes([0, 1, 0x40, 0, 1, 1, 1, 0x40, 0, 1])
    assert relocated(chunk, 0xFF) == data


def test_a_lilo_address_that_grows_too_large_is_refused() -> None:
    data = bytearray(noise(1))
    data[0:5] = bytes([0xFF, 0xFF, 0x40, 0xFF, 1])
    chunk = make_chunk(2, [(5, 1)], data, relocations=[(3, 5, 0, 5)])
    with pytest.raises(NdzError, match="disk: chunk 0: a LILO address becomes sector 16777216"):
        relocated(chunk, 1)


def test_the_lilo_checksum_is_made_after_all_addresses() -> None:
    """It stands before the 19 descriptors and covers their two sectors; the relocation names their end."""
    data = bytearray(noise(2))
    data[38:43] = bytes([1, 0, 0x40, 0, 1])
    chunk = make_chunk(2, [(5, 2)], data, relocations=[(5, 6, 478, 2), (3, 5, 38, 5)])
    data[38:43] = bytes([101, 0, 0x40, 0, 1])
    checksum = 0xABCD
    for i in range(2, 1024, 2):
        checksum ^= data[i] | data[i + 1] << 8
    data[0:2] = checksum.to_bytes(2, "little")
    assert relocated(chunk, 100) == data


def bsd_label(partitions: Sequence[tuple[int, int]]) -> bytes:
    """A label of partitions given as (sectors, first sector)."""
    table = b"".join(struct.pack("<IIIBBH", size, start, 0, 7, 8, 0) for size, start in partitions)
    raw = struct.pack("<I128xIHHII", 0x82564557, 0x82564557, 0, len(partitions), 8192, 8192) + table
    checksum = 0
    for (word,) in struct.iter_unpack("<H", raw):
        checksum ^= word
    return raw[:136] + checksum.to_bytes(2, "little") + raw[138:]


def test_a_bsd_label_is_moved_and_cut_to_its_partition() -> None:
    label = bsd_label([(300, 0), (500, 300), (4000, 0), (0, 0), (900, 800), (5, 2000), (0, 0), (0, 0)])
    assert len(label) == 276
    chunk = make_chunk(2, [(0, 2)], bytes(SECTOR) + label.ljust(SECTOR, b"\1"), relocations=[(1, 1, 0, 276)])
    moved = bsd_label([(300, 63), (500, 363), (1000, 63), (0, 0), (200, 863), (0, 2063), (0, 0), (0, 0)])
    assert relocated(chunk, 63) == bytes(SECTOR) + moved.ljust(SECTOR, b"\1")
    assert relocated(chunk, 0) == bytes(SECTOR) + label.ljust(SECTOR, b"\1")


def test_a_bsd_label_that_cannot_hold_its_place_is_refused() -> None:
    label = bsd_label([(300, 0), (500, (1 << 32) - 63)])
    chunk = make_chunk(2, [(0, 1)], label.ljust(SECTOR, b"\1"), relocations=[(1, 0, 0, 276)])
    assert relocated(chunk, 62, 1 << 33)
    with pytest.raises(NdzError, match="would begin at sector 4294967296, which its label cannot hold"):
        relocated(chunk, 63, 1 << 33)
    # The raw partition is the whole disk, as far as the label can tell.
    label = bsd_label([(0, 0), (0, 0), (4000, 0)])
    chunk = make_chunk(2, [(0, 1)], label.ljust(SECTOR, b"\1"), relocations=[(1, 0, 0, 276)])
    assert relocated(chunk, 63, 1 << 33)[148 + 32 :][:8] == struct.pack("<II", 0xFFFFFFFF, 63)


def test_a_label_that_is_none_is_refused() -> None:
    chunk = make_chunk(2, [(0, 2)], noise(2), relocations=[(1, 1, 0, 276)])
    with pytest.raises(NdzError, match="BSD disk label where none is"):
        relocated(chunk, 63)


@pytest.mark.parametrize(
    ("relocation", "problem"),
    [
        ((2, 1, 0, 276), "OpenBSD"),
        ((3, 1, 0, 4), "4 bytes instead of 5"),
        ((4, 1, 0, 100), "instead of 512"),
        ((1, 1, 500, 4), "4 bytes are no BSD disk label"),
        ((1, 1, 364, 147), "147 bytes are no BSD disk label"),
    ],
)
def test_what_cannot_be_relocated_is_refused_before_writing(
    disk: Path, relocation: tuple[int, int, int, int], problem: str
) -> None:
    before = disk.read_bytes()
    chunk = make_chunk(2, [(0, 2)], noise(2), relocations=[relocation])
    with Target.open(disk, allow_file=True, base_sector=63) as target, pytest.raises(NdzError, match=problem):
        write(target, chunk)
    assert disk.read_bytes() == before


def test_unknown_relocations_are_reported_once_and_ignored(disk: Path) -> None:
    heard: list[str] = []
    chunk = make_chunk(2, [(0, 2)], noise(2), relocations=[(100, 1, 0, 8), (100, 1, 8, 8), (101, 0, 0, 8)])
    with Target.open(disk, allow_file=True, warn=heard.append) as target:
        write(target, chunk)
        write(target, chunk)
    assert heard == target.warnings
    assert len(heard) == 2
    assert "type 100" in heard[0]
    assert disk.read_bytes()[: 2 * SECTOR] == noise(2)


def test_a_short_last_sector_is_written_short(disk: Path) -> None:
    before = disk.read_bytes()
    chunk = make_chunk(3, [(2, 3)], noise(3), relocations=[(6, 4, 0, 100)])
    with Target.open(disk, allow_file=True) as target:
        write(target, chunk)
        assert target.bytes_written == 2 * SECTOR + 100
    assert disk.read_bytes()[: 6 * SECTOR] == (
        before[: 2 * SECTOR] + noise(3)[: 2 * SECTOR + 100] + before[4 * SECTOR + 100 : 6 * SECTOR]
    )


def test_a_file_is_no_disk_unless_said_so(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NdzError, match=f"a regular file, not a disk; .*{FILE_VARIABLE}=1"):
        Target.open(disk)
    monkeypatch.setenv(FILE_VARIABLE, "1")
    Target.open(disk).close()
    monkeypatch.setenv(FILE_VARIABLE, "0")
    with pytest.raises(NdzError, match="a regular file"):
        Target.open(disk)


def test_nothing_is_created(tmp_path: Path) -> None:
    with pytest.raises(NdzError, match="no such file"):
        Target.open(tmp_path / "nothing", allow_file=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["/dev/null", "/tmp"])
def test_what_is_neither_disk_nor_file_is_refused(path: str) -> None:
    with pytest.raises(NdzError, match=f"{path}: neither a disk nor a file"):
        Target.open(path, allow_file=True)


def test_an_empty_file_and_a_start_behind_the_end_are_refused(tmp_path: Path, disk: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(NdzError, match="not inside its 0 sectors"):
        Target.open(tmp_path / "empty", allow_file=True)
    with pytest.raises(NdzError, match=f"sector {SECTORS} is not inside"):
        Target.open(disk, allow_file=True, base_sector=SECTORS)


def test_a_second_writer_is_refused(disk: Path) -> None:
    with Target.open(disk, allow_file=True), pytest.raises(NdzError, match="in use by another writer"):
        Target.open(disk, allow_file=True)
    Target.open(disk, allow_file=True).close()


def test_closing_twice_is_allowed_and_flush_errors_are_told(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target.open(disk, allow_file=True)

    def fail(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NdzError, match="cannot flush: input/output error"):
        target.close()
    target.close()


def test_a_short_write_is_completed(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def little(fd: int, data: memoryview, at: int) -> int:
        return real(fd, data[:700], at)

    monkeypatch.setattr(os, "pwrite", little)
    with Target.open(disk, allow_file=True) as target:
        write(target, make_chunk(2, [(3, 7)], noise(7)))
    assert sector(disk.read_bytes(), 3, 7) == noise(7)


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (lambda: 0, "takes no more data at byte 51200"),
        (lambda: os.pwrite(-1, b"", 0), "cannot write at byte 51200"),
    ],
)
def test_a_write_error_names_the_place(
    disk: Path, monkeypatch: pytest.MonkeyPatch, result: Callable[[], int], problem: str
) -> None:
    real = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, at: result() if fd >= 0 and at >= 51200 else real(fd, data, at)
    )
    with Target.open(disk, allow_file=True) as target:
        with pytest.raises(NdzError, match=problem):
            write(target, make_chunk(2, [(100, 7)], noise(7)))
        assert target.bytes_written == 0


def test_it_runs_on_the_standard_library_alone() -> None:
    code = """
import sys
before = set(sys.modules)
import orbit_frisbee.ndz.unpack
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - sys.stdlib_module_names - {"orbit_frisbee", "isal", "_frozen_importlib"}))
print(sorted(new & {"dataclasses", "logging", "hashlib", "concurrent", "asyncio", "argparse", "inspect"}))
"""
    output = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert output.splitlines() == ["[]", "[]"]


@pytest.fixture
def loop_device(disk: Path) -> Iterator[str]:
    if os.getuid() or tool("losetup") is None:
        pytest.skip("needs root and losetup")
    attached = subprocess.run(
        [str(tool("losetup")), "--show", "-f", str(disk)], capture_output=True, text=True, check=False
    )
    if attached.returncode:
        pytest.skip(f"no loop device: {attached.stderr.strip()}")
    name = attached.stdout.strip()
    yield name
    run("losetup", "-d", name)


def test_a_block_device_is_written_and_held(loop_device: str, disk: Path) -> None:
    with Target.open(loop_device, zero_free=True) as target:
        assert target.size == SECTORS * SECTOR
        write(target, make_chunk(2, [(3, 7)], noise(7), after=SECTORS))
        with pytest.raises(NdzError, match="in use; unmount it first"):
            Target.open(loop_device)
    assert disk.read_bytes() == bytes(3 * SECTOR) + noise(7) + bytes((SECTORS - 10) * SECTOR)


def test_a_mounted_device_is_refused(loop_device: str, tmp_path: Path) -> None:
    folder = tmp_path / "mnt"
    folder.mkdir()
    run("mke2fs", "-q", "-F", loop_device)
    mounted = subprocess.run(["mount", loop_device, str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(NdzError, match=f"{loop_device}: mounted on {folder}; unmount it first"):
            Target.open(loop_device)
    finally:
        run("umount", folder)
