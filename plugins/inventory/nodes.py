# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: nodes
short_description: Nodes of a testbed by their coordinates
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - Makes hosts of the nodes of a testbed from node sets such as V([[1,1],[1..5,2]]), and groups which get an
    image each.
  - Reads YAML files whose name is C(nodes.yml) or ends in C(.nodes.yml) or C(.orbit.yml) (or the same with
    C(.yaml)), and text files whose name ends in C(.nodes). The latter are the files that C(imageNodes5) took
    - one node set in each line, V(#) starts a comment, a leading V(-) removes nodes, lines apply in order.
  - Text files are read only when the plugin is enabled in the configuration, V(enable_plugins) in the section
    C([inventory]), before C(ini). For YAML files the plugin C(auto) suffices.
  - All nodes are in a group named after the domain, which also has the variables of O(vars).
  - Each host has the variables C(orbit_domain), C(orbit_x), C(orbit_y), C(orbit_hrn), C(orbit_control_ip) and
    C(ansible_host). A host of a text file also has C(orbit_chosen), which says that naming it there chose it.
options:
  plugin:
    description: Must be V(orbit.imaging.nodes). Text files have no options, so there it comes from nowhere.
    type: str
    choices: [orbit.imaging.nodes]
  domain:
    description:
      - The testbed, for example V(sb1.orbit-lab.org). Required in a YAML file.
      - For a text file it is, when not configured, that of the host Ansible runs on, if this is the console
        of the grid or a sandbox of ORBIT.
    type: str
    env:
      - name: ORBIT_DOMAIN
    ini:
      - section: orbit
        key: domain
  size:
    description:
      - Columns and rows of the testbed. Nodes outside are refused.
      - The grid of ORBIT has 20 by 20 nodes if nothing is said.
    type: list
    elements: int
  name:
    description:
      - Template of the host names, which are also the names of the nodes.
      - May use V({x}), V({y}) and V({domain}).
    type: str
    default: node{x}-{y}
  control_ip:
    description:
      - Template of the control addresses. May use V({x}), V({y}) and V({domain}).
      - The rule of the domain is the default, 10.10.x.y for the grid of ORBIT and 10.(10+N).x.y for its
        sandbox N. Other domains have no rule and need the template.
    type: str
    env:
      - name: ORBIT_CONTROL_IP
    ini:
      - section: orbit
        key: control_ip
  ansible_host:
    description:
      - Template of the addresses Ansible connects to. May use V({x}), V({y}), V({domain}), V({name}) and
        V({control_ip}).
      - The control address is the default.
    type: str
    env:
      - name: ORBIT_ANSIBLE_HOST
    ini:
      - section: orbit
        key: ansible_host
  vars:
    description: Variables of all nodes.
    type: dict
    default: {}
  nodes:
    description:
      - Nodes of the testbed, groups or not - a node set, a list of node sets, or V(all) where the size is
        known.
      - When given, groups may only have nodes of these.
    type: raw
  groups:
    description:
      - Groups by name. Each has the keys C(nodes) (a node set or a list of them), C(image) and
        C(memory_image) (names, which become the group's C(orbit_image) and C(orbit_memory_image)) and
        C(vars).
      - A node may be in several groups, but these must not give it different images.
    type: dict
    default: {}
  compose:
    description: Variables made from Jinja2 expressions, as in other inventory plugins.
    type: dict
    default: {}
  keyed_groups:
    description: Groups made from the values of variables, as in other inventory plugins.
    type: list
    elements: dict
    default: []
  leading_separator:
    description: Whether groups of O(keyed_groups) without a prefix begin with a separator.
    type: bool
    default: true
  strict:
    description: Whether a failure of O(compose) or O(keyed_groups) is an error.
    type: bool
    default: false
"""

EXAMPLES = r"""
# nodes.yml: two groups of a sandbox that get different images
plugin: orbit.imaging.nodes
domain: sb1.orbit-lab.org
size: [8, 1]
groups:
  senders:
    nodes: "[[1,1],[3..5,1]]"
    image: sender.ndz
  receivers:
    nodes: "6..8,1"
    image: receiver.ndz
    vars:
      orbit_disk: /dev/sdb
---
# nodes.yml: a testbed with addresses of its own
plugin: orbit.imaging.nodes
domain: demo
size: [4, 2]
nodes: all
control_ip: "10.77.{x}.{y}"
ansible_host: "127.77.{x}.{y}"
vars:
  ansible_port: 2222
"""

import os
import re
import typing as t

import yaml
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable

from ansible_collections.orbit.imaging.plugins.module_utils.frisbee import check_image_name
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import (
    Domain,
    Member,
    Node,
    NodeSetError,
    domain_size,
    fill,
    format_nodes,
    parse_node_file,
    parse_node_set,
)
from ansible_collections.orbit.imaging.plugins.module_utils.service import ServiceError

_YAML_NAME = re.compile(r"(?:nodes|.*\.(?:nodes|orbit))\.ya?ml")
_GROUP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
#: A console of ORBIT is called console.<domain>.
_CONSOLE = re.compile(r"[^.]+\.((?:grid|sb[1-9])\.orbit-lab\.org)", re.IGNORECASE)

_KEYS = (
    "plugin",
    "domain",
    "size",
    "name",
    "control_ip",
    "ansible_host",
    "vars",
    "nodes",
    "groups",
    "compose",
    "keyed_groups",
    "leading_separator",
    "strict",
)
_GROUP_KEYS = ("nodes", "image", "memory_image", "vars")

Path = t.Tuple[t.Union[str, int], ...]


class _Mistake(Exception):
    """Something in the file is not acceptable.

    :param path: keys that lead to it.
    """

    def __init__(self, message: str, path: Path, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.remedy = remedy


class _Group(t.NamedTuple):
    """A group of the file."""

    name: str
    nodes: t.List[Node]
    image: str
    memory_image: str
    variables: t.Mapping[str, t.Any]


class _Testbed(t.NamedTuple):
    """What the file describes."""

    domain: str
    nodes: t.Dict[str, Node]
    groups: t.List[_Group]
    variables: t.Mapping[str, t.Any]
    ansible_host: str


class InventoryModule(BaseInventoryPlugin, Constructable):
    """The inventory plugin."""

    NAME = "orbit.imaging.nodes"

    def verify_file(self, path: str) -> bool:
        """Whether the file may be one of ours, by its name."""
        name = os.path.basename(path)
        return bool(super().verify_file(path)) and bool(name.endswith(".nodes") or _YAML_NAME.fullmatch(name))

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        """Add the hosts and groups of a file to the inventory."""
        super().parse(inventory, loader, path, cache)
        try:
            if path.endswith(".nodes"):
                self._add(self._read_text(path), {"orbit_chosen": True})
            else:
                self._add(self._read_yaml(path), {})
        except _Mistake as mistake:
            place = ".".join(str(key) for key in mistake.path)
            where = f"{path}{_position(path, mistake.path)}" + (f", {place}" if place else "")
            raise AnsibleParserError(_sentence(f"{where}: {mistake.message}", mistake.remedy)) from None
        except NodeSetError as error:
            raise AnsibleParserError(str(error.at(path))) from None

    # Reading

    def _read_text(self, path: str) -> _Testbed:
        self.set_options()
        name = self.get_option("domain") or _domain_of_console()
        if not name:
            raise NodeSetError(
                "the text does not say which domain its nodes are of",
                source=path,
                remedy="Set ORBIT_DOMAIN in the environment, or domain in the section [orbit] of ansible.cfg",
            )
        try:
            with open(path, encoding="utf-8") as stream:
                text = stream.read()
        except (OSError, UnicodeDecodeError) as error:
            raise AnsibleParserError(f"{path}: cannot be read: {error}") from error
        domain = Domain(name, control_ip=self.get_option("control_ip") or "")
        nodes = {}
        for member in parse_node_file(text, source=path):
            node = _addressed(domain, domain.node(member))
            nodes[node.name] = node
        if not nodes:
            raise NodeSetError(
                "the file names no nodes", source=path, remedy="Write one node set in each line"
            )
        return _Testbed(name, nodes, [], {}, self.get_option("ansible_host") or "")

    def _read_yaml(self, path: str) -> _Testbed:
        config = self._load(path)
        _check_keys(config, _KEYS, ())
        name = _text(config, "domain", ())
        if not name:
            raise _Mistake("the key 'domain' is missing", (), "Add for example: domain: sb1.orbit-lab.org")
        size = _size(config)
        domain = Domain(
            name,
            size or domain_size(name),
            _text(config, "name", ()) or "node{x}-{y}",
            _text(config, "control_ip", ()),
        )
        testbed = None
        if config.get("nodes") is not None:
            testbed = {node.name: node for node in self._nodes(config["nodes"], domain, ("nodes",))}
        groups = []
        for group_name, content in _mapping(config, "groups", ()).items():
            groups.append(self._group(group_name, content, domain, testbed))
        nodes = dict(testbed or {})
        for group in groups:
            nodes.update((node.name, node) for node in group.nodes)
        if not nodes:
            raise _Mistake("there are no nodes", (), "Give groups with nodes, or nodes for the whole testbed")
        _refuse_two_images(groups)
        described = _Testbed(
            name, nodes, groups, _mapping(config, "vars", ()), _text(config, "ansible_host", ())
        )
        _mapping(config, "compose", ())
        try:
            self.set_options(direct=config)
        except AnsibleError as error:
            raise AnsibleParserError(f"{path}: {error}") from error
        return described

    def _load(self, path: str) -> t.Dict[str, t.Any]:
        """Return the content of a file of ours.

        The base class has a method for this, but it judges the options first, and without saying where.
        """
        try:
            try:
                config = self.loader.load_from_file(path, cache="none", trusted_as_template=True)
            except TypeError:
                # ansible-core before 2.19 knows no trust; all that a file says may be evaluated.
                config = self.loader.load_from_file(path, cache="none")
        except AnsibleError as error:
            raise AnsibleParserError(f"{path}: {error}") from error
        if not isinstance(config, dict) or config.get("plugin") != self.NAME:
            raise AnsibleParserError(f"{path}: not for this plugin: it does not say 'plugin: {self.NAME}'")
        return config

    def _group(
        self, name: t.Any, content: t.Any, domain: Domain, testbed: t.Optional[t.Mapping[str, Node]]
    ) -> _Group:
        path: Path = ("groups", str(name))
        if not isinstance(name, str) or not _GROUP_NAME.fullmatch(name) or name in ("all", "ungrouped"):
            raise _Mistake(f"'{name}' is not a name for a group", path, "Use letters, digits and '_'")
        if name == _group_of(domain.name):
            raise _Mistake(f"'{name}' is the group of all nodes of the domain", path, "Choose another name")
        if not isinstance(content, dict):
            raise _Mistake("a group is a mapping", path, f"Its keys are {', '.join(_GROUP_KEYS)}")
        _check_keys(content, _GROUP_KEYS, path)
        if content.get("nodes") is None:
            raise _Mistake("the group has no nodes", path, 'Add for example: nodes: "[[1,1],[1..5,2]]"')
        nodes = self._nodes(content["nodes"], domain, (*path, "nodes"))
        if testbed is not None:
            missing = [node for node in nodes if node.name not in testbed]
            if missing:
                raise _Mistake(
                    f"{format_nodes(missing)}: not among the nodes of the testbed",
                    (*path, "nodes"),
                    "Correct the group, or the testbed's own 'nodes'",
                )
        names = {}
        for key in ("image", "memory_image"):
            names[key] = _text(content, key, path)
            if names[key]:
                try:
                    check_image_name(names[key], key.replace("_", " "))
                except ServiceError as error:
                    raise _Mistake(error.message, (*path, key), error.remedy) from error
        return _Group(name, nodes, names["image"], names["memory_image"], _mapping(content, "vars", path))

    def _nodes(self, value: t.Any, domain: Domain, path: Path) -> t.List[Node]:
        """Return the nodes of a node set or a list of them."""
        texts: t.List[t.Tuple[t.Any, Path]]
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            texts = [(item, (*path, index)) for index, item in enumerate(value)]
        else:
            texts = [(value, path)]
        members: t.Dict[Member, Path] = {}
        for text, place in texts:
            if text == "all":
                if path != ("nodes",):
                    raise _Mistake("'all' is no node set of a group", place, "Name the nodes")
                if domain.size is None:
                    raise _Mistake(
                        "'all' needs the size of the testbed", place, "Add for example: size: [4, 2]"
                    )
                text = "[1..{},1..{}]".format(*domain.size)
            try:
                found = parse_node_set(_node_set_text(text, place))
            except NodeSetError as error:
                column = f" (column {error.column} of the node set)" if error.column else ""
                raise _Mistake(f"malformed node set: {error.message}{column}", place, error.remedy) from error
            for member in found:
                members.setdefault(member, place)
        if not members:
            raise _Mistake("the node set is empty", path, "Name at least one node")
        nodes = []
        for member, place in members.items():
            try:
                nodes.append(_addressed(domain, domain.node(member)))
            except NodeSetError as error:
                raise _Mistake(error.message, place, error.remedy) from error
        return nodes

    # Adding

    def _add(self, testbed: _Testbed, own: t.Mapping[str, t.Any]) -> None:
        everybody = self.inventory.add_group(_group_of(testbed.domain))
        for key, value in testbed.variables.items():
            self.inventory.set_variable(everybody, key, value)
        for node in testbed.nodes.values():
            self._add_host(node, testbed, everybody, own)
        for group in testbed.groups:
            name = self.inventory.add_group(group.name)
            # Below the domain's group, so that the variables of a group are the stronger ones.
            self.inventory.add_child(everybody, name)
            for key, value in (("orbit_image", group.image), ("orbit_memory_image", group.memory_image)):
                if value:
                    self.inventory.set_variable(name, key, value)
            for key, value in group.variables.items():
                self.inventory.set_variable(name, key, value)
            for node in group.nodes:
                self.inventory.add_child(name, node.name)
        for name in testbed.nodes:
            self._construct(name)

    def _add_host(self, node: Node, testbed: _Testbed, group: str, own: t.Mapping[str, t.Any]) -> None:
        known = self.inventory.get_host(node.name)
        before = known.get_vars().get("orbit_domain") if known is not None else None
        if before is not None and before != node.domain:
            raise _Mistake(
                f"'{node.name}' is already a node of the domain '{before}'",
                (),
                'Give one of the two inventories host names with the domain: name: "node{x}-{y}.{domain}"',
            )
        host = self.inventory.add_host(node.name, group=group)
        variables = {
            "orbit_domain": node.domain,
            "orbit_x": node.x,
            "orbit_y": node.y,
            "orbit_hrn": node.hrn,
            "orbit_control_ip": node.control_ip or None,
            "ansible_host": _address(node, testbed.ansible_host),
            **own,
        }
        for key, value in variables.items():
            if value is not None:
                self.inventory.set_variable(host, key, value)

    def _construct(self, name: str) -> None:
        compose, keyed = self.get_option("compose"), self.get_option("keyed_groups")
        if not compose and not keyed:
            return
        strict = self.get_option("strict")
        variables = self.inventory.get_host(name).get_vars()
        try:
            self._set_composite_vars(compose, variables, name, strict=strict)
            self._add_host_to_keyed_groups(keyed, variables, name, strict=strict)
        except AnsibleError as error:
            raise _Mistake(str(error), ("compose",) if compose else ("keyed_groups",)) from error


def _sentence(message: str, remedy: str) -> str:
    return f"{message}. {remedy}" if remedy else message


def _domain_of_console() -> str:
    """Return the domain of the ORBIT console this runs on, by the name of the host alone; "" elsewhere."""
    match = _CONSOLE.fullmatch(os.uname().nodename)
    return match[1].lower() if match is not None else ""


def _group_of(domain: str) -> str:
    """Return the name of the group of all nodes of a domain."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", domain)
    return name if not name[:1].isdigit() else f"_{name}"


def _addressed(domain: Domain, node: Node) -> Node:
    """Return the node if its address is known, or cannot be because only its name is."""
    if node.control_ip or node.x is None:
        return node
    raise NodeSetError(
        f"the domain '{domain.name}' has no rule for control addresses",
        remedy='Give a template, such as control_ip: "10.77.{x}.{y}" (for a text file: ORBIT_CONTROL_IP)',
    )


def _address(node: Node, template: str) -> t.Optional[str]:
    if not template or node.x is None:
        return node.control_ip or None
    values = {
        "x": node.x,
        "y": node.y,
        "domain": node.domain,
        "name": node.name,
        "control_ip": node.control_ip,
    }
    try:
        return fill(template, values)
    except NodeSetError as error:
        raise _Mistake(error.message, ("ansible_host",), error.remedy) from error


def _check_keys(mapping: t.Mapping[t.Any, t.Any], known: t.Sequence[str], path: Path) -> None:
    for key in mapping:
        if key not in known:
            raise _Mistake(f"unknown key '{key}'", (*path, str(key)), f"The keys are {', '.join(known)}")


def _mapping(config: t.Mapping[str, t.Any], key: str, path: Path) -> t.Mapping[str, t.Any]:
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _Mistake(f"'{key}' must be a mapping", (*path, key))
    return value


def _text(config: t.Mapping[str, t.Any], key: str, path: Path) -> str:
    value = config.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or not value.strip():
        raise _Mistake(f"'{key}' must be a text", (*path, key), "Put it in quotes")
    return str(value).strip()


def _size(config: t.Mapping[str, t.Any]) -> t.Optional[t.Tuple[int, int]]:
    value = config.get("size")
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(
            isinstance(item, int) and not isinstance(item, bool) and 1 <= item <= 254 for item in value
        )
    ):
        raise _Mistake(
            "'size' must be columns and rows, each from 1 to 254",
            ("size",),
            "Write for example: size: [4, 2]",
        )
    return int(value[0]), int(value[1])


def _node_set_text(value: t.Any, path: Path) -> str:
    """Return the text of a node set; YAML reads an unquoted one as lists, numbers and odd texts."""
    if isinstance(value, str):
        return str(value)
    raise _Mistake("a node set must be a text", path, 'Put it in quotes: nodes: "[[1,1],[1..5,2]]"')


def _refuse_two_images(groups: t.Sequence[_Group]) -> None:
    """Refuse a node that two groups give different images, of either kind."""
    for kind in ("image", "memory_image"):
        seen: t.Dict[str, _Group] = {}
        for group in groups:
            mine = getattr(group, kind)
            if not mine:
                continue
            clashes: t.Dict[str, t.List[Node]] = {}
            for node in group.nodes:
                other = seen.setdefault(node.name, group)
                if getattr(other, kind) != mine:
                    clashes.setdefault(other.name, []).append(node)
            for other_name, nodes in clashes.items():
                theirs = next(getattr(other, kind) for other in groups if other.name == other_name)
                what = kind.replace("_", " ")
                raise _Mistake(
                    f"{format_nodes(nodes)}: already in the group '{other_name}' with the {what} "
                    f"'{theirs}', here '{mine}'",
                    ("groups", group.name, "nodes"),
                    "A node can get one image only",
                )


def _position(path: str, keys: Path) -> str:
    """Return ``:line:column`` of a key in a YAML file, of its parent when it is not there, else ""."""
    try:
        with open(path, encoding="utf-8") as stream:
            node = yaml.compose(stream, Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    if node is None:
        return ""
    mark = node.start_mark
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next(((name, value) for name, value in node.value if str(name.value) == str(key)), None)
            if found is None:
                break
            mark, node = found[0].start_mark, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            mark = node.start_mark
        else:
            break
    return f":{mark.line + 1}:{mark.column + 1}"
