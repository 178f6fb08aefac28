# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module ping with the real program on the loopback interface, and with programs that misbehave."""

from __future__ import annotations

import os
import pathlib
import shutil
import time

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import pings
from ansible_collections.orbit.imaging.plugins.modules import ping

from ..httpkit import run_module

HOME = "127.0.0.1"
NODES = [{"name": "node1-1", "address": HOME}, {"name": "node1-2", "address": "127.0.0.2"}]
# Enough for any machine; nothing waits for it where all goes well.
AGES = 180.0


def _needs_ping():
    if shutil.which("ping") is None:
        pytest.skip("there is no ping here (Debian: iputils-ping)")


def _script(folder, text):
    path = folder / "ping"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return [str(path)]


def _await(what, words):
    end = time.monotonic() + AGES
    while not what():
        assert time.monotonic() < end, words
        time.sleep(0.01)


def _ended(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _running(folder):
    """The processes that hold the lock of started pings."""
    lock = os.path.join(folder, "lock")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if lock in links:
            found.append(int(pid))
    return found


def test_measured():
    _needs_ping()
    ended = run_module(ping.main, {"nodes": NODES, "interval": 0.01, "count": 5})
    assert not ended.failed
    assert ended.results["changed"] is False
    assert [node["name"] for node in ended.results["nodes"]] == ["node1-1", "node1-2"]
    for node in ended.results["nodes"]:
        assert (node["packets"], node["received"], node["lost_percent"], node["msg"]) == (5, 5, 0.0, "")
        assert 0 < node["min"] <= node["avg"] <= node["max"]


def test_started_and_stopped_within_windows():
    _needs_ping()
    began = time.time()
    started = run_module(ping.main, {"state": "started", "nodes": NODES, "interval": 0.01})
    folder = started.results["folder"]
    try:
        assert started.results["changed"] is True
        pids = _running(folder)
        assert len(pids) == 2
        answers = pathlib.Path(folder, "0")
        _await(lambda: answers.read_text().count("bytes from") >= 5, "no answer on the loopback interface")
    finally:
        stopped = run_module(
            ping.main,
            {"state": "stopped", "folder": folder, "windows": {"node1-1": [began, time.time()]}},
        )
    first, second = stopped.results["nodes"]
    assert (first["name"], first["msg"], first["lost_percent"]) == ("node1-1", "", 0.0)
    assert first["received"] >= 5
    assert (second["packets"], second["msg"]) == (0, "no window to sample")
    assert not os.path.exists(folder)
    assert all(map(_ended, pids))


def test_a_ping_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(pings, "_STOP_PATIENCE", 0.2)
    command = _script(tmp_path, "trap '' INT; while :; do sleep 0.1; done")
    started = run_module(ping.main, {"state": "started", "nodes": NODES[:1], "command": command})
    folder = started.results["folder"]
    pids = _running(folder)
    assert pids
    stopped = run_module(ping.main, {"state": "stopped", "folder": folder})
    assert not stopped.failed
    assert stopped.results["nodes"][0]["packets"] == 0
    assert stopped.results["nodes"][0]["msg"]
    _await(lambda: all(map(_ended, pids)), "it still runs")


@pytest.mark.parametrize("state", ["measured", "started", "stopped"])
def test_check_mode_starts_and_ends_nothing(state, tmp_path):
    asked = tmp_path / "asked"
    options = {
        "state": state,
        "nodes": NODES,
        "command": _script(tmp_path, f"echo x >>{asked}"),
        "folder": str(tmp_path),
        "_ansible_check_mode": True,
    }
    ended = run_module(ping.main, options)
    assert (ended.failed, ended.results["changed"], ended.results["nodes"]) == (False, False, [])
    assert not asked.exists()
    assert tmp_path.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interval": 0}, "interval is 0.0, but must be at least 0.002"),
        ({"interval": "nan"}, "interval is nan"),
        ({"count": 0}, "count is 0"),
        ({"state": "started", "limit": 0}, "limit is 0"),
        ({"command": []}, "command is empty"),
        ({"command": ["no-such-ping"]}, "there is no program no-such-ping here"),
        ({"nodes": [{"name": "node1-1", "address": "-f"}]}, "'-f' is no address"),
        ({"state": "stopped"}, "folder"),
        ({"state": "stopped", "folder": "/nowhere/at/all"}, "is none that state=started has returned"),
    ],
)
def test_what_cannot_be_right_is_refused(options, words):
    ended = run_module(ping.main, {"nodes": NODES, **options})
    assert ended.failed
    assert words in ended.results["msg"]


@pytest.mark.parametrize("text", ["echo nonsense", "exit 3", "echo 'ping: permission denied' >&2; exit 2"])
def test_a_program_that_says_something_else_is_no_measurement(tmp_path, text):
    ended = run_module(ping.main, {"nodes": NODES[:1], "command": _script(tmp_path, text)})
    (node,) = ended.results["nodes"]
    assert (node["packets"], node["received"]) == (0, 0)
    assert node["msg"]
