# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a supervised command has started, and however it ends: nothing of it is left."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from .kit import ROOT, Marked, supervised

sys.path.append(str(ROOT / "tools"))

import supervise

#: Says that it is there and then ignores whoever asks it to end.
STUBBORN = "trap '' INT TERM HUP; echo up; while :; do sleep 60; done"
#: Ends when it is asked to, and its child with it; who ends the child first is told so.
ORDERLY = """
sleep 600 & child=$!
trap 'kill -0 $child && echo down in order; kill $child; exit' TERM
echo up
wait
echo the child was ended first
"""


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def number(request):
    return request.param


def test_a_command_is_interrupted(number):
    with supervised("sh", "-c", "trap 'echo cleaned; exit' INT; echo up; while :; do sleep 0.1; done") as run:
        run.wait_for("up")
        run.process.send_signal(number)
        assert run.finish() == 130
        assert "cleaned" in run.output
        assert run.left() == []


@pytest.mark.parametrize(
    "way",
    [
        ("sh", "-c", STUBBORN),
        ("setsid", "sh", "-c", STUBBORN),
        ("sh", "-c", 'setsid sh -c "$0" & wait', STUBBORN),
        ("sh", "-c", 'setsid sh -c "$0" &', STUBBORN),
        ("unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "sh", "-c", STUBBORN),
        ("sh", "-c", 'setsid unshare --user --map-root-user --net --pid --fork sh -c "$0" &', STUBBORN),
    ],
    ids=["itself", "session", "child in a session", "daemon", "namespaces", "daemon in namespaces"],
)
def test_what_does_not_want_to_end_is_killed(way):
    with supervised(*way) as run:
        run.wait_for("up")
        # Each further signal goes on to the next step at once.
        assert run.insist() != 0
        assert run.left() == []


def test_a_daemon_ends_its_children_itself():
    with supervised("sh", "-c", 'setsid sh -c "$0" & sleep 600', ORDERLY) as run:
        run.wait_for("up")
        run.process.send_signal(signal.SIGINT)
        assert run.finish() == 130
        assert "down in order" in run.output
        assert "first" not in run.output
        assert run.left() == []


def test_a_command_that_leaves_something_behind_has_failed():
    with supervised("sh", "-c", "setsid sleep 600 & echo done") as run:
        assert run.finish() == supervise.LEFT_BEHIND
        assert "sleep 600" in run.output
        assert run.left() == []


def test_its_own_failure_is_not_hidden_by_what_it_leaves_behind():
    with supervised("sh", "-c", "setsid sleep 600 & exit 7") as run:
        assert run.finish() == 7
        assert run.left() == []


def test_what_ends_soon_after_the_command_is_not_left_behind():
    with supervised("sh", "-c", "(sleep 0.3; echo late) & echo done") as run:
        assert run.finish() == 0
        assert run.output == "done\nlate\n"


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_the_status_is_that_of_the_command(script, status):
    with supervised("sh", "-c", script) as run:
        assert run.finish() == status


def test_a_program_that_does_not_exist():
    with supervised("no-such-program") as run:
        assert run.finish() == 127
        assert "no-such-program" in run.output


def test_all_output_is_shown_and_kept(tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    with supervised("seq", "100000", options=("--log", str(log))) as run:
        assert run.finish() == 0
        numbers = "".join(f"{number}\n" for number in range(1, 100001))
        assert run.output == numbers
        assert log.read_text() == f"before\n{numbers}"


def test_quiet_output_is_only_kept(tmp_path):
    log = tmp_path / "log"
    with supervised("echo", "word", options=("--quiet", "--log", str(log))) as run:
        assert run.finish() == 0
        assert run.output == ""
        assert log.read_text() == "word\n"


def test_who_does_nothing_any_more_is_given_up():
    with supervised("sh", "-c", 'setsid sh -c "$0" & wait', STUBBORN, options=("--patience", "1")) as run:
        assert run.finish() == supervise.GIVEN_UP
        assert "given up" in run.output
        assert "sleep 60" in run.output
        assert run.left() == []


def test_it_ends_with_who_started_it():
    start = (
        "import subprocess, sys, os;"
        "subprocess.run([*sys.argv[1:3], '--parent', str(os.getpid()), *sys.argv[3:]])"
    )
    program = str(ROOT / "tools" / "supervise.py")
    with Marked(
        sys.executable, "-c", start, sys.executable, program, "sh", "-c", "echo up; sleep 600"
    ) as run:
        run.wait_for("up")
        run.process.kill()
        # The pipe closes when the last of them has ended.
        run.finish()
        assert run.left() == []


class Clock:
    """Time as a test wants it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(clock):
    return supervise.Progress(300.0, clock)


def test_patience_is_over_after_so_long_without_anything(progress, clock):
    clock.now += 299
    assert not progress.over(0.0)
    clock.now += 1
    assert progress.over(0.0)


def test_output_is_progress(progress, clock):
    for _ in range(100):
        clock.now += 299
        progress.output()
        assert not progress.over(0.0)


def test_work_is_progress_however_slow_the_machine(progress, clock):
    """A tenth of a processor, as with eight busy neighbours on one core."""
    for spent in range(1000):
        clock.now += 10
        assert not progress.over(float(spent))


def test_what_an_idle_testbed_takes_is_none(progress, clock):
    spent = 0.0
    for _ in range(149):
        clock.now += 2
        spent += 0.008
        assert not progress.over(spent)
    clock.now += 2
    assert progress.over(spent)


def test_the_end_of_a_process_is_progress_even_if_nobody_counts_its_time(progress, clock):
    clock.now += 200
    assert not progress.over(50.0)
    clock.now += 200
    assert not progress.over(10.0)
    clock.now += 299
    assert not progress.over(10.0)


def test_nobody_is_there_to_look_on_any_more(tmp_path):
    """A closed pipe, as of ``make test | head``, does not end the tests."""
    log = tmp_path / "log"
    go = tmp_path / "go"
    os.mkfifo(go)
    script = "echo up; read line <$0; echo last"
    with supervised("sh", "-c", script, str(go), options=("--log", str(log))) as run:
        run.wait_for("up")
        run.process.stdout.close()
        go.write_text("go\n")
        assert run.process.wait() == 0
        assert log.read_text() == "up\nlast\n"
