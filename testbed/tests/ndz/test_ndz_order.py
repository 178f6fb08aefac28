# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order things reach the disk: a half-written one never boots, and little waits to be flushed."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ndz_tools import LINUX_GUID, SECTOR, fill, make_chunk, mbr, put, put_gpt

from orbit_frisbee.ndz import flush, unzip_cli, zip_cli
from orbit_frisbee.ndz.format import NdzError, parse_index
from orbit_frisbee.ndz.unpack import FILE_VARIABLE, HEAD_SECTORS, Target

SECTORS = 4000
HEAD = HEAD_SECTORS * SECTOR


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk of a former system."""
    path = tmp_path / "disk"
    fill(path, SECTORS * SECTOR)
    put(path, 0, mbr([(0x83, 2048, 1000)], code=b"the former system"))
    return path


def noise(sectors: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(sectors * SECTOR)


def write(target: Target, chunk: bytes | bytearray, number: int | None = None) -> None:
    target.write_chunk(chunk, parse_index(chunk, number))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is done to files, in order: ("write", first sector, sectors) and ("flush",)."""
    found: list[tuple[Any, ...]] = []
    pwrite, fsync, fdatasync = os.pwrite, os.fsync, os.fdatasync

    def traced_pwrite(fd: int, data: bytes, at: int) -> int:
        found.append(("write", at // SECTOR, len(data) // SECTOR))
        return pwrite(fd, data, at)

    def traced(real: Callable[[int], None]) -> Callable[[int], None]:
        def call(fd: int) -> None:
            real(fd)
            found.append(("flush",))

        return call

    monkeypatch.setattr(os, "pwrite", traced_pwrite)
    monkeypatch.setattr(os, "fsync", traced(fsync))
    monkeypatch.setattr(os, "fdatasync", traced(fdatasync))
    return found


def places(events: list[tuple[Any, ...]]) -> list[str]:
    """Tell the events in words: what belongs to the head, what to the rest, each run once."""
    words: list[str] = []
    for event in events:
        word = "flush" if event[0] == "flush" else "head" if event[1] < HEAD_SECTORS else "rest"
        if not words or words[-1] != word:
            words.append(word)
    return words


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_the_head_is_wiped_first_and_written_last(
    disk: Path, events: list[tuple[Any, ...]], order: tuple[int, ...]
) -> None:
    data = noise(300)
    with Target.open(disk, allow_file=True) as target:
        for number in order:
            part = data[number * 100 * SECTOR : (number + 1) * 100 * SECTOR]
            first = number * 100
            chunk = make_chunk(2, [(first, 100)], part, number=number, first=first, after=first + 100)
            write(target, chunk)
            assert disk.read_bytes()[:HEAD] == bytes(HEAD), "not bootable in between"
    assert places(events) == ["head", "flush", "rest", "flush", "head", "flush"]
    assert disk.read_bytes()[: len(data)] == data


def test_an_error_leaves_a_disk_that_does_not_boot(disk: Path) -> None:
    def fail() -> None:
        with Target.open(disk, allow_file=True) as target:
            write(target, make_chunk(2, [(0, 200)], noise(200)))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert disk.read_bytes()[:HEAD] == bytes(HEAD)
    assert disk.read_bytes()[HEAD : 200 * SECTOR] == noise(200)[HEAD:]


def test_nothing_written_is_nothing_wiped(disk: Path, events: list[tuple[Any, ...]]) -> None:
    before = disk.read_bytes()
    with pytest.raises(NdzError), Target.open(disk, allow_file=True) as target:
        write(target, make_chunk(2, [(0, 200)], noise(200), packed=b"no stream"))
    with Target.open(disk, allow_file=True):
        pass
    assert disk.read_bytes() == before
    assert "head" not in places(events)


def test_what_the_image_leaves_free_of_the_head_is_as_before(disk: Path) -> None:
    before = disk.read_bytes()
    with Target.open(disk, allow_file=True) as target:
        write(target, make_chunk(2, [(1, 2), (62, 8)], noise(10), after=100))
    after = bytearray(before)
    after[SECTOR : 3 * SECTOR] = noise(10)[: 2 * SECTOR]
    after[62 * SECTOR : 70 * SECTOR] = noise(10)[2 * SECTOR :]
    assert disk.read_bytes() == after


@pytest.mark.parametrize("pattern", [None, 0x01020304])
def test_filling_the_head_waits_for_the_end_too(
    disk: Path, events: list[tuple[Any, ...]], pattern: int | None
) -> None:
    with Target.open(disk, allow_file=True, zero_free=pattern is None, pattern=pattern) as target:
        write(target, make_chunk(2, [(10, 2)], noise(2), after=300))
    filler = (pattern or 0).to_bytes(4, "little") * (SECTOR // 4)
    assert disk.read_bytes()[: 300 * SECTOR] == filler * 10 + noise(2) + filler * 288
    assert places(events)[-2:] == ["head", "flush"]
    assert events[0][1] < HEAD_SECTORS


def test_in_a_partition_its_own_head_comes_last(disk: Path, events: list[tuple[Any, ...]]) -> None:
    before = disk.read_bytes()
    with Target.open(disk, allow_file=True, base_sector=2048, limit_sectors=1000) as target:
        write(target, make_chunk(3, [(0, 200)], noise(200)))
        assert disk.read_bytes()[2048 * SECTOR :][:HEAD] == bytes(HEAD)
    assert disk.read_bytes() == before[: 2048 * SECTOR] + noise(200) + before[2248 * SECTOR :]
    last = [event[1] for event in events if event[0] == "write"][-1]
    assert 2048 <= last < 2048 + HEAD_SECTORS


def test_imageunzip_does_it_in_that_order(
    tmp_path: Path, disk: Path, events: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(noise(SECTORS, seed=3))
    assert zip_cli.main(["-r", str(source), str(tmp_path / "x.ndz")]) == 0
    events.clear()
    monkeypatch.setenv(FILE_VARIABLE, "1")
    assert unzip_cli.main([str(tmp_path / "x.ndz"), str(disk)]) == 0
    assert places(events) == ["head", "flush", "rest", "flush", "head", "flush"]
    assert disk.read_bytes() == source.read_bytes()
    # Damaged in its second chunk.
    image = bytearray((tmp_path / "x.ndz").read_bytes())
    image[(1 << 20) + 5000] ^= 1
    (tmp_path / "x.ndz").write_bytes(image)
    assert unzip_cli.main([str(tmp_path / "x.ndz"), str(disk)]) == 1
    assert disk.read_bytes()[:HEAD] == bytes(HEAD)


# -- little waits for the disk ----------------------------------------------------------------------------


class Kernel:
    """Counts, beside the real sync_file_range, what was begun and what was waited for."""

    def __init__(self, answer: int = 0) -> None:
        self.begun: list[tuple[int, int]] = []
        self.waited: list[tuple[int, int]] = []
        self.answer = answer

    def call(self, fd: int, at: int, size: int, flags: int) -> int:
        (self.waited if flags & 4 else self.begun).append((at, size))
        return self.answer


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(flush, "_sync_file_range", lambda: kernel.call)
    return kernel


def test_a_writer_waits_for_the_oldest_data(tmp_path: Path, kernel: Kernel) -> None:
    piece = 1 << 20
    with (tmp_path / "file").open("wb") as file:
        behind = flush.Behind(file.fileno())
        for number in range(100):
            behind.wrote(number * piece, piece)
            begun = sum(size for _, size in kernel.begun)
            waited = sum(size for _, size in kernel.waited)
            assert (number + 1) * piece - begun < flush.BATCH, "what was not begun"
            assert (number + 1) * piece - waited <= flush.LIMIT + flush.BATCH, "what waits"
        said: list[int] = []
        behind.flush(said.append)
    assert sum(size for _, size in kernel.waited) == 100 * piece
    assert said == sorted(set(said))
    assert (said[0], said[-1], len(said)) == (0, 100, len({value // 10 for value in said}))
    assert len(said) >= 8


def test_another_order_and_small_pieces(tmp_path: Path, kernel: Kernel) -> None:
    """Pieces that lie close are one range: not a call each."""
    with (tmp_path / "file").open("wb") as file:
        behind = flush.Behind(file.fileno())
        for number in reversed(range(4096)):
            behind.wrote(number * 8192, 4096)
        behind.flush(lambda percent: None)
    assert kernel.begun
    assert len(kernel.waited) <= 8
    assert sum(size for _, size in kernel.waited) >= 4096 * 4096


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.ESPIPE])
def test_without_sync_file_range(
    tmp_path: Path, kernel: Kernel, events: list[tuple[Any, ...]], number: int
) -> None:
    kernel.answer = number
    with (tmp_path / "file").open("wb") as file:
        behind = flush.Behind(file.fileno())
        for at in range(40):
            behind.wrote(at << 20, 1 << 20)
        assert events.count(("flush",)) == (40 - flush.LIMIT // (1 << 20)) // (flush.BATCH >> 20)
        behind.flush(lambda percent: None)
    assert len(kernel.begun) == 1, "asked once"


def test_the_real_call(tmp_path: Path) -> None:
    call = flush._sync_file_range()
    with (tmp_path / "file").open("wb") as file:
        file.write(noise(100))
        file.flush()
        assert call(file.fileno(), 0, 100 * SECTOR, 7) == 0
        assert call(-1, 0, 1, 7) == errno.EBADF


def test_an_error_of_the_disk_is_heard(disk: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flush, "BATCH", 100 * SECTOR)
    monkeypatch.setattr(flush, "LIMIT", 150 * SECTOR)
    kernel.answer = errno.EIO
    target = Target.open(disk, allow_file=True)
    with pytest.raises(NdzError, match=r"disk: cannot write .*: input/output error"):
        write(target, make_chunk(2, [(100, 300)], noise(300)))
    target.close(sync=False)
    kernel.answer = 0
    target = Target.open(disk, allow_file=True)
    write(target, make_chunk(2, [(100, 90)], noise(90)))
    kernel.answer = errno.EIO
    with pytest.raises(NdzError, match=r"disk: cannot flush: input/output error"):
        target.close()
    assert disk.read_bytes()[:HEAD] == bytes(HEAD)


# -- the backup of a GPT ----------------------------------------------------------------------------------


def gpt_disk(path: Path, size: int, *, unit: int = 512, last: int = 2000) -> bytes:
    """A disk of so many bytes with a partition up to block ``last``."""
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, size)
    put_gpt(path, [(LINUX_GUID, 1000, last)], unit=unit)
    put(path, 1000 * unit // SECTOR, noise(50))
    return path.read_bytes()


@pytest.mark.parametrize("unit", [512, 4096])
@pytest.mark.parametrize("onto", [15 << 20, 16 << 20, 20 << 20])
@pytest.mark.parametrize("how", ["file", "pipe"])
def test_the_backup_is_made_for_the_disk_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: int, onto: int, how: str
) -> None:
    monkeypatch.setenv(FILE_VARIABLE, "1")
    source, image, disk = tmp_path / "source", tmp_path / "x.ndz", tmp_path / "disk"
    gpt_disk(source, 16 << 20, unit=unit)
    assert zip_cli.main([str(source), str(image)]) == 0
    fill(disk, onto)
    before = disk.read_bytes()
    if how == "file":
        assert unzip_cli.main([str(image), str(disk)]) == 0
    else:
        target = Target.open(disk)
        with image.open("rb") as file:
            while chunk := file.read(1 << 20):
                write(target, chunk)
        target.close()
    expected = gpt_disk(tmp_path / "expected", onto, unit=unit)
    found = disk.read_bytes()
    end = 1000 * unit + 50 * SECTOR
    assert found[:end] == expected[:end]
    backup = onto - unit - 128 * 128
    assert found[backup:] == expected[backup:]
    free = 2001 * unit
    assert found[free:backup] == before[free:backup]


@pytest.mark.parametrize("raw", [False, True])
def test_a_pipe_is_like_the_disk(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], raw: bool
) -> None:
    source, image = tmp_path / "source", tmp_path / "x.ndz"
    data = gpt_disk(source, 4 << 20)
    assert zip_cli.main([*(["-r"] if raw else []), str(source), str(image)]) == 0
    assert unzip_cli.main([str(image), "-"]) == 0
    assert capfdbinary.readouterr().out == data


def test_a_new_file_is_like_the_disk(tmp_path: Path) -> None:
    source, image, new = tmp_path / "source", tmp_path / "x.ndz", tmp_path / "new"
    data = gpt_disk(source, 4 << 20)
    assert zip_cli.main([str(source), str(image)]) == 0
    assert unzip_cli.main([str(image), str(new)]) == 0
    assert new.read_bytes() == data


def test_a_partition_in_the_way_of_the_backup_is_refused(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FILE_VARIABLE, "1")
    source, image = tmp_path / "source", tmp_path / "x.ndz"
    source.touch()
    os.truncate(source, 5000 * SECTOR)
    put_gpt(source, [(LINUX_GUID, 1000, SECTORS - 33)])
    assert zip_cli.main([str(source), str(image)]) == 0
    assert unzip_cli.main([str(image), str(disk)]) == 1
    assert (
        f"{disk}: a partition of the image ends at block 3967, the copy of the partition table must begin "
        "at block 3967"
    ) in capsys.readouterr().err


def test_an_image_that_holds_the_backup_is_written_as_it_is(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A raw one, onto a disk as large: an odd place of the backup's entries is no reason to move them."""
    monkeypatch.setenv(FILE_VARIABLE, "1")
    source = tmp_path / "source"
    data = gpt_disk(source, SECTORS * SECTOR)
    assert zip_cli.main(["-r", str(source), str(tmp_path / "x.ndz")]) == 0
    assert unzip_cli.main([str(tmp_path / "x.ndz"), str(disk)]) == 0
    assert disk.read_bytes() == data
