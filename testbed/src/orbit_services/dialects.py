# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the five generations of the services understand and how they answer: one table.

A is the ORBIT gateway of 2005-06, B OMF 4.4, C OMF 5.2, D OMF 5.3.1, E1 and E2 OMF 5.4 before and after
``user`` became mandatory. B to E2 follow recorded replies. Of A only the self-description, the argument
names and the frisbee replies are known; what is not known follows B.

The table only says *what*; ``pxe``, ``frisbee`` and ``cmc`` hold the *how*, under the action names used here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Identity(enum.Enum):
    """How nodes are named in requests."""

    #: x and y; sets as ``[[1,1],[1..5,2]]``
    COORDINATES = "x,y"
    #: an opaque name; sets as a comma list
    HRN = "hrn"


class DomainRule(enum.Enum):
    """What a request without ``domain`` means."""

    #: the domain the caller belongs to, which is ours
    CALLER = "caller"
    #: a request hook adds ``domain=default``
    DEFAULT = "default"
    #: what the method says: an error, or the section ``default``
    METHOD = "method"


class ErrorPage(enum.Enum):
    """Body of a reply with an error status."""

    TEXT = "text"
    HTML = "html"


class Description(enum.Enum):
    """Layout of the self-description."""

    #: 2005: the service group is the root, one ``args`` per argument
    BARE = "bare"
    #: 4.4: pretty-printed, leading slash in the path
    PRETTY = "pretty"
    #: 5.2: one line, leading slash in the path
    SLASHED = "slashed"
    #: 5.3 and 5.4: one line, attributes sorted
    SORTED = "sorted"


class Problem(enum.Enum):
    """Everything that keeps a call from being done."""

    MISSING_ARGUMENT = enum.auto()
    BAD_NODE_SET = enum.auto()
    UNKNOWN_DOMAIN = enum.auto()
    UNKNOWN_NODE_PXE = enum.auto()
    UNKNOWN_NODE_CMC = enum.auto()
    UNSAFE_NAME = enum.auto()
    MEMORY_IMAGE = enum.auto()
    LINK_IN_THE_WAY = enum.auto()
    NO_USER = enum.auto()
    IMAGE_CHECKED = enum.auto()
    IMAGE_SERVED = enum.auto()
    TOO_MANY_STREAMS = enum.auto()
    STREAM_FAILED = enum.auto()
    NOT_SERVED = enum.auto()
    POWER = enum.auto()
    #: our own fault; the cause is in the log
    INTERNAL = enum.auto()


class Form(enum.Enum):
    """Body of a reply to a problem."""

    #: the problem's text
    TEXT = "text"
    #: the words ``internal error``
    INTERNAL = "internal"
    #: an ``ERROR`` element with the problem's text
    ELEMENT = "element"
    #: nothing at all, not even a content type
    EMPTY = "empty"


#: Actions that change nothing. ``get`` is none of them: it starts a stream.
_QUESTIONS = frozenset({"check", "status", "node_status", "testbed_status", "all_nodes"})


@dataclass(frozen=True)
class Arg:
    """One argument: its name, the value shown in the self-description, and whether the call checks it.

    ``other_name`` is what another build of the same release called it.
    """

    name: str
    shown: str = ""
    info: str = ""
    enforced: bool = False
    listed: bool = True
    other_name: str | None = None

    @property
    def value(self) -> str:
        """The value shown; optional arguments stand in brackets, which is what ``isRequired`` goes by."""
        return self.shown or self.name


@dataclass(frozen=True)
class Method:
    """One method: the action behind it and its arguments in the order they are listed and checked.

    ``blind`` marks methods whose historic stub answered OK without looking at its arguments.
    ``extension`` marks methods that the historic service did not have (or that nobody has described).
    """

    name: str
    action: str
    info: str
    args: tuple[Arg, ...] = ()
    blind: bool = False
    extension: bool = False

    @property
    def changes(self) -> bool:
        """Whether the method does something, or only asks."""
        return self.action not in _QUESTIONS


@dataclass(frozen=True)
class ServiceTable:
    """One service: its methods and, where it differs from the dialect's, the type of text replies."""

    name: str
    info: str
    methods: tuple[Method, ...]
    text_type: str | None = None

    def method(self, name: str) -> Method | None:
        """Return the method of that (case-sensitive) name."""
        return next((method for method in self.methods if method.name == name), None)


@dataclass(frozen=True)
class Dialect:
    """One generation of the services."""

    name: str
    era: str
    port: int
    identity: Identity
    domain_rule: DomainRule
    error_page: ErrorPage
    #: content type of plain text
    text_type: str
    #: success is an ``OK`` element instead of the text ``OK``
    xml_ok: bool
    description: Description
    #: bytes of the request line with its line end, None: no limit
    request_line: int | None
    problems: Mapping[Problem, tuple[int, Form]]
    services: Mapping[str, ServiceTable] = field(default_factory=dict)
    #: the state of the testbed comes with the numbers of nodes, of usable ones and of those that are on
    status_counts: bool = False
    #: faithful: ``stop`` counts the users of a stream (since OMF 5.3)
    counts_users: bool = True
    #: faithful: a dangling link is not seen, so it can neither be replaced nor removed
    dangling_blind: bool = False
    #: faithful: ranges in a pxe node set are accepted but not expanded
    ranges_fail: bool = False
    #: the user who asks for an image must be named
    needs_user: bool = False


# -- arguments ---------------------------------------------------------------------------------------------

_DOMAIN = Arg("domain", info="the testbed's domain")
_MUST_DOMAIN = Arg("domain", info="the testbed's domain", enforced=True)
_MAY_DOMAIN = Arg("domain", "[domain]", "the testbed's domain")
_DOMAIN_5_3 = Arg("domain", "[domain]", "the testbed's domain", enforced=True)
_HIDDEN_DOMAIN = Arg("domain", "[domain]", enforced=True, listed=False)
_UNREAD_DOMAIN = Arg("domain", "[domain]", listed=False)
_X = Arg("x", "x_coord", "column of the node", enforced=True)
_Y = Arg("y", "y_coord", "row of the node", enforced=True)
_HRN = Arg("hrn", info="name of the node")
_NAME = Arg("name", info="name of the node", other_name="hrn")
_NS = Arg("ns", "nodeSet", "the nodes", enforced=True)
_NODES = Arg("nodes", "set_of_nodes", "the nodes", enforced=True, other_name="ns")
_IMG_NAME = Arg("imgName", "[imageName]", "name of the memory image (default: that of the node)")
_IMG = Arg("img", "[imgName]", "name of the image")
_USER = Arg("user", "[userName]", "user who must be allowed to read the image")

# -- methods -----------------------------------------------------------------------------------------------

_A_NODES = (
    Arg("node", "[node_names]", "comma list of node names"),
    Arg("ip", "[ip_addresses]", "comma list of control IPs; looked at when node is not given"),
)
_A_LINK = Arg("img", "[image_name]", "name of the memory image (default: the testbed's)")

_PXE_A = ServiceTable(
    "pxe",
    "Chooses what nodes boot over the network",
    (
        Method(
            "setBootImage", "set_named", "Let nodes boot a memory image", (_A_LINK, *_A_NODES, _MAY_DOMAIN)
        ),
        Method("allSetBootImage", "set_all", "Let all nodes boot a memory image", (_A_LINK, _MAY_DOMAIN)),
        Method(
            "clearBootImage",
            "clear_named",
            "Let nodes boot from their disks (extension)",
            (*_A_NODES, _MAY_DOMAIN),
            extension=True,
        ),
        Method(
            "allClearBootImage",
            "clear_all",
            "Let all nodes boot from their disks (extension)",
            (_MAY_DOMAIN,),
            extension=True,
        ),
    ),
)


def _pxe(ns_first: bool, image: bool, everything: bool) -> ServiceTable:
    ns = (_NS, _MUST_DOMAIN) if ns_first else (_DOMAIN, _NS)
    optional = (_IMG_NAME,) if image else ()
    methods = [
        Method("clearBootImageNS", "clear_set", "Let the nodes of a set boot from their disks", ns),
        Method("setBootImageNS", "set_set", "Let the nodes of a set boot a memory image", (*ns, *optional)),
    ]
    if everything:
        methods.insert(
            0,
            Method("clearBootImageAll", "clear_all", "Let all nodes boot from their disks", (_MUST_DOMAIN,)),
        )
        methods.insert(
            2,
            Method(
                "setBootImageAll", "set_all", "Let all nodes boot a memory image", (_MUST_DOMAIN, *optional)
            ),
        )
    return ServiceTable("pxe", "Chooses what nodes boot over the network", tuple(methods))


def _frisbee(
    check: tuple[Arg, ...],
    get: tuple[Arg, ...],
    stop: tuple[Arg, ...],
    status: tuple[Arg, ...],
    check_is_extension: bool = False,
) -> ServiceTable:
    return ServiceTable(
        "frisbee",
        "Multicasts images to nodes",
        (
            Method(
                "checkImage",
                "check",
                "Tell whether an image can be served",
                check,
                extension=check_is_extension,
            ),
            Method("getAddress", "get", "Multicast an image and return the address of the stream", get),
            Method("status", "status", "List the streams", status),
            Method("stop", "stop", "Give up one use of a stream", stop),
        ),
    )


def _cmc_a() -> ServiceTable:
    commands = (
        ("on", "on", "Switch on"),
        ("off", "off_hard", "Switch off"),
        ("offHard", "off_hard", "Switch off at once"),
        ("offSoft", "off_soft", "Let the system stop, then switch off"),
        ("reset", "reset", "Power-cycle"),
    )
    methods: list[Method] = []
    for name, action, info in commands:
        title = name[0].upper() + name[1:]
        methods += [
            Method(name, f"node_{action}", f"{info} a node", (_X, _Y, _MAY_DOMAIN)),
            Method(f"nodeSet{title}", f"set_{action}", f"{info} a set of nodes", (_NODES, _MAY_DOMAIN)),
            Method(f"all{title}", f"all_{action}", f"{info} all nodes", (_MAY_DOMAIN,)),
        ]
    methods += [
        Method("status", "testbed_status", "Power states of all nodes", (_MAY_DOMAIN,)),
        Method("allStatus", "testbed_status", "Power states of all nodes", (_MAY_DOMAIN,)),
        Method("getAllNodes", "all_nodes", "Coordinates of all nodes", (_MAY_DOMAIN,)),
    ]
    return ServiceTable("cmc", "Switches nodes through their chassis managers", tuple(methods))


def _cmc_set_based(
    node: tuple[Arg, ...], domain: Arg, may_domain: Arg, text_type: str | None = None
) -> ServiceTable:
    return ServiceTable(
        "cmc",
        "Switches nodes and knows their power states",
        (
            Method("allOffHard", "all_off_hard", "Switch off all nodes at once", (_UNREAD_DOMAIN,)),
            Method("allOffSoft", "all_off_soft", "Let all systems stop, then switch off", (may_domain,)),
            Method("allStatus", "testbed_status", "Power states of all nodes", (_MAY_DOMAIN,)),
            Method("getAllNodes", "all_nodes", "Names of all nodes", (may_domain,)),
            Method("nodeSetOn", "set_on", "Switch on a set of nodes", (_NODES, _UNREAD_DOMAIN), blind=True),
            Method("offHard", "node_off_hard", "Switch off a node at once", (*node, domain)),
            Method("offSoft", "node_off_soft", "Let the system stop, then switch off", (*node, domain)),
            Method("on", "node_on", "Switch on a node", (*node, _UNREAD_DOMAIN), blind=True),
            Method("reset", "node_reset", "Power-cycle a node", (*node, domain)),
        ),
        text_type,
    )


_CMC_E = ServiceTable(
    "cmc",
    "Switches nodes and knows their power states",
    (
        Method("offHard", "node_off_hard", "Switch off a node at once", (_HRN, _DOMAIN)),
        Method("offSoft", "node_off_soft", "Let the system stop, then switch off", (_HRN, _DOMAIN)),
        Method("on", "node_on", "Switch on a node", (_HRN, _DOMAIN), blind=True),
        Method("reboot", "node_reboot", "Let the system of a node restart", (_HRN, _DOMAIN)),
        Method("reset", "node_reset", "Power-cycle a node; one that is off is switched on", (_HRN, _DOMAIN)),
        Method("status", "node_status", "Power state of a node", (_HRN, _DOMAIN), blind=True),
    ),
)

# -- problems ----------------------------------------------------------------------------------------------

_TEXT_400 = (400, Form.TEXT)
_TEXT_500 = (500, Form.TEXT)
_INTERNAL = (500, Form.INTERNAL)
_ELEMENT = (200, Form.ELEMENT)
_EMPTY = (200, Form.EMPTY)

_COMMON = {
    Problem.MISSING_ARGUMENT: _TEXT_400,
    Problem.BAD_NODE_SET: _TEXT_400,
    Problem.UNSAFE_NAME: _TEXT_400,
    Problem.MEMORY_IMAGE: _TEXT_400,
    Problem.IMAGE_CHECKED: (200, Form.TEXT),
    Problem.IMAGE_SERVED: _TEXT_400,
    Problem.TOO_MANY_STREAMS: _TEXT_400,
    Problem.INTERNAL: _INTERNAL,
}
_PROBLEMS_A = {
    **_COMMON,
    Problem.UNKNOWN_DOMAIN: _TEXT_400,
    Problem.UNKNOWN_NODE_PXE: _TEXT_400,
    Problem.UNKNOWN_NODE_CMC: _INTERNAL,
    Problem.LINK_IN_THE_WAY: _TEXT_500,
    Problem.STREAM_FAILED: _TEXT_500,
    Problem.NOT_SERVED: _INTERNAL,
    Problem.POWER: _INTERNAL,
}
_PROBLEMS_BC = {
    **_COMMON,
    Problem.UNKNOWN_DOMAIN: _TEXT_500,
    Problem.UNKNOWN_NODE_PXE: _TEXT_500,
    Problem.UNKNOWN_NODE_CMC: _TEXT_500,
    Problem.LINK_IN_THE_WAY: _TEXT_500,
    Problem.STREAM_FAILED: _TEXT_500,
    Problem.NOT_SERVED: _TEXT_500,
    Problem.POWER: _TEXT_500,
}
_PROBLEMS_D = {
    **_COMMON,
    Problem.UNKNOWN_DOMAIN: _INTERNAL,
    Problem.UNKNOWN_NODE_PXE: _INTERNAL,
    Problem.UNKNOWN_NODE_CMC: _EMPTY,
    Problem.LINK_IN_THE_WAY: _INTERNAL,
    Problem.STREAM_FAILED: _INTERNAL,
    Problem.NOT_SERVED: _INTERNAL,
    Problem.POWER: _INTERNAL,
}
_PROBLEMS_E = {
    Problem.MISSING_ARGUMENT: _INTERNAL,
    Problem.BAD_NODE_SET: _INTERNAL,
    Problem.UNKNOWN_DOMAIN: _EMPTY,
    Problem.UNKNOWN_NODE_PXE: _EMPTY,
    Problem.UNKNOWN_NODE_CMC: _EMPTY,
    Problem.UNSAFE_NAME: _ELEMENT,
    Problem.MEMORY_IMAGE: _ELEMENT,
    Problem.LINK_IN_THE_WAY: _INTERNAL,
    Problem.NO_USER: _ELEMENT,
    Problem.IMAGE_CHECKED: _ELEMENT,
    Problem.IMAGE_SERVED: _TEXT_400,
    Problem.TOO_MANY_STREAMS: _TEXT_400,
    Problem.STREAM_FAILED: _INTERNAL,
    Problem.NOT_SERVED: _ELEMENT,
    Problem.POWER: _ELEMENT,
    Problem.INTERNAL: _INTERNAL,
}

# -- dialects ----------------------------------------------------------------------------------------------


def _tables(*services: ServiceTable) -> dict[str, ServiceTable]:
    return {service.name: service for service in services}


A = Dialect(
    "A",
    "ORBIT 2005-06",
    5012,
    Identity.COORDINATES,
    DomainRule.CALLER,
    ErrorPage.TEXT,
    "text",
    False,
    Description.BARE,
    None,
    _PROBLEMS_A,
    _tables(
        _cmc_a(),
        _frisbee(
            (_IMG, _MAY_DOMAIN),
            (_IMG, _MAY_DOMAIN),
            (_IMG, _MAY_DOMAIN),
            (_IMG, _MAY_DOMAIN),
            check_is_extension=True,
        ),
        _PXE_A,
    ),
    counts_users=False,
    status_counts=True,
)
B = Dialect(
    "B",
    "OMF 4.4",
    5022,
    Identity.COORDINATES,
    DomainRule.DEFAULT,
    ErrorPage.HTML,
    "text",
    False,
    Description.PRETTY,
    None,
    _PROBLEMS_BC,
    _tables(
        _cmc_set_based((_X, _Y), _UNREAD_DOMAIN, _UNREAD_DOMAIN),
        _frisbee((_IMG, _HIDDEN_DOMAIN), (_IMG, _MAY_DOMAIN), (_IMG, _MAY_DOMAIN), (_IMG, _MAY_DOMAIN)),
        _pxe(ns_first=True, image=False, everything=True),
    ),
    counts_users=False,
    dangling_blind=True,
    ranges_fail=True,
)
C = Dialect(
    "C",
    "OMF 5.2",
    5052,
    Identity.COORDINATES,
    DomainRule.DEFAULT,
    ErrorPage.HTML,
    "text",
    False,
    Description.SLASHED,
    None,
    _PROBLEMS_BC,
    _tables(
        _cmc_set_based((_X, _Y), _DOMAIN, _MAY_DOMAIN),
        _frisbee((_IMG, _HIDDEN_DOMAIN), (_IMG, _MAY_DOMAIN), (_IMG, _MAY_DOMAIN), (_IMG, _MAY_DOMAIN)),
        _pxe(ns_first=True, image=True, everything=True),
    ),
    counts_users=False,
    dangling_blind=True,
    ranges_fail=True,
)
D = Dialect(
    "D",
    "OMF 5.3.1",
    5053,
    Identity.HRN,
    DomainRule.METHOD,
    ErrorPage.TEXT,
    "text",
    False,
    Description.SORTED,
    None,
    _PROBLEMS_D,
    _tables(
        _cmc_set_based((_NAME,), _DOMAIN, _MAY_DOMAIN, "text/plain"),
        _frisbee((_IMG, _HIDDEN_DOMAIN), (_IMG, _DOMAIN_5_3), (_IMG, _DOMAIN_5_3), (_IMG, _DOMAIN_5_3)),
        _pxe(ns_first=True, image=True, everything=True),
    ),
    dangling_blind=True,
)
E1 = Dialect(
    "E1",
    "OMF 5.4.1",
    5055,
    Identity.HRN,
    DomainRule.METHOD,
    ErrorPage.TEXT,
    "text/plain",
    True,
    Description.SORTED,
    None,
    _PROBLEMS_E,
    _tables(
        _CMC_E,
        _frisbee((_MAY_DOMAIN, _IMG), (_MAY_DOMAIN, _IMG), (_MAY_DOMAIN, _IMG), (_MAY_DOMAIN, _IMG)),
        _pxe(ns_first=False, image=True, everything=False),
    ),
)
E2 = Dialect(
    "E2",
    "OMF 5.4",
    5054,
    Identity.HRN,
    DomainRule.METHOD,
    ErrorPage.TEXT,
    "text/plain",
    True,
    Description.SORTED,
    2083,
    _PROBLEMS_E,
    _tables(
        _CMC_E,
        _frisbee(
            (_MAY_DOMAIN, _IMG, _USER), (_MAY_DOMAIN, _IMG, _USER), (_MAY_DOMAIN, _IMG), (_MAY_DOMAIN, _IMG)
        ),
        _pxe(ns_first=False, image=True, everything=False),
    ),
    needs_user=True,
)

#: All dialects by name. (The port is where a service of that generation usually listened; E1 shared E2's.)
DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (A, B, C, D, E1, E2)}
