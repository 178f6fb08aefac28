# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""imagezip, imageunzip and imagedump as programs: what they write, say and return."""

from __future__ import annotations

import os
import random
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ndz_tools import (
    CHUNK,
    LINUX_GUID,
    SECTOR,
    assert_same_where_stored,
    fill,
    make_chunk,
    mbr,
    put,
    put_gpt,
    swap_header,
    through_a_pipe,
)

from orbit_frisbee.ndz import command, dump_cli, unzip_cli, zip_cli
from orbit_frisbee.ndz.format import NdzError, parse_index
from orbit_frisbee.ndz.unpack import FILE_VARIABLE

DISK_SECTORS = 12000


@pytest.fixture(autouse=True)
def _no_disks_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FILE_VARIABLE, raising=False)


def program(name: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", f"orbit_frisbee.ndz.{name}_cli", *map(str, arguments)]


def run(
    name: str, *arguments: str | Path, stdin: bytes = b"", status: int = 0
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        program(name, *arguments), input=stdin, capture_output=True, timeout=60, check=False
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert done.returncode == status, done.stderr.decode()
    return done


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a program's main in this process, which is faster; returns (status, output, errors)."""
    mains = {"zip": zip_cli.main, "unzip": unzip_cli.main, "dump": dump_cli.main}

    def run_main(name: str, *arguments: str | Path) -> tuple[int, str, str]:
        try:
            status = mains[name]([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        sys.stdout.flush()
        output = capfd.readouterr()
        return status, output.out, output.err

    return run_main


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk with a swap area, a partition of an unknown type and unused space, full of something."""
    path = tmp_path / "disk"
    path.write_bytes(random.Random(4).randbytes(DISK_SECTORS * SECTOR))
    put(path, 0, mbr([(0x82, 2048, 4000), (0x07, 8000, 3000)], code=b"boot code"))
    put(path, 2048, swap_header())
    return path


STORED = [(0, 2048 + 64), (8000, 11000)]


def stored_part(data: bytes, other: bytes) -> bytes:
    result = bytearray(other)
    for low, high in STORED:
        result[low * SECTOR : high * SECTOR] = data[low * SECTOR : high * SECTOR]
    return bytes(result)


@pytest.fixture
def image(tmp_path: Path, disk: Path) -> Path:
    path = tmp_path / "disk.ndz"
    assert zip_cli.main([str(disk), str(path)]) == 0
    return path


def rest(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_disk_goes_through_an_image(tmp_path: Path, disk: Path, call: Call) -> None:
    image, other = tmp_path / "x.ndz", tmp_path / "other"
    status, out, err = call("zip", "-o", disk, image)
    assert (status, out) == (0, "")
    chunks = image.stat().st_size // CHUNK
    assert err.startswith("." * chunks + "\n")
    assert (
        f"imagezip: {disk}: {5112 * SECTOR} of {DISK_SECTORS * SECTOR} bytes stored in {chunks} chunks" in err
    )
    assert assert_same_where_stored(image.read_bytes(), disk.read_bytes()) == STORED
    assert parse_index(image.read_bytes()).version == 2

    status, out, err = call("unzip", "-o", image, other)
    assert (status, out) == (0, "")
    assert err == "." * chunks + f"\nWrote {DISK_SECTORS * SECTOR} bytes ({5112 * SECTOR} actual)\n"
    assert other.read_bytes() == stored_part(disk.read_bytes(), bytes(DISK_SECTORS * SECTOR))
    assert rest(tmp_path) == {"disk", "other", "x.ndz", "x.ndz.manifest"}


def test_pipes_give_the_same_as_files(disk: Path, image: Path) -> None:
    zipped = run("zip", disk, "-").stdout
    assert zipped == through_a_pipe(image.read_bytes()) != image.read_bytes()
    unzipped = run("unzip", "-", "-", stdin=zipped)
    assert unzipped.stdout == stored_part(disk.read_bytes(), bytes(DISK_SECTORS * SECTOR))
    assert b"Wrote" in unzipped.stderr
    assert run("unzip", image, "-").stdout == unzipped.stdout
    patterned = run("unzip", "-p", "0x01020304", image, "-").stdout
    assert patterned == stored_part(disk.read_bytes(), b"\4\3\2\1" * (DISK_SECTORS * 128))


def test_where_the_shell_opens_the_file(tmp_path: Path, disk: Path, image: Path) -> None:
    content = image.read_bytes()
    for how, before, wanted in (
        (">", b"", content),
        ("1<>", b"x" * len(content) + b"behind", content + b"behind"),
        (">>", b"before", b"before" + through_a_pipe(content)),
    ):
        out = tmp_path / "x"
        out.write_bytes(before)
        shell = ["sh", "-c", f'"$0" "$@" {how} {out}', *program("zip", disk, "-")]
        subprocess.run(shell, check=True, stderr=subprocess.DEVNULL, timeout=60)
        assert out.read_bytes() == wanted


def test_a_new_file_from_a_pipe_has_the_right_size(tmp_path: Path, disk: Path, image: Path) -> None:
    run("unzip", "-", tmp_path / "new", stdin=image.read_bytes())
    assert (tmp_path / "new").read_bytes() == stored_part(disk.read_bytes(), bytes(DISK_SECTORS * SECTOR))
    odd = tmp_path / "odd"
    odd.write_bytes(b"abc" * 1001)
    zipped = run("zip", "-r", odd, "-").stdout
    for source in ("-", "file"):
        (tmp_path / "file").write_bytes(zipped)
        run("unzip", tmp_path / "file" if source == "file" else "-", tmp_path / "back", stdin=zipped)
        assert (tmp_path / "back").read_bytes() == odd.read_bytes()
    assert run("unzip", "-", "-", stdin=zipped).stdout == odd.read_bytes()


@pytest.mark.parametrize(
    ("options", "version"),
    [([], 2), (["-s2"], 3), (["-a"], 4), (["-V3"], 3), (["-V4"], 4), (["-u", "0" * 32], 4)],
)
def test_the_version_of_an_image(
    tmp_path: Path, disk: Path, call: Call, options: list[str], version: int
) -> None:
    assert call("zip", "-z1", *options, disk, tmp_path / "x")[0] == 0
    assert parse_index((tmp_path / "x").read_bytes()).version == version


def test_raw_ignored_and_whole_partitions(tmp_path: Path, disk: Path, call: Call) -> None:
    for options, sectors in (
        (["-r"], DISK_SECTORS),
        (["-R1"], 2048 + 4000 + 3000),
        (["-I", "2"], 2048 + 64),
        (["-I1", "-I2"], 2048),
        (["-F", "5000"], 5112 + 1000),
        (["-F99999"], DISK_SECTORS),
    ):
        assert call("zip", *options, disk, tmp_path / "x")[0] == 0
        ranges = assert_same_where_stored((tmp_path / "x").read_bytes(), disk.read_bytes())
        assert sum(high - low for low, high in ranges) == sectors


def test_information_writes_nothing(tmp_path: Path, disk: Path, call: Call) -> None:
    status, out, err = call("zip", "-i", disk)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{disk}: 12000 sectors, MBR",
        "partition 1: sectors 2048 to 6047, type 0x82: swap, 3936 of 4000 free",
        "partition 2: sectors 8000 to 10999, type 0x07: unknown, stored whole",
        "5112 of 12000 sectors are stored",
    ]
    assert "data: sectors 8000 to 10999" in call("zip", "-i", "-d", disk)[1]
    assert rest(tmp_path) == {"disk"}


def test_what_is_not_understood_is_stored_and_said(tmp_path: Path, call: Call) -> None:
    fill(tmp_path / "noise", 100 * SECTOR)
    status, _, err = call("zip", tmp_path / "noise", tmp_path / "x")
    assert status == 0
    assert f"imagezip: warning: {tmp_path}/noise: stored whole: it has no partition table\n" in err


@pytest.mark.parametrize(("at", "value"), [(0x168, 0xFFFFFF), (0x28, 0xFFFFFFFF)])
def test_a_corrupt_file_system_is_stored_whole_and_said(
    tmp_path: Path, call: Call, at: int, value: int
) -> None:
    """Whatever its superblock points to: here blocks that are not there."""
    disk, fs = tmp_path / "disk", tmp_path / "fs"
    fs.touch()
    os.truncate(fs, 16 << 20)
    # Without checksums, nothing but the place itself tells.
    features = "^metadata_csum,^resize_inode,meta_bg,mmp"
    done = subprocess.run(
        ["mke2fs", "-q", "-F", "-O", features, str(fs)],
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    content = bytearray(fs.read_bytes())
    struct.pack_into("<I", content, 1024 + at, value)
    fill(disk, 20 << 20)
    put(disk, 0, mbr([(0x83, 2048, (16 << 20) // SECTOR)]))
    put(disk, 2048, bytes(content))
    status, _, err = call("zip", disk, tmp_path / "x")
    assert status == 0, err
    assert f"imagezip: warning: {disk}: partition 1: stored whole: " in err
    ranges = assert_same_where_stored((tmp_path / "x").read_bytes(), disk.read_bytes())
    assert ranges == [(0, 2048 + (16 << 20) // SECTOR)]


@pytest.mark.parametrize("table", ["mbr", "gpt"])
def test_a_partition_goes_into_a_partition(tmp_path: Path, disk: Path, call: Call, table: str) -> None:
    assert call("zip", "-s", "2", disk, tmp_path / "x")[0] == 0
    other = tmp_path / "other"
    fill(other, 20000 * SECTOR)
    if table == "mbr":
        put(other, 0, mbr([(0x83, 100, 2999), (0, 0, 0), (0x83, 5000, 3001)]))
    else:
        put_gpt(other, [(LINUX_GUID, 100, 3098), (SWAP, 3500, 3600), (LINUX_GUID, 5000, 8000)])
    before = other.read_bytes()
    status, _, err = call("unzip", "-s1", tmp_path / "x", other)
    assert status == 1
    assert f"imageunzip: {other}: the image has data up to sector 3000, the target ends at 2999; use a" in err
    status, _, err = call("unzip", "-s9", tmp_path / "x", other)
    assert status == 1
    assert "no partition 9 but 1" in err
    assert other.read_bytes() == before
    assert call("unzip", "-s3", tmp_path / "x", other)[0] == 0
    data = disk.read_bytes()[8000 * SECTOR : 11000 * SECTOR]
    assert other.read_bytes() == before[: 5000 * SECTOR] + data + before[8000 * SECTOR :]


SWAP = b"\x42" * 16


def test_an_existing_file_is_replaced_or_a_disk(
    tmp_path: Path, disk: Path, image: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    fill(other, 20000 * SECTOR)
    before = other.read_bytes()
    assert call("unzip", image, other)[0] == 0
    assert other.read_bytes() == stored_part(disk.read_bytes(), bytes(DISK_SECTORS * SECTOR))
    monkeypatch.setenv(FILE_VARIABLE, "1")
    other.write_bytes(before)
    inode = other.stat().st_ino
    assert call("unzip", image, other)[0] == 0
    assert other.read_bytes() == stored_part(disk.read_bytes(), before)
    assert call("unzip", "-z", "-n", image, other)[0] == 0
    zeroed = bytes(DISK_SECTORS * SECTOR) + before[DISK_SECTORS * SECTOR :]
    assert other.read_bytes() == stored_part(disk.read_bytes(), zeroed)
    assert other.stat().st_ino == inode
    os.truncate(other, 10999 * SECTOR)
    before = other.read_bytes()
    status, _, err = call("unzip", image, other)
    assert status == 1
    assert "data up to sector 11000, the target ends at 10999" in err
    assert other.read_bytes() == before


def test_a_link_stays_a_link(tmp_path: Path, disk: Path, image: Path, call: Call) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/real")
    (tmp_path / "folder/real").write_bytes(b"old")
    assert call("zip", disk, tmp_path / "link")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder/real").read_bytes() == image.read_bytes()
    assert rest(tmp_path / "folder") == {"real"}


def test_devices_and_pipes_are_written_in_place(tmp_path: Path, disk: Path, image: Path, call: Call) -> None:
    assert call("zip", disk, "/dev/null")[0] == 0
    assert call("unzip", image, "/dev/null")[0] == 0
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(program("zip", disk, tmp_path / "pipe"), stderr=subprocess.DEVNULL) as writer:
        assert (tmp_path / "pipe").read_bytes() == through_a_pipe(image.read_bytes())
        assert writer.wait(180) == 0


def _no_image(image: bytes) -> bytes:
    return b"This is some text, and quite a lot of it.\n" * 30000


DAMAGED = {
    "empty": (lambda image: b"", "is empty; give an image"),
    "text": (_no_image, "is no image; give an image"),
    "small text": (lambda image: b"hello", "is no image; give an image"),
    "a few bytes of one": (lambda image: image[:3000], "chunk 0: "),
    "truncated": (lambda image: image[: CHUNK + 5], "chunk 1: "),
    "trailing garbage": (lambda image: image + b"x", "bytes"),
    "trailing zeros": (lambda image: image + bytes(CHUNK), "the index says 3 but 4 are there"),
    "zeros behind one made for a pipe": (
        lambda image: through_a_pipe(image) + bytes(CHUNK),
        "magic: 0x00000000 is no image",
    ),
    "last chunk missing": (
        lambda image: image[:-CHUNK],
        "number of chunks: the index says 3 but 2 are there",
    ),
    "all but the first missing": (lambda image: image[:CHUNK], "the index says 3 but 1 are there"),
    "last chunk missing, made for a pipe": (lambda image: through_a_pipe(image)[:-CHUNK], None),
    "first chunk missing": (lambda image: image[CHUNK:], "chunk 0: chunk number: the index says 1"),
    "chunk missing": (
        lambda image: through_a_pipe(image[:CHUNK] + image[2 * CHUNK :]),
        "chunk 1: chunk number",
    ),
    "chunk of another image": (
        lambda image: (
            image[:CHUNK]
            + make_chunk(2, [(9000, 1)], bytes(SECTOR), number=1, first=8990)
            + image[2 * CHUNK :]
        ),
        "chunk 1: first sector: 8990, but chunk 0 goes up to",
    ),
    "of an index": (lambda image: image[: CHUNK + 20] + b"\xff" + image[CHUNK + 21 :], "chunk 1: "),
    "of an older program, truncated": (
        lambda image: bytes(make_chunk(1, [(0, 1)], bytes(SECTOR), total=2)),
        "number of chunks: the index says 2 but 1 are there",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("where", ["new", "old", "disk"])
def test_a_bad_image_is_refused_before_the_target_is_touched(
    tmp_path: Path, image: Path, call: Call, monkeypatch: pytest.MonkeyPatch, kind: str, where: str
) -> None:
    damage, problem = DAMAGED[kind]
    bad, target = tmp_path / "bad.ndz", tmp_path / "target"
    bad.write_bytes(damage(image.read_bytes()))
    if where != "new":
        fill(target, DISK_SECTORS * SECTOR)
    if where == "disk":
        monkeypatch.setenv(FILE_VARIABLE, "1")
    before, there = target.exists() and target.read_bytes(), rest(tmp_path)
    status, out, err = call("unzip", bad, target)
    if problem is None:
        # Without a count of chunks nothing tells that whole chunks are missing at the end.
        assert status == 0
        return
    assert (status, out) == (1, "")
    assert err.startswith(f"imageunzip: {bad}: ")
    assert problem in err
    assert err.count("\n") == 1
    assert (target.exists() and target.read_bytes()) == before
    assert rest(tmp_path) == there


@pytest.mark.parametrize("kind", ["empty", "text", "small text", "a few bytes of one", "first chunk missing"])
def test_a_bad_start_of_a_pipe_is_noticed_in_time(tmp_path: Path, image: Path, kind: str) -> None:
    bad = DAMAGED[kind][0](image.read_bytes())
    there = rest(tmp_path)
    done = run("unzip", "-", tmp_path / "new", stdin=bad, status=1)
    assert done.stderr.startswith(b"imageunzip: standard input: ")
    assert rest(tmp_path) == there


@pytest.mark.parametrize(
    "kind",
    [
        "truncated",
        "trailing garbage",
        "chunk missing",
        "last chunk missing",
        "all but the first missing",
        "of an older program, truncated",
    ],
)
def test_a_bad_end_of_a_pipe_leaves_no_file(tmp_path: Path, image: Path, kind: str) -> None:
    bad = DAMAGED[kind][0](image.read_bytes())
    there = rest(tmp_path)
    done = run("unzip", "-", tmp_path / "new", stdin=bad, status=1)
    assert done.stderr.startswith(b"imageunzip: standard input: ")
    assert done.stderr.count(b"\n") == 1
    assert rest(tmp_path) == there


def test_damaged_data_is_an_error_in_the_middle(tmp_path: Path, image: Path, call: Call) -> None:
    data = bytearray(image.read_bytes())
    data[CHUNK + 4096 + 5000] ^= 4
    (tmp_path / "bad").write_bytes(data)
    there = rest(tmp_path)
    for options in ([], ["-n"], ["-W1"]):
        status, _, err = call("unzip", *options, tmp_path / "bad", tmp_path / "new")
        assert status == 1
        assert "chunk 1: compressed data: " in err
        assert rest(tmp_path) == there
    status, _, err = call("unzip", tmp_path / "bad", "/dev/null")
    assert status == 1


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("zip", ["nothing", "x"], "nothing: no such file or directory; name a readable disk"),
        ("zip", ["disk"], "say where to write the image"),
        ("zip", ["disk", "disk"], "disk: is the input; name another output"),
        ("zip", ["disk", "folder"], "folder: a folder; name a file"),
        ("zip", ["disk", "none/x"], "none/x: no such file or directory"),
        ("zip", ["folder", "x"], "folder: cannot be read by position"),
        ("zip", ["-z10", "disk", "x"], "argument -z"),
        ("zip", ["-s7", "disk", "x"], "disk: it has no partition 7 but 1, 2; name a partition that is there"),
        ("zip", ["-I7", "disk", "x"], "disk: it has no partition 7 but 1, 2; name a partition that is there"),
        ("zip", ["-I-1", "disk", "x"], "argument -I"),
        ("zip", ["-r", "-s1", "disk", "x"], "not allowed with"),
        ("zip", ["-r", "-I1", "disk", "x"], "-I and -R are about partitions"),
        ("zip", ["-s1", "-I2", "disk", "x"], "-I and -R name partitions other"),
        ("zip", ["-l", "disk", "x"], "no file system that can be read (ext: it has no"),
        ("zip", ["-a", "-V2", "disk", "x"], "no place in version 2; use 4"),
        ("zip", ["-u", "12", "disk", "x"], "argument -u"),
        ("zip", ["empty", "x"], "empty: is empty"),
        ("unzip", ["nothing", "x"], "nothing: no such file or directory"),
        ("unzip", ["disk.ndz", "/dev/sdzz9"], "/dev/sdzz9: no such disk; name an existing disk"),
        ("unzip", ["disk.ndz", "folder"], "folder: a folder"),
        ("unzip", ["disk.ndz", "none/x"], "none/x: no such file"),
        ("unzip", ["disk.ndz", "disk.ndz"], "disk.ndz: is the image; name another target"),
        ("unzip", ["-s1", "disk.ndz", "x"], "x: no such file or directory"),
        ("unzip", ["-s1", "disk.ndz", "noise"], "noise: it has no partition table; name a partition"),
        ("unzip", ["-s1", "disk.ndz", "-"], "-s needs a disk"),
        ("unzip", ["-p", "0x100000000", "disk.ndz", "x"], "more than 32 bits"),
        ("unzip", ["-p", "zz", "disk.ndz", "x"], "argument -p"),
        ("unzip", ["folder", "x"], "folder: is a directory"),
        ("unzip", ["disk.ndz"], "required: target"),
        ("dump", ["nothing"], "nothing: no such file or directory"),
        ("dump", [], "required: image"),
    ],
)
def test_wrong_use_is_one_clear_line_and_status_1(
    tmp_path: Path,
    image: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    arguments: list[str],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    fill(tmp_path / "noise", SECTOR * 100)
    there, content = rest(tmp_path), image.read_bytes()
    status, out, err = call(name, *arguments)
    assert (status, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith(f"image{name}: ")
    assert problem in last
    assert rest(tmp_path) == there
    assert image.read_bytes() == content


def test_a_pipe_that_ends_at_the_border_of_a_chunk(image: Path) -> None:
    done = run("unzip", "-", "-", stdin=image.read_bytes()[:-CHUNK], status=1)
    assert done.stderr.endswith(
        b"imageunzip: standard input: has 2 chunks of 3; "
        b"the image is not complete, or something follows it: fetch it again\n"
    )
    done = run("dump", "-", stdin=image.read_bytes()[:-CHUNK], status=1)
    assert done.stderr == b"imagedump: standard input: has 2 of 3 chunks\n"


def test_a_signature_that_nobody_verifies_is_told_once(tmp_path: Path, call: Call) -> None:
    image = tmp_path / "x"
    chunks = [
        make_chunk(4, [(n, 1)], bytes(SECTOR), checksum=0x8001, number=n, first=n, after=n + 1)
        for n in range(3)
    ]
    image.write_bytes(b"".join(chunks))
    for target in (tmp_path / "new", "-"):
        status, _, err = call("unzip", image, target)
        assert status == 0
        assert err.count("the image is signed, which is not verified") == 1


def test_a_disk_of_2_tib_is_refused_before_the_work(tmp_path: Path, call: Call) -> None:
    """Its last sector could be written, but not where the last chunk ends."""
    disk = tmp_path / "large"
    for size, status in ((2 << 40, 1), ((2 << 40) + 512, 1), ((2 << 40) - 512, 0)):
        disk.touch()
        os.truncate(disk, size)
        put(disk, 0, mbr([(0x82, 2048, 8)]))
        put(disk, 2048, swap_header())
        found, _, err = call("zip", disk, tmp_path / "x")
        assert found == status, err
        if status:
            assert "sectors, one image holds 4294967295 (2 TiB less 512 bytes); store its partitions" in err
    assert call("dump", tmp_path / "x")[0] == 0


def test_remains_of_another_kind_are_not_what_a_file_system_is(tmp_path: Path, call: Call) -> None:
    """An ext file system in use where swap was once: as swap, all but 32 KiB of it would be lost."""
    disk = tmp_path / "dirty"
    fill(disk, 400 * SECTOR)
    put(disk, 0, swap_header())
    put(disk, 2, bytes(56) + b"\x53\xef" + bytes(454))
    status, _, err = call("zip", "-l", disk, tmp_path / "x")
    assert status == 1
    assert f"{disk}: no file system that can be read (ext: it is dirty: " in err
    assert not (tmp_path / "x").exists()
    put(disk, 2, bytes(512))
    assert call("zip", "-l", disk, tmp_path / "x")[0] == 0


def test_a_writer_that_is_stopped_leaves_the_old_file(tmp_path: Path, disk: Path) -> None:
    image = tmp_path / "x.ndz"
    image.write_bytes(b"the old one")
    os.truncate(disk, 1 << 30)
    process = subprocess.Popen(program("zip", "-o", "-r", "-z9", disk, image), stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.read(1) == b"."  # it has written a chunk
    for name in rest(tmp_path) - {"disk", "x.ndz"}:
        assert re.fullmatch(r"x\.ndz(\.manifest)?\.[0-9a-f]{16}\.partial", name)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 1
    assert err.endswith(b"imagezip: interrupted\n")
    assert rest(tmp_path) == {"disk", "x.ndz"}
    assert image.read_bytes() == b"the old one"


def test_two_writers_of_one_name_do_not_meet(tmp_path: Path) -> None:
    """Whoever ends last gives the file, and neither touches what the other has finished."""
    name = tmp_path / "x"
    with command.NewFile(str(name)) as first:
        with command.NewFile(str(name)) as second:
            command.write_all(first.fd, b"the first")
            command.write_all(second.fd, b"the second")
        assert name.read_bytes() == b"the second"
        third = command.NewFile(str(name))
        assert name.read_bytes() == b"the second"
        third.__exit__(RuntimeError, None, None)
        assert name.read_bytes() == b"the second"
    assert name.read_bytes() == b"the first"
    assert rest(tmp_path) == {"x"}


def test_a_link_in_the_way_of_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who guesses the name puts a link to somebody else's file there: it is not followed."""
    monkeypatch.setattr(os, "urandom", bytes)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / f"x.{'00' * 8}.partial").symlink_to(victim)
    with pytest.raises(NdzError, match="x: file exists"):
        command.NewFile(str(tmp_path / "x"))
    assert victim.read_bytes() == b"precious"


def test_the_longest_name_a_file_may_have(tmp_path: Path) -> None:
    name = tmp_path / ("ü" * 127)
    with command.NewFile(str(name)) as file:
        command.write_all(file.fd, b"there")
    assert name.read_bytes() == b"there"


def test_a_reader_that_goes_away_is_an_error(disk: Path, image: Path) -> None:
    for words in (program("zip", "-r", disk, "-"), program("unzip", image, "-")):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.read(100)
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.stderr.close()
        assert process.wait(180) == 1
        assert err.endswith(b": nobody reads the output\n"), err
        assert err.count(b"\n") == 1


def test_images_of_all_versions_are_unzipped(tmp_path: Path, call: Call) -> None:
    data = random.Random(1).randbytes(SECTOR * 6)
    for version in (1, 2, 3, 4):
        total = 2 if version == 1 else 0
        chunks = make_chunk(
            version, [(1, 2), (5, 1)], data[: 3 * SECTOR], total=total, first=0, after=10, garbage=b"\xee"
        ) + make_chunk(
            version, [(12, 3)], data[3 * SECTOR :], number=1, total=total, first=10, after=20, garbage=b"\xdd"
        )
        (tmp_path / "x").write_bytes(chunks)
        assert call("unzip", tmp_path / "x", tmp_path / "out")[0] == 0
        result = (tmp_path / "out").read_bytes()
        assert len(result) == (15 if version == 1 else 20) * SECTOR
        expected = bytes(SECTOR) + data[: 2 * SECTOR] + bytes(2 * SECTOR) + data[2 * SECTOR : 3 * SECTOR]
        expected += bytes(6 * SECTOR) + data[3 * SECTOR :]
        assert result == expected.ljust(len(result), b"\0")
        assert run("unzip", tmp_path / "x", "-").stdout == result


def test_dump_of_an_image(tmp_path: Path, image: Path, disk: Path, call: Call) -> None:
    status, out, err = call("dump", image)
    assert (status, err) == (0, "")
    size, chunks = image.stat().st_size, image.stat().st_size // CHUNK
    packed = sum(struct.unpack_from("<I", image.read_bytes(), n * CHUNK + 4)[0] for n in range(chunks))
    lines = out.splitlines()
    assert lines[0] == f"{image}: {size} bytes, {chunks} chunks, version 2"
    assert lines[1].startswith(f"  {size - packed} bytes of overhead (")
    assert lines[2] == f"  {packed} bytes of compressed data"
    assert lines[3].endswith(f"x compression of allocated data ({5112 * SECTOR} bytes)")
    assert lines[4].endswith(f"x compression of total covered size ({DISK_SECTORS * SECTOR} bytes)")
    assert lines[5] == (
        f"  free: 2 ranges, {6888 * SECTOR} bytes, average {3444 * SECTOR}, "
        f"smallest {1000 * SECTOR}, largest {5888 * SECTOR}"
    )
    assert lines[7].startswith("  allocated: 2 ranges, ")
    assert lines[8] == "    by size: <8k 0, <16k 0, <32k 0, <64k 0, <128k 0, <256k 0, >=256k 2"

    out = call("dump", "-d", image)[1]
    first = parse_index(image.read_bytes(), 0)
    line = (
        f"  Chunk 0: {first.length} compressed bytes, sector range [0-{first.after - 1}], 0 relocs, 1 regions"
    )
    assert line in out.splitlines()
    assert "    Region: start 0, " in call("dump", "-dd", image)[1]
    assert call("dump", "-m", image)[1].splitlines()[-4:] == [
        "A: 00000000 - 0000083f",
        "F: 00000840 - 00001f3f",
        "A: 00001f40 - 00002af7",
        "F: 00002af8 - 00002edf",
    ]
    assert run("dump", "-", stdin=image.read_bytes()).stdout.decode() == call("dump", image)[1].replace(
        str(image), "standard input"
    )


def test_dump_tells_what_protects_an_image(tmp_path: Path, disk: Path, call: Call) -> None:
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    assert call("zip", "-a", "-u", uuid, disk, tmp_path / "x")[0] == 0
    out = call("dump", "-c", tmp_path / "x")[1]
    assert out.splitlines()[0].endswith(f"version 4, SHA-1 csum (0x0001), UUID {uuid}")
    (tmp_path / "x").write_bytes(make_chunk(4, [(0, 1)], bytes(SECTOR), checksum=0x8001))
    assert "version 4, signed csum (0x8001)" in call("dump", tmp_path / "x")[1]
    (tmp_path / "x").write_bytes(make_chunk(4, [(0, 1)], bytes(SECTOR), cipher=1))
    status, _, err = call("dump", tmp_path / "x")
    assert status == 1
    assert "encrypted (Blowfish)" in err


def test_dump_shows_relocations(tmp_path: Path, call: Call) -> None:
    (tmp_path / "odd").write_bytes(b"x" * 700)
    call("zip", "-r", tmp_path / "odd", tmp_path / "x")
    assert "    Reloc: type 6, sector 1, offset 0, 188 bytes\n" in call("dump", "-dd", tmp_path / "x")[1]


def test_the_status_of_dump_counts_bad_images(tmp_path: Path, image: Path, call: Call) -> None:
    names = []
    kinds = (
        "truncated",
        "trailing garbage",
        "text",
        "chunk missing",
        "of an index",
        "empty",
        "last chunk missing",
    )
    for kind in kinds:
        names.append(tmp_path / kind)
        names[-1].write_bytes(DAMAGED[kind][0](image.read_bytes()))
    status, out, err = call("dump", names[0], image, *names[1:], "nothing")
    assert status == 8
    assert f"{image}: " in out
    assert f"imagedump: {names[-1]}: has 2 of 3 chunks\n" in err
    for name in [*names, "nothing"]:
        assert f"imagedump: {name}: " in err
    assert call("dump", "-i", tmp_path / "chunk missing")[0] == 0
    status, out, _ = call("dump", "-q", image, tmp_path / "text")
    assert status == 1
    assert out == f"{image}: image, version 2\n"


def test_dump_sees_damaged_data_when_told_to(tmp_path: Path, image: Path, call: Call) -> None:
    data = bytearray(image.read_bytes())
    data[CHUNK + 4096 + 5000] ^= 4
    image.write_bytes(data)
    assert call("dump", image)[0] == 0
    status, out, err = call("dump", "-c", image)
    assert status == 1
    assert "chunk 1: compressed data: " in err
    assert out.startswith(f"{image}: ")


def test_help_names_every_option(call: Call) -> None:
    for name, options in (("zip", "rlsIRFzVuajiod"), ("unzip", "szponWd"), ("dump", "dmiqc")):
        status, out, _ = call(name, "-h")
        assert status == 0
        for option in options:
            assert f"-{option}" in out
