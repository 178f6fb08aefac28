# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lines and events of nodes that change are the same."""

from __future__ import annotations

import json

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.run import events
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.progress import Progress

GROUPS = [{"label": "senders", "image": "a.ndz", "nodes": ["node1-1", "node1-2"]}]


@pytest.fixture
def told(tmp_path, monkeypatch):
    monkeypatch.delenv(events.ADDRESS, raising=False)
    lines = []
    emitted = events.Events("r1", str(tmp_path))
    yield Progress(GROUPS, lines.append, emitted, "client"), lines, tmp_path / events.FILE
    emitted.close()


def test_lines_come_from_events(told):
    progress, lines, path = told
    progress.change("node1-1", "ready", quiet=True)
    progress.change("node1-1", "imaging")
    progress.again("node1-2", "try 2 of 3 after no_boot: reset", attempt=2, cause="no_boot")
    progress.change("node1-2", "failed", "no answer", cause="no_boot")
    assert [line.partition("]  ")[2] for line in lines] == [
        "node1-1: imaging",
        "node1-2: try 2 of 3 after no_boot: reset",
        "node1-2: failed: no_boot: no answer",
    ]
    found = [json.loads(line) for line in path.read_text().splitlines()]
    about = {"step": "client", "group": "senders", "image": "a.ndz"}
    assert all(about.items() <= event.items() for event in found)
    assert [(e["event"], e["node"], e.get("state"), e.get("attempt"), e.get("cause")) for e in found] == [
        ("node", "node1-1", "ready", None, None),
        ("node", "node1-1", "imaging", None, None),
        ("attempt", "node1-2", None, 2, "no_boot"),
        ("node", "node1-2", "failed", None, "no_boot"),
    ]


def test_how_far_a_client_is_is_told_but_not_all_the_time(told):
    progress, _lines, path = told
    progress.amount("node1-1", 1000)
    for percent in range(101):
        progress.percent("node1-1", percent)
    progress.percent("node1-1", 100, "verifying")
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found[0]["bytes"] == 1000
    assert len(found) < 50
    assert [(e["percent"], e.get("msg")) for e in found[-2:]] == [(100, None), (100, "verifying")]


def test_a_node_that_failed_before_is_counted_but_not_told_again(told):
    progress, lines, path = told
    progress.leave_out("node1-2")
    progress.summary()
    assert lines[0].endswith("senders  a.ndz: 1 booting, 1 failed")
    assert not path.exists()
