# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture of a run, drawn from a record; no testbed."""

from __future__ import annotations

import json
import subprocess
import sys

from .kit import ROOT

RECORD = {
    "started_at": 1000.0,
    "ended_at": 1036.0,
    "timeline": [
        {"step": "reset", "began_at": 1000.0, "ended_at": 1001.0},
        {"step": "client", "began_at": 1001.0, "ended_at": 1021.0},
    ],
    "nodes": {
        "node1-1": {
            "outcome": "imaged",
            "steps": {
                "reset": {"at": 1001.0},
                "client": {"booted_at": 1011.0, "started_at": 1012.0, "ended_at": 1020.0},
                "boot": {"at": 1022.0},
                "proof": {"up_at": 1035.0},
            },
        },
        "node1-2": {"outcome": "no_boot", "steps": {"reset": {"at": 1001.0}, "client": {}}},
    },
}
PICTURE = [
    "seconds    0         5         10        15        20        25        30        35",
    "reset      ##" + 70 * " " + "     1.0 s",
    "client       " + 40 * "#" + 30 * " " + "    20.0 s",
    "  node1-1    " + 20 * "." + "  " + 16 * "=" + "    " + 26 * ":" + "    imaged",
    "  node1-2  " + 72 * " " + "  no_boot",
]


def timeline(path):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "timeline.py"), str(path)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_the_steps_and_what_each_node_did(tmp_path):
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
    (tmp_path / "two" / "result.json").write_text(json.dumps(RECORD))
    drawn = timeline(tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.splitlines()[: len(PICTURE)] == PICTURE
    assert timeline(tmp_path / "two" / "result.json").stdout == drawn.stdout


def test_what_is_no_record(tmp_path):
    (tmp_path / "result.json").write_text("[]")
    answer = timeline(tmp_path / "result.json")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "is no record of a run" in answer.stderr
    assert timeline(tmp_path).stderr == f"timeline: no run has left a record in {tmp_path}\n"
