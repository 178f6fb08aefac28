# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partition tables and the plan made from them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from ndz_tools import (
    EFI_GUID,
    LINUX_GUID,
    SECTOR,
    SWAP_GUID,
    fill,
    mbr,
    put,
    put_gpt,
    run,
    swap_header,
    tool,
)

from orbit_frisbee.ndz import swap
from orbit_frisbee.ndz.disk import Table, read_table
from orbit_frisbee.ndz.format import NdzError
from orbit_frisbee.ndz.plan import Plan, plan_disk, plan_filesystem, plan_partition
from orbit_frisbee.ndz.ranges import Range, complement, subtract, total, union
from orbit_frisbee.ndz.source import NotUnderstood, Source

SIZE = 20000


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    fill(path, SIZE * SECTOR)
    return path


def table_of(path: Path) -> Table:
    with Source.open(path) as source:
        return read_table(source)


def places(table: Table) -> list[tuple[int, int, int, str | None]]:
    return [(p.number, p.start, p.sectors, p.kind) for p in table.partitions]


def plan_of(path: Path, **options: object) -> Plan:
    with Source.open(path) as source:
        return plan_disk(source, **options)  # type: ignore[arg-type]


def test_primary_partitions(disk: Path) -> None:
    put(disk, 0, mbr([(0x83, 2048, 4096), (0, 0, 0), (0x82, 8192, 2000), (0x07, 12000, 8000)], code=b"boot"))
    table = table_of(disk)
    assert table.scheme == "MBR"
    assert places(table) == [(1, 2048, 4096, "ext"), (3, 8192, 2000, "swap"), (4, 12000, 8000, None)]
    assert table.keep == [(0, 2048)]
    assert table.partition(3).type == "0x82"


def test_logical_partitions_are_followed(disk: Path) -> None:
    put(disk, 0, mbr([(0x0C, 64, 1000), (0x05, 4000, 9000)]))
    put(disk, 4000, mbr([(0x83, 63, 1000), (0x05, 2000, 1500)]))
    put(disk, 6000, mbr([(0x82, 10, 900), (0x05, 5000, 900)]))
    put(disk, 9000, mbr([(0xDA, 20, 800)]))
    table = table_of(disk)
    assert places(table) == [
        (1, 64, 1000, "fat"),
        (5, 4063, 1000, "ext"),
        (6, 6010, 900, "swap"),
        (7, 9020, 800, None),
    ]
    assert table.keep == [(0, 64), (4000, 4063), (6000, 6010), (9000, 9020)]


@pytest.mark.parametrize(
    ("sector", "entries", "problem"),
    [
        (4000, [(0x83, 63, 1000), (0x05, 0, 900)], "chain"),
        (4000, [(0x83, 63, 1000), (0x05, 9500, 900)], "chain"),
        (4000, [(0x83, 63, 9000)], "leaves its extended partition"),
        (4000, [(0x83, 0, 10)], None),
        (0, [(0x83, 1, 19999)], None),
        (0, [(0x83, 1, 20000)], "ends at sector 20001, the disk at 20000"),
        (0, [(0x83, 10, 100), (0x83, 109, 10)], "partitions 1 and 2 overlap"),
        (0, [(0x83, 0, 100)], "begins at sector 0"),
        (0, [], "empty"),
        (0, [(0xEE, 1, 19999)], "protective MBR but no GPT"),
    ],
)
def test_tables_that_make_no_sense_are_not_used(
    disk: Path, sector: int, entries: list[tuple[int, int, int]], problem: str | None
) -> None:
    put(disk, 0, mbr([(0x05, 4000, 9000)]))
    put(disk, sector, mbr(entries))
    if problem is None:
        assert table_of(disk).partitions
        return
    with pytest.raises(NotUnderstood, match=problem):
        table_of(disk)
    plan = plan_of(disk)
    assert plan.data == [(0, SIZE)]
    assert problem in plan.warnings[0]


@pytest.mark.parametrize(
    ("sector", "entries", "problem"),
    [
        (4000, [(0x83, 63, 100), (0x83, 1000, 500)], "more than two entries"),
        (4000, [(0x83, 63, 100), (0, 0, 0), (0x07, 1000, 500)], "more than two entries"),
        (4000, [(0x83, 63, 100), (0x05, 2000, 100), (0x05, 3000, 100)], "more than two entries"),
        (4000, [(0x83, 63, 100), (0, 1000, 500)], "sectors but no type"),
        (0, [(0x83, 64, 1000), (0, 2000, 500)], "sectors but no type"),
    ],
)
def test_no_entry_is_left_out_without_a_word(
    disk: Path, sector: int, entries: list[tuple[int, int, int]], problem: str
) -> None:
    """Each of these is a partition for the system that runs from the disk."""
    put(disk, 0, mbr([(0x05, 4000, 9000)]))
    put(disk, sector, mbr(entries))
    plan = plan_of(disk)
    assert plan.data == [(0, SIZE)]
    assert problem in plan.warnings[0]


def test_a_hybrid_mbr_that_says_more_than_its_gpt(disk: Path) -> None:
    put_gpt(disk, [(LINUX_GUID, 80, 499)])
    for entry, more in (((0x83, 80, 420), False), ((0x83, 100, 20), False), ((0x83, 600, 100), True)):
        put(disk, 0, mbr([(0xEE, 1, 79), entry]))
        plan = plan_of(disk)
        assert (plan.data == [(0, SIZE)]) == more
        assert (
            any("its MBR has a partition at block 600 that its GPT has not" in w for w in plan.warnings)
            == more
        )


def test_a_boot_flag_that_is_none_is_no_table(disk: Path) -> None:
    put(disk, 0, mbr([(0x83, 10, 100)]))
    put(disk, 0, disk.read_bytes()[:446] + b"\x12")
    with pytest.raises(NotUnderstood, match="makes no sense"):
        table_of(disk)


@pytest.mark.parametrize("unit", [512, 4096])
def test_gpt(disk: Path, unit: int) -> None:
    first = 80 if unit == 512 else 10
    put_gpt(
        disk,
        [(LINUX_GUID, first, 499), (SWAP_GUID, 600, 799), (b"\x99" * 16, 1000, 1000), (EFI_GUID, 1100, 1200)],
        unit=unit,
    )
    table = table_of(disk)
    factor = unit // SECTOR
    assert table.scheme == "GPT"
    assert places(table) == [
        (1, first * factor, (500 - first) * factor, "ext"),
        (2, 600 * factor, 200 * factor, "swap"),
        (3, 1000 * factor, factor, None),
        (4, 1100 * factor, 101 * factor, "fat"),
    ]
    # Not the backup at the end of this disk: it belongs to the end of the one that is written.
    assert table.keep == [(0, first * factor)]
    assert not table.warnings


@pytest.mark.parametrize(
    ("sector", "offset", "problem"),
    [
        (1, 0, "no GPT"),
        (1, 20, "checksum of its header"),
        (1, 40, "checksum of its header"),
        (1, 72, "checksum of its header"),
        (2, 40, "checksum of its entries"),
        (33, 511, "checksum of its entries"),
    ],
)
def test_a_damaged_gpt_is_not_used(disk: Path, sector: int, offset: int, problem: str) -> None:
    put_gpt(disk, [(LINUX_GUID, 80, 499)])
    data = bytearray(disk.read_bytes())
    data[sector * SECTOR + offset] ^= 1
    disk.write_bytes(data)
    plan = plan_of(disk)
    assert plan.data == [(0, SIZE)]
    assert problem in plan.warnings[0]


def test_a_damaged_backup_is_told(disk: Path) -> None:
    put_gpt(disk, [(LINUX_GUID, 80, 499)])
    put(disk, SIZE - 1, bytes(SECTOR))
    table = table_of(disk)
    assert "backup" in table.warnings[0]
    assert table.keep == [(0, 80)]


def test_a_gpt_that_points_nowhere_is_not_used(disk: Path) -> None:
    put_gpt(disk, [(LINUX_GUID, 80, 499)])
    header = bytearray(disk.read_bytes()[SECTOR : SECTOR + 92])
    struct.pack_into("<Q", header, 72, 1 << 40)
    header[16:20] = bytes(4)
    struct.pack_into("<I", header, 16, zlib.crc32(header))
    put(disk, 1, header)
    with pytest.raises(NotUnderstood, match="place of its entries"):
        table_of(disk)


def test_only_what_is_in_use_is_stored(disk: Path) -> None:
    put(disk, 0, mbr([(0x82, 2048, 4096), (0x83, 8192, 1000), (0x07, 12000, 500), (0x82, 14000, 300)]))
    put(disk, 2048, swap_header())
    put(disk, 14000, swap_header())
    plan = plan_of(disk)
    # Gap and swap header; what claims to be ext and is not; the unknown type; the second swap's header.
    assert plan.data == [(0, 2048 + 64), (8192, 9192), (12000, 12500), (14000, 14064)]
    assert plan.end == SIZE
    assert plan.warnings == [f"{disk}: partition 2: stored whole: it has no ext superblock"]
    plan = plan_of(disk, ignore=[3], raw=[1])
    assert plan.data == [(0, 2048 + 4096), (8192, 9192), (14000, 14064)]
    with pytest.raises(NdzError, match=r"it has no partition 7 but 1, 2, 3, 4; name a partition"):
        plan_of(disk, ignore=[7])


def ntfs_boot_sector(sectors: int) -> bytes:
    """Return what NTFS begins with: the parameter block of FAT, without FATs and reserved sectors."""
    head = struct.pack(
        "<3s8sHBHBHHBHHHII", b"\xeb\x52\x90", b"NTFS    ", 512, 8, 0, 0, 0, 0, 0xF8, 0, 63, 255, 0, 0
    )
    return (head + struct.pack("<IQQQ", 0x800080, sectors - 1, 4, 5)).ljust(510, b"\0") + b"\x55\xaa"


def xfs_superblock(sectors: int) -> bytes:
    """Return what XFS begins with."""
    return struct.pack(">4sIQ", b"XFSB", 4096, sectors // 8).ljust(512, b"\0")


@pytest.mark.parametrize("kind", [0x07, 0x0C, 0x83])
@pytest.mark.parametrize("make", [ntfs_boot_sector, xfs_superblock])
def test_ntfs_and_xfs_are_stored_whole_whatever_the_table_says(
    disk: Path, kind: int, make: Callable[[int], bytes]
) -> None:
    put(disk, 0, mbr([(kind, 2048, 8192)]))
    put(disk, 2048, make(8192))
    assert plan_of(disk).data == [(0, 10240)]
    with Source.open(disk) as source, pytest.raises(NdzError, match="no file system that can be read"):
        plan_filesystem(source.part(2048, 8192))


@pytest.mark.parametrize(("program", "kind"), [("mkfs.xfs", 0x83), ("mkntfs", 0x07)])
def test_real_file_systems_of_other_kinds_are_stored_whole(tmp_path: Path, program: str, kind: int) -> None:
    if tool(program) is None:
        pytest.skip(f"{program} is not installed")
    system, disk = tmp_path / "system", tmp_path / "disk"
    sectors = (320 << 20) // SECTOR
    fill(system, sectors * SECTOR)
    run(program, *(("-q", "-Q", "-F") if program == "mkntfs" else ("-q",)), system)
    fill(disk, (2048 + sectors) * SECTOR)
    put(disk, 0, mbr([(kind, 2048, sectors)]))
    put(disk, 2048, system.read_bytes())
    assert plan_of(disk).data == [(0, 2048 + sectors)]


def test_short_free_runs_are_stored(disk: Path) -> None:
    put(disk, 0, mbr([(0x07, 63, 1000), (0x07, 1126, 1000), (0x07, 2190, SIZE - 2190 - 63)]))
    assert plan_of(disk).data == [(0, 2126), (2190, SIZE)]
    assert plan_of(disk, min_free=63).data == [(0, 1063), (1126, 2126), (2190, SIZE - 63)]
    assert plan_of(disk, min_free=65).data == [(0, SIZE)]


def test_a_disk_without_table_is_stored_whole_and_said_so(disk: Path) -> None:
    plan = plan_of(disk)
    assert plan.data == [(0, SIZE)]
    assert plan.warnings == [f"{disk}: stored whole: it has no partition table"]
    with pytest.raises(NdzError, match="no partition table; store it whole"):
        plan_of(disk, ignore=[1])


def test_a_file_system_without_table_is_stored_whole_with_a_hint(disk: Path) -> None:
    put(disk, 0, swap_header())
    plan = plan_of(disk)
    assert plan.data == [(0, SIZE)]
    assert plan.warnings == [
        f"{disk}: stored whole: it has no partition table, but is one file system or swap area: see -l"
    ]


def test_one_partition_is_addressed_from_its_start(disk: Path) -> None:
    put(disk, 0, mbr([(0x07, 63, 1000), (0x82, 4000, 5000)]))
    put(disk, 4000, swap_header())
    with Source.open(disk) as source:
        plan = plan_partition(source, 2)
        assert (plan.end, plan.data) == (5000, [(0, 64)])
        assert plan.source.read(4086, 10) == b"SWAPSPACE2"
        assert plan_partition(source, 2, raw=True).data == [(0, 5000)]
        with pytest.raises(NdzError, match="no partition 3"):
            plan_partition(source, 3)


def test_boot_code_before_a_far_first_partition_is_kept_within_reason(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(200 << 20)
    put(path, 0, mbr([(0x07, 300000, 1000)]))
    plan = plan_of(path)
    assert plan.data == [(0, 131072), (300000, 301000)]
    assert "131072 of 300000" in plan.warnings[0]


@pytest.mark.parametrize("page", [4096, 8192, 16384, 65536])
def test_swap_keeps_its_header(tmp_path: Path, page: int) -> None:
    path = tmp_path / "swap"
    fill(path, 1 << 20)
    put(path, 0, swap_header(page))
    with Source.open(path) as source:
        assert swap.free_ranges(source) == [(max(page, 32768) // SECTOR, 2048)]


def test_a_real_swap_area_is_known(tmp_path: Path) -> None:
    if tool("mkswap") is None:
        pytest.skip("mkswap is not installed")
    path = tmp_path / "swap"
    fill(path, 1 << 20)
    run("mkswap", path)
    with Source.open(path) as source:
        assert plan_filesystem(source).data == [(0, 64)]


@pytest.mark.parametrize("mark", [b"S1SUSPEND\0", b"ULSUSPEND\0", b"garbage..."])
def test_a_hibernated_system_is_not_thrown_away(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "swap"
    fill(path, 1 << 20)
    put(path, 0, swap_header()[:-10] + mark)
    with Source.open(path) as source:
        with pytest.raises(NotUnderstood):
            swap.free_ranges(source)
        with pytest.raises(NdzError, match="no file system that can be read"):
            plan_filesystem(source)


SFDISK = pytest.mark.skipif(tool("sfdisk") is None, reason="sfdisk is not installed")


@SFDISK
@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_tables_made_by_sfdisk(disk: Path, label: str) -> None:
    script = "start=2048,size=2000,type={0}\nstart=5000,size=3000,type={1}\n"
    kinds = (
        ("83", "82")
        if label == "dos"
        else (
            "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
            "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
        )
    )
    extended = "start=9000,size=9000,type=5\nstart=9100,size=1000,type=c\nstart=11000,size=1000,type=83\n"
    text = f"label: {label}\n" + script.format(*kinds) + (extended if label == "dos" else "")
    run("sfdisk", "-q", disk, stdin=text)
    table = table_of(disk)
    assert table.scheme == ("MBR" if label == "dos" else "GPT")
    logical = [(5, 9100, 1000, "fat"), (6, 11000, 1000, "ext")] if label == "dos" else []
    assert places(table) == [(1, 2048, 2000, "ext"), (2, 5000, 3000, "swap"), *logical]
    assert table.keep[0] == (0, 2048)
    assert not table.warnings


PAIRS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)).map(sorted).map(tuple))


def _sectors(ranges: list[Range]) -> set[int]:
    return {sector for low, high in ranges for sector in range(low, high)}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(PAIRS, PAIRS, st.integers(0, 20))
def test_range_arithmetic(first: list[Range], second: list[Range], gap: int) -> None:
    a, b = union(first), union(second)
    assert _sectors(a) == _sectors(first)
    assert total(a) == len(_sectors(first))
    assert _sectors(list(subtract(a, b))) == _sectors(first) - _sectors(second)
    assert _sectors(complement(first, 300)) == set(range(300)) - _sectors(first)
    joined = union(first, gap=gap)
    assert _sectors(joined) >= _sectors(first)
    assert all(high - low > 0 for low, high in joined)
    assert all(after[0] - before[1] >= max(gap, 1) for before, after in pairwise(joined))


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.booleans(),
    st.lists(
        st.tuples(
            st.one_of(st.integers(446, 1024 + 100), st.integers(4000 * 512, 4000 * 512 + 511)),
            st.integers(0, 255),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_any_damage_is_understood_or_not_but_no_crash(
    tmp_path: Path, gpt: bool, changes: list[tuple[int, int]]
) -> None:
    path = tmp_path / "disk"
    if not path.exists():
        fill(path, SIZE * SECTOR)
    if gpt:
        put_gpt(path, [(LINUX_GUID, 80, 499)])
    else:
        put(path, 0, mbr([(0x0C, 64, 1000), (0x05, 4000, 9000)]))
        put(path, 4000, mbr([(0x83, 63, 1000), (0x05, 2000, 1500)]))
        put(path, 6000, mbr([(0x82, 10, 900)]))
    with path.open("r+b") as file:
        for at, value in changes:
            file.seek(at)
            file.write(bytes([value]))
    plan = plan_of(path)
    assert plan.end == SIZE
    assert plan.data[0][0] == 0
    assert plan.data[-1][1] <= SIZE
