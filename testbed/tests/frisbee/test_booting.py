# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client leaves on a disk when it does not get to the end, and what it says when it does."""

from __future__ import annotations

import os
import re
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest

from orbit_frisbee.frisbee.client import ClientError
from orbit_frisbee.frisbee.integrity import CheckError
from orbit_frisbee.ndz import flush, manifest, zip_cli
from orbit_frisbee.ndz.unpack import HEAD_SECTORS

from .stand import DEADLINE, Fetch, HandServer, Stand, make_image, wait_until

HEAD = HEAD_SECTORS * 512


def former_system(size: int) -> bytes:
    """A disk that boots."""
    return (b"former system ".ljust(510, b"!") + b"\x55\xaa" + b"former " * size)[:size]


def onto(disk: Path, server: HandServer, **options: Any) -> Fetch:
    return Fetch(disk, server.group, server.port, **options)


@pytest.mark.parametrize("resume", [False, True])
def test_a_disk_written_in_part_does_not_boot(stand: Stand, resume: bool) -> None:
    """Neither as what it was nor as what it was to become; the next try makes it whole."""
    image, disk = make_image(4, gap=0)
    path = stand.file(image)
    known = manifest.of_image(path)
    # With --resume, the first chunk may be right already, and what follows not.
    before = disk[:20480] + former_system(len(disk))[20480:] if resume else former_system(len(disk))
    target = stand.file(before)
    how = {"manifest": known, "resume": resume}
    server = stand.keep(HandServer(image, mute_after=2500))
    with pytest.raises(ClientError, match="has been silent"):
        onto(target, server, silence=0.5, **how).wait()
    found = target.read_bytes()
    assert found != before
    assert found[:512] == bytes(512)
    assert onto(target, stand.keep(HandServer(image)), **how).wait().disk.read_bytes() == disk


def test_the_flush_is_heard(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes its time: what waits for it is little, and each part that it takes is said."""
    image, disk = make_image(12, sectors=1800, gap=0)
    goes_on = threading.Event()
    waits: list[int] = []
    real = flush._sync_file_range()

    def slow(fd: int, at: int, size: int, flags: int) -> int:
        if flags & 4:
            waits.append(size)
            assert goes_on.wait(DEADLINE)
        return real(fd, at, size, flags)

    monkeypatch.setattr(flush, "_sync_file_range", lambda: slow)
    monkeypatch.setattr(flush, "BATCH", 1 << 20)
    monkeypatch.setattr(flush, "LIMIT", 20 << 20)
    server = stand.keep(HandServer(image))
    waiting = onto(stand.disk(len(disk)), server)
    wait_until(lambda: bool(waits), "the flush")
    assert re.findall(r"Flushing: (\d+)%", waiting.err.getvalue()) == ["0"]
    assert "Wrote" not in waiting.err.getvalue()
    goes_on.set()
    assert waiting.wait().disk.read_bytes() == disk
    said = [int(text) for text in re.findall(r"^Flushing: (\d+)%$", waiting.err.getvalue(), re.MULTILINE)]
    assert said[0] == 0
    assert said[-1] == 100
    assert len(said) >= 6
    assert waiting.err.getvalue().index("Flushing: 100%") < waiting.err.getvalue().index("Wrote")
    quiet = onto(stand.disk(len(disk)), server, quiet=True).wait()
    assert "Flushing" not in quiet.err.getvalue()


# -- a GPT ------------------------------------------------------------------------------------------------


def gpt(size: int, last: int) -> bytes:
    """A disk with a GPT, a partition from block 100 to ``last`` full of something, and the backup."""
    entries = struct.pack("<16s16sQQQ72x", b"\x99" * 16, b"\1" * 16, 100, last, 0).ljust(16384, b"\0")
    end = size // 512 - 1

    def header(own: int, other: int, table: int) -> bytes:
        raw = bytearray(
            struct.pack(
                "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, own, other, 34, end - 33,
                b"\7" * 16, table, 128, 128, zlib.crc32(entries),
            )
        )  # fmt: skip
        struct.pack_into("<I", raw, 16, zlib.crc32(raw))
        return bytes(raw).ljust(512, b"\0")

    disk = bytearray(size)
    disk[446:512] = struct.pack("<B3xB3xII48xH", 0, 0xEE, 1, end, 0xAA55)
    disk[512:1024] = header(1, end, 2)
    disk[1024 : 1024 + 16384] = entries
    disk[100 * 512 : (last + 1) * 512] = os.urandom((last - 99) * 512)
    disk[-33 * 512 :] = entries + header(end, 1, end - 32)
    return bytes(disk)


@pytest.mark.parametrize("size", [3 << 20, 4 << 20, 5 << 20])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_the_backup_of_a_gpt_is_where_this_disk_ends(
    stand: Stand, size: int, zero: bool, known: bool
) -> None:
    source = gpt(4 << 20, 4000)
    image = stand.folder / "gpt.ndz"
    assert zip_cli.main([str(stand.file(source)), str(image)]) == 0
    server = stand.keep(HandServer(image.read_bytes()))
    how: dict[str, Any] = {"verify": True, "zero_free": zero}
    if known:
        how |= {"manifest": manifest.read(manifest.path_of(image)), "resume": True}
    target = stand.file(former_system(size))
    for _ in range(2):
        waiting = onto(target, server, **how).wait()
        found = target.read_bytes()
        expected = gpt(size, 4000)
        assert found[: 34 * 512] == expected[: 34 * 512]
        assert found[-33 * 512 :] == expected[-33 * 512 :]
        assert found[100 * 512 : 4001 * 512] == source[100 * 512 : 4001 * 512]
        assert "Verified" in waiting.err.getvalue()


def test_a_disk_that_forgets_the_backup(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    from orbit_frisbee.ndz.unpack import Target

    image = stand.folder / "gpt.ndz"
    assert zip_cli.main([str(stand.file(gpt(4 << 20, 4000))), str(image)]) == 0
    target = stand.disk(5 << 20)

    def sync(self: Target) -> None:
        with target.open("r+b") as file:
            file.seek((5 << 20) - 500)
            file.write(b"x")

    monkeypatch.setattr(Target, "sync", sync)
    with pytest.raises(CheckError, match="the partition table that was made for this disk reads back wrong"):
        onto(target, stand.keep(HandServer(image.read_bytes())), verify=True).wait()


def test_a_file_stored_as_it_is_keeps_its_table(stand: Stand) -> None:
    content = gpt(4 << 20, 4000)
    target = stand.disk(6 << 20)
    onto(target, stand.keep(HandServer(content)), plain=True).wait()
    assert target.read_bytes() == content + bytes(2 << 20)
