# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that fails on its way is tried again, while the others go on."""

from __future__ import annotations

import time

from .kit import IMAGE, TWO_GROUPS, Watched, finish, play, start
from .leftovers import all_gone_soon, last_log, newest_run

QUICK = "  orbit_boot_timeout: 8\n  orbit_gather: 1\n  orbit_retries: 1\n"


def wait_for_boot(testbed, node, count, running):
    """Wait until the power of ``node`` has come on so often."""
    deadline = time.monotonic() + 600
    while testbed.boots()[node] < count:
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def modules_of(testbed):
    """Processes of modules that work for the last run on this testbed."""
    from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import guard

    return guard._marked(f"{guard.MARK}={newest_run(testbed).name}".encode())


def wait_for_module(testbed):
    deadline = time.monotonic() + 600
    while not modules_of(testbed):
        assert time.monotonic() < deadline, "no module was started"
        time.sleep(0.05)


def attempts(played, node):
    """Return what was tried with a node: power action and cause."""
    return [(tried["power"], tried["cause"]) for tried in played.result["nodes"][node]["attempts"]]


def test_a_node_that_boots_on_its_second_try_is_imaged_and_nobody_has_waited(testbed, order):
    order("node1-1", "never-boot,once")
    played = play("-i", testbed.inventory(TWO_GROUPS, variables=QUICK), IMAGE)
    assert played.status == 0, played.output
    assert set(played.outcomes.values()) == {"imaged"}
    assert "node1-1: try 2 of 2 after no_boot: power off and on" in played.output
    assert attempts(played, "node1-1") == [("reset", "no_boot"), ("cycle", None)]
    assert attempts(played, "node1-2") == [("reset", None)]
    nodes = played.result["nodes"]
    retried_at = nodes["node1-1"]["attempts"][1]["began_at"]
    others = [nodes[name]["steps"]["client"]["ended_at"] for name in nodes if name != "node1-1"]
    assert max(others) < retried_at


def test_a_node_that_never_boots_ends_with_the_last_cause_and_all_evidence(testbed, order):
    before = testbed.boots()["node1-1"]
    order("node1-1", "never-boot")
    inventory = testbed.inventory(TWO_GROUPS, variables=QUICK.replace("timeout: 8", "timeout: 4"))
    played = play("-i", inventory, IMAGE, "--limit", "senders")
    assert played.status == 2, played.output
    assert played.outcomes == {"node1-1": "no_boot", "node2-1": "imaged", "node3-1": "imaged"}
    assert attempts(played, "node1-1") == [("reset", "no_boot"), ("cycle", "no_boot")]
    assert "try 1 (reset): no_boot: " in played.result["nodes"]["node1-1"]["evidence"]
    assert testbed.boots()["node1-1"] == before + 2


def test_what_another_boot_does_not_change_is_not_tried_again(testbed):
    before = testbed.boots()["node1-1"]
    inventory = testbed.inventory(TWO_GROUPS, variables=QUICK)
    played = play("-i", inventory, IMAGE, "--limit", "node1-1", "-e", "orbit_client=/bin/none")
    assert played.outcomes == {"node1-1": "client_missing"}, played.output
    assert testbed.boots()["node1-1"] == before + 1


def test_a_reset_that_was_accepted_and_not_done_is_followed_by_a_power_cycle(testbed, order):
    inventory = testbed.inventory(TWO_GROUPS, variables=QUICK.replace("timeout: 8", "timeout: 4"))
    assert play("-i", inventory, "playbooks/power.yml", "--limit", "node1-1", "-e", "power=on").status == 0
    order("node1-1", "power-lost=1")
    played = play("-i", inventory, IMAGE, "--limit", "node1-1")
    assert played.status == 0, played.output
    assert attempts(played, "node1-1") == [("reset", "power_failed"), ("cycle", None)]


def test_a_run_that_dies_while_it_switches_a_node_leaves_nothing_behind(testbed, order):
    order("node1-1", "never-boot")
    silence = ("--service", "cmc", "--method", "offHard")
    testbed.service_fault("silent", *silence)
    inventory = testbed.inventory(TWO_GROUPS, variables=QUICK.replace("timeout: 8", "timeout: 2"))
    try:
        with Watched("-i", inventory, IMAGE, "--limit", "node1-1") as run:
            run.wait_for("try 2 of 2 after no_boot")
            wait_for_module(testbed)
            run.process.kill()
            run.process.wait()
            all_gone_soon(testbed)
            assert modules_of(testbed) == []
    finally:
        testbed.service_fault("none", *silence)
    assert "ended what it left running: " in last_log(testbed)


def test_a_new_disk_that_does_not_come_up_at_first_has_its_power_cycled(testbed, order):
    before = testbed.boots()["node1-1"]
    inventory = testbed.inventory(TWO_GROUPS, variables=QUICK)
    running = start("-i", inventory, IMAGE, "--limit", "node1-1")
    wait_for_boot(testbed, "node1-1", before + 1, running)
    order("node1-1", "never-boot,once")
    played = finish(running)
    assert played.status == 0, played.output
    assert "node1-1: try 2 of 2 after no_boot: power off and on" in played.output
    assert played.identities == {"node1-1": "sender.ndz"}
    assert testbed.boots()["node1-1"] == before + 3
