# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook status shows the testbed as it is."""

from __future__ import annotations

import json
import re

from .kit import IMAGE, TWO_GROUPS, play

STATUS = "playbooks/status.yml"


def status(testbed, path, *arguments, inventory=None):
    """Run the playbook; return what it says and the document that it writes."""
    chosen = inventory or testbed.inventory(TWO_GROUPS)
    played = play("-i", chosen, STATUS, "-e", f"json={path}", *arguments)
    assert played.status == 0, played.output
    return played.output, json.loads(path.read_text())


def test_what_is_on_the_disks_and_what_nodes_run(testbed, tmp_path):
    inventory = testbed.inventory(TWO_GROUPS)
    imaged = play("-i", inventory, IMAGE, "--limit", "node1-1,node2-2")
    assert imaged.status == 0, imaged.output
    assert (imaged.folder / "report.html").stat().st_mode & 0o77 == 0
    text = (imaged.folder / "report.html").read_text()
    for stream in imaged.result["streams"]:
        assert 0 <= stream["blocks_repeated"] < stream["blocks_sent"]
        assert f">{stream['blocks_repeated']} of {stream['blocks_sent']} (" in text
        assert stream["bandwidth"] > 0
    assert 'class="chart"' in text
    compared = play("playbooks/report.yml", "-e", f"orbit_run_dir={imaged.folder.parent}")
    assert compared.status == 0, compared.output
    assert compared.output.count(f"runs: {imaged.folder.parent}/report.html") == 1
    assert (imaged.folder.parent / "report.html").stat().st_mode & 0o77 == 0
    off = play("-i", inventory, "playbooks/power.yml", "-e", "power=off", "--limit", "node3-2")
    assert off.status == 0, off.output
    said, found = status(testbed, tmp_path / "now.json", "-e", "ssh=true", inventory=inventory)
    nodes = found["nodes"]
    assert len(nodes) == 6
    assert nodes["node1-1"]["power"] == "on"
    assert nodes["node3-2"]["power"] == "off"
    assert nodes["node1-1"]["disk"]["image"] == "sender.ndz"
    assert nodes["node1-1"]["disk"]["run"] == imaged.folder.name
    assert nodes["node2-2"]["system"] == {
        **nodes["node2-2"]["system"],
        "kind": "disk",
        "identity": "receiver.ndz",
    }
    assert nodes["node3-2"]["system"]["kind"] == "none"
    assert "senders" in nodes["node1-1"]["groups"]
    assert all(node["claim"] is None and node["link"] is None for node in nodes.values())
    assert found["streams"] == []
    # Columns are x, rows are y.
    rows = [line.split() for line in said.splitlines()]
    top = rows.index(["y/x", "1", "2", "3"])
    (letter,) = re.findall(r"^on disk (.): sender.ndz: .*node1-1", said, re.MULTILINE)
    assert rows[top + 1][:2] == ["1", f"+{letter}"]
    assert rows[top + 2][3].startswith("-")
    assert "no answer by SSH" in said


def test_limit_and_groups_choose_the_nodes(testbed, tmp_path):
    _said, found = status(testbed, tmp_path / "now.json", "--limit", "receivers")
    assert sorted(found["nodes"]) == ["node1-2", "node2-2", "node3-2"]
    assert {node["system"] for node in found["nodes"].values()} == {None}
    _said, found = status(testbed, tmp_path / "now.json", "-e", "nodes=[[2..3,1]]")
    assert sorted(found["nodes"]) == ["node2-1", "node3-1"]


def test_claims_links_and_streams_of_a_run_that_is_under_way(testbed, tmp_path, held_up):
    said, found = status(testbed, tmp_path / "now.json")
    claim = found["nodes"]["node1-1"]["claim"]
    assert claim["pid"] == held_up.process.pid
    assert found["nodes"]["node1-1"]["link"] == "memory"
    assert found["nodes"]["node1-2"]["claim"] is None
    (stream,) = found["streams"]
    assert stream["image"] == "sender.ndz"
    assert stream["receivers"] == ["node1-1", "node2-1"]
    assert stream["rate_mbit"] > 0
    assert f"claimed: run {claim['run']} of " in said
    assert "stream of sender.ndz at " in said


def test_check_mode_writes_no_file_and_a_folder_that_is_none_is_named(testbed, tmp_path):
    inventory = testbed.inventory()
    path = tmp_path / "now.json"
    played = play("-i", inventory, STATUS, "-e", f"json={path}", "--check")
    assert played.status == 0, played.output
    assert not path.exists()
    wrong = {
        f"json={tmp_path}/none/now.json": f"{tmp_path}/none/now.json cannot be written: there is no folder",
        f"json={tmp_path}": f"{tmp_path} cannot be written: it is a folder",
        "json=": "no file is named",
        '{"json": ["a"]}': "['a'] is no path",
    }
    for said, words in wrong.items():
        # Check mode says nothing else.
        played = play("-i", inventory, STATUS, "-e", said, *(["--check"] if said == "json=" else []))
        assert played.status == 2, played.output
        assert f"json: {words}" in played.output
    played = play("-i", inventory, STATUS, "-e", "ssh=perhaps")
    assert played.status == 2, played.output
    assert "ssh" in played.output


def test_a_folder_without_runs_is_named(tmp_path):
    for said, words in {"runs=": "no folder is named", '{"runs": [1]}': "[1] is no path"}.items():
        none = play("playbooks/report.yml", "-e", said)
        assert none.status == 2, none.output
        assert f"runs: {words}. Name the folder that holds the folders of the runs" in none.output
    for folder, words in ((tmp_path, "no run has left a result in"), (tmp_path / "none", "No such file")):
        played = play("playbooks/report.yml", "-e", f"runs={folder}")
        assert played.status == 2, played.output
        assert words in played.output
        assert str(folder) in played.output
