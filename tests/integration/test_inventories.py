# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventories are what they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap

import pytest

from .kit import IMAGE, ROOT, play, program

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
def test_a_broken_file_ends_every_program(tmp_path, plugins, name, content, error):
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "good.orbit.yml").write_text(LAB + "nodes: '5,5'\n")
    if content is not None:
        (tmp_path / name).write_text(content)
    # Alone, and beside a good one whose nodes would be there.
    for command in (
        ("ansible-inventory", "-i", name, "--list"),
        ("ansible-playbook", "-i", "good.orbit.yml", "-i", name, "play.yml"),
    ):
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


def listed(done):
    """Return what ``ansible-inventory --list`` has said."""
    # ansible-core 2.19 marks what is no template by an object around it.
    return json.loads(done.stdout, object_hook=lambda item: item.get("__ansible_unsafe", item))


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
    return listed(done)


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
    demo = inventory("demo")
    hosts = demo["_meta"]["hostvars"]
    assert sorted(demo["senders"]["hosts"]) == [f"node{x}-1" for x in range(1, 5)]
    assert {hosts[name]["orbit_image"] for name in demo["receivers"]["hosts"]} == {"receiver.ndz"}


def test_an_image_for_a_sandbox_without_a_choice_of_nodes_is_refused():
    played = play("-i", "inventories/sb1", "playbooks/image.yml", "-e", "image=baseline.ndz")
    assert played.status == 2
    assert "no nodes chosen: none of the 2 hosts of the inventory has an image of its own" in played.output


# What the README shows


def blocks(page, kind):
    """Return the blocks of a kind that a page shows, without the indent of a list."""
    found = re.findall(rf"^( *)```{kind}\n(.*?)^ *```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no block {kind}"
    return [textwrap.dedent(text) for _indent, text in found]


def shown_inventory():
    (text,) = [text for text in blocks("README.md", "yaml") if text.startswith("plugin: ")]
    return text


def test_the_inventory_of_the_readme(tmp_path):
    (tmp_path / "lab.orbit.yml").write_text(shown_inventory())
    for plugins in (OURS_FIRST, DEFAULTS):
        done = run(tmp_path, plugins, "ansible-inventory", "-i", "lab.orbit.yml", "--list")
        assert done.returncode == 0, done.stderr
        hosts = listed(done)["_meta"]["hostvars"]
        assert len(hosts) == 8
        # With it the testbed is reached as with the inventory that comes with the collection.
        theirs = inventory("demo")["_meta"]["hostvars"]
        reach = (
            "ansible_host",
            "ansible_port",
            "orbit_control_ip",
            "orbit_image",
            "orbit_pxe_url",
            "orbit_hrn",
        )
        reach += ("orbit_frisbee_url", "orbit_cmc_url", "orbit_memory_image", "orbit_disk_type")
        for name, variables in hosts.items():
            assert {key: variables[key] for key in reach} == {key: theirs[name][key] for key in reach}


def test_the_settings_of_the_readme_are_those_of_the_page(tmp_path):
    (settings,) = blocks("README.md", "ini")
    assert blocks("docs/playbooks.md", "ini") == [settings]
    (tmp_path / "lab.orbit.yml").write_text(shown_inventory())
    (tmp_path / "own.cfg").write_text(
        settings.replace("[defaults]\n", f"[defaults]\ncollections_path = {ROOT}/.venv/collections\n")
    )
    done = subprocess.run(
        [program("ansible-config"), "dump", "--only-changed"],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(tmp_path / "own.cfg")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for name in ("CALLBACKS_ENABLED", "INVENTORY_ENABLED", "INVENTORY_ANY_UNPARSED_IS_FAILED"):
        assert name in done.stdout


@pytest.mark.parametrize(
    "page", ["README.md", "docs/playbooks.md", "roles/image/README.md", "roles/testbed/README.md"]
)
def test_plays_that_are_shown_are_plays(tmp_path, page):
    (tmp_path / "lab.orbit.yml").write_text(shown_inventory())
    plays = [text for text in blocks(page, "yaml") if text.startswith("- ")]
    assert plays
    for text in plays:
        (tmp_path / "play.yml").write_text(text)
        done = run(
            tmp_path, DEFAULTS, "ansible-playbook", "-i", "lab.orbit.yml", "--syntax-check", "play.yml"
        )
        assert done.returncode == 0, done.stderr


def test_the_inventory_of_the_readme_images_a_testbed(testbed, tmp_path):
    text = shown_inventory()
    for theirs, ours in (
        ("domain: demo", f"domain: {testbed.name}"),
        ("size: [4, 2]", f"size: [{testbed.columns}, {testbed.rows}]"),
        ("[1..4,", f"[1..{testbed.columns},"),
        ('"10.77.', f'"10.{testbed.number}.'),
        ("127.77.", f"127.{testbed.number}."),
        ("~/.local/state/orbit-testbed/demo", f"{testbed.folder}/state"),
        (
            "  orbit_disk: ",
            f"  orbit_run_dir: {tmp_path}/runs\n  orbit_claim_dir: {tmp_path}/claims\n  orbit_disk: ",
        ),
    ):
        assert theirs in text
        text = text.replace(theirs, ours)
    (tmp_path / "lab.orbit.yml").write_text(text)
    played = play("-i", str(tmp_path / "lab.orbit.yml"), IMAGE)
    assert played.status == 0, played.output
    assert played.identities == {
        f"node{x}-{y}": image
        for x in range(1, testbed.columns + 1)
        for y, image in ((1, "sender.ndz"), (2, "receiver.ndz"))
    }


def test_a_host_may_be_called_as_people_like(testbed, tmp_path):
    """From a plain inventory: the services know the node by coordinates and address, not by that name."""
    (tmp_path / "hosts.ini").write_text(
        f"""[senders]
n\u0153ud-1 orbit_x=1 orbit_y=1
\u30ce\u30fc\u30c92 orbit_x=2 orbit_y=1
[senders:vars]
ansible_host=127.{testbed.number}.{{{{ orbit_x }}}}.{{{{ orbit_y }}}}
orbit_control_ip=10.{testbed.number}.{{{{ orbit_x }}}}.{{{{ orbit_y }}}}
orbit_domain={testbed.name}
orbit_image=sender.ndz
orbit_memory_image=memory
orbit_disk_type=file
orbit_pxe_url=http://127.{testbed.number}.0.1:5012
orbit_frisbee_url=http://127.{testbed.number}.0.1:5012
orbit_cmc_url=http://127.{testbed.number}.0.1:5012
orbit_run_dir={tmp_path}/runs
orbit_claim_dir={tmp_path}/claims
ansible_port=2222
ansible_ssh_private_key_file={testbed.folder}/state/id_ed25519
"""
    )
    played = play("-i", str(tmp_path / "hosts.ini"), IMAGE)
    assert played.status == 0, played.output
    assert played.outcomes == {"n\u0153ud-1": "imaged", "\u30ce\u30fc\u30c92": "imaged"}
