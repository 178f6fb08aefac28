# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Client of the pxe service: which nodes boot a memory image over the network."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.dialects import Request, Speaker
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import Node
from ansible_collections.orbit.imaging.plugins.module_utils.service import (
    Code,
    Connection,
    Reply,
    ServiceError,
    parse_json,
    run_parallel,
    shorten,
    unexpected,
)

#: Seconds between two calls that set links. The services key the timer that removes the links of a call by
#: the wall-clock second, so the links of two calls in one second never expire (recorded from B to E2).
SET_SPACING = 1.1
#: Seconds granted to a call for each of its nodes on top of the time-out: the services ask their inventory
#: for each.
SECONDS_PER_NODE = 0.25


_JSON = "application/json"

#: Seconds for the question how the links are, which most services do not answer.
LOOK_TIMEOUT = 10.0


class Link(t.NamedTuple):
    """What became of one node.

    :ivar node: the node.
    :ivar ok: whether the service confirmed it.
    :ivar link: file name below pxelinux.cfg, the control address in hexadecimal.
    :ivar image: memory image the node is linked to; "" when the service does not say or the link is gone.
    :ivar message: reason of a failure, or a remark.
    :ivar code: the reason for programs, a :data:`service.Code`; "" when it is ok.
    """

    node: Node
    ok: bool
    link: str
    image: str
    message: str = ""
    code: str = ""


class LinkState(t.NamedTuple):
    """What a service tells of its links; only that of the embedded testbed does.

    :ivar own_image: the memory image taken when none is named; "" when it does not say.
    :ivar images: the memory images there are; None when it does not say.
    :ivar links: file name of each link -> the memory image, and whether the link leads to it.
    """

    own_image: str
    images: t.Optional[t.FrozenSet[str]]
    links: t.Dict[str, t.Tuple[str, bool]]


def link_name(address: str) -> str:
    """Return the file name pxelinux looks up for an IPv4 address, e.g. ``0A0A0101``; "" for no address."""
    return "".join(f"{int(octet):02X}" for octet in address.split(".")) if address else ""


class PxeClient:
    """Sets and clears the links of nodes.

    :param connection: to the gateway.
    :param dialect: a dialect name or ``auto``.
    :param domain: the testbed, "" to leave it to the service.
    """

    def __init__(self, connection: Connection, dialect: str = "auto", domain: str = "") -> None:
        self.connection = connection
        self.speaker = Speaker(connection, "pxe", dialect)
        self.domain = domain
        self._last_set: t.Optional[float] = None

    def link(self, nodes: t.Sequence[Node], image: str = "") -> t.List[Link]:
        """Link nodes to a memory image in one call, and tell which of them are.

        When the call fails, the service may have stopped half-way at a node it does not know. The bad nodes
        are then found one by one, by clearing where the service can clear (which starts no timers), and the
        others linked again.

        :param image: the memory image, "" for what the service takes by itself.
        :raises ServiceError: when no node could be tried: no service, or the dialect cannot do what is asked.
        """
        if not nodes:
            return []
        self.speaker.request("set", Request(nodes, image, self.domain))
        results = {result.node.hrn: result for result in self._set(nodes, image)}
        return [results[node.hrn] for node in nodes]

    def unlink(self, nodes: t.Sequence[Node]) -> t.List[Link]:
        """Remove the links of nodes; one call, then one each when that failed.

        :raises ServiceError: when the service has no way to clear links.
        """
        if not nodes:
            return []
        self._check_clear()
        error = self._clear(nodes)
        if error is None:
            return [Link(node, True, link_name(node.control_ip), "") for node in nodes]
        if len(nodes) == 1:
            return [_failed(nodes[0], error)]
        return self._clear_each(nodes)

    # What the service tells beside its replies

    def look(self) -> t.Optional[LinkState]:
        """Return what the service tells of its links; None when it tells nothing, as all historic ones.

        They confirm a link to a memory image that does not exist, and the end of one that stays.
        """
        try:
            reply = self.connection.call(
                "orbit", "state", {}, question=True, timeout=min(self.connection.timeout, LOOK_TIMEOUT)
            )
            said = parse_json(reply.body) if reply.status == 200 and reply.content_type == _JSON else None
        except (ServiceError, ValueError):
            return None
        return _link_state(said, self.domain)

    def check_image(self, image: str, state: t.Optional[LinkState]) -> t.Optional[str]:
        """Refuse a memory image that this service could not be told of; return why it has none of this name.

        :param image: the memory image, "" for what the service takes by itself.
        :param state: what :meth:`look` found before.
        :return: None when it has it, or does not say.
        :raises ServiceError: when the dialect has no argument for it, and the service's own is not known to
            be this one.
        """
        if image and not self.speaker.takes("set", "image") and (state is None or state.own_image != image):
            own = (
                f"its own, '{state.own_image}'" if state and state.own_image else "that of its own inventory"
            )
            raise ServiceError(
                f"the memory image '{image}' cannot be chosen: dialect {self.speaker.dialect.name} "
                f"({self.speaker.dialect.system}) has no argument for it and takes {own}",
                code="unsupported",
                service="pxe",
                url=f"{self.connection.url}/pxe",
                remedy="Leave out image (for a run: orbit_memory_image); the service's inventory sets it",
            )
        wanted = image or (state.own_image if state else "")
        if state is None or state.images is None or not wanted or wanted in state.images:
            return None
        there = ", ".join(sorted(state.images)) or "none"
        return shorten(f"pxe: the service has no memory image '{wanted}'; there are: {there}")

    def read_back(self, links: t.Sequence[Link], present: bool) -> t.List[Link]:
        """Return the links as the service shows them now, where it does; a reply alone proves little.

        :param links: as :meth:`link` or :meth:`unlink` returned them.
        """
        state = self.look() if any(link.ok and link.link for link in links) else None
        if state is None:
            return list(links)
        return [_compare(link, present, state.links.get(link.link)) for link in links]

    def expected(self, nodes: t.Sequence[Node], image: str, present: bool) -> t.List[Link]:
        """Return what :meth:`link` or :meth:`unlink` would do; asks at most for the description.

        :raises ServiceError: when the dialect cannot do what is asked.
        """
        if present:
            self.speaker.request("set", Request(nodes, image, self.domain))
        else:
            self._check_clear()
        return [Link(node, True, link_name(node.control_ip), image if present else "") for node in nodes]

    def _check_clear(self) -> None:
        if self.speaker.can("clear"):
            return
        raise ServiceError(
            f"this service cannot clear links: dialect {self.speaker.dialect.name} has no method for it and "
            "the service describes none",
            code="unsupported",
            service="pxe",
            url=f"{self.connection.url}/pxe",
            remedy="The links go when their life time is over (5 to 30 minutes); until then a reset boots "
            "the memory image",
        )

    def _set(self, nodes: t.Sequence[Node], image: str) -> t.List[Link]:
        try:
            reply, asked, method = self._call_set(nodes, image)
            return self._judge(nodes, image, reply, asked, method)
        except ServiceError as error:
            if error.status is None or len(nodes) == 1:
                # No reply at all is not a matter of one node.
                return [_failed(node, error) for node in nodes]
            if self.speaker.can("clear"):
                cleared = self._clear_each(nodes)
                bad = [link for link in cleared if not link.ok]
                good = [link.node for link in cleared if link.ok]
                if not bad:
                    # Every node is known, so the failure is not one node's.
                    return [_failed(node, error) for node in nodes]
                return bad + (self._set(good, image) if good else [])
            middle = len(nodes) // 2
            return self._set(nodes[:middle], image) + self._set(nodes[middle:], image)

    def _call_set(self, nodes: t.Sequence[Node], image: str) -> t.Tuple[Reply, t.Dict[str, str], str]:
        method, arguments = self.speaker.request("set", Request(nodes, image, self.domain))
        if self._last_set is not None:
            time.sleep(max(0.0, self._last_set + SET_SPACING - time.monotonic()))
        try:
            reply = self.connection.call("pxe", method.name, arguments, timeout=self._timeout(nodes))
        finally:
            self._last_set = time.monotonic()
        return reply, arguments, method.name

    def _judge(
        self, nodes: t.Sequence[Node], image: str, reply: Reply, asked: t.Mapping[str, str], method: str
    ) -> t.List[Link]:
        """Return a result for each node from the reply to a set call.

        :raises ServiceError: when the reply is not a success at all.
        """
        if reply.is_ok:
            # The services of 2006 do not say what they linked.
            return [Link(node, True, link_name(node.control_ip), image) for node in nodes]
        if not _is_response(reply):
            raise unexpected(self.connection, "pxe", method, asked, reply)
        by_key: t.Dict[t.Tuple[str, str], t.Mapping[str, str]] = {}
        for element in reply.root.iter("node"):
            got = element.attrib
            for key in (("hrn", got.get("hrn", "").lower()), ("xy", f"{got.get('x')},{got.get('y')}")):
                by_key.setdefault(key, got)
        count = sum(1 for _element in reply.root.iter("node"))
        results = []
        for node in nodes:
            found = by_key.get(("hrn", node.hrn.lower())) or by_key.get(("xy", f"{node.x},{node.y}"))
            results.append(_judge_node(node, image, found, count, len(nodes)))
        return results

    def _clear(self, nodes: t.Sequence[Node]) -> t.Optional[ServiceError]:
        """Clear the links of nodes in one call; return the error, if any."""
        try:
            method, arguments = self.speaker.request("clear", Request(nodes, "", self.domain))
            reply = self.connection.call("pxe", method.name, arguments, timeout=self._timeout(nodes))
        except ServiceError as error:
            return error
        if reply.is_ok or _is_response(reply):
            return None
        return unexpected(self.connection, "pxe", method.name, arguments, reply)

    def _clear_each(self, nodes: t.Sequence[Node]) -> t.List[Link]:
        def clear(node: Node) -> Link:
            error = self._clear([node])
            return _failed(node, error) if error else Link(node, True, link_name(node.control_ip), "")

        return t.cast(t.List[Link], run_parallel(clear, nodes, self.connection.parallel))

    def _timeout(self, nodes: t.Sequence[Node]) -> float:
        return self.connection.timeout + SECONDS_PER_NODE * (len(nodes) - 1)


def _failed(node: Node, error: ServiceError) -> Link:
    return Link(node, False, link_name(node.control_ip), "", error.brief, error.code)


def _link_state(said: t.Any, domain: str) -> t.Optional[LinkState]:
    """Return what is said of links, None when it is nothing, or about another domain."""
    if not isinstance(said, dict) or not isinstance(said.get("links"), list):
        return None
    if domain and said.get("domain") != domain:
        return None
    links = {}
    for link in said["links"]:
        if not isinstance(link, dict) or not isinstance(link.get("hex"), str):
            return None
        links[link["hex"]] = (shorten(str(link.get("image") or ""), 255), link.get("dangling") is not True)
    images, own = said.get("memory_images"), said.get("memory_image")
    return LinkState(
        own if isinstance(own, str) else "",
        frozenset(image for image in images if isinstance(image, str)) if isinstance(images, list) else None,
        links,
    )


def _compare(link: Link, present: bool, shown: t.Optional[t.Tuple[str, bool]]) -> Link:
    """Return a link that the service has confirmed as it is now: its image, and whether it leads there."""
    if not link.ok or not link.link:
        return link
    code: Code
    if not present:
        if shown is None:
            return link
        code, message = "still_linked", f"the service confirmed, but the link to '{shown[0]}' is still there"
        if not shown[1]:
            message += (
                f". It leads to no memory image, and services up to OMF 5.3 do not remove such links: remove "
                f"pxelinux.cfg/{link.link} by hand, or wait until its life time is over"
            )
    elif shown is None:
        code, message = "not_linked", "the service confirmed, but there is no link"
    elif not shown[1]:
        code, message = "no_memory_image", f"linked to '{shown[0]}', but there is no such memory image"
    elif link.image and shown[0] != link.image:
        code, message = "wrong_memory_image", f"linked to '{shown[0]}' instead of '{link.image}'"
    else:
        return link._replace(image=shown[0])
    return link._replace(ok=False, image=shown[0] if shown else "", message=f"pxe: {message}", code=code)


def _is_response(reply: Reply) -> bool:
    return (
        not reply.is_error_page
        and reply.kind == "xml"
        and reply.root.tag == "response"
        and reply.root.get("status") == "OK"
    )


def _judge_node(
    node: Node, image: str, found: t.Optional[t.Mapping[str, str]], count: int, asked: int
) -> Link:
    """Compare what the service says it linked for a node with what was asked."""
    name = link_name(node.control_ip)
    if found is None:
        return Link(
            node,
            False,
            name,
            "",
            f"pxe: the reply does not name this node; it names {count} of {asked} nodes asked for",
            "unknown_node",
        )
    linked = shorten(found.get("img", ""), 255)
    name = shorten(found.get("hex", ""), 20) or name
    address = shorten(found.get("ip", ""), 60)
    if node.control_ip and address and address != node.control_ip:
        return Link(
            node,
            False,
            name,
            linked,
            f"pxe: the service knows this node as {address}, the inventory as {node.control_ip}. Correct "
            "the control address in the inventory",
            "wrong_address",
        )
    if image and linked != image:
        return Link(
            node,
            False,
            name,
            linked,
            f"pxe: linked to '{linked}' instead of '{image}': the service takes the memory image from "
            "its own inventory",
            "wrong_memory_image",
        )
    return Link(node, True, name, linked)
