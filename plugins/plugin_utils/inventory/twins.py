# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""No two hosts of an inventory may be one node, nor two nodes one host."""

from __future__ import annotations

import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.nodes import Node
from ansible_collections.orbit.imaging.plugins.plugin_utils.inventory.document import Mistake, Path


class Twins:
    """What the nodes of an inventory are known by.

    :param hosts: hosts that are there already, from other files.
    """

    def __init__(self, hosts: t.Iterable[t.Any] = ()) -> None:
        self._hosts: dict[str, Node] = {}
        self._seen: dict[tuple[str, t.Any], Node] = {}
        for host in hosts:
            variables = host.get_vars()
            node = Node(
                str(host.name),
                str(variables.get("orbit_domain") or ""),
                variables.get("orbit_x"),
                variables.get("orbit_y"),
                str(variables.get("orbit_hrn") or ""),
                str(variables.get("orbit_control_ip") or ""),
            )
            # A host without a domain has only more variables for a node of another file, or is none at all.
            if node.domain:
                self._hosts[node.name] = node
            for kind, key in _known_by(node):
                self._seen.setdefault((kind, key), node)

    def add(self, node: Node, path: Path = (), *, line: int = 0) -> None:
        """Note a node; the same one may be added again.

        :param path: keys that lead to the text that names it.
        :param line: line of that text where there are no keys.
        :raises Mistake: when another host is this node, or this host another node.
        """
        known = self._hosts.setdefault(node.name, node)
        if known != node:
            if known.domain.lower() != node.domain.lower():
                what = f"'{node.name}' is already a node of the domain '{known.domain}'"
                remedy = 'Give one of the two host names with the domain: name: "node{x}-{y}.{domain}"'
            else:
                what = f"{_told(known)} and {_told(node)} are both the host '{node.name}'"
                remedy = 'Give each node a name, control address and HRN of its own, e.g. name: "node{x}-{y}"'
            raise Mistake(what, path, remedy, line=line)
        for kind, key in _known_by(node):
            other = self._seen.setdefault((kind, key), node)
            if other.name != node.name:
                shown = "[{1},{2}] of {0}".format(*key) if isinstance(key, tuple) else key
                raise Mistake(
                    f"'{other.name}' and '{node.name}' have the same {kind} {shown}",
                    path,
                    "Name each node once, and check the templates",
                    line=line,
                )


def _known_by(node: Node) -> list[tuple[str, t.Any]]:
    keys: list[tuple[str, t.Any]] = []
    if node.domain and node.x is not None and node.y is not None:
        keys.append(("coordinates", (node.domain.lower(), node.x, node.y)))
    if node.hrn:
        keys.append(("name on the services (HRN)", node.hrn.lower()))
    if node.control_ip:
        keys.append(("control address", node.control_ip))
    return keys


def _told(node: Node) -> str:
    if node.x is None:
        return f"the node known as {node.hrn} only"
    return f"[{node.x},{node.y}] with {node.control_ip}"
