# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ping experiment on light nodes with shaped cables, each in a network namespace of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from xml.etree import ElementTree

import pytest

from orbit_testbed.bed import lifecycle
from orbit_testbed.nodes import host
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.layout import State

from .kit import Testbed, play

PLAYBOOK = "playbooks/ping_experiment.yml"
TWO_IMAGES = """\
groups:
  senders: {nodes: "[1,1]", image: sender.ndz}
  receivers: {nodes: "[2,1]", image: receiver.ndz}
"""


@pytest.fixture(scope="module")
def shaped(tmp_path_factory):
    if shutil.which("ping", path=host.search_path()) is None:
        pytest.skip("there is no ping here (Debian: iputils-ping)")
    try:
        isolation = host.find_isolation()
    except TestbedError as error:
        pytest.skip(f"no namespaces here: {error}")
    tbf = "tc qdisc add dev lo root tbf rate 1mbit burst 4096 limit 4096"
    command = [host.program("unshare"), *isolation.flags, "sh", "-c", tbf]
    path = {**os.environ, "PATH": host.search_path()}
    tried = subprocess.run(command, capture_output=True, text=True, check=False, env=path)
    if tried.returncode != 0:
        pytest.skip(f"no shaped cables here: tc: {tried.stderr.strip()}")
    folder = tmp_path_factory.mktemp("shaped")
    with Testbed(folder, "2x1", "--link", "20000000", "--bandwidth", "18000000") as testbed:
        yield testbed


def _run(testbed: Testbed, *arguments: str):
    command = [*lifecycle.command_prefix(State(testbed.folder / "state")), "ping"]
    settings = json.dumps({"ping_command": command, "ping_interval": 0.02, "ping_count": 5})
    return play("-i", testbed.inventory(TWO_IMAGES), PLAYBOOK, "-e", settings, *arguments)


def _pings_inside(testbed: Testbed) -> list[str]:
    """Return the pings that still run in the testbed; one that has ended has no command line."""
    prefix = lifecycle.command_prefix(State(testbed.folder / "state"))
    done = subprocess.run(
        [*prefix, "sh", "-c", "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f 2>/dev/null; echo; done"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in done.stdout.splitlines() if line.startswith("ping ")]


def test_two_nodes_two_images_and_one_again(shaped):
    off = play("-i", shaped.inventory(TWO_IMAGES), "playbooks/power.yml", "-e", "power=off")
    assert off.status == 0, off.output
    played = _run(shaped)
    assert played.status == 0, played.output
    document = json.loads((played.folder / "ping.json").read_text())
    assert (document["nodes"], document["images"]) == (2, 2)
    assert document["imaging_seconds"] > 0
    idle, imaging, after = (document["phases"][phase] for phase in ("idle", "imaging", "after"))
    assert (idle["all"]["packets"], idle["all"]["lost_percent"]) == (10, 100.0)
    assert "idle: node1-1, node2-1: no answer" in played.output
    for phase in (imaging, after):
        assert sorted(phase["nodes"]) == ["node1-1", "node2-1"]
        assert all(node["received"] > 0 and node["msg"] == "" for node in phase["nodes"].values()), document
        assert 0 < phase["all"]["min"] <= phase["all"]["avg"] <= phase["all"]["max"]
    assert "2006: sandbox 1, 2 nodes, 2 images" in played.output
    ElementTree.parse(played.folder / "ping.svg")
    text = (played.folder / "report.html").read_text()
    assert "Round trips and loss" in text
    assert f'<bdi>imaging</bdi></td><td class="n">{imaging["all"]["packets"]}</td>' in text
    assert (played.folder / "result.json").exists()
    assert _pings_inside(shaped) == []
    # And one of them again.
    played = _run(shaped, "--limit", "node2-1")
    assert played.status == 0, played.output
    document = json.loads((played.folder / "ping.json").read_text())
    for phase in document["phases"].values():
        assert list(phase["nodes"]) == ["node2-1"]
    # The image of the run before answers now.
    assert document["phases"]["idle"]["all"]["received"] == 5


def test_check_mode_sends_and_keeps_nothing(shaped):
    before = set((shaped.folder / "runs").iterdir()) if (shaped.folder / "runs").exists() else set()
    played = _run(shaped, "--check")
    assert played.status == 0, played.output
    assert "packets" not in played.output
    assert set((shaped.folder / "runs").iterdir()) == before


def test_a_node_that_fails_is_told_and_nothing_goes_on(shaped):
    shaped.fault("node1-1", "client-missing")
    try:
        played = _run(shaped)
    finally:
        shaped.fault("node1-1", "none")
    assert played.status != 0
    document = json.loads((played.folder / "ping.json").read_text())
    imaging = document["phases"]["imaging"]["nodes"]
    assert imaging["node1-1"]["packets"] == 0
    assert imaging["node1-1"]["msg"] == "no window to sample"
    assert imaging["node2-1"]["received"] > 0
    assert _pings_inside(shaped) == []


def test_a_program_that_is_not_there(shaped):
    played = play("-i", shaped.inventory(TWO_IMAGES), PLAYBOOK, "-e", '{"ping_command": ["no-such-ping"]}')
    assert played.status != 0
    assert "there is no program no-such-ping here" in played.output
