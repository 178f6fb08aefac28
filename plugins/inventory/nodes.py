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
  - A file of such a name that cannot be read or understood ends the program with one error that names the
    place, and the exit status 4. Ansible would ask its other plugins instead, one of which may take the file
    for something else, and go on without these nodes.
  - A YAML file called C(nodes.yml) that is plainly for another plugin is left to it.
  - Two nodes never share a host name, HRN, control address or place in a domain, nor does a host share its
    name with a group, in all the files that Ansible has read so far.
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
      - Environment and configuration are asked for text files only, also for O(control_ip) and
        O(ansible_host), as one setting cannot fit several testbeds.
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
    description: Variables of all nodes. Those that each host has from its coordinates cannot be among them.
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

import difflib
import keyword
import os
import re
import typing as t

from ansible import constants
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable

from ansible_collections.orbit.imaging.plugins.module_utils.frisbee import check_image_name
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import (
    Domain,
    Member,
    Node,
    NodeSetError,
    check_domain,
    domain_size,
    fill,
    format_nodes,
    parse_node_set,
    read_node_file,
)
from ansible_collections.orbit.imaging.plugins.module_utils.service import ServiceError
from ansible_collections.orbit.imaging.plugins.plugin_utils.inventory.document import (
    Document,
    Mistake,
    Path,
    read_text,
)
from ansible_collections.orbit.imaging.plugins.plugin_utils.inventory.twins import Twins

_YAML_NAME = re.compile(r"(?:nodes|.*\.(?:nodes|orbit))\.ya?ml")
_NAMES_PLUGIN = re.compile(
    r"""^plugin:[ \t]*["']?orbit\.imaging\.nodes["']?[ \t]*(?:#.*)?\r?$""", re.MULTILINE
)
#: Files of this name are nobody else's.
_OWN_NAME = re.compile(r".*\.orbit\.ya?ml")
_GROUP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
#: What SSH may be told to connect to: a name or an address of either kind, and never an option.
_CONNECTED_TO = re.compile(r"[A-Za-z0-9:\[][A-Za-z0-9._:%\[\]-]*", re.ASCII)
#: Names that mean something else to Ansible.
_RESERVED = ("all", "ungrouped", *constants.LOCALHOST)
#: A console of ORBIT is called console.<domain>.
_CONSOLE = re.compile(r"[^.]+\.((?:grid|sb[1-9])\.orbit-lab\.org)", re.IGNORECASE)
#: Exit status of Ansible when something cannot be parsed.
_NOT_PARSED = 4

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
_KEYED_GROUP_KEYS = ("key", "prefix", "separator", "parent_group", "default_value", "trailing_separator")
_IMAGES = {"image": "orbit_image", "memory_image": "orbit_memory_image"}
#: How a file says what is a variable of each host, which a group's variable of the name could not change.
_SAID_BY = {
    "orbit_domain": "the key 'domain'",
    "orbit_x": "the coordinates in 'nodes'",
    "orbit_y": "the coordinates in 'nodes'",
    "orbit_hrn": "'compose', if the rule of the domain is not right",
    "orbit_control_ip": "the key 'control_ip'",
    "ansible_host": "the key 'ansible_host'",
}


class InventoryRefused(SystemExit):
    """A file of ours is not acceptable; the program ends.

    Ansible takes any other exception as a sign that the file is another plugin's. It asks the next one,
    which may make something else of the text (``[1,1]`` is a group to ``ini``), and goes on.

    :param message: file, place, what is wrong and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_NOT_PARSED)
        self.message = message

    def __str__(self) -> str:
        return self.message


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
    #: Variables of each host by its name.
    hosts: t.Dict[str, t.Dict[str, t.Any]]


class InventoryModule(BaseInventoryPlugin, Constructable):
    """The inventory plugin."""

    NAME = "orbit.imaging.nodes"

    # Both are there before the plugin is asked to parse anything.
    inventory: t.Any
    loader: t.Any

    def verify_file(self, path: str) -> bool:
        """Whether the file may be one of ours: by its name, or because it names this plugin.

        Whether one of our names can be read is for ``parse`` to say: there it is an error.
        """
        name = os.path.basename(path)
        if name.endswith(".nodes") or _YAML_NAME.fullmatch(name):
            # What is no file but has commas is a list of hosts.
            return "," not in path or os.path.lexists(path)
        if not name.endswith((".yml", ".yaml")):
            return False
        try:
            return _NAMES_PLUGIN.search(read_text(path)) is not None
        except Mistake:
            return False

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        """Add the hosts and groups of a file to the inventory.

        :raises InventoryRefused: when the file is ours and something in it is not acceptable.
        :raises AnsibleParserError: when it is for another plugin.
        """
        super().parse(inventory, loader, path, cache)
        self._document: t.Optional[Document] = None
        try:
            text = read_text(path)
            config = None if path.endswith(".nodes") else self._load(path, text)
            try:
                self._add(self._describe_text(path, text) if config is None else self._describe(config))
            except (Mistake, NodeSetError):
                raise
            except Exception as error:
                # Ansible's inventory raises plain ones, too. No other plugin must get the file for that.
                raise Mistake(str(error)) from error
        except Mistake as mistake:
            self._refuse(path, mistake)
        except NodeSetError as error:
            line, column = error.line, error.column
            self._refuse(path, Mistake(error.message, (), error.remedy, line=line, column=column))

    def _refuse(self, path: str, mistake: Mistake) -> t.NoReturn:
        """Show a mistake and end the program."""
        place = ".".join(str(key) for key in mistake.path)
        line, column = mistake.line, mistake.column
        if not line and self._document is not None:
            line, column = self._document.position(mistake.path)
        where = f"{path}:{line}:{column}" if column else f"{path}:{line}" if line else path
        message = f"{where}, {place}: {mistake.message}" if place else f"{where}: {mistake.message}"
        refusal = InventoryRefused(f"{message}. {mistake.remedy}" if mistake.remedy else message)
        self.display.display(
            f"[ERROR]: {refusal}", color=constants.config.get_config_value("COLOR_ERROR"), stderr=True
        )
        raise refusal from mistake

    # Reading

    def _describe_text(self, path: str, text: str) -> _Testbed:
        self.set_options()
        name = self.get_option("domain") or _domain_of_console()
        if not name:
            raise Mistake(
                "the text does not say which domain its nodes are of",
                remedy="Set ORBIT_DOMAIN in the environment, or domain in the section [orbit] of ansible.cfg",
            )
        domain = Domain(_domain_name(name, ()), control_ip=self.get_option("control_ip") or "")
        file = read_node_file(text)
        for line, removal in file.idle.items():
            self.display.warning(
                f"{path}:{line}: '{removal}' removes nothing: none of it is in the lines above"
            )
        twins = Twins(self.inventory.hosts.values())
        nodes = {}
        for member, line in file.members.items():
            try:
                node = _addressed(domain, domain.node(member))
            except NodeSetError as error:
                raise error.at("", line) from error
            twins.add(node, line=line)
            nodes[node.name] = node
        if not nodes:
            raise Mistake("the file names no nodes", remedy="Write one node set in each line")
        hosts = _host_variables(nodes.values(), self.get_option("ansible_host") or "")
        for variables in hosts.values():
            variables["orbit_chosen"] = True
        return _Testbed(name, nodes, [], {}, hosts)

    def _describe(self, config: t.Dict[str, t.Any]) -> _Testbed:
        _check_keys(config, _KEYS, ())
        name = _text(config, "domain", ())
        if not name:
            raise Mistake("the key 'domain' is missing", (), "Add for example: domain: sb1.orbit-lab.org")
        size = _size(config)
        domain = Domain(
            _domain_name(name, ("domain",)),
            size or domain_size(name),
            _text(config, "name", ()) or "node{x}-{y}",
            _text(config, "control_ip", ()),
        )
        twins = Twins(self.inventory.hosts.values())
        testbed = None
        if "nodes" in config:
            testbed = {node.name: node for node in self._nodes(config["nodes"], domain, ("nodes",), twins)}
        groups = []
        for group_name, content in _mapping(config, "groups", ()).items():
            groups.append(self._group(group_name, content, domain, testbed, twins))
        nodes = dict(testbed or {})
        for group in groups:
            nodes.update((node.name, node) for node in group.nodes)
        if not nodes:
            raise Mistake("there are no nodes", (), "Give groups with nodes, or nodes for the whole testbed")
        _refuse_two_images(groups)
        hosts = _host_variables(nodes.values(), _text(config, "ansible_host", ()))
        described = _Testbed(name, nodes, groups, _mapping(config, "vars", ()), hosts)
        _check_variables(described.variables, ("vars",), hosts.values())
        for group in groups:
            theirs = [hosts[node.name] for node in group.nodes]
            _check_variables(group.variables, ("groups", group.name, "vars"), theirs)
        _check_constructed(config)
        self.set_options(direct=config)
        return described

    def _load(self, path: str, text: str) -> t.Dict[str, t.Any]:
        """Return the content of a file of ours.

        The base class has a method for this, but it judges the options first, and without saying where.

        :raises AnsibleParserError: when it is for another plugin.
        """
        self._document = Document(text)
        try:
            try:
                config = self.loader.load_from_file(path, cache="none", trusted_as_template=True)
            except TypeError:
                # ansible-core before 2.19 knows no trust; all that a file says may be evaluated.
                config = self.loader.load_from_file(path, cache="none")
        except AnsibleError as error:
            raise Mistake(f"cannot be loaded: {error}") from error
        if not isinstance(config, dict):
            raise Mistake("the file must be a mapping", (), f"Begin it with: plugin: {self.NAME}")
        if config.get("plugin") != self.NAME:
            if not _OWN_NAME.fullmatch(os.path.basename(path)) and not _looks_like_ours(config):
                raise AnsibleParserError(f"{path}: for another plugin: it does not say 'plugin: {self.NAME}'")
            if "plugin" in config:
                what = f"'{config['plugin']}' is not the plugin for this file"
            else:
                what = "the key 'plugin' is missing"
            raise Mistake(what, ("plugin",), f"Write: plugin: {self.NAME}")
        self._document.refuse_twins()
        return config

    def _group(
        self,
        name: t.Any,
        content: t.Any,
        domain: Domain,
        testbed: t.Optional[t.Mapping[str, Node]],
        twins: Twins,
    ) -> _Group:
        path: Path = ("groups", str(name))
        if not isinstance(name, str) or not _GROUP_NAME.fullmatch(name) or name in _RESERVED:
            raise Mistake(f"'{name}' is not a name for a group", path, "Use letters, digits and '_'")
        if name == _group_of(domain.name):
            raise Mistake(f"'{name}' is the group of all nodes of the domain", path, "Choose another name")
        if not isinstance(content, dict):
            raise Mistake("a group is a mapping", path, f"Its keys are {', '.join(_GROUP_KEYS)}")
        _check_keys(content, _GROUP_KEYS, path)
        if content.get("nodes") is None:
            raise Mistake("the group has no nodes", path, 'Add for example: nodes: "[[1,1],[1..5,2]]"')
        nodes = self._nodes(content["nodes"], domain, (*path, "nodes"), twins)
        if testbed is not None:
            missing = [node for node in nodes if node.name not in testbed]
            if missing:
                raise Mistake(
                    f"{format_nodes(missing)}: not among the nodes of the testbed",
                    (*path, "nodes"),
                    "Correct the group, or the testbed's own 'nodes'",
                )
        names = {}
        variables = _mapping(content, "vars", path)
        for key, variable in _IMAGES.items():
            names[key] = _text(content, key, path)
            if names[key] and variable in variables:
                raise Mistake(
                    f"'{key}' of the group says this already",
                    (*path, "vars", variable),
                    "Keep one of the two",
                )
            if names[key]:
                try:
                    check_image_name(names[key], key.replace("_", " "))
                except ServiceError as error:
                    raise Mistake(error.message, (*path, key), error.remedy) from error
        return _Group(name, nodes, names["image"], names["memory_image"], variables)

    def _nodes(self, value: t.Any, domain: Domain, path: Path, twins: Twins) -> t.List[Node]:
        """Return the nodes of a node set or a list of them."""
        texts: t.List[t.Tuple[t.Any, Path]]
        # Without a text among its items it is a node set that lacks its quotes.
        if isinstance(value, list) and (not value or any(isinstance(item, str) for item in value)):
            texts = [(item, (*path, index)) for index, item in enumerate(value)]
        else:
            texts = [(value, path)]
        members: t.Dict[Member, Path] = {}
        for text, place in texts:
            if text == "all":
                if path != ("nodes",):
                    raise Mistake("'all' is no node set of a group", place, "Name the nodes")
                if domain.size is None:
                    raise Mistake(
                        "'all' needs the size of the testbed", place, "Add for example: size: [4, 2]"
                    )
                text = "[1..{},1..{}]".format(*domain.size)
            try:
                found = parse_node_set(_node_set_text(text, place))
            except NodeSetError as error:
                column = f" (column {error.column} of the node set)" if error.column else ""
                raise Mistake(f"malformed node set: {error.message}{column}", place, error.remedy) from error
            for member in found:
                members.setdefault(member, place)
        if not members:
            raise Mistake("the node set is empty", path, "Name at least one node")
        nodes: t.Dict[Node, None] = {}
        for member, place in members.items():
            try:
                node = _addressed(domain, domain.node(member))
            except NodeSetError as error:
                raise Mistake(error.message, place, error.remedy) from error
            twins.add(node, place)
            nodes[node] = None
        return list(nodes)

    # Adding

    def _add(self, testbed: _Testbed) -> None:
        everybody = _group_of(testbed.domain)
        self._refuse_double_meaning(testbed, [everybody, *(group.name for group in testbed.groups)])
        self._add_group(everybody, testbed, ("domain",))
        for key, value in testbed.variables.items():
            self.inventory.set_variable(everybody, key, value)
        for name, variables in testbed.hosts.items():
            self._add_host(name, variables, everybody)
        for group in testbed.groups:
            path: Path = ("groups", group.name)
            name = group.name
            self._add_group(name, testbed, path)
            # Below the domain's group, so that the variables of a group are the stronger ones.
            self.inventory.add_child(everybody, name)
            variables = dict(group.variables)
            for kind, variable in _IMAGES.items():
                if getattr(group, kind):
                    variables[variable] = getattr(group, kind)
                self._refuse_other_image(name, kind, variables.get(variable))
            for key, value in variables.items():
                self.inventory.set_variable(name, key, value)
            for node in group.nodes:
                self.inventory.add_child(name, node.name)
        for group in testbed.groups:
            self._refuse_images_of_other_files(group, everybody)
        for name in testbed.nodes:
            self._construct(name)
        # Also those of keyed_groups are known now.
        self._refuse_double_meaning(testbed, [])

    def _refuse_double_meaning(self, testbed: _Testbed, groups: t.Sequence[str]) -> None:
        """Refuse a name that is both a host's and a group's: Ansible would take it for the group."""
        groups = [*groups, *self.inventory.groups]
        own = {group.name for group in testbed.groups}
        for name in sorted({*testbed.nodes, *self.inventory.hosts} & set(groups)):
            if name in testbed.nodes or name in own or name == _group_of(testbed.domain):
                path: Path = ("groups", name) if name in own else ()
                raise Mistake(f"'{name}' is the name of both a host and a group", path, "Rename one of them")

    def _add_group(self, name: str, testbed: _Testbed, path: Path) -> None:
        """Add a group, unless another domain has it: its nodes would get the variables of both."""
        known = self.inventory.groups.get(name)
        for host in known.get_hosts() if known is not None else ():
            theirs = host.get_vars().get("orbit_domain")
            if theirs is not None and theirs != testbed.domain:
                raise Mistake(
                    f"the group '{name}' is already one of the domain '{theirs}'",
                    path if self._document is not None else (),
                    "Choose another name",
                )
        self.inventory.add_group(name)

    def _add_host(self, name: str, variables: t.Mapping[str, t.Any], group: str) -> None:
        """Add a host, unless another file says otherwise where it is."""
        known = self.inventory.hosts.get(name)
        before = known.get_vars() if known is not None else {}
        for key in variables if "orbit_domain" in before else ():
            if before.get(key, variables[key]) != variables[key]:
                raise Mistake(
                    f"another file gives '{name}' {key} = {before[key]!r}, here it is {variables[key]!r}",
                    remedy="Say the same in both, or use one of them",
                )
        self.inventory.add_host(name, group=group)
        for key, value in variables.items():
            self.inventory.set_variable(name, key, value)

    def _refuse_other_image(self, group: str, kind: str, image: t.Optional[str]) -> None:
        """Refuse a group to which another file has given another image."""
        before = self.inventory.groups[group].get_vars().get(_IMAGES[kind])
        if image is not None and before is not None and before != image:
            raise Mistake(
                f"another file gives the group the {kind.replace('_', ' ')} '{before}', here '{image}'",
                ("groups", group),
                "Say it in one file, or rename the group",
            )

    def _refuse_images_of_other_files(self, group: _Group, everybody: str) -> None:
        """Refuse a node that a group of another file of this domain gives another image."""
        groups = self.inventory.groups
        for kind, variable in _IMAGES.items():
            mine = groups[group.name].get_vars().get(variable)
            for other in groups[everybody].child_groups if mine is not None else ():
                theirs = other.get_vars().get(variable, mine)
                if theirs == mine:
                    continue
                names = {host.name for host in other.get_hosts()}
                shared = [node for node in group.nodes if node.name in names]
                if shared:
                    raise _two_images(shared, kind, other.name, theirs, group.name, mine)

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
            raise Mistake(str(error), ("compose",) if compose else ("keyed_groups",)) from error


def _looks_like_ours(config: t.Mapping[t.Any, t.Any]) -> bool:
    """Whether a file that does not name this plugin means it all the same.

    It nearly names it; or it names none and is no inventory in YAML either, whose keys are groups.
    """
    if "plugin" in config:
        said = str(config["plugin"])
        return said == "nodes" or bool(difflib.get_close_matches(said, [InventoryModule.NAME], cutoff=0.8))
    return any(key in _KEYS and not isinstance(value, (dict, type(None))) for key, value in config.items())


def _domain_name(name: str, path: Path) -> str:
    try:
        check_domain(name)
    except NodeSetError as error:
        raise Mistake(error.message, path, error.remedy) from error
    if _group_of(name) in _RESERVED:
        raise Mistake(f"the domain '{name}' would be a group that means something else to Ansible", path)
    return name


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


def _host_variables(nodes: t.Iterable[Node], ansible_host: str) -> t.Dict[str, t.Dict[str, t.Any]]:
    """Return the variables of each host by its name."""
    hosts = {}
    for node in nodes:
        if node.name in _RESERVED:
            raise Mistake(f"the host name '{node.name}' means something else to Ansible")
        variables = {
            "orbit_domain": node.domain,
            "orbit_x": node.x,
            "orbit_y": node.y,
            "orbit_hrn": node.hrn,
            "orbit_control_ip": node.control_ip or None,
            "ansible_host": _address(node, ansible_host),
        }
        hosts[node.name] = {key: value for key, value in variables.items() if value is not None}
    return hosts


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
        address = fill(template, values)
    except NodeSetError as error:
        raise Mistake(error.message, ("ansible_host",), error.remedy) from error
    if not _CONNECTED_TO.fullmatch(address):
        raise Mistake(
            f"'{address}' is no address to connect to", ("ansible_host",), "Check the template 'ansible_host'"
        )
    return address


def _check_variables(
    variables: t.Mapping[t.Any, t.Any], path: Path, hosts: t.Iterable[t.Mapping[str, t.Any]]
) -> None:
    """Refuse what is no name of a variable, and what would change nothing as each host has its own."""
    own = {key for host in hosts for key in host}
    for key in variables:
        if not isinstance(key, str) or not key.isidentifier() or not key.isascii() or keyword.iskeyword(key):
            raise Mistake(f"'{key}' is not a name of a variable", (*path, str(key)), "Use letters and '_'")
        if key in own:
            raise Mistake(
                f"'{key}' cannot be set here, as each host has its own",
                (*path, key),
                f"It is said by {_SAID_BY[key]}",
            )


def _check_constructed(config: t.Mapping[str, t.Any]) -> None:
    """Check the options of Ansible's own mixin, which ignores what it does not understand."""
    composed = _mapping(config, "compose", ())
    _check_variables(composed, ("compose",), ())
    for key, value in composed.items():
        if not isinstance(value, str):
            raise Mistake("an expression must be a text", ("compose", key), "Put it in quotes")
    keyed = config.get("keyed_groups", [])
    if not isinstance(keyed, list):
        raise Mistake("'keyed_groups' must be a list", ("keyed_groups",))
    for index, item in enumerate(keyed):
        path: Path = ("keyed_groups", index)
        if not isinstance(item, dict) or "key" not in item:
            raise Mistake("each of them must be a mapping that has a 'key'", path)
        _check_keys(item, _KEYED_GROUP_KEYS, path)
    for key in ("leading_separator", "strict"):
        if not isinstance(config.get(key, True), bool):
            raise Mistake(f"'{key}' must be true or false", (key,))


def _check_keys(mapping: t.Mapping[t.Any, t.Any], known: t.Sequence[str], path: Path) -> None:
    for key in mapping:
        if key not in known:
            raise Mistake(f"unknown key '{key}'", (*path, str(key)), f"The keys are {', '.join(known)}")


def _mapping(config: t.Mapping[str, t.Any], key: str, path: Path) -> t.Mapping[str, t.Any]:
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Mistake(f"'{key}' must be a mapping", (*path, key))
    return value


def _text(config: t.Mapping[str, t.Any], key: str, path: Path) -> str:
    """Return the text of a key, "" when it is not there."""
    if key not in config:
        return ""
    value = config[key]
    if value is None:
        raise Mistake(f"'{key}' says nothing", (*path, key), "Give it a text, or remove the line")
    if not isinstance(value, str) or not value.strip():
        raise Mistake(f"'{key}' must be a text", (*path, key), "Put it in quotes")
    return str(value).strip()


def _size(config: t.Mapping[str, t.Any]) -> t.Optional[t.Tuple[int, int]]:
    if "size" not in config:
        return None
    value = config["size"]
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(
            isinstance(item, int) and not isinstance(item, bool) and 1 <= item <= 254 for item in value
        )
    ):
        raise Mistake(
            "'size' must be columns and rows, each from 1 to 254",
            ("size",),
            "Write for example: size: [4, 2]",
        )
    return int(value[0]), int(value[1])


def _node_set_text(value: t.Any, path: Path) -> str:
    """Return the text of a node set; YAML reads an unquoted one as lists, numbers and odd texts."""
    if isinstance(value, str):
        return str(value)
    raise Mistake("a node set must be a text", path, 'Put it in quotes: nodes: "[[1,1],[1..5,2]]"')


def _two_images(
    nodes: t.Iterable[Node], kind: str, first: str, theirs: t.Any, second: str, mine: t.Any
) -> Mistake:
    return Mistake(
        f"{format_nodes(nodes)}: already in the group '{first}' with the {kind.replace('_', ' ')} "
        f"'{theirs}', here '{mine}'",
        ("groups", second, "nodes"),
        "A node can get one image only",
    )


def _refuse_two_images(groups: t.Sequence[_Group]) -> None:
    """Refuse a node that two groups give different images, of either kind."""
    for kind, variable in _IMAGES.items():
        images = {group.name: getattr(group, kind) or group.variables.get(variable) for group in groups}
        seen: t.Dict[str, _Group] = {}
        for group in groups:
            mine = images[group.name]
            if not mine:
                continue
            clashes: t.Dict[str, t.List[Node]] = {}
            for node in group.nodes:
                other = seen.setdefault(node.name, group)
                if images[other.name] != mine:
                    clashes.setdefault(other.name, []).append(node)
            for other_name, nodes in clashes.items():
                raise _two_images(nodes, kind, other_name, images[other_name], group.name, mine)
