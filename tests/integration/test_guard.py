# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs never share a node, and a run that is ended in whatever way leaves nothing behind."""

from __future__ import annotations

import os
import signal

import pytest
import yaml

from .kit import IMAGE, TWO_GROUPS, Watched, play, read_result
from .leftovers import all_gone_soon, guards_of, last_log, left, left_soon, newest_run

CLEAN = "playbooks/clean.yml"
SENDERS = ("node1-1", "node2-1", "node3-1")


def run_of(testbed, *arguments):
    return ("-i", testbed.inventory(TWO_GROUPS), IMAGE, "--limit", "senders", *arguments)


STEPS = [
    (
        signal.SIGINT,
        "Link the nodes to their memory image",
        "link: begins",
        "unlinked node1-1, node2-1, node3-1",
    ),
    (signal.SIGTERM, "Serve the images", "serve: begins", "sender.ndz"),
    (
        signal.SIGHUP,
        "Reset the nodes into their memory image",
        "serve: done",
        "took back a use of sender.ndz",
    ),
    (signal.SIGKILL, "Remove the links", "client: begins", "took back a use of sender.ndz"),
    (signal.SIGHUP, "See every node run its new disk", "stop: done", "nothing was left to undo"),
]


@pytest.mark.parametrize(
    ("number", "task", "heard", "words"),
    STEPS,
    ids=[f"{step[0].name}-{step[1].split()[0]}" for step in STEPS],
)
def test_a_run_that_dies_leaves_nothing_behind(testbed, number, task, heard, words):
    with Watched(*run_of(testbed)) as run:
        run.wait_for(f": {task}]")
        # The name of a task is shown before the step begins; the guard hears of it when it does.
        assert not left_soon(lambda: heard not in last_log(testbed)), "".join(run.lines)
        assert run.end(number) != 0, "".join(run.lines)
        all_gone_soon(testbed)
    log = last_log(testbed)
    assert words in log, log + "".join(run.lines)
    assert "ansible-playbook has ended without a word" in log
    assert "NOT" not in log
    # The guard is gone, so the files that it wrote in the place of the run are there.
    result = read_result(newest_run(testbed))
    assert {node["outcome"] for node in result["nodes"].values()} == {"interrupted"}
    assert not result["passed"]
    assert result["left_behind"] == []
    again = yaml.safe_load((newest_run(testbed) / "rerun.yml").read_text())
    assert set(again["all"]["children"]["senders"]["hosts"]) == set(SENDERS)


def test_a_second_run_is_refused_and_a_killed_one_lets_its_clients_be(testbed, held_up):
    before = testbed.boots(), testbed.links()
    overlapping = ("-i", testbed.inventory(), IMAGE, "--limit", "node1-1,node3-2", "-e", "image=receiver.ndz")
    for mode in ((), ("--check",)):
        second = play(*overlapping, *mode)
        assert second.status == 2, second.output
        assert "nodes are claimed by another run: node1-1: run " in second.output
        assert f"process {held_up.process.pid}) since 20" in second.output
        assert second.output.count("fatal:") == 1
        assert "Link the nodes" not in second.output
    assert (testbed.boots(), testbed.links()) == before
    assert held_up.end(signal.SIGKILL) != 0
    all_gone_soon(testbed)
    log = last_log(testbed)
    assert "clients may be writing on node1-1, node2-1: they are left to finish" in log, log
    assert "took back a use of sender.ndz" in log
    assert "unlinked node1-1, node2-1" in log


def test_a_run_that_ends_well_leaves_no_guard(testbed):
    played = play(*run_of(testbed, "--limit", "node1-1", "-e", '{"orbit_boot": false}'))
    assert played.status == 0, played.output
    assert left(testbed) == [], played.output
    assert "released by the run: nothing of it is left" in last_log(testbed)


def test_the_clean_playbook_tells_and_mends_what_was_left(testbed):
    from ansible_collections.orbit.imaging.plugins.module_utils.frisbee import FrisbeeClient
    from ansible_collections.orbit.imaging.plugins.module_utils.nodes import make_nodes
    from ansible_collections.orbit.imaging.plugins.module_utils.pxe import PxeClient
    from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection

    nodes = [
        {"name": "node1-1", "x": 1, "y": 1, "control_ip": f"10.{testbed.number}.1.1"},
        {"name": "node3-2", "x": 3, "y": 2, "control_ip": f"10.{testbed.number}.3.2"},
    ]
    with Connection(f"http://127.{testbed.number}.0.1:5012") as connection:
        links = PxeClient(connection, "auto", testbed.name).link(make_nodes(nodes, testbed.name), "memory")
        assert all(link.ok for link in links)
        for _use in range(2):
            FrisbeeClient(connection, "auto", testbed.name).start("sender.ndz")
    inventory = testbed.inventory(TWO_GROUPS)

    played = play("-i", inventory, CLEAN, "--check", "-e", "stop_streams=true")
    assert played.status == 0, played.output
    assert "links would be cleared" in played.output
    assert "is being sent: sender.ndz" in played.output
    assert len(testbed.links()) == 2
    assert len(testbed.state()["streams"]) == 1

    played = play("-i", inventory, CLEAN)
    assert played.status == 0, played.output
    assert testbed.links() == []
    assert len(testbed.state()["streams"]) == 1

    played = play("-i", inventory, CLEAN, "-e", "stop_streams=true", "--limit", "node1-1")
    assert played.status == 0, played.output
    assert left(testbed) == [], played.output


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("Serve the images", "; another was started"),
        ("Write the images", "; another was started"),
        ("See every node run its new disk", "the run had no guard at its end"),
    ],
)
def test_a_run_whose_guard_is_killed_ends_well_and_says_so(testbed, task, words):
    with Watched(*run_of(testbed)) as run:
        run.wait_for(f": {task}]")
        for pid in guards_of(testbed):
            os.kill(int(pid), signal.SIGKILL)
        assert run.process.wait(300) == 0, "".join(run.lines)
    output = "".join(run.lines)
    assert words in output, output
    result = read_result(newest_run(testbed))
    assert {node["outcome"] for node in result["nodes"].values()} == {"imaged"}
    assert result["left_behind"] == []
    assert left(testbed) == [], output
