# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The dialects of the services, as one table.

A dialect says how a method is called and what its arguments are named. The rows are of the 2006 services as
their users documented them (A) and of the services of OMF 4.4 (B), 5.2 (C), 5.3 (D), 5.4.1 (E1) and 5.4 of
2013 (E2) as recorded.
"""

from __future__ import annotations

import threading
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.nodes import Node
from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection, Described, ServiceError


class Method(t.NamedTuple):
    """A method of a service in one dialect.

    :ivar name: path below the service.
    :ivar arguments: (name on the wire, what goes into it) in the order they are sent; see :class:`Request`
        for the second.
    :ivar extension: whether the historic services lack it, so that it is used only where the service
        describes it.
    """

    name: str
    arguments: t.Tuple[t.Tuple[str, str], ...]
    extension: bool = False


class Dialect(t.NamedTuple):
    """One generation of the services.

    :ivar name: A, B, C, D, E1 or E2.
    :ivar system: what spoke it.
    :ivar counts_uses: ``stop`` ends a stream only when each of its ``getAddress`` has been taken back.
    :ivar counts_refused: a ``getAddress`` that is refused counts as well when the stream runs.
    :ivar status_fails: ``status`` answers 500 where there is nothing to tell.
    :ivar reset_wakes: ``reset`` switches on a node that is off.
    :ivar methods: what can be done -> the methods that do it, best first.
    """

    name: str
    system: str
    counts_uses: bool
    reset_wakes: bool
    methods: t.Dict[str, t.Tuple[Method, ...]]
    counts_refused: bool = False
    status_fails: bool = False


def _method(name: str, *arguments: str, extension: bool = False) -> Method:
    """Shorthand: each argument is ``wire=meaning``, or ``name`` for both."""
    pairs = tuple(
        (wire, meaning or wire) for wire, _equals, meaning in (item.partition("=") for item in arguments)
    )
    return Method(name, pairs, extension)


_XY = ("x", "y")

_A: t.Dict[str, t.Tuple[Method, ...]] = {
    # Each names nodes in one of two ways; addresses come first because names are left to the service's DNS.
    "pxe.set": (
        _method("setBootImage", "img=image", "ip=addresses", "domain"),
        _method("setBootImage", "img=image", "node=names", "domain"),
    ),
    "pxe.clear": (
        _method("clearBootImage", "ip=addresses", "domain", extension=True),
        _method("clearBootImage", "node=names", "domain", extension=True),
    ),
    "frisbee.check": (_method("checkImage", "img=image", "domain", extension=True),),
    "frisbee.start": (_method("getAddress", "img=image", "domain"),),
    "frisbee.stop": (_method("stop", "img=image", "domain", extension=True),),
    "frisbee.status": (_method("status", "domain"),),
    "cmc.on": (_method("on", *_XY, "domain"),),
    # `off` was split in two in 2006.
    "cmc.off": (_method("offHard", *_XY, "domain", extension=True), _method("off", *_XY, "domain")),
    "cmc.off_soft": (_method("offSoft", *_XY, "domain", extension=True),),
    "cmc.reset": (_method("reset", *_XY, "domain"),),
    "cmc.reboot": (_method("reboot", *_XY, "domain", extension=True),),
    # `status` became `allStatus` in 2006.
    "cmc.all_status": (_method("allStatus", "domain", extension=True), _method("status", "domain")),
}

_B: t.Dict[str, t.Tuple[Method, ...]] = {
    "pxe.set": (_method("setBootImageNS", "ns=pairs", "domain"),),
    "pxe.clear": (_method("clearBootImageNS", "ns=pairs", "domain"),),
    "frisbee.check": (_method("checkImage", "img=image", "domain"),),
    "frisbee.start": (_method("getAddress", "img=image", "domain"),),
    "frisbee.stop": (_method("stop", "img=image", "domain"),),
    "frisbee.status": (_method("status", "domain"),),
    # Without an image the list is that of all domains, whatever domain is named.
    "frisbee.find": (_method("status", "img=image", "domain"),),
    "cmc.on": (_method("on", *_XY, "domain"),),
    "cmc.off": (_method("offHard", *_XY, "domain"),),
    "cmc.off_soft": (_method("offSoft", *_XY, "domain"),),
    "cmc.reset": (_method("reset", *_XY, "domain"),),
    "cmc.reboot": (_method("reboot", *_XY, "domain", extension=True),),
    "cmc.all_status": (_method("allStatus", "domain"),),
}

_C: t.Dict[str, t.Tuple[Method, ...]] = {
    **_B,
    "pxe.set": (_method("setBootImageNS", "ns=pairs", "domain", "imgName=image"),),
}

# The stub of 5.3 takes `name`, WINLAB's took `hrn`; each ignores the other's argument, so both are sent.
_D_NODE = ("name=hrn", "hrn", "domain")
_D: t.Dict[str, t.Tuple[Method, ...]] = {
    **_C,
    "pxe.set": (_method("setBootImageNS", "ns=hrns", "domain", "imgName=image"),),
    "pxe.clear": (_method("clearBootImageNS", "ns=hrns", "domain"),),
    "cmc.on": (_method("on", *_D_NODE),),
    "cmc.off": (_method("offHard", *_D_NODE),),
    "cmc.off_soft": (_method("offSoft", *_D_NODE),),
    "cmc.reset": (_method("reset", *_D_NODE),),
    "cmc.reboot": (_method("reboot", *_D_NODE, extension=True),),
}

_E1: t.Dict[str, t.Tuple[Method, ...]] = {
    **_D,
    "cmc.on": (_method("on", "hrn", "domain"),),
    "cmc.off": (_method("offHard", "hrn", "domain"),),
    "cmc.off_soft": (_method("offSoft", "hrn", "domain"),),
    "cmc.reset": (_method("reset", "hrn", "domain"),),
    "cmc.reboot": (_method("reboot", "hrn", "domain"),),
    "cmc.status": (_method("status", "hrn", "domain"),),
    "cmc.all_status": (_method("allStatus", "domain", extension=True),),
}

_E2: t.Dict[str, t.Tuple[Method, ...]] = {
    **_E1,
    "frisbee.check": (_method("checkImage", "img=image", "domain", "user"),),
    "frisbee.start": (_method("getAddress", "img=image", "domain", "user"),),
}

DIALECTS: t.Dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("A", "2005-06", counts_uses=False, reset_wakes=False, methods=_A, status_fails=True),
        Dialect("B", "OMF 4.4", counts_uses=False, reset_wakes=False, methods=_B, status_fails=True),
        Dialect("C", "OMF 5.2", counts_uses=False, reset_wakes=False, methods=_C, status_fails=True),
        Dialect("D", "OMF 5.3", counts_uses=True, reset_wakes=True, methods=_D, status_fails=True),
        Dialect("E1", "OMF 5.4.1", counts_uses=True, reset_wakes=True, methods=_E1),
        Dialect("E2", "OMF 5.4 (2013)", counts_uses=True, reset_wakes=True, methods=_E2, counts_refused=True),
    )
}

#: Values of the option ``dialect``.
CHOICES = ["auto", *DIALECTS]


def detect(service: str, described: Described) -> str:
    """Return the dialect of a service by its self-description.

    Some services did not change between dialects; then the newest that is spoken in the same way is returned.

    :param described: with the list of services, which tells C from D.
    :raises ServiceError: when the description fits no dialect.
    """
    methods = described.methods
    old_paths = any(path.startswith("/") for path in described.listed)
    dialect = None
    if described.old_root:
        dialect = "A"
    elif service == "pxe":
        if "setBootImage" in methods:
            dialect = "A"
        elif "setBootImageAll" in methods:
            dialect = (
                "B" if "imgName" not in methods.get("setBootImageNS", ()) else ("C" if old_paths else "D")
            )
        elif "setBootImageNS" in methods:
            dialect = "E2"
    elif service == "frisbee" and "getAddress" in methods:
        check = methods.get("checkImage")
        if "user" in methods["getAddress"]:
            dialect = "E2"
        elif check is None or "domain" not in methods["getAddress"]:
            dialect = "A"
        elif "domain" in check:
            dialect = "E1"
        else:
            dialect = "B" if described.pretty else ("C" if old_paths else "D")
    elif service == "cmc" and "reset" in methods:
        arguments = methods["reset"]
        if "name" in arguments:
            dialect = "D"
        elif "hrn" in arguments:
            dialect = "E2" if "status" in methods or "reboot" in methods else "D"
        elif "x" in arguments:
            old = "off" in methods or "identify" in methods
            dialect = "A" if old else ("B" if described.pretty else "C")
    if dialect is None:
        raise ServiceError(
            "the self-description fits no known dialect; its methods are: "
            + (", ".join(sorted(methods)) or "none"),
            code="unsupported",
            service=service,
            remedy=f"Set the dialect to one of {', '.join(DIALECTS)}",
        )
    return dialect


def pairs(nodes: t.Sequence[Node]) -> str:
    """Return nodes as single pairs. The services before 5.3 check ranges but do not expand them."""
    return f"[{','.join(f'[{node.x},{node.y}]' for node in nodes)}]"


class Request(t.NamedTuple):
    """What can go into the arguments of a method; the fields are the meanings in :class:`Method`."""

    nodes: t.Sequence[Node] = ()
    image: str = ""
    domain: str = ""
    user: str = ""

    def value(self, meaning: str) -> t.Optional[str]:
        """Return the text of one argument, None when it cannot be given."""
        if meaning in ("image", "domain", "user"):
            return t.cast(str, getattr(self, meaning)) or None
        if not self.nodes:
            return None
        if meaning == "addresses":
            return (
                ",".join(node.control_ip for node in self.nodes)
                if all(n.control_ip for n in self.nodes)
                else None
            )
        if meaning == "names":
            # The service adds the domain by itself. What the inventory calls the node is nothing to it.
            return ",".join(node.hrn.partition(".")[0] for node in self.nodes)
        if meaning == "hrns":
            return ",".join(node.hrn for node in self.nodes)
        if meaning == "pairs":
            return pairs(self.nodes) if all(node.x and node.y for node in self.nodes) else None
        (node,) = self.nodes
        if meaning == "hrn":
            return node.hrn
        coordinate = {"x": node.x, "y": node.y}[meaning]
        return None if coordinate is None else str(coordinate)


#: Arguments that may be left out: the service then takes its own default.
_OPTIONAL = frozenset(["image", "domain"])


class Speaker:
    """Calls the methods of one service in its dialect.

    :param connection: to the gateway.
    :param service: ``pxe``, ``frisbee`` or ``cmc``.
    :param dialect: a name of :data:`DIALECTS`, or ``auto`` to ask the service at the first call.
    """

    def __init__(self, connection: Connection, service: str, dialect: str = "auto") -> None:
        self.connection = connection
        self.service = service
        self._wanted = dialect
        #: The answer, or why there is none; asked for by one thread, for all.
        self._described: t.Union[Described, ServiceError, None] = None
        self._asking = threading.Lock()
        self._dialect: t.Optional[Dialect] = None

    @property
    def dialect(self) -> Dialect:
        """The dialect spoken.

        :raises ServiceError: when it has to be asked for and the service does not say.
        """
        if self._dialect is None:
            name = self._wanted
            if name == "auto":
                name = detect(self.service, self.described)
            self._dialect = DIALECTS[name]
        return self._dialect

    @property
    def described(self) -> Described:
        """What the service says about itself, asked for once.

        :raises ServiceError: when it does not describe itself.
        """
        with self._asking:
            if self._described is None:
                try:
                    self._described = self.connection.describe(self.service, with_list=True)
                except ServiceError as error:
                    self._described = error
        if isinstance(self._described, ServiceError):
            raise self._described
        return self._described

    def _usable(self, what: str) -> t.List[Method]:
        found = []
        for method in self.dialect.methods.get(f"{self.service}.{what}", ()):
            # Extensions are trusted only when described; so is a service that was asked anyway.
            if method.extension or self._described is not None:
                try:
                    known = method.name in self.described.methods
                except ServiceError:
                    known = not method.extension
                if not known:
                    continue
            found.append(method)
        return found

    def can(self, what: str) -> bool:
        """Whether the service can do this, e.g. ``clear``; asks it where the table leaves that open."""
        return bool(self._usable(what))

    def takes(self, what: str, meaning: str) -> bool:
        """Whether a method for this has an argument for that, e.g. ``set`` for ``image``."""
        return any(meaning == given for method in self._usable(what) for _wire, given in method.arguments)

    def request(self, what: str, request: Request) -> t.Tuple[Method, t.Dict[str, str]]:
        """Return method and arguments for what is to be done.

        :raises ServiceError: when the dialect cannot do it or a value is missing.
        """
        methods = self._usable(what)
        if not methods:
            raise ServiceError(
                f"the service cannot {what.replace('_', ' ')}: dialect {self.dialect.name} "
                f"({self.dialect.system}) has no such method and the service describes none",
                code="unsupported",
                service=self.service,
                url=f"{self.connection.url}/{self.service}",
            )
        missing = ""
        for method in methods:
            arguments = {}
            missing = ""
            for wire, meaning in method.arguments:
                value = request.value(meaning)
                if value is not None:
                    arguments[wire] = value
                elif meaning not in _OPTIONAL:
                    missing = f"{method.name} needs '{wire}'"
            if not missing:
                return method, arguments
        raise ServiceError(
            f"{missing}, which the nodes or options do not give",
            service=self.service,
            method=methods[-1].name,
            remedy="Give x, y and control_ip of each node" if "user" not in missing else "Give the user",
        )
