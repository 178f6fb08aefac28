# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A callback hears the runs of its ansible-playbook, and notices when nobody reads any more."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.report.board import Board
from ansible_collections.orbit.imaging.plugins.plugin_utils.report.listener import Listener
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import events


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.delenv(events.ADDRESS, raising=False)
    return monkeypatch


def send(address, data):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(data, events.kernel_address(address))


def test_events_are_heard_and_the_environment_is_as_before(environment):
    heard, news = [], threading.Event()
    listener = Listener("live", heard.append, lambda: heard and news.set())
    listener.start()
    address = os.environ[events.ADDRESS]
    assert events.shown_by(address, os.getpid()) == "live"
    assert events.shown_by(address, os.getpid() + 1) is None
    for data in (b"no json", b"[]", b'{"v": 99}', b'{"v": 1, "event": "step", "run": "r1"}'):
        send(address, data)
    assert news.wait(60)
    assert [event["event"] for event in heard] == ["step"]
    listener.close()
    listener.close()
    assert events.ADDRESS not in os.environ
    with pytest.raises(OSError, match="refused"):
        send(address, b"{}")


def test_who_listened_before_goes_on_hearing(environment, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as former:
        former.bind(str(tmp_path / "socket"))
        former.settimeout(60)
        environment.setenv(events.ADDRESS, str(tmp_path / "socket"))
        listener = Listener("report", lambda event: None)
        listener.start()
        told = events.Events("r1", None)
        told.emit("step", step="link", state="began")
        told.close()
        assert json.loads(former.recv(1000))["step"] == "link"
        listener.close()
        former.setblocking(False)
        with pytest.raises(BlockingIOError):
            former.recv(1000)
        assert os.environ[events.ADDRESS] == str(tmp_path / "socket")


def test_who_listened_before_may_be_slow(environment, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as former:
        former.bind(str(tmp_path / "socket"))
        former.settimeout(60)
        environment.setenv(events.ADDRESS, str(tmp_path / "socket"))
        last = threading.Event()
        listener = Listener("live", lambda event: event["attempt"] == 999 and last.set(), pause=0.01)
        listener.start()
        told = events.Events("r1", None)
        for number in range(1000):
            told.emit("attempt", attempt=number)
        while not last.is_set():
            told.flush()
        found = [json.loads(former.recv(1000))["attempt"] for _number in range(1000)]
        assert found == list(range(1000))
        told.close()
        listener.close()


@pytest.mark.parametrize("odd", [{"event": "node"}, {"event": ["node"]}, {"event": "run", "run": 1}])
def test_what_is_no_event_ends_nothing(environment, odd):
    heard, news = [], threading.Event()
    board = Board()

    def hear(event):
        board.hear(event)
        heard.append(event)
        news.set()

    listener = Listener("live", hear)
    listener.start()
    send(os.environ[events.ADDRESS], json.dumps({"v": 1, "run": "", **odd}).encode())
    send(os.environ[events.ADDRESS], b'{"v": 1, "event": "step", "run": "", "state": "ended"}')
    assert news.wait(60)
    listener.close()
    assert [event["event"] for event in heard] == ["step"]


PROGRAM = """\
import signal, sys, time
from ansible_collections.orbit.imaging.plugins.plugin_utils.report.listener import Listener
listener = Listener("report", print)
listener.start()
try:
    print("listening", flush=True)
    signal.pause()
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("nobody reads this " * 10000, flush=True)
    sys.stderr.write("interrupted")
"""


def test_a_program_whose_reader_goes_away_is_interrupted(environment):
    with subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout.readline() == b"listening\n"
        process.stdout.close()
        assert process.stderr.read() == b"interrupted"
        assert process.wait() == 0


BROKEN = PROGRAM.replace('Listener("report", print)', 'Listener("live", print, broken, 0.01)').replace(
    "listener =", "def broken():\n    raise BrokenPipeError\n\nlistener ="
)


def test_what_cannot_be_shown_does_not_keep_it_from_being_noticed(environment):
    with subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-c", BROKEN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout.readline() == b"listening\n"
        process.stdout.close()
        assert process.stderr.read() == b"interrupted"


def test_a_program_that_ignores_interrupts_is_ended(environment):
    with subprocess.Popen(
        ["env", "--ignore-signal=INT", sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout.readline() == b"listening\n"
        process.stdout.close()
        assert process.wait() == -signal.SIGTERM
