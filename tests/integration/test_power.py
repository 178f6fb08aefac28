# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook power keeps its hands off nodes that a run has claimed."""

from __future__ import annotations

from .kit import play
from .leftovers import left

POWER = "playbooks/power.yml"


def power_of(testbed):
    return {node["name"]: node["power"] for node in testbed.state()["nodes"]}


def test_nodes_of_a_run_are_switched_only_by_force(testbed, held_up):
    inventory = testbed.inventory()
    before = testbed.boots(), power_of(testbed)
    for mode in ((), ("--check",)):
        refused = play("-i", inventory, POWER, "-e", "power=off", "--limit", "node1-1,node3-2", *mode)
        assert refused.status == 2, refused.output
        assert "nodes are claimed by another run: node1-1: run " in refused.output
        assert f"process {held_up.process.pid}) since 20" in refused.output
        assert "TASK [Switch them]" not in refused.output
    assert (testbed.boots(), power_of(testbed)) == before
    forced = play("-i", inventory, POWER, "-e", "power=off", "-e", "force=true", "--limit", "node1-1")
    assert forced.status == 0, forced.output
    assert "claimed, switched all the same: node1-1: run " in forced.output
    assert power_of(testbed)["node1-1"] == "off"


def test_switching_leaves_no_claim(testbed):
    inventory = testbed.inventory()
    for state in ("on", "off"):
        played = play("-i", inventory, POWER, "-e", f"power={state}", "--limit", "node3-2")
        assert played.status == 0, played.output
        assert power_of(testbed)["node3-2"] == state
    assert left(testbed) == []
