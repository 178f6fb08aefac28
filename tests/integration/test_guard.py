# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs never share a node, and a run that is ended in whatever way leaves nothing behind."""

from __future__ import annotations

import pathlib
import signal
import time

import pytest
import yaml

from .kit import Watched, play, read_result
from .test_image import IMAGE, TWO_GROUPS

CLEAN = "playbooks/clean.yml"
# What a run that has died may leave behind is gone after so many seconds.
SOON = 10.0
LIMIT = 120.0
SENDERS = ("node1-1", "node2-1", "node3-1")


def claimed(testbed):
    """Files of claims that are locked."""
    from ansible_collections.orbit.imaging.plugins.plugin_utils import claims

    folder = testbed.folder / "claims"
    return sorted(path.name for path in folder.iterdir() if claims.holder_of(str(path), shared=True))


def guards():
    """Processes of run guards."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(b"/guard_main.py") for word in words):
            found.append((path.parent.name, words))
    return found


def guards_of(testbed):
    """Guards of the runs on this testbed; others may be at work on this host."""
    runs = {path.name.encode() for path in (testbed.folder / "runs").iterdir()}
    return [pid for pid, words in guards() if runs & set(words)]


def left(testbed):
    """Whatever there is of runs."""
    state = testbed.state()
    return [*testbed.links(), *state["links"], *state["streams"], *claimed(testbed), *guards_of(testbed)]


def all_gone_soon(testbed):
    deadline = time.monotonic() + SOON
    while there := left(testbed):
        assert time.monotonic() < deadline, there
        time.sleep(0.1)


def last_log(testbed):
    return (newest_run(testbed) / "guard.log").read_text()


def newest_run(testbed):
    return max((testbed.folder / "runs").iterdir(), key=lambda path: path.stat().st_mtime)


def run_of(testbed, *arguments):
    return ("-i", testbed.inventory(TWO_GROUPS), IMAGE, "--limit", "senders", *arguments)


STEPS = [
    (signal.SIGINT, "Link the nodes to their memory image", "unlinked node1-1, node2-1, node3-1"),
    (signal.SIGTERM, "Serve the images", "sender.ndz"),
    (signal.SIGHUP, "Reset the nodes into their memory image", "took back a use of sender.ndz"),
    (signal.SIGKILL, "Remove the links", "took back a use of sender.ndz"),
    (signal.SIGHUP, "See every node run its new disk", "nothing was left to undo"),
]


@pytest.mark.parametrize(
    ("number", "task", "words"), STEPS, ids=[f"{step[0].name}-{step[1].split()[0]}" for step in STEPS]
)
def test_a_run_that_dies_leaves_nothing_behind(testbed, number, task, words):
    with Watched(*run_of(testbed)) as run:
        run.wait_for(f": {task}]")
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


@pytest.fixture
def held_up(testbed):
    """A run in the step client: one node is being written, another one never comes up."""
    testbed.fault("node1-1", "never-boot")
    try:
        with Watched(*run_of(testbed, "--limit", "node1-1,node2-1", "-e", "orbit_gather=0")) as run:
            run.wait_for("node2-1: imaging")
            yield run
    finally:
        testbed.fault("node1-1", "none")


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
    held_up.process.kill()
    held_up.process.wait(LIMIT)
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
