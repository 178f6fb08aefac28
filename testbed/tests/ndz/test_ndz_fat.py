# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""FAT12, FAT16 and FAT32."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from ndz_tools import SECTOR, fill, put, run, tool

from orbit_frisbee.ndz import fat
from orbit_frisbee.ndz.ranges import Range, union
from orbit_frisbee.ndz.source import NotUnderstood, Source

MEDIA = 0xF8


class Fat:
    """A file system made by hand: an allocation table and nothing in it."""

    def __init__(self, bits: int, *, sector: int = 512, per_cluster: int = 4, clusters: int = 0) -> None:
        self.bits, self.sector, self.per_cluster = bits, sector, per_cluster
        self.clusters = clusters or {12: 3000, 16: 9000, 32: 66000}[bits]
        generator = random.Random(bits)
        last = (1 << min(bits, 28)) - 1
        self.entries = [last & ~0xFF | MEDIA, last]
        while len(self.entries) < self.clusters + 2:
            value = generator.choice((0, 0, 5, last))
            self.entries += [value] * generator.randrange(1, 90)
        del self.entries[self.clusters + 2 :]
        self.reserved = 32 if bits == 32 else 1
        self.roots = 0 if bits == 32 else 512
        self.fat_size = -(-(self.clusters + 2) * bits // (8 * sector))
        self.data_start = self.reserved + 2 * self.fat_size + self.roots * 32 // sector
        self.sectors = self.data_start + self.clusters * per_cluster
        self.dirty = 0
        self.second: list[int] | None = None
        self.flags = 0

    def table(self, entries: list[int]) -> bytes:
        if self.bits == 16:
            raw = struct.pack(f"<{len(entries)}H", *entries)
        elif self.bits == 32:
            # The top four bits belong to nobody.
            raw = struct.pack(f"<{len(entries)}I", *(entry | 0xA0000000 for entry in entries))
        else:
            pairs = [*entries, 0] if len(entries) % 2 else entries
            raw = b"".join(
                (low | high << 12).to_bytes(3, "little")
                for low, high in zip(pairs[::2], pairs[1::2], strict=True)
            )
        size = self.fat_size * self.sector
        return raw[:size].ljust(size, b"\0")

    def boot(self) -> bytes:
        small = self.sectors if self.sectors < 65536 and self.bits != 32 else 0
        raw = b"\xeb\x58\x90mkdosfs\0" + struct.pack(
            "<HBHBHHBHHHII",
            self.sector,
            self.per_cluster,
            self.reserved,
            2,
            self.roots,
            small,
            MEDIA,
            0 if self.bits == 32 else self.fat_size,
            32,
            64,
            0,
            0 if small else self.sectors,
        )
        if self.bits == 32:
            raw += struct.pack("<IHHIHH12x", self.fat_size, self.flags, 0, 2, 1, 6)
        raw += bytes([0x80, self.dirty, 0x29])
        return raw.ljust(510, b"\0") + b"\x55\xaa"

    def write(self, path: Path) -> None:
        if not path.exists():
            path.touch()
        with path.open("r+b") as file:
            file.truncate(self.sectors * self.sector)
        put(path, 0, self.boot())
        factor = self.sector // SECTOR
        put(path, self.reserved * factor, self.table(self.entries))
        put(path, (self.reserved + self.fat_size) * factor, self.table(self.second or self.entries))

    def free(self) -> list[Range]:
        bad = {12: 0xFF7, 16: 0xFFF7, 32: 0xFFFFFF7}[self.bits]
        factor = self.sector // SECTOR
        size = self.per_cluster * factor
        return union(
            (self.data_start * factor + i * size, self.data_start * factor + (i + 1) * size)
            for i, entry in enumerate(self.entries[2:])
            if entry in (0, bad)
        )


def free_of(path: Path) -> list[Range]:
    with Source.open(path) as source:
        return fat.free_ranges(source)


@pytest.mark.parametrize("sector", [512, 1024, 4096])
@pytest.mark.parametrize("bits", [12, 16, 32])
def test_free_clusters_are_found(tmp_path: Path, bits: int, sector: int) -> None:
    made = Fat(bits, sector=sector, per_cluster=1 if sector == 4096 else 2)
    made.write(tmp_path / "fs")
    free = free_of(tmp_path / "fs")
    assert free == made.free()
    assert len(free) > 10


def test_bad_clusters_hold_nothing(tmp_path: Path) -> None:
    made = Fat(16)
    made.entries[500:510] = [0xFFF7] * 10
    made.write(tmp_path / "fs")
    assert free_of(tmp_path / "fs") == made.free()


@pytest.mark.parametrize(("clusters", "bits"), [(4084, 12), (4085, 16), (65524, 16), (65525, 32)])
def test_the_number_of_clusters_decides_the_kind(tmp_path: Path, clusters: int, bits: int) -> None:
    made = Fat(bits, clusters=clusters, per_cluster=1)
    made.write(tmp_path / "fs")
    assert free_of(tmp_path / "fs") == made.free()


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_a_dirty_file_system_is_not_read(tmp_path: Path, bits: int) -> None:
    made = Fat(bits)
    made.dirty = 1
    made.write(tmp_path / "fs")
    with pytest.raises(NotUnderstood, match="dirty"):
        free_of(tmp_path / "fs")


@pytest.mark.parametrize(("bits", "mask"), [(16, 0x8000), (16, 0x4000), (32, 0x8000000), (32, 0x4000000)])
def test_the_flags_in_the_table_count_too(tmp_path: Path, bits: int, mask: int) -> None:
    made = Fat(bits)
    made.entries[1] &= ~mask
    made.write(tmp_path / "fs")
    with pytest.raises(NotUnderstood, match="dirty"):
        free_of(tmp_path / "fs")


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_tables_that_differ_are_not_believed(tmp_path: Path, bits: int) -> None:
    made = Fat(bits)
    made.second = [*made.entries]
    made.second[1000] ^= 1
    made.write(tmp_path / "fs")
    with pytest.raises(NotUnderstood, match="tables differ"):
        free_of(tmp_path / "fs")


def test_fat32_may_use_its_second_table_alone(tmp_path: Path) -> None:
    made = Fat(32)
    made.flags = 0x81
    made.second = made.entries
    made.entries = [0] * len(made.entries)
    made.write(tmp_path / "fs")
    made.entries = made.second
    assert free_of(tmp_path / "fs") == made.free()


@pytest.mark.parametrize(
    ("offset", "raw", "problem"),
    [
        (0, b"\0", "no boot sector"),
        (510, b"\0", "no boot sector"),
        (11, b"\0\1", "sectors have 256 bytes"),
        (13, b"\3", "clusters have 3"),
        (13, b"\0", "clusters have 0"),
        (14, b"\0\0", "not that of a FAT"),
        (16, b"\7", "not that of a FAT"),
        (21, b"\1", "not that of a FAT"),
        (21, b"\xf0", "media byte"),
        (22, b"\0\0", "no room|does not fit"),
        (22, b"\1\0", "too small"),
        (22, b"\xff\xff", "tables differ"),
        (32, b"\xff\xff\xff", "larger than its partition|does not fit"),
    ],
)
def test_a_boot_sector_that_makes_no_sense_is_not_used(
    tmp_path: Path, offset: int, raw: bytes, problem: str
) -> None:
    made = Fat(16, clusters=60000)
    made.write(tmp_path / "fs")
    assert free_of(tmp_path / "fs")
    data = made.boot()
    put(tmp_path / "fs", 0, data[:offset] + raw + data[offset + len(raw) :])
    with pytest.raises(NotUnderstood, match=problem):
        free_of(tmp_path / "fs")


@pytest.mark.skipif(tool("mkfs.fat") is None, reason="mkfs.fat is not installed")
@pytest.mark.parametrize(("bits", "size"), [(12, 8), (16, 40), (32, 300)])
def test_file_systems_made_by_mkfs_fat(tmp_path: Path, bits: int, size: int) -> None:
    path = tmp_path / "fs"
    if bits == 32:
        with path.open("wb") as file:
            file.truncate(size << 20)
    else:
        fill(path, size << 20)
    run("mkfs.fat", "-F", str(bits), path)
    free = free_of(path)
    assert len(free) == 1
    assert free[0][0] < 2500
    assert free[0][1] > (size << 11) - 64


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([12, 16]),
    st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_any_damage_is_understood_or_not_but_no_crash(
    tmp_path: Path, bits: int, changes: list[tuple[int, int]]
) -> None:
    path = tmp_path / f"fs{bits}"
    made = Fat(bits, clusters=4500 if bits == 16 else 900, per_cluster=1)
    made.second = made.entries
    made.write(path)
    boot = bytearray(made.boot())
    for at, value in changes:
        boot[at] = value
    put(path, 0, boot)
    try:
        free = free_of(path)
    except NotUnderstood:
        return
    assert all(0 <= low < high <= path.stat().st_size // SECTOR for low, high in free)
