# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs called ping: the real one on the loopback interface, and some that misbehave."""

from __future__ import annotations

import os
import pathlib
import time

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import pings
from ansible_collections.orbit.imaging.plugins.module_utils.ping import PingError

from ..pingkit import NODES, needs_ping, script
from ..processkit import has_ended

# Enough for any machine; nothing waits for it where all goes well.
AGES = 180.0


def _await(what, words):
    end = time.monotonic() + AGES
    while not what():
        assert time.monotonic() < end, words
        time.sleep(0.01)


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


def test_started_and_stopped_within_windows():
    needs_ping()
    began = time.time()
    folder = pings.start(["ping"], NODES, 0.01, 3600)
    try:
        pids = _running(folder)
        assert len(pids) == 2
        answers = pathlib.Path(folder, "0")
        _await(lambda: answers.read_text().count("bytes from") >= 5, "no answer on the loopback interface")
    finally:
        first, second = pings.stop(folder, {"node1-1": [began, time.time()]})
    assert (first["name"], first["msg"], first["lost_percent"]) == ("node1-1", "", 0.0)
    assert first["received"] >= 5
    assert (second["packets"], second["msg"]) == (0, "no window to sample")
    assert not os.path.exists(folder)
    assert all(map(has_ended, pids))


def test_pings_that_nobody_stops_end_by_themselves():
    needs_ping()
    folder = pings.start(["ping"], NODES, 0.01, 0.05)
    pids = _running(folder)
    assert all(map(has_ended, pids)), "they ping on"
    assert [node["name"] for node in pings.stop(folder, {})] == ["node1-1", "node1-2"]


def test_a_ping_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(pings, "_STOP_PATIENCE", 0.2)
    folder = pings.start(script(tmp_path, "trap '' INT; while :; do sleep 0.1; done"), NODES[:1], 0.2, 60)
    pids = _running(folder)
    assert pids
    (node,) = pings.stop(folder, {})
    assert node["packets"] == 0
    assert node["msg"]
    assert all(map(has_ended, pids)), "it still runs"


def test_a_measurement_that_does_not_end_is_ended(tmp_path, monkeypatch):
    for name in ("_PATIENCE", "_STOP_PATIENCE"):
        monkeypatch.setattr(pings, name, 0.1)
    command = script(tmp_path, f"echo $$ >{tmp_path}/pid; trap '' INT; while :; do sleep 0.1; done")
    (node,) = pings.measure(command, NODES[:1], 0.01, 1)
    assert node["packets"] == 0
    assert node["msg"]


def test_what_cannot_be_started_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(pings.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OSError, match="No such file"):
        pings.start([str(tmp_path / "none")], NODES, 0.2, 60)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "kept").touch()
    with pytest.raises(PingError, match="is none that state=started has returned"):
        pings.stop(str(tmp_path), {})
    assert (tmp_path / "kept").exists()
