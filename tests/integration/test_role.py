# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role in plays that people write: it images just the nodes that they mean, or says what to write."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest
import yaml

from .kit import IMAGE, ROOT, TWO_GROUPS, play, program, read_result
from .leftovers import all_gone_soon

ROLE = "orbit.imaging.image"


@pytest.fixture
def plays(testbed, tmp_path):
    """Run a playbook of plays against the testbed; return what became of it and the result of each run."""

    def run(*plays, arguments=(), groups=TWO_GROUPS, environment=None):
        path = tmp_path / "site.yml"
        path.write_text(yaml.safe_dump([{"gather_facts": False, **one} for one in plays], sort_keys=False))
        runs = testbed.folder / "runs"
        before = set(os.listdir(runs)) if runs.is_dir() else set()
        played = play("-i", testbed.inventory(groups), str(path), *arguments)
        after = sorted(set(os.listdir(runs)) - before) if runs.is_dir() else []
        results = [read_result(runs / name) for name in after if (runs / name / "result.json").exists()]
        return played, results

    return run


def imaged(results):
    """What each run has put where, in the order of the runs."""
    results = sorted(results, key=lambda result: result["started_at"])
    assert all(node["outcome"] == "imaged" for result in results for node in result["nodes"].values())
    return [{name: node["identity"] for name, node in result["nodes"].items()} for result in results]


SENDERS = dict.fromkeys(["node1-1", "node2-1", "node3-1"], "sender.ndz")
RECEIVERS = dict.fromkeys(["node1-2", "node2-2", "node3-2"], "receiver.ndz")


def test_one_play_for_each_image_group(plays):
    played, results = plays(
        {"hosts": "senders", "vars": {"image": "sender.ndz"}, "roles": [ROLE]},
        {"hosts": "receivers", "roles": [{"role": ROLE, "vars": {"orbit_image": "receiver.ndz"}}]},
        groups=TWO_GROUPS.replace("    image: sender.ndz\n", "").replace("    image: receiver.ndz\n", ""),
    )
    assert played.status == 0, played.output
    assert imaged(results) == [SENDERS, RECEIVERS]
    assert [group["label"] for result in results for group in result["groups"]] == ["senders", "receivers"]


@pytest.mark.parametrize(
    "one",
    [
        {"roles": [{"role": ROLE, "when": "'receivers' in group_names"}]},
        {"tasks": [{"include_role": {"name": ROLE}, "when": "'receivers' in group_names"}]},
    ],
    ids=["roles", "include_role"],
)
def test_a_condition_on_the_role(testbed, plays, one):
    before = testbed.boots()
    played, results = plays({"hosts": "senders:receivers", **one})
    assert played.status == 0, played.output
    assert imaged(results) == [RECEIVERS]
    after = testbed.boots()
    assert {name for name in after if after[name] != before[name]} == set(RECEIVERS)


def test_batches(testbed, plays):
    before = testbed.boots()
    played, results = plays({"hosts": "senders", "serial": 2, "roles": [ROLE]})
    assert played.status == 0, played.output
    assert [sorted(nodes) for nodes in imaged(results)] == [["node1-1", "node2-1"], ["node3-1"]]
    after = testbed.boots()
    assert {
        name: after[name] - before[name] for name in after if after[name] != before[name]
    } == dict.fromkeys(SENDERS, 2)


def test_what_the_role_is_told_is_done_and_not_the_default(testbed, plays):
    before = testbed.boots()
    played, results = plays(
        {
            "hosts": "node1-1",
            "roles": [{"role": ROLE, "vars": {"orbit_disk": "/dev/sdb", "orbit_retries": 0}}],
        }
    )
    assert played.status == 2, played.output
    (result,) = results
    assert result["nodes"]["node1-1"]["outcome"] == "wrong_disk"
    assert result["nodes"]["node1-1"]["disk"] == "/dev/sdb"
    assert testbed.boots()["node1-1"] == before["node1-1"] + 1


def test_failed_nodes_are_out_of_the_rest_of_the_play(plays, order):
    order("node1-1", "never-boot")
    told = {"debug": {"msg": "goes on: {{ inventory_hostname }}"}}
    played, _results = plays(
        {
            "hosts": "senders",
            "vars": {"orbit_boot_timeout": 6, "orbit_gather": 1, "orbit_retries": 0},
            "tasks": [{"include_role": {"name": ROLE}}, told],
        }
    )
    assert played.status == 2, played.output
    assert [name for name in SENDERS if f"goes on: {name}" in played.output] == ["node2-1", "node3-1"]


@pytest.mark.parametrize(
    "name", ["Serve the images", "Report", "Fail the nodes of groups that missed their quorum"]
)
def test_a_start_in_the_middle_is_refused(testbed, plays, name):
    before = testbed.boots()
    played, results = plays(
        {"hosts": "senders", "roles": [ROLE]}, arguments=("--start-at-task", f"{ROLE} : {name}")
    )
    assert played.status == 2, played.output
    assert "Start the play from its beginning" in played.output
    assert "undefined" not in played.output
    assert results == []
    assert testbed.boots() == before


@pytest.mark.parametrize(
    "arguments", [("--tags", "nosuch"), ("--skip-tags", "untagged"), ("--tags", "tagged")]
)
@pytest.mark.parametrize("playbook", ["image", "power", "status", "clean", "ping_experiment"])
def test_tags_that_select_nothing_are_refused(testbed, playbook, arguments):
    played = play("-i", testbed.inventory(TWO_GROUPS), f"playbooks/{playbook}.yml", *arguments)
    assert played.status == 2, played.output
    assert "select nothing of this playbook" in played.output


def test_tags_of_an_import_select_it(testbed, tmp_path):
    site = tmp_path / "site.yml"
    site.write_text(yaml.safe_dump([{"import_playbook": str(ROOT / IMAGE), "tags": ["imaging"]}]))
    inventory = testbed.inventory(TWO_GROUPS)
    played = play("-i", inventory, str(site), "--tags", "imaging", "--check")
    assert played.status == 0, played.output
    assert "sender.ndz would be served to 3 nodes" in played.output


@pytest.mark.parametrize("playbook", ["image", "power", "status", "clean"])
def test_settings_of_the_environment_change_nothing(testbed, playbook, monkeypatch, tmp_path):
    for name, value in {
        "ANSIBLE_STRATEGY": "free",
        "ANSIBLE_BECOME": "true",
        "ANSIBLE_BECOME_ASK_PASS": "false",
        "ANSIBLE_BECOME_METHOD": "sudo",
        "ANSIBLE_TASK_TIMEOUT": "1",
        "ANSIBLE_GATHERING": "explicit",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "LC_ALL": "C.UTF-8",
    }.items():
        monkeypatch.setenv(name, value)
    arguments = {
        "power": ("-e", "{power: off}", "--limit", "node1-1"),
        "image": ("--limit", "node1-1,node1-2"),
    }
    played = play(
        "-i", testbed.inventory(TWO_GROUPS), f"playbooks/{playbook}.yml", *arguments.get(playbook, ())
    )
    assert played.status == 0, played.output
    if playbook == "image":
        assert set(played.outcomes.values()) == {"imaged"}


def test_a_console_that_cannot_be_reached_is_no_unreachable_node(testbed, plays):
    before = testbed.boots()
    played, _results = plays(
        {"hosts": "senders", "roles": [ROLE], "vars": {"orbit_console": "console"}},
        groups=TWO_GROUPS + "    vars: {}\n",
        arguments=("-e", json.dumps({"ansible_ssh_timeout": 2}), "-i", "console,"),
    )
    assert played.status == 2, played.output
    assert all(counts["unreachable"] == 0 for counts in played.recap.values()), played.output
    assert "the module frisbee_info could not be run" in played.output
    assert testbed.boots() == before


def test_the_reader_of_the_output_goes_away(testbed):
    """As with ``| head``: the run ends, and nothing of it stays."""
    command = [program("ansible-playbook"), "-i", testbed.inventory(TWO_GROUPS), IMAGE]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "default",
    }
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        for line in process.stdout:
            if b"Serve the images" in line:
                break
        process.stdout.close()
        process.wait(300)
    all_gone_soon(testbed)


def test_called_by_hand_a_service_module_is_a_module(testbed, plays):
    url = f"http://127.{testbed.number}.0.1:5012"
    asked = {"url": url, "domain": testbed.name}
    played, _results = plays(
        {
            "hosts": "localhost",
            "module_defaults": {"group/orbit.imaging.services": asked},
            "tasks": [
                {"orbit.imaging.pxe_link": {"nodes": ["node1-1"], "image": "memory"}},
                {"orbit.imaging.pxe_link": {"nodes": ["node1-1"], "state": "absent"}},
                {"orbit.imaging.cmc_info": {"nodes": ["node1-1"]}, "register": "power"},
                {"debug": {"msg": "state: {{ power.nodes[0].state }}"}},
            ],
        }
    )
    assert played.status == 0, played.output
    assert "state: o" in played.output


@pytest.mark.parametrize("playbook", ["image", "power", "status", "clean", "ping_experiment"])
def test_an_inventory_without_hosts_is_refused(playbook, tmp_path):
    empty = tmp_path / "hosts.yml"
    empty.write_text("all:\n  hosts: {}\n")
    for path in (empty, tmp_path / "nosuch.yml"):
        played = play("-i", str(path), f"playbooks/{playbook}.yml")
        assert played.status != 0, played.output
        text = " ".join(played.output.split())
        assert "The inventory has no hosts" in text or "nosuch.yml" in text, played.output


def test_folders_with_odd_names_and_what_the_command_line_says_of_ssh(testbed, tmp_path, monkeypatch):
    home = tmp_path / 'a home with 100% "odd" names {x}'
    home.mkdir()
    inventory = pathlib.Path(testbed.inventory(TWO_GROUPS))
    key = f"{testbed.folder}/state/id_ed25519"
    text = inventory.read_text().replace(f"  ansible_ssh_private_key_file: {key}\n", "")
    inventory.write_text(text.replace("  ansible_port: 2222\n", ""))
    monkeypatch.setenv("HOME", str(home))
    arguments = (
        "--private-key",
        key,
        "--ssh-common-args",
        "-p 2222",
        "-u",
        "root",
        "--limit",
        "node1-1,node1-2",
    )
    played = play(
        "-i", str(inventory), IMAGE, *arguments, "-e", json.dumps({"orbit_run_dir": str(home / "runs")})
    )
    assert played.status == 0, played.output
    assert set(played.outcomes.values()) == {"imaged"}


def test_a_password_is_refused_by_name_before_a_node_is_touched(testbed):
    before = testbed.boots()
    played = play("-i", testbed.inventory(TWO_GROUPS), IMAGE, "-e", "ansible_password=secret5")
    assert played.status == 2, played.output
    assert "password" in played.output
    assert "secret5" not in played.output
    assert testbed.boots() == before
