# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quorums, the files of a run, and the same run again for the nodes that failed."""

from __future__ import annotations

import shlex
import xml.etree.ElementTree as ET

import pytest

from .kit import IMAGE, TWO_GROUPS, play
from .test_image import all_imaged

QUICK = "  orbit_boot_timeout: 6\n  orbit_gather: 1\n  orbit_retries: 0\n"


@pytest.fixture
def dead_node(order):
    """A node of the senders that never boots."""
    order("node1-1", "never-boot")
    return "node1-1"


def test_a_group_passes_with_its_quorum_and_the_rest_is_done_again(testbed, dead_node):
    inventory = testbed.inventory(TWO_GROUPS, variables=QUICK + '  orbit_quorum: "60%"\n')
    played = play("-i", inventory, IMAGE)
    assert played.status == 0, played.output
    assert "2 of 3 (quorum 60%)" in played.output
    assert "node1-1: no_boot: " in played.output
    assert all(counts["failed"] == 0 for counts in played.recap.values())
    groups = {group["label"]: group for group in played.result["groups"]}
    assert (groups["senders"]["imaged"], groups["senders"]["needed"], groups["senders"]["passed"]) == (
        2,
        2,
        True,
    )
    assert played.outcomes.pop("node1-1") == "no_boot"

    suites = {suite.get("name"): suite for suite in ET.parse(played.folder / "junit.xml").getroot()}
    (failure,) = suites["senders"].findall("testcase[@name='node1-1']/failure")
    assert failure.get("type") == "no_boot"
    assert suites["senders"].find("properties/property[@name='run']").get("value") == played.folder.name
    assert suites["receivers"].get("failures") == "0"

    testbed.fault(dead_node, "none")
    before = testbed.boots()
    (again,) = [line for line in played.output.splitlines() if line.startswith("Run again: ")]
    command = shlex.split(again.removeprefix("Run again: "))
    assert command == ["ansible-playbook", "-i", str(played.folder / "rerun.yml"), IMAGE]
    second = play(*command[1:])
    all_imaged(second, {"node1-1": "sender.ndz"})
    assert {name for name, boots in testbed.boots().items() if boots != before[name]} == {"node1-1"}
    assert not (second.folder / "rerun.yml").exists()
    assert [group["label"] for group in second.result["groups"]] == ["senders"]


def test_a_quorum_that_is_missed_fails_the_run(testbed, dead_node):
    inventory = testbed.inventory(TWO_GROUPS, variables=QUICK)
    played = play("-i", inventory, IMAGE, "--limit", "senders", "-e", "orbit_quorum=3")
    assert played.status == 2, played.output
    assert not played.result["passed"]
    assert played.recap["node1-1"]["failed"] == 1


def test_a_quorum_that_is_none_is_refused_before_a_node_is_touched(testbed):
    before = testbed.boots()
    played = play("-i", testbed.inventory(TWO_GROUPS), IMAGE, "-e", "orbit_quorum=most")
    assert played.status == 2
    assert "orbit_quorum: 'most' is neither a percentage nor a number of nodes" in played.output
    assert testbed.boots() == before
