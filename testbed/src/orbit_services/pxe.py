# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pxe service: which nodes boot a memory image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from .call import Call, Fault, Outcome, Xml
from .config import NodeRecord, is_safe_name
from .dialects import Identity, Problem
from .links import HistoricLife, LinkTable
from .xml import element, elements

#: Nodes of a call, each with the name it was asked for by; None where the domain has no such node.
_Nodes = Sequence[tuple[str, NodeRecord | None]]


class Pxe:
    """Sets and clears links. ``changed`` is called after every change, to save it and to plan its end."""

    def __init__(self, links: LinkTable, changed: Callable[[], None]) -> None:
        self._links = links
        self._changed = changed

    # -- actions -------------------------------------------------------------------------------------------

    async def set_named(self, call: Call) -> Outcome:
        """2006: image and a list of names or of control IPs; answers ``OK``."""
        call.need_domain()
        self._set(call, _named(call), self._image(call, "img"))
        return None

    async def set_set(self, call: Call) -> Outcome:
        """4.4 and later: a node set; the reply lists every node with its link."""
        nodes = _node_set(call)
        image = self._image(call, "imgName")
        return _listing(call, self._set(call, nodes, image), image)

    async def set_all(self, call: Call) -> Outcome:
        """All nodes of the domain. (In 2006 the method was a dummy; here it works in every dialect.)"""
        call.need_domain()
        named = any(arg.name == "img" for arg in call.method.args)
        image = self._image(call, "img" if named else "imgName")
        nodes = self._set(call, [(node.hrn, node) for node in call.config.in_rows], image)
        return None if named else _listing(call, nodes, image)

    async def clear_named(self, call: Call) -> Outcome:
        """Our extension to the 2006 interface, of which no clearing method is known."""
        call.need_domain()
        self._clear(call, _named(call))
        return None

    async def clear_set(self, call: Call) -> Outcome:
        """4.4 and later. 5.4 (with ``user``) fails on an empty set."""
        nodes = _node_set(call)
        if not nodes and call.dialect.needs_user:
            raise Fault(Problem.INTERNAL, "empty node set")
        self._clear(call, nodes)
        return _action("clearBootImage", element("nodes"))

    async def clear_all(self, call: Call) -> Outcome:
        """All nodes of the domain."""
        call.need_domain()
        self._clear(call, [(node.hrn, node) for node in call.config.in_rows])
        listed = any(arg.name == "ns" for method in call.service.methods for arg in method.args)
        return _action("clearBootImage", element("nodes")) if listed else None

    # -- work ----------------------------------------------------------------------------------------------

    def _image(self, call: Call, parameter: str) -> str:
        listed = any(arg.name == parameter for arg in call.method.args)
        name = call.get(parameter) if listed else None
        if name is None:
            return call.config.memory_image
        if call.faithful and not any(part == ".." for part in name.split("/")) and "\0" not in name:
            return name
        if not is_safe_name(name):
            raise Fault(Problem.UNSAFE_NAME, f"Found unsafe characters in parameter '{name}'")
        if not self._links.target_exists(name):
            raise Fault(Problem.MEMORY_IMAGE, f"Image file '{call.config.tftp_dir / name}' not found")
        return name

    def _set(self, call: Call, nodes: _Nodes, image: str) -> list[NodeRecord]:
        done: list[NodeRecord] = []
        try:
            for node in self._checked(call, nodes):
                self._refuse_dangling(call, node)
                self._links.set(node.hex_ip, image)
                done.append(node)
        except BaseException:
            self._changed_half([node.hex_ip for node in done])
            raise
        self._links.life.linked(
            [node.hex_ip for node in done], time.time(), strict=call.dialect.dangling_blind
        )
        self._changed()
        return done

    def _clear(self, call: Call, nodes: _Nodes) -> None:
        done: list[str] = []
        try:
            for node in self._checked(call, nodes):
                if not (call.faithful and call.dialect.dangling_blind and self._links.dangles(node.hex_ip)):
                    self._links.clear(node.hex_ip)
                done.append(node.hex_ip)
        finally:
            self._links.life.unlinked(done)
            self._changed()

    def _checked(self, call: Call, nodes: _Nodes) -> Iterable[NodeRecord]:
        """Return the nodes; unknown ones are refused before a link is touched, historically on the way."""
        known = (node if node is not None else _refuse(call, name) for name, node in nodes)
        return known if call.faithful else list(known)

    def _refuse_dangling(self, call: Call, node: NodeRecord) -> None:
        if call.faithful and call.dialect.dangling_blind and self._links.dangles(node.hex_ip):
            raise Fault(Problem.LINK_IN_THE_WAY, f"File exists - {call.config.tftp_dir / node.hex_ip}")

    def _changed_half(self, names: Sequence[str]) -> None:
        if names:
            if isinstance(self._links.life, HistoricLife):
                self._links.life.half_linked(names)
            else:
                self._links.life.linked(names, time.time(), strict=False)
            self._changed()


def _refuse(call: Call, name: str) -> NodeRecord:
    text = f"Inventory has no control IP for node {name} (domain: {call.config.domain})"
    raise Fault(Problem.UNKNOWN_NODE_PXE, text)


def _node_set(call: Call) -> _Nodes:
    """The nodes of ``ns``: first the set is read, then the domain is looked up."""
    text = call.get("ns") or ""
    nodes = call.find_nodes(text)
    call.need_domain()
    if call.faithful and call.dialect.ranges_fail and ".." in text:
        raise Fault(Problem.UNKNOWN_NODE_PXE, f"Inventory has no control IP for node {text}")
    return nodes


def _named(call: Call) -> _Nodes:
    """The nodes of the 2006 arguments: ``node`` (short or full names) wins over ``ip``."""
    config = call.config
    names, addresses = call.get("node"), call.get("ip")
    if names is not None:
        found = [(name, config.by_name.get(name) or config.by_hrn.get(name)) for name in names.split(",")]
    elif addresses is not None:
        found = [(address, config.by_ip.get(address)) for address in addresses.split(",")]
    else:
        raise Fault(Problem.MISSING_ARGUMENT, "Request has to have either 'node' or 'ip' argument")
    return found


def _listing(call: Call, nodes: Sequence[NodeRecord], image: str) -> Outcome:
    hrn = call.dialect.identity is Identity.HRN
    rows: list[dict[str, str | None]] = [
        {"hex": node.hex_ip, "hrn": node.hrn, "img": image, "ip": node.control_ip}
        if hrn
        else {"hex": node.hex_ip, "img": image, "ip": node.control_ip, "x": str(node.x), "y": str(node.y)}
        for node in nodes
    ]
    return _action("setBootImage", element("nodes", elements("node", rows)))


def _action(name: str, nodes: str) -> Outcome:
    action = element("action", nodes, {"name": name, "service": "pxe"})
    return Xml(element("response", action, {"status": "OK"}))
