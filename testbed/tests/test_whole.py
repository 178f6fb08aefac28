# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are replaced as a whole, by all who do so: no name that can be known before, nothing left."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orbit_frisbee.frisbee.server import Server, ServerConfig
from orbit_frisbee.whole import drafted, replace_file
from orbit_services.links import LinkTable, PerLinkLife
from orbit_services.state import StateError, StateFile
from orbit_testbed.bed.process import ProcessId


def write_stats(path: Path) -> None:
    image = path.parent.parent / "image"
    image.write_bytes(bytes(1 << 20))
    server = Server(ServerConfig(image, "239.77.9.9", 0, interface="127.0.0.1", stats=path))
    try:
        server._write_stats()
    finally:
        server.close()


WRITERS: dict[str, Callable[[Path], None]] = {
    "state": lambda path: StateFile(path).save({"links": {}}),
    "process": lambda path: ProcessId(1, 2).save(path),
    "link": lambda path: LinkTable(path.parent, [path.name], PerLinkLife(0)).set(path.name, "image"),
    "text": lambda path: replace_file(path, "words"),
    "bytes": lambda path: replace_file(path, b"words"),
    "longest name": lambda path: replace_file(path.with_name("n" * 255), b"words"),
    "stats": write_stats,
}


@pytest.fixture
def opened() -> Iterator[list[tuple[str, int]]]:
    """The files that this thread has opened for writing or made as a link, with the flags of the first."""
    found: list[tuple[str, int]] = []
    me = threading.get_ident()
    listening = True

    def listen(event: str, given: tuple[object, ...]) -> None:
        if not listening or threading.get_ident() != me:
            return
        if event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR):
            found.append((str(given[0]), given[2]))
        elif event == "os.symlink":
            # It never replaces anything.
            found.append((str(given[1]), os.O_EXCL))

    # Nothing takes it off again.
    sys.addaudithook(listen)
    yield found
    listening = False


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_is_made_first_has_another_name_each_time(
    tmp_path: Path, opened: list[tuple[str, int]], write: Callable[[Path], None]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for _ in range(2):
        write(folder / "0A0A0101")
    made = [(path, flags) for path, flags in opened if Path(path).parent == folder]
    assert len(made) == 2
    assert len({path for path, _flags in made}) == 2
    assert all(flags & os.O_EXCL for _path, flags in made)
    assert all(Path(path).name.startswith(".") for path, _flags in made)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("name", ["state", "process", "text"])
def test_what_cannot_be_replaced_leaves_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises((OSError, StateError)):
        WRITERS[name](tmp_path / "there")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_block_that_fails_leaves_what_there_was(tmp_path: Path) -> None:
    path = tmp_path / "there"
    replace_file(path, "old")

    def begin() -> None:
        with drafted(path) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert [found.read_text() for found in tmp_path.iterdir()] == ["old"]


def test_files_are_as_readable_as_any(tmp_path: Path) -> None:
    replace_file(tmp_path / "there", "")
    (tmp_path / "other").touch()
    assert (tmp_path / "there").stat().st_mode == (tmp_path / "other").stat().st_mode
