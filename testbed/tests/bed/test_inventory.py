# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

from orbit_testbed.bed.inventory import text
from orbit_testbed.nodes.layout import Settings, State


def test_inventory_names_everything_a_run_needs(tmp_path: Path) -> None:
    inventory = text(Settings(number=9, columns=3, rows=2), State(tmp_path))
    for line in (
        "plugin: orbit.imaging.nodes",
        "size: [3, 2]",
        'ansible_host: "127.9.{x}.{y}"',
        'control_ip: "10.9.{x}.{y}"',
        '    nodes: "[1..3,1]"',
        "    image: sender.ndz",
        '    nodes: "[1..3,2..2]"',
        '  orbit_cmc_url: "http://127.9.0.1:5012"',
    ):
        assert line in inventory.splitlines()
    assert "receivers" not in text(Settings(columns=3, rows=1), State(tmp_path))
