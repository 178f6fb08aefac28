# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``make test`` in small: parts with workers and real testbeds, interrupted at one moment or another."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import sys

import pytest

from .kit import ROOT, Marked

sys.path.append(str(ROOT / "tools"))

import check
import supervise

#: tools/check.py with two parts of its own; each runs the same two tests in two processes.
_RUN = """
import pathlib, sys
folder, tests = map(pathlib.Path, sys.argv[1:])
sys.path.insert(0, "tools")
import check
check.LOGS = folder
check.log_of = lambda part: folder / f"{part.name}.log"
check.PARTS = tuple(
    check.Part(
        name,
        "tests",
        "brings testbeds up",
        (("pytest", "-q", "-n", "2", "-p", "no:cacheprovider", f"--basetemp={folder / name}", str(tests)),),
        tests=True,
    )
    for name in ("one", "two")
)
check.prepare = lambda *_: {}
sys.exit(check.main([]))
"""
#: Each test says when it begins, which number its testbed has, and what it does when it is ended.
_TESTS = """
import os, pathlib, threading
import pytest
from tests.integration.kit import Testbed

def say(words):
    with open(os.environ["NEWS"], "a") as news:
        news.write(words + "\\n")

@pytest.mark.parametrize("which", [1, 2])
def test_something_that_takes_long(tmp_path, which):
    say("begins")
    with Testbed(tmp_path, "2x1") as testbed:
        say(f"up {testbed.number}")
        threading.Event().wait()
"""


class SmallRun:
    """A run of the two parts, and the pipe through which their tests tell how far they are."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        tests = folder / "test_long.py"
        tests.write_text(_TESTS)
        pipe = folder / "news"
        os.mkfifo(pipe)
        # Open for writing too: it does not end when one writer closes it.
        self._news = os.fdopen(os.open(pipe, os.O_RDWR), buffering=1)
        self._numbers: list[str] = []
        self.run = Marked(
            *(sys.executable, "-c", _RUN, str(folder), str(tests)),
            NEWS=str(pipe),
            PYTHONPATH=str(ROOT),
        )

    def hear(self, words: str, times: int) -> None:
        """Wait until the tests have said something so many times."""
        while times:
            line = self._news.readline()
            times -= line.startswith(words)
            if line.startswith("up"):
                self._numbers.append(line.split()[1])

    def left(self) -> list[str]:
        """Return what there is of it: processes, listening sockets, mounts."""
        found = self.run.left()
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(self._folder) in command:
                    found.append(command)
        for number in self._numbers:
            with socket.socket() as probe:
                # Connections to it that have ended are no matter.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((f"127.{number}.0.1", 5012))
                except OSError:
                    found.append(f"somebody listens on 127.{number}.0.1")
        mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
        return found + [line for line in mounts if str(self._folder) in line]

    def __enter__(self) -> SmallRun:
        return self

    def __exit__(self, *exc: object) -> None:
        self.run.__exit__(*exc)
        self._news.close()


@pytest.fixture
def small_run(tmp_path):
    with SmallRun(tmp_path) as run:
        yield run


@pytest.mark.parametrize(
    ("words", "times"),
    [("begins", 1), ("begins", 3), ("up", 1), ("up", 4)],
    ids=["first test", "while testbeds come up", "first testbed", "all testbeds"],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_an_interrupted_run(small_run, words, times, number):
    small_run.hear(words, times)
    small_run.run.process.send_signal(number)
    assert small_run.run.finish() == 130, small_run.run.output
    assert small_run.run.output.splitlines()[-1] == "interrupted"
    assert small_run.left() == []


def test_nothing_is_left_of_a_run_that_is_killed(small_run):
    """Its supervisors hear of it and end what there is; the pipe closes when the last one has."""
    small_run.hear("up", 2)
    small_run.run.process.kill()
    small_run.run.finish()
    assert small_run.left() == []


def test_every_core_has_its_part():
    cores = check.cores()
    names = [part.name for part in check.PARTS]
    assert check.main_core() in cores
    assert [name for name in names if name.startswith("units")] == [
        "units",
        *(f"units-{core}" for core in cores if core != check.main_core()),
    ]
    assert [name for name in names if name.startswith("whole-")] == [
        f"whole-{cores[0]}",
        f"whole-{cores[-1]}",
    ]


def test_tests_of_what_touches_ansible_are_there():
    assert [path for path in check.on_ansible() if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (1, "exit status 1"),
        (127, "no such program"),
        (137, "killed by signal 9"),
        (supervise.GIVEN_UP, "no progress for 300 s"),
        (supervise.LEFT_BEHIND, "left processes running"),
    ],
)
def test_how_a_command_ended_is_said_in_words(status, words):
    assert check.describe(status) == words
