# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making images: what a reader that knows only the format's description finds in them."""

from __future__ import annotations

import os
import random
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from ndz_tools import CHUNK, SECTOR, assert_same_where_stored, read_image

from orbit_frisbee.ndz import codec
from orbit_frisbee.ndz.format import INDEX_SIZE, NdzError, Tiling, parse_index
from orbit_frisbee.ndz.plan import Plan, plan_raw
from orbit_frisbee.ndz.source import Source
from orbit_frisbee.ndz.unpack import Target
from orbit_frisbee.ndz.write import Options, tell_total, write_image


def image_of(
    path: Path,
    data: Sequence[tuple[int, int]] | None = None,
    options: Options = Options(),  # noqa: B008
) -> bytes:
    """Make an image of a file, of the given sector ranges alone if any."""
    chunks: list[bytes] = []
    with Source.open(path) as source:
        plan = plan_raw(source)
        if data is not None:
            plan.data = list(data)
        written = write_image(plan, chunks.append, options)
    image = b"".join(chunks)
    assert written.chunks * CHUNK == len(image)
    return image


# Disks as runs of (kind, sectors) of zeros, text, or noise, each stored or not.
RUNS = st.lists(
    st.tuples(st.sampled_from("ztn"), st.integers(1, 700), st.booleans()), min_size=1, max_size=12
).filter(lambda runs: any(stored for _, _, stored in runs))


def build(runs: Sequence[tuple[str, int, bool]], seed: int) -> tuple[bytes, list[tuple[int, int]]]:
    generator = random.Random(seed)
    disk, ranges, at = [], [], 0
    for kind, count, stored in runs:
        size = count * SECTOR
        if kind == "z":
            disk.append(bytes(size))
        elif kind == "n":
            disk.append(generator.randbytes(size))
        else:
            disk.append((b"line %d of some text\n" % generator.randrange(99) * size)[:size])
        if stored and ranges and ranges[-1][1] == at:
            ranges[-1] = (ranges[-1][0], at + count)
        elif stored:
            ranges.append((at, at + count))
        at += count
    return b"".join(disk), ranges


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    RUNS,
    st.integers(0, 99),
    st.sampled_from([2, 3, 4]),
    st.sampled_from([0, 1, 4, 6]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_any_disk_survives(
    runs: list[tuple[str, int, bool]],
    seed: int,
    version: int,
    level: int,
    checksum: bool,
    order: random.Random,
) -> None:
    disk, ranges = build(runs, seed)
    options = Options(version=version, level=level, checksum=checksum and version == 4, threads=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "disk"
        path.write_bytes(disk)
        image = image_of(path, ranges, options)
        stored = assert_same_where_stored(image, disk)
        assert stored == ranges

        # And by our own reader, in any order, onto a disk that held something else.
        numbers = list(range(len(image) // CHUNK))
        order.shuffle(numbers)
        other = Path(folder) / "other"
        other.write_bytes(b"\xa5" * len(disk))
        tiling = Tiling()
        with Target.open(other, allow_file=True) as target:
            for number in numbers:
                chunk = image[number * CHUNK : (number + 1) * CHUNK]
                index = parse_index(chunk, number)
                tiling.add(index)
                target.write_chunk(chunk, index)
        assert target.bytes_covered == len(disk)
        assert target.bytes_written == sum(high - low for low, high in ranges) * SECTOR
        result = other.read_bytes()
        expected = bytearray(b"\xa5" * len(disk))
        for low, high in ranges:
            expected[low * SECTOR : high * SECTOR] = disk[low * SECTOR : high * SECTOR]
        assert result == expected


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A file that compresses well in places, badly in others."""
    disk, _ = build([("t", 3000, True), ("n", 2000, True), ("z", 5000, True), ("n", 3000, True)] * 2, 7)
    path = tmp_path / "mixed"
    path.write_bytes(disk)
    return path


def test_the_image_does_not_depend_on_threads(mixed: Path) -> None:
    images = {image_of(mixed, options=Options(level=1, threads=threads)) for threads in (1, 2, 5)}
    assert len(images) == 1


def test_without_isal_the_image_is_as_good(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "isal", lambda: None)
    assert_same_where_stored(image_of(mixed), mixed.read_bytes())


def test_chunks_are_filled(mixed: Path) -> None:
    image = image_of(mixed)
    lengths = [struct.unpack_from("<I", image, at + 4)[0] for at in range(0, len(image) - CHUNK, CHUNK)]
    assert len(lengths) >= 4
    assert min(lengths) > CHUNK - 4096 - 8192 - 1024


def test_noise_takes_as_many_sectors_per_chunk_as_in_the_originals(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(random.Random(3).randbytes(3 << 20))
    for level in (0, 1, 4, 9):
        _, _, layout = read_image(image_of(path, options=Options(level=level)))
        assert layout[0][0][1] in (2036, 2037)
        assert len(layout) == 4


def test_each_piece_ends_in_a_flush(tmp_path: Path) -> None:
    """Readers of the field inflate into 256 KiB; a flush at least every 128 KiB of input is needed."""
    path = tmp_path / "text"
    path.write_bytes(b"all the same " * 100000)
    sectors = path.stat().st_size // SECTOR
    image = image_of(path, [(0, 700), (800, 900), (1000, sectors)])
    length = struct.unpack_from("<I", image, 4)[0]
    pieces = 3 + 1 + -(-(sectors - 1000) // 256)
    assert image[4096 : 4096 + length].count(b"\0\0\xff\xff") >= pieces


@pytest.mark.parametrize(("version", "limit"), [(2, 507), (3, 507), (4, 469)])
def test_a_chunk_takes_no_more_regions_than_the_readers_of_the_field(
    tmp_path: Path, version: int, limit: int
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(random.Random(3).randbytes(4000 * SECTOR))
    ranges = [(3 * i, 3 * i + 1) for i in range(1100)]
    image = image_of(path, ranges, Options(version=version))
    _, end, layout = read_image(image)
    assert end == 4000
    assert [len(regions) for regions in layout] == [limit, limit, 1100 - 2 * limit]
    assert [region[0] for regions in layout for region in regions] == [low for low, _ in ranges]


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_last_sector_of_a_file_may_be_short(tmp_path: Path, version: int) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"abc" * 1001)
    image = image_of(path, options=Options(version=version))
    index = parse_index(image)
    assert index.relocations == ((6, 5, 0, 3003 - 5 * SECTOR),)
    assert_same_where_stored(image, path.read_bytes())


def test_relocations_and_regions_share_the_index(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(random.Random(3).randbytes(3000 * SECTOR + 7))
    ranges = [*((2 * i, 2 * i + 1) for i in range(506)), (3000, 3001)]
    _, _, layout = read_image(image_of(path, ranges))
    assert [len(regions) for regions in layout] == [505, 2]


def test_uuid_and_checksum_are_in_every_chunk(mixed: Path) -> None:
    uuid = bytes(range(16))
    image = image_of(mixed, options=Options(version=4, uuid=uuid, checksum=True))
    for number in range(len(image) // CHUNK):
        index = parse_index(image[number * CHUNK : (number + 1) * CHUNK], number)
        assert index.uuid == uuid
        assert index.digest is not None


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("sectors", [1, 4500])
def test_all_chunks_say_how_many_there_are(
    tmp_path: Path, version: int, checksum: bool, sectors: int
) -> None:
    """All or none: what the programs of the field ask for."""
    path, out = tmp_path / "noise", tmp_path / "image"
    path.write_bytes(random.Random(3).randbytes(sectors * SECTOR))
    options = Options(version=version, checksum=checksum and version == 4)
    with Source.open(path) as source, out.open("w+b") as file:
        file.write(b"before" * 1000)
        file.flush()
        count = write_image(plan_raw(source), lambda chunk: file.write(chunk) and None, options).chunks
        file.flush()
        image = out.read_bytes()[6000:]
        assert count == (1 if sectors == 1 else 3)
        assert {parse_index(image[at : at + CHUNK]).total for at in range(0, len(image), CHUNK)} == {0}
        with out.open("r+b") as blind:
            writer = os.open(out, os.O_WRONLY)
            assert tell_total(writer, 6000, count, checksum=options.checksum) != options.checksum
            os.close(writer)
            if options.checksum:
                assert out.read_bytes()[6000:] == image, "none, where not all"
            assert tell_total(blind.fileno(), 6000, count, checksum=options.checksum)
    changed = out.read_bytes()
    assert changed[:6000] == b"before" * 1000
    for number in range(count):
        index = parse_index(
            changed[6000 + number * CHUNK : 6000 + (number + 1) * CHUNK], number, chunks=count
        )
        assert index.total == count
        assert (index.digest is not None) == options.checksum


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (Options(version=1), "version 1 cannot be written"),
        (Options(version=5), "version 5 cannot be written"),
        (Options(version=3, checksum=True), "no place in version 3"),
        (Options(version=2, uuid=b"\1" * 16), "no place in version 2"),
        (Options(level=10), "level 10"),
    ],
)
def test_options_that_exclude_each_other_are_refused(mixed: Path, options: Options, problem: str) -> None:
    with pytest.raises(NdzError, match=problem):
        image_of(mixed, options=options)


def test_a_source_that_shrinks_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(100 * SECTOR))
    with Source.open(path) as source:
        plan = plan_raw(source)
        path.write_bytes(bytes(50 * SECTOR))
        with pytest.raises(NdzError, match="ends before byte"):
            write_image(plan, lambda _chunk: None)


def test_a_sparse_source_is_read_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    with Source.open(path) as source:
        chunks: list[bytes] = []
        assert write_image(Plan(source), chunks.append).data_bytes == 64 << 20
    assert len(chunks) == 1
    with Source.open(path) as source:
        assert source.read(0, 8) == bytes(8)


def test_what_does_not_deflate_is_stored(tmp_path: Path) -> None:
    """So that no client spends its time on it."""
    noise = random.Random(4).randbytes(256 << 10)
    text = b"all work and no play makes jack a dull boy " * 6096
    kinds = {}
    for name, data in (("noise", noise), ("text", text[: 256 << 10])):
        path = tmp_path / name
        path.write_bytes(data)
        image = image_of(path)
        assert_same_where_stored(image, data)
        # The type of the first block, behind its "last" bit and the two bytes of the stream's head.
        kinds[name] = image[INDEX_SIZE + 2] >> 1 & 3
    assert kinds == {"noise": 0, "text": 2}
