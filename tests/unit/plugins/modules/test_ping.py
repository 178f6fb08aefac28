# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module ping with the real program on the loopback interface, and with programs that misbehave."""

from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.modules import ping

from ..httpkit import run_module
from ..pingkit import NODES, needs_ping, script


def test_measured():
    needs_ping()
    ended = run_module(ping.main, {"nodes": NODES, "interval": 0.01, "count": 5})
    assert not ended.failed
    assert ended.results["changed"] is False
    assert [node["name"] for node in ended.results["nodes"]] == ["node1-1", "node1-2"]
    for node in ended.results["nodes"]:
        assert (node["packets"], node["received"], node["lost_percent"], node["msg"]) == (5, 5, 0.0, "")
        assert 0 < node["min"] <= node["avg"] <= node["max"]


def test_started_and_stopped(tmp_path):
    command = script(tmp_path, "exec sleep 1000")
    started = run_module(ping.main, {"state": "started", "nodes": NODES, "command": command})
    assert started.results["changed"] is True
    options = {"state": "stopped", "folder": started.results["folder"], "windows": {"node1-1": [1, 2]}}
    stopped = run_module(ping.main, options)
    assert stopped.results["changed"] is True
    assert [node["name"] for node in stopped.results["nodes"]] == ["node1-1", "node1-2"]
    assert run_module(ping.main, options).failed, "the folder is gone"


@pytest.mark.parametrize("state", ["measured", "started", "stopped"])
def test_check_mode_starts_and_ends_nothing(state, tmp_path):
    asked = tmp_path / "asked"
    options = {
        "state": state,
        "nodes": NODES,
        "command": script(tmp_path, f"echo x >>{asked}"),
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
    ended = run_module(ping.main, {"nodes": NODES[:1], "command": script(tmp_path, text)})
    (node,) = ended.results["nodes"]
    assert (node["packets"], node["received"]) == (0, 0)
    assert node["msg"]
