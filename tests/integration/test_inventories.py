# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventories are what they say."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from .kit import ROOT, play, program

PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: begun
"""
OURS_FIRST = "orbit.imaging.nodes, host_list, auto, yaml, ini"
#: Ways in which users set Ansible up; with its defaults ``auto`` hands our files to the plugin.
DEFAULTS = "host_list, script, auto, yaml, ini, toml"
BEFORE_INI = "host_list, script, auto, yaml, orbit.imaging.nodes, ini"
LAB = "plugin: orbit.imaging.nodes\ndomain: demo\ncontrol_ip: '10.77.{x}.{y}'\n"


def run(folder, plugins, *command):
    """Run a program of Ansible as a user who installed the collection."""
    (folder / "ansible.cfg").write_text(
        f"[defaults]\ncollections_path = {ROOT}/.venv/collections\n[inventory]\nenable_plugins = {plugins}\n"
    )
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "ORBIT_"))
    }
    return subprocess.run(
        [program(command[0]), *map(str, command[1:])],
        cwd=folder,
        env={
            **environment,
            "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
            "ORBIT_DOMAIN": "sb1.orbit-lab.org",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("also_good", [False, True], ids=["alone", "beside a good one"])
@pytest.mark.parametrize(
    ("plugins", "name", "content", "error"),
    [
        (OURS_FIRST, "my.nodes", "[1,1]\n[0,1]\n", "my.nodes:2:2: coordinate 0 is outside"),
        (BEFORE_INI, "my.nodes", "[1,1]\n[0,1]\n", "my.nodes:2:2: coordinate 0 is outside"),
        (BEFORE_INI, "my.nodes", "node1-1\nnode1-1;x\n", "my.nodes:2:1: 'node1-1;x' is not a node name"),
        (OURS_FIRST, "lab.orbit.yml", "", "lab.orbit.yml: the file is empty"),
        (OURS_FIRST, "lab.orbit.yml", "\0", "lab.orbit.yml:1: is not YAML"),
        (BEFORE_INI, "lab.orbit.yml", "", "lab.orbit.yml: the file is empty"),
        (OURS_FIRST, "nodes.yml", "[1,1]\n", "nodes.yml:1:1: the file must be a mapping"),
        (OURS_FIRST, "gone.orbit.yml", None, "gone.orbit.yml: cannot be read: No such file"),
        (OURS_FIRST, "lab.orbit.yml", LAB + "nodes: [\n", "lab.orbit.yml:5:1: is not YAML"),
        (DEFAULTS, "lab.orbit.yml", LAB + "nodes: '[0,1]'\n", "lab.orbit.yml:4:1, nodes: malformed node set"),
        (DEFAULTS, "nodes.yaml", LAB + "nodes: 7\n", "nodes.yaml:4:1, nodes: a node set must be a text"),
        (DEFAULTS, "any.yml", LAB + "nodes: '1,1'\nvars: 7\n", "any.yml:5:1, vars: 'vars' must be a mapping"),
        (
            DEFAULTS,
            "any.yml",
            LAB + "nodes: '1,1'\nnodes: '2,1'\n",
            "any.yml:5:1: the key 'nodes' is there twice",
        ),
    ],
)
def test_a_broken_file_ends_every_program(tmp_path, plugins, name, content, error, also_good):
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "good.orbit.yml").write_text(LAB + "nodes: '5,5'\n")
    if content is not None:
        (tmp_path / name).write_text(content)
    sources = [*(["-i", "good.orbit.yml"] if also_good else []), "-i", name]
    for command in (("ansible-inventory", *sources, "--list"), ("ansible-playbook", *sources, "play.yml")):
        done = run(tmp_path, plugins, *command)
        assert done.returncode == 4, done.stdout + done.stderr
        assert done.stdout == ""
        assert [line for line in done.stderr.splitlines() if "ERROR" in line] == [
            line for line in done.stderr.splitlines() if f"{tmp_path}/{error}" in line
        ]
        assert done.stderr.count(error) == 1
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("plugins", [OURS_FIRST, DEFAULTS, BEFORE_INI])
def test_a_file_that_names_the_plugin_is_read_whatever_it_is_called(tmp_path, plugins):
    (tmp_path / "my lab.yml").write_text(LAB + "nodes: '1..2,1'\n")
    done = run(tmp_path, plugins, "ansible-inventory", "-i", "my lab.yml", "--graph", "demo")
    assert (done.returncode, done.stdout) == (0, "@demo:\n  |--node1-1\n  |--node2-1\n"), done.stderr


@pytest.mark.parametrize("content", ["all:\n  hosts:\n    a:\n", "nodes:\n  hosts:\n    a:\n"])
def test_an_inventory_of_the_user_is_left_alone(tmp_path, content):
    (tmp_path / "nodes.yml").write_text(content)
    done = run(tmp_path, OURS_FIRST, "ansible-inventory", "-i", "nodes.yml", "--list")
    assert list(json.loads(done.stdout)["_meta"]["hostvars"]) in ([], ["a"]), done.stderr
    assert "|--a" in run(tmp_path, OURS_FIRST, "ansible-inventory", "-i", "nodes.yml", "--graph").stdout


def inventory(name):
    done = subprocess.run(
        [program("ansible-inventory"), "-i", f"inventories/{name}", "--list"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # ansible-core 2.19 marks what is no template by an object around it.
    return json.loads(done.stdout, object_hook=lambda item: item.get("__ansible_unsafe", item))


@pytest.mark.parametrize(
    ("name", "count", "host", "control_ip"),
    [
        ("demo", 8, "node4-2", "10.77.4.2"),
        ("sb1", 2, "node2-1", "10.11.2.1"),
        ("grid", 400, "node20-20", "10.10.20.20"),
    ],
)
def test_nodes_and_control_addresses(name, count, host, control_ip):
    variables = inventory(name)["_meta"]["hostvars"]
    assert len(variables) == count
    assert variables[host]["orbit_control_ip"] == control_ip


def test_groups_carry_their_images():
    listed = inventory("demo")
    hosts = listed["_meta"]["hostvars"]
    assert sorted(listed["senders"]["hosts"]) == [f"node{x}-1" for x in range(1, 5)]
    assert {hosts[name]["orbit_image"] for name in listed["receivers"]["hosts"]} == {"receiver.ndz"}


def test_an_image_for_a_sandbox_without_a_choice_of_nodes_is_refused():
    played = play("-i", "inventories/sb1", "playbooks/image.yml", "-e", "image=baseline.ndz")
    assert played.status == 2
    assert "no nodes chosen: none of the 2 hosts of the inventory has an image of its own" in played.output
