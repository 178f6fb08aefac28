# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
import pathlib
import textwrap

import pytest
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader

NAME = "orbit.imaging.nodes"


@pytest.fixture
def clean(monkeypatch):
    for name in ("ORBIT_DOMAIN", "ORBIT_CONTROL_IP", "ORBIT_ANSIBLE_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def parse(tmp_path, clean):
    """Return a function which parses text as a file of a given name, with the plugin as Ansible loads it."""

    def work(text, name="nodes.yml", data=None):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        plugin = inventory_loader.get(NAME)
        assert plugin.verify_file(str(path))
        data = InventoryData() if data is None else data
        plugin.parse(data, DataLoader(), str(path))
        data.reconcile_inventory()
        return data

    return work


def variables(data, host):
    """Return the variables of a host as Ansible combines them from its groups."""
    found = {}
    for group in sorted(data.get_host(host).get_groups(), key=lambda group: group.depth):
        found.update(group.get_vars())
    return {**found, **data.get_host(host).get_vars()}


def hosts(data, group):
    return sorted(host.name for host in data.groups[group].get_hosts())


SANDBOX = """
    plugin: orbit.imaging.nodes
    domain: sb1.orbit-lab.org
    size: [8, 2]
    vars:
      orbit_disk: /dev/sda
      orbit_timeout: 10
    groups:
      senders:
        nodes: "[[1,1],[3..4,1]]"
        image: sender.ndz
        vars:
          orbit_timeout: 20
      receivers:
        nodes: ["5,1", "6..7,1"]
        image: receiver.ndz
        memory_image: omf-5.4
"""


def test_groups_of_a_sandbox(parse):
    data = parse(SANDBOX)
    assert hosts(data, "senders") == ["node1-1", "node3-1", "node4-1"]
    assert hosts(data, "receivers") == ["node5-1", "node6-1", "node7-1"]
    assert hosts(data, "sb1_orbit_lab_org") == sorted(hosts(data, "senders") + hosts(data, "receivers"))
    found = variables(data, "node3-1")
    for key, value in {
        "orbit_domain": "sb1.orbit-lab.org",
        "orbit_x": 3,
        "orbit_y": 1,
        "orbit_hrn": "node3-1.sb1.orbit-lab.org",
        "orbit_control_ip": "10.11.3.1",
        "ansible_host": "10.11.3.1",
        "orbit_image": "sender.ndz",
        "orbit_disk": "/dev/sda",
        "orbit_timeout": 20,
    }.items():
        assert found[key] == value
    assert "orbit_memory_image" not in found
    assert "orbit_chosen" not in found
    assert variables(data, "node5-1")["orbit_memory_image"] == "omf-5.4"
    assert variables(data, "node5-1")["orbit_timeout"] == 10


def test_a_testbed_with_its_own_rules(parse):
    data = parse("""
        plugin: orbit.imaging.nodes
        domain: demo
        size: [4, 2]
        name: n{x}x{y}
        control_ip: "10.77.{x}.{y}"
        ansible_host: "127.77.{x}.{y}"
        nodes: all
        groups:
          some:
            nodes: "1..2,1"
    """)
    assert len(hosts(data, "demo")) == 8
    found = variables(data, "n2x1")
    assert (found["ansible_host"], found["orbit_control_ip"], found["orbit_hrn"]) == (
        "127.77.2.1",
        "10.77.2.1",
        "n2x1.demo",
    )


def test_the_whole_grid(parse):
    data = parse("plugin: orbit.imaging.nodes\ndomain: grid.orbit-lab.org\nnodes: '[1..20,1..20]'\n")
    assert len(hosts(data, "grid_orbit_lab_org")) == 400
    assert variables(data, "node20-20")["ansible_host"] == "10.10.20.20"


def test_a_node_in_two_groups_with_one_image(parse):
    data = parse("""
        plugin: orbit.imaging.nodes
        domain: sb1.orbit-lab.org
        groups:
          a: {nodes: "1..2,1", image: x.ndz}
          b: {nodes: "2..3,1", image: x.ndz}
          c: {nodes: "1..3,1"}
    """)
    assert hosts(data, "c") == ["node1-1", "node2-1", "node3-1"]


def test_names_of_another_lab(parse):
    data = parse("plugin: orbit.imaging.nodes\ndomain: norbit\nnodes: omf.nicta.node1\n")
    found = variables(data, "omf.nicta.node1")
    assert found["orbit_hrn"] == "omf.nicta.node1"
    assert not {"ansible_host", "orbit_x", "orbit_control_ip"} & set(found)


def test_two_domains_side_by_side(parse):
    data = parse("plugin: orbit.imaging.nodes\ndomain: sb1.orbit-lab.org\nnodes: '1,1'\nvars: {a: 1}\n")
    parse(
        "plugin: orbit.imaging.nodes\ndomain: sb2.orbit-lab.org\nname: 'node{x}-{y}.{domain}'\n"
        "nodes: '1,1'\nvars: {a: 2}\n",
        data=data,
    )
    assert variables(data, "node1-1")["a"] == 1
    other = variables(data, "node1-1.sb2.orbit-lab.org")
    assert (other["a"], other["orbit_hrn"], other["ansible_host"]) == (
        2,
        "node1-1.sb2.orbit-lab.org",
        "10.12.1.1",
    )
    with pytest.raises(SystemExit, match=r"'node1-1' is already a node of the domain 'sb1\.orbit-lab\.org'"):
        parse("plugin: orbit.imaging.nodes\ndomain: sb2.orbit-lab.org\nnodes: '1,1'\n", data=data)


def test_compose_and_keyed_groups(parse):
    data = parse("""
        plugin: orbit.imaging.nodes
        domain: sb1.orbit-lab.org
        nodes: "1..2,1..2"
        compose:
          row_name: "'row ' ~ orbit_y"
        keyed_groups:
          - key: orbit_y | string
            prefix: row
    """)
    assert variables(data, "node1-2")["row_name"] == "row 2"
    assert hosts(data, "row_2") == ["node1-2", "node2-2"]


def test_a_compose_that_fails(parse):
    with pytest.raises(SystemExit, match=r"nodes\.yml:6:1, compose: "):
        parse("""
            plugin: orbit.imaging.nodes
            domain: sb1.orbit-lab.org
            nodes: "1,1"
            strict: true
            compose:
              wrong: no_such_variable
        """)


# Mistakes


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("domain: sb1", "domian: sb1", ":3:1, domian", "unknown key 'domian'"),
        (
            "image: receiver.ndz",
            "imagge: x",
            ":16:5, groups.receivers.imagge",
            "The keys are nodes, image, memory_image",
        ),
        (
            "[[1,1],[3..4,1]]",
            "[[1,1],[3..4,1]",
            ":10:5, groups.senders.nodes",
            "expected ',' or ']' but found the end",
        ),
        ("6..7,1", "6..x,1", ":15:20, groups.receivers.nodes.1", "malformed node set: expected a number"),
        ("6..7,1", "9,1", ":15:20, groups.receivers.nodes.1", "node (9,1) is outside the domain"),
        (
            "5,1",
            "3,1",
            ":15:5, groups.receivers.nodes",
            "node3-1: already in the group 'senders' with the image",
        ),
        ('"[[1,1],[3..4,1]]"', "[[1,1],[3,1]]", ":10:5, groups.senders.nodes", "a node set must be a text"),
        ('"[[1,1],[3..4,1]]"', '""', ":10:5, groups.senders.nodes", "the node set is empty"),
        ('"[[1,1],[3..4,1]]"', '"all"', ":10:5, groups.senders.nodes", "'all' is no node set of a group"),
        ("sender.ndz", "../x", ":11:5, groups.senders.image", "'../x' is not a name of an image"),
        ("sender.ndz", "7", ":11:5, groups.senders.image", "'image' must be a text"),
        ("size: [8, 2]", "size: 8x2", ":4:1, size", "columns and rows"),
        ("size: [8, 2]", "size: [0, 2]", ":4:1, size", "columns and rows"),
        ("size: [8, 2]", "size: [true, 2]", ":4:1, size", "columns and rows"),
        ("size: [8, 2]", "nodes: all", ":4:1, nodes", "needs the size"),
        (
            "size: [8, 2]",
            "nodes: '1..5,1'",
            ":15:5, groups.receivers.nodes",
            "not among the nodes of the testbed",
        ),
        (
            "size: [8, 2]",
            "control_ip: '10.{z}.1.1'",
            ":10:5, groups.senders.nodes",
            "unknown placeholder '{z}'",
        ),
        ("size: [8, 2]", "ansible_host: '{nope}'", ":4:1, ansible_host", "unknown placeholder '{nope}'"),
        ("domain: sb1.orbit-lab.org", "", ":2:1", "the key 'domain' is missing"),
        (
            "domain: sb1.orbit-lab.org",
            "domain: demo",
            ":10:5, groups.senders.nodes",
            "no rule for control addresses",
        ),
        ("receivers:", "re-ceivers:", ":14:3, groups.re-ceivers", "not a name for a group"),
        ("receivers:", "all:", ":14:3, groups.all", "not a name for a group"),
        ("receivers:", "sb1_orbit_lab_org:", ":14:3, groups.sb1_orbit_lab_org", "the group of all nodes"),
        (
            "vars:\n      orbit_disk",
            "vars: 7\n    compose:\n      orbit_disk",
            ":5:1, vars",
            "'vars' must be a mapping",
        ),
    ],
)
def test_mistakes_name_file_place_and_remedy(parse, old, new, place, message):
    assert old in SANDBOX
    with pytest.raises(SystemExit) as caught:
        parse(SANDBOX.replace(old, new, 1))
    text = str(caught.value)
    assert f"nodes.yml{place}: " in text
    assert message in text
    assert caught.value.code == 4


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("groups: {}", "there are no nodes"),
        ("groups: {a: }", "a group is a mapping"),
        ("groups: {a: {image: x}}", "the group has no nodes"),
        ("groups: [a]", "'groups' must be a mapping"),
        ("nodes: {a: 1}", "a node set must be a text"),
    ],
)
def test_no_nodes(parse, groups, message):
    with pytest.raises(SystemExit, match=message):
        parse(f"plugin: orbit.imaging.nodes\ndomain: sb1.orbit-lab.org\n{groups}\n")


LINE = "plugin: orbit.imaging.nodes\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("lab.orbit.yml", "", "lab.orbit.yml: the file is empty"),
        ("lab.orbit.yml", "# nothing\n---\n", "lab.orbit.yml: the file is empty|must be a mapping"),
        ("nodes.yml", "\n\n", "nodes.yml: the file is empty"),
        ("lab.orbit.yml", LINE + "domain: a\0b\n", r"lab.orbit.yml:2: is not YAML: .* '\\x00'"),
        ("nodes.yml", "\0", r"nodes.yml:1: is not YAML: it has the character '\\x00'"),
        ("lab.orbit.yml", LINE + "domain: [\n", "lab.orbit.yml:3:1: is not YAML"),
        ("nodes.yml", "[1,1]\n[0,1]\n", "nodes.yml:2:1: is not YAML"),
        ("nodes.yml", LINE + "---\n" + LINE, "nodes.yml:2:1: is not YAML"),
        ("nodes.yml", "- a\n", "nodes.yml:1:1: the file must be a mapping"),
        ("lab.orbit.yml", "some text\n", "lab.orbit.yml:1:1: the file must be a mapping"),
        ("nodes.yml", "domain: sb1.orbit-lab.org\n", "nodes.yml:1:1, plugin: the key 'plugin' is missing"),
        (
            "nodes.yml",
            "nodes: all\ngroups: {}\n",
            "the key 'plugin' is missing. Write: plugin: orbit.imaging",
        ),
        ("lab.orbit.yml", "all: {hosts: {a: }}\n", "the key 'plugin' is missing"),
        (
            "nodes.yml",
            "a: 1\nplugin: orbit.imaging.node\n",
            "nodes.yml:2:1, plugin: 'orbit.imaging.node' is not",
        ),
        ("lab.orbit.yml", "plugin: other.plugin\n", "'other.plugin' is not the plugin for this file"),
        ("nodes.yml", "[" * 3000, "nested too deeply"),
        ("nodes.yml", "$ANSIBLE_VAULT;1.1;AES256\n3132\n", "nodes.yml: cannot be loaded: "),
    ],
)
def test_files_of_our_names_that_are_not_ours_to_read(parse, name, text, message):
    with pytest.raises(SystemExit, match=message):
        parse(text, name)


@pytest.mark.parametrize(
    "text", ["plugin: other.plugin\n", "all:\n  hosts:\n    a:\n", "nodes:\n  hosts:\n    a:\n", "web:\n"]
)
def test_other_files_are_left_to_other_plugins(parse, text):
    with pytest.raises(AnsibleParserError, match="for another plugin"):
        parse(text)


def test_any_yaml_file_that_names_the_plugin(parse, tmp_path):
    assert hosts(parse(SANDBOX, "my lab.yml"), "receivers") == ["node5-1", "node6-1", "node7-1"]
    (tmp_path / "other.yml").write_text("# plugin: orbit.imaging.nodes\nplugin: orbit.imaging.nodes2\n")
    assert not inventory_loader.get(NAME).verify_file(str(tmp_path / "other.yml"))
    (tmp_path / "binary.yml").write_bytes(b"\xff")
    assert not inventory_loader.get(NAME).verify_file(str(tmp_path / "binary.yml"))


def test_a_byte_order_mark(parse):
    assert hosts(parse("\ufeffplugin: orbit.imaging.nodes\ndomain: sb1\nnodes: '1,1'\n"), "sb1") == [
        "node1-1"
    ]


@pytest.mark.parametrize("name", ["nodes.yml", "lab.orbit.yml", "my.nodes"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.symlink_to("gone"), "cannot be read: No such file"),
        (lambda path: path.write_bytes(b"# a\n# \xff\xfe\x00"), ":2: is no text in UTF-8"),
    ],
    ids=["missing", "folder", "dangling", "binary"],
)
def test_what_cannot_be_read(tmp_path, clean, monkeypatch, capsys, name, make, message):
    monkeypatch.setenv("ORBIT_DOMAIN", "sb3.orbit-lab.org")
    path = tmp_path / name
    make(path)
    plugin = inventory_loader.get(NAME)
    assert plugin.verify_file(str(path))
    with pytest.raises(SystemExit, match=message):
        plugin.parse(InventoryData(), DataLoader(), str(path))


def test_a_list_of_hosts_is_no_file():
    assert not inventory_loader.get(NAME).verify_file("a.nodes,b.nodes")


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("nodes.yml", True),
        ("nodes.yaml", True),
        ("my.nodes.yml", True),
        ("sb1.orbit.yaml", True),
        ("mynodes.nodes", True),
        ("hosts.yml", False),
        ("nodes.json", False),
        ("mynodes.yml", False),
        ("nodes", False),
    ],
)
def test_names_of_files(tmp_path, name, ours):
    path = tmp_path / name
    path.write_text("")
    assert inventory_loader.get(NAME).verify_file(str(path)) is ours


# Each node is one host, each host one node

HEAD = "plugin: orbit.imaging.nodes\ndomain: sb1.orbit-lab.org\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: 'node{x}'\nnodes: '[1..4,1..2]'\n",
            r":4:1, nodes: \[1,1\] .* and \[1,2\] .* both the host 'node1'",
        ),
        ("name: fixed\nnodes: '[1..2,1]'\n", "are both the host 'fixed'"),
        (
            "name: 'n{x}'\ngroups: {a: {nodes: '1,1'}, b: {nodes: '1,2'}}\n",
            ":4:33, groups.b.nodes: .* both the host",
        ),
        (
            "name: 'n{x}'\nnodes: ['1,1', n1]\n",
            ":4:16, nodes.1: .* the node known as n1 only are both the host 'n1'",
        ),
        ("name: 'n{x}{y}'\nnodes: '[[1,11],[11,1]]'\n", r"\[1,11\] .* and \[11,1\] .* both the host 'n111'"),
        (
            "control_ip: '10.1.{x}.1'\nnodes: '[1..2,1..2]'\n",
            "'node1-1' and 'node1-2' have the same control address",
        ),
        ("nodes: omf.a,OMF.a\n", r"'omf.a' and 'OMF.a' have the same name on the services \(HRN\) omf.a"),
        (
            "nodes: senders\ngroups: {senders: {nodes: senders}}\n",
            ":4:10, groups.senders: .* both a host and a group",
        ),
        ("nodes: sb1_orbit_lab_org\n", "'sb1_orbit_lab_org' is the name of both a host and a group"),
        ("nodes: '1,1'\nkeyed_groups: [{key: \"'node1-1'\", separator: ''}]\n", "both a host and a group|^$"),
        ("name: localhost\nnodes: '1,1'\n", "the host name 'localhost' means something else"),
        ("nodes: all.sb1.orbit-lab.org,ungrouped\n", "the host name 'ungrouped' means something else"),
    ],
)
def test_no_two_nodes_are_one_host(parse, text, message):
    if message.endswith("^$"):
        # A name with a hyphen is no group: Ansible writes it with an underscore.
        assert hosts(parse(HEAD + text), "node1_1") == ["node1-1"]
        return
    with pytest.raises(SystemExit, match=message):
        parse(HEAD + text)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("", "name: n{x}-{y}\n", "'node1-1' and 'n1-1' have the same coordinates"),
        ("", "control_ip: '10.9.{x}.{y}'\n", "10.11.1.1 and .*10.9.1.1 are both the host 'node1-1'"),
        ("", "ansible_host: '127.9.{x}.{y}'\n", "another file gives 'node1-1' ansible_host = '10.11.1.1'"),
        (
            "",
            "name: 'n{x}-{y}'\ndomain: other\ncontrol_ip: '10.11.{x}.{y}'\n",
            "same control address 10.11.1.1",
        ),
        (
            "groups: {a: {nodes: '1,1', image: x}}",
            "groups: {a: {nodes: '1,1', image: y}}",
            "another file gives the group",
        ),
        (
            "groups: {a: {nodes: '1,1', image: x}}",
            "groups: {b: {nodes: '1,1', image: y}}",
            "in the group 'a' with the image",
        ),
        (
            "groups: {a: {nodes: '1,1', vars: {orbit_image: x}}}",
            "groups: {b: {nodes: '1,1', image: y}}",
            "in the group 'a' with the image 'x', here 'y'",
        ),
        (
            "groups: {a: {nodes: '1,1'}}",
            "name: 'n{x}'\ndomain: other\ncontrol_ip: '10.8.{x}.{y}'\ngroups: {a: {nodes: '1,1'}}",
            "groups.a: the group 'a' is already one of the domain 'sb1.orbit-lab.org'",
        ),
        (
            "",
            "name: 'n{x}'\ndomain: sb1-orbit.lab-org\ncontrol_ip: '10.8.{x}.{y}'\n",
            "domain: the group 'sb1_orbit_lab_org' is already one of the domain",
        ),
        (
            "groups: {a: {nodes: '1,1'}}",
            "name: a\ndomain: other\ncontrol_ip: '10.8.{x}.{y}'\n",
            "both a host and a group",
        ),
    ],
)
def test_nor_in_several_files(parse, first, second, message):
    data = parse(HEAD + "nodes: '1,1'\n" + first)
    text = HEAD + "nodes: '1,1'\n" + second
    if "domain: other" in second or "domain: sb1-" in second:
        text = text.replace("domain: sb1.orbit-lab.org\n", "", 1)
    with pytest.raises(SystemExit, match=message):
        parse(text, data=data)


def test_the_same_in_several_files(parse, monkeypatch):
    data = parse(HEAD + "groups: {a: {nodes: '1..2,1', image: x}}\n")
    parse(HEAD + "groups: {b: {nodes: '2..3,1', image: x}, c: {nodes: '4,1', image: y}}\n", data=data)
    monkeypatch.setenv("ORBIT_DOMAIN", "sb1.orbit-lab.org")
    parse("[1..5,1]\n", "my.nodes", data=data)
    assert hosts(data, "sb1_orbit_lab_org") == [f"node{x}-1" for x in range(1, 6)]


def test_more_variables_for_a_node_from_a_plain_inventory(parse):
    data = InventoryData()
    data.add_host("node1-1")
    data.set_variable("node1-1", "orbit_disk", "/dev/sdb")
    data.add_host("spare")
    data.set_variable("spare", "orbit_control_ip", "10.11.2.1")
    assert variables(parse(HEAD + "nodes: '1,1'\n", data=data), "node1-1")["orbit_disk"] == "/dev/sdb"
    with pytest.raises(SystemExit, match="'spare' and 'node2-1' have the same control address"):
        parse(HEAD + "nodes: '2,1'\n", data=data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: []\n", ":3:1, nodes: the node set is empty"),
        ("nodes:\n", ":3:1, nodes: a node set must be a text"),
        ("groups: {a: {nodes: []}}\n", "groups.a.nodes: the node set is empty"),
        ("nodes: ['1,1', [2, 1]]\n", ":3:16, nodes.1: a node set must be a text"),
        ("nodes: [[1, 1], [2, 1]]\n", ":3:1, nodes: a node set must be a text. Put it in quotes"),
        ("nodes: '1,1'\ngroups: {a: {nodes: '1,1', image: }}\n", "groups.a.image: 'image' says nothing"),
        ("nodes: '1,1'\nsize:\n", ":4:1, size: 'size' must be columns and rows"),
        ("nodes: '1,1'\ncontrol_ip:\n", ":4:1, control_ip: 'control_ip' says nothing"),
        ("nodes: '1,1'\nvars: {a: 1, a: 2}\n", ":4:14: the key 'a' is there twice, first in line 4"),
        (
            "groups:\n  a: {nodes: '1,1'}\n  b: {nodes: '2,1'}\n  a: {nodes: '3,1'}\n",
            ":6:3: the key 'a' is there twice",
        ),
        (
            "nodes: '1,1'\ndomain: sb2.orbit-lab.org\n",
            ":4:1: the key 'domain' is there twice, first in line 2",
        ),
        ("nodes: '1,1'\nvars: {a-b: 1}\n", ":4:8, vars.a-b: 'a-b' is not a name of a variable"),
        ("nodes: '1,1'\nvars: {1: 1}\n", "'1' is not a name of a variable"),
        ("nodes: '1,1'\nvars: {orbit_domain: x}\n", "each host has its own. It is said by the key 'domain'"),
        (
            "nodes: '1,1'\nvars: {ansible_host: x}\n",
            ":4:8, vars.ansible_host: 'ansible_host' cannot be set here",
        ),
        (
            "groups: {a: {nodes: '1,1', vars: {orbit_x: 2}}}\n",
            "groups.a.vars.orbit_x: 'orbit_x' cannot be set",
        ),
        (
            "groups: {a: {nodes: '1,1', image: b, vars: {orbit_image: c}}}\n",
            "'image' of the group says this already",
        ),
        (
            "groups: {a: {nodes: '1,1', image: b}, c: {nodes: '1,1', vars: {orbit_image: d}}}\n",
            "already in the group 'a' with the image 'b', here 'd'",
        ),
        ("nodes: '1,1'\nansible_host: '-o{x}'\n", ":4:1, ansible_host: '-o1' is no address"),
        ("nodes: '1,1'\nansible_host: 'a {x}'\n", "'a 1' is no address to connect to"),
        ("nodes: '1,1'\ncompose: {a: 1}\n", "compose.a: an expression must be a text"),
        ("nodes: '1,1'\nkeyed_groups: {key: orbit_x}\n", ":4:1, keyed_groups: 'keyed_groups' must be a list"),
        ("nodes: '1,1'\nkeyed_groups: [{prefix: a}]\n", ":4:16, keyed_groups.0: .* has a 'key'"),
        ("nodes: '1,1'\nkeyed_groups: [{key: orbit_x, prefx: a}]\n", "keyed_groups.0.prefx: unknown key"),
        ("nodes: '1,1'\nstrict: sometimes\n", ":4:1, strict: 'strict' must be true or false"),
        ("groups: {localhost: {nodes: '1,1'}}\n", "'localhost' is not a name for a group"),
        ("groups: {1: {nodes: '1,1'}}\n", "'1' is not a name for a group"),
    ],
)
def test_what_would_be_ignored_is_refused(parse, text, message):
    with pytest.raises(SystemExit, match=message):
        parse(HEAD + text)


@pytest.mark.parametrize("name", ["a b", "b\u00fchne.org", "all", "localhost.", "a/b"])
def test_what_is_no_domain(parse, name):
    with pytest.raises(SystemExit, match=r":2:1, domain: "):
        parse(f"plugin: orbit.imaging.nodes\ndomain: {name}\ncontrol_ip: '10.1.{{x}}.{{y}}'\nnodes: '1,1'\n")


def test_aliases_and_merged_mappings(parse):
    data = parse(
        HEAD
        + "vars: &all {a: 1}\ngroups:\n"
        + "  one: {nodes: '1,1', vars: &one {<<: *all, b: 2}}\n"
        + "  two: {nodes: '2,1', vars: {<<: *all, <<: *one, c: 3}}\n"
    )
    assert (variables(data, "node1-1")["b"], variables(data, "node2-1")["c"]) == (2, 3)


# Text files

TEXT = "# of imageNodes5\n[1..2,1..2]\n-[2,2]   # broken\nnode7-7\n"


def test_text_file(parse, monkeypatch):
    monkeypatch.setenv("ORBIT_DOMAIN", "sb3.orbit-lab.org")
    data = parse(TEXT, "my.nodes")
    assert hosts(data, "all") == ["node1-1", "node1-2", "node2-1", "node7-7"]
    found = variables(data, "node7-7")
    assert (found["ansible_host"], found["orbit_domain"], found["orbit_chosen"]) == (
        "10.13.7.7",
        "sb3.orbit-lab.org",
        True,
    )


def test_text_file_of_another_testbed(parse, monkeypatch):
    monkeypatch.setenv("ORBIT_DOMAIN", "demo")
    monkeypatch.setenv("ORBIT_CONTROL_IP", "10.77.{x}.{y}")
    monkeypatch.setenv("ORBIT_ANSIBLE_HOST", "127.77.{x}.{y}")
    found = variables(parse(TEXT, "my.nodes"), "node2-1")
    assert (found["ansible_host"], found["orbit_control_ip"]) == ("127.77.2.1", "10.77.2.1")


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("console.sb7.orbit-lab.org", "sb7.orbit-lab.org"),
        ("CONSOLE.Grid.orbit-lab.org", "grid.orbit-lab.org"),
    ],
)
def test_the_domain_of_a_console(parse, monkeypatch, host, domain):
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", host, "", "", "")))
    assert variables(parse(TEXT, "my.nodes"), "node1-1")["orbit_domain"] == domain


@pytest.mark.parametrize(
    ("text", "domain", "message"),
    [
        (TEXT, "", "my.nodes: the text does not say which domain .* ORBIT_DOMAIN"),
        (TEXT, "demo", "my.nodes:2: the domain 'demo' has no rule .* ORBIT_CONTROL_IP"),
        ("[1,1]\n[2,\n", "sb3.orbit-lab.org", "my.nodes:2:4: expected a pair"),
        ("[1,1]\n[0,1]\n", "sb3.orbit-lab.org", "my.nodes:2:2: coordinate 0 is outside 1..254"),
        ("[1,1]\n\0\n", "sb3.orbit-lab.org", r"my.nodes:2:1: .* '\\x00'"),
        ("[1,1]\n[]\n", "sb3.orbit-lab.org", "my.nodes:2:1: the node set is empty"),
        ("[1,1]\nomf.a\nOMF.a\n", "sb3.orbit-lab.org", r"my.nodes:3: 'omf.a' and 'OMF.a' have the same name"),
        (TEXT, "sb 3", "my.nodes: 'sb 3' is not a name of a domain"),
        (TEXT, "all", "my.nodes: the domain 'all' would be a group"),
        ("# nothing\n", "sb3.orbit-lab.org", "my.nodes: the file names no nodes"),
        ("[21,1]\n", "grid.orbit-lab.org", r"my.nodes:1: node \(21,1\) is outside the domain"),
    ],
)
def test_mistakes_in_text_files(parse, monkeypatch, text, domain, message):
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "laptop", "", "", "")))
    if domain:
        monkeypatch.setenv("ORBIT_DOMAIN", domain)
    with pytest.raises(SystemExit, match=message):
        parse(text, "my.nodes")


def test_a_line_that_removes_nothing_is_told(parse, monkeypatch, capsys):
    monkeypatch.setenv("ORBIT_DOMAIN", "sb3.orbit-lab.org")
    assert hosts(parse("-[1,1]\n[1..2,1]\n", "told.nodes"), "all") == ["node1-1", "node2-1"]
    assert "told.nodes:1: '-[1,1]' removes nothing" in " ".join(capsys.readouterr().err.split())


# The inventories that come with the collection

ROOT = pathlib.Path(__file__).parents[4]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "inventories").glob("*/nodes.yml")), ids=lambda path: path.parent.name
)
def test_inventories_of_the_collection(path, clean):
    data = InventoryData()
    inventory_loader.get(NAME).parse(data, DataLoader(), str(path))
    assert data.hosts
