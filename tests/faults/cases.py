# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault matrix: what is broken in a run, and what must become of it.

Faults of nodes share runs of twelve nodes: each node has its own, and every group keeps a sound one. A fault
of a service has a run of six nodes for itself. Nodes that a case does not name must be imaged; so must those
whose fault heals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .bed import COLUMNS, node_names

IMAGED = "imaged"


@dataclasses.dataclass(frozen=True)
class ServiceFault:
    """A fault of a service; ``hits`` is how often it must have struck when the run is over."""

    service: str
    fault: str
    method: str | None = None
    count: int | None = None
    hits: int = 1

    def __str__(self) -> str:
        times = "" if self.count is None else f" x{self.count}"
        return f"{self.service}{'/' + self.method if self.method else ''} {self.fault}{times}"


@dataclasses.dataclass(frozen=True)
class Case:
    """One run.

    :ivar nodes: fault of each node that is hit, ordered before the run begins.
    :ivar service: fault of a service.
    :ivar expect: outcome of each node that is not to be imaged; two with a ``|`` where either is right.
    :ivar counts: how many nodes end with a cause, where chance says which.
    :ivar refused: words of the one error by which the run is refused before a node is touched.
    :ivar old: nodes that have their image from a former run, and run it.
    :ivar attempts: how often these nodes are tried.
    :ivar variables: of the run, besides those of all cases.
    :ivar boot: whether the nodes boot their new disks; where the fault has nothing to do with that it only
        takes time, as the test reads the disks itself.
    :ivar spared: nodes that nobody can tell to end their client.
    :ivar columns: how many nodes of each group take part.
    :ivar lasting: what may be left behind, and has to be told; ``playbooks/clean.yml`` then mends it.
    """

    nodes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    service: ServiceFault | None = None
    expect: Mapping[str, str] = dataclasses.field(default_factory=dict)
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    refused: str = ""
    old: tuple[str, ...] = ()
    attempts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    variables: Mapping[str, object] = dataclasses.field(default_factory=dict)
    boot: bool = False
    spared: tuple[str, ...] = ()
    columns: int = COLUMNS
    lasting: bool = False

    @property
    def chosen(self) -> list[str]:
        """The nodes that take part."""
        return node_names(self.columns)

    @property
    def hit(self) -> str:
        """What is hit, for the table."""
        if self.service is not None:
            return str(self.service)
        faults: dict[str, list[str]] = {}
        for node, fault in self.nodes.items():
            faults.setdefault(fault, []).append(node.removeprefix("node"))
        return "; ".join(f"{fault} on {' '.join(names)}" for fault, names in faults.items()) or "nothing"


#: Nodes of a group that meet a fault of a service: enough that one may fail and another not.
_FEW = 2


def _nodes(*hits: tuple[str, str, str], **more: object) -> Case:
    """Return the case of faults, each with the cause by which it ends nodes, and these nodes: ``1-1 2-3``."""
    faults: dict[str, str] = {}
    expect: dict[str, str] = {}
    for fault, cause, places in hits:
        for name in (f"node{place}" for place in places.split()):
            assert name not in faults, f"{name} has two faults"
            faults[name] = fault
            if cause != IMAGED:
                expect[name] = cause
    return Case(nodes=faults, expect=expect, **more)  # type: ignore[arg-type]


def _service(
    service: str,
    fault: str,
    method: str | None = None,
    count: int | None = None,
    hits: int = 1,
    **more: object,
) -> Case:
    """Return the case of a fault of a service."""
    struck = ServiceFault(service, fault, method, count, hits)
    return Case(service=struck, columns=_FEW, **more)  # type: ignore[arg-type]


def _everybody(cause: str) -> dict[str, str]:
    return dict.fromkeys(node_names(_FEW), cause)


def _refused(service: str, fault: str, words: str, method: str | None = None) -> Case:
    return _service(service, fault, method, refused=words)


CASES: dict[str, Case] = {
    "nothing": Case(boot=True),
    "nodes that do not come up": _nodes(
        ("never-boot", "no_boot", "1-1 3-2"),
        ("slow-boot=3", IMAGED, "2-1 2-3"),
        # It boots its disk although it is linked.
        ("boot-disk", "booted_disk", "3-1"),
        ("wrong-memory", "wrong_memory_image", "1-2 4-3"),
        ("ssh-refuse", "ssh_refused", "2-2"),
        # The testbed's gateway takes connections for silent nodes, too: it looks like one that is not there.
        ("ssh-hang", "no_boot", "3-3"),
        old=("node3-1",),
        boot=True,
    ),
    "power, and what is missing": _nodes(
        ("power-lost", "power_failed|imaged", "1-1 2-1"),
        # It stays on the old system.
        ("power-stuck", "power_failed", "3-1"),
        ("client-missing", "client_missing", "1-2 1-3"),
        ("disk-missing", "wrong_disk", "2-2"),
        ("disk-full=2", "client_failed", "3-2 4-3"),
        ("loss=5", IMAGED, "2-3"),
        old=("node3-1",),
    ),
    "in the middle of the work": _nodes(
        ("client-missing", "client_missing", "1-1"),
        ("disk-error=2", "client_failed", "2-1"),
        ("loss=5", IMAGED, "3-1"),
        ("disk-corrupt", "verify_failed", "1-2 4-3"),
        ("dies=1", "stalled", "2-2 2-3"),
        ("client-killed=1", "client_failed", "3-2 3-3"),
    ),
    "out of reach, and dead disks": _nodes(
        ("unplugged=1", "stalled", "1-1"),
        ("client-hangs=1", "stalled", "1-2"),
        ("loss=5", IMAGED, "3-2"),
        ("disk-dead", "no_boot_from_disk", "2-1 2-3"),
        ("disk-error=2", "client_failed", "4-3"),
        spared=("node1-1", "node1-2"),
        boot=True,
    ),
    "what a second try heals, and what it does not": _nodes(
        ("dies=1,once", IMAGED, "1-1"),
        ("client-killed=1,once", IMAGED, "2-2"),
        ("never-boot,once", IMAGED, "3-3"),
        ("disk-full=2", "client_failed", "1-2"),
        variables={"orbit_retries": 1},
        attempts={"node1-1": 2, "node2-2": 2, "node3-3": 2, "node4-3": 1, "node1-2": 2},
        boot=True,
    ),
    # -- services that cannot be used: refused before a node is touched
    "frisbee 500": _refused("frisbee", "error", "500"),
    "frisbee empty": _refused("frisbee", "empty", "not a testbed service"),
    "pxe service list": _refused("pxe", "list", "there is no service 'pxe' here"),
    "frisbee garbage": _refused("frisbee", "garbage", "not a testbed service"),
    "cmc half XML": _refused("cmc", "half-xml", "reply", "allStatus"),
    "frisbee 100 MB": _refused("frisbee", "huge", "bytes"),
    "cmc XML bomb": _refused("cmc", "bomb", "reply", "allStatus"),
    "pxe redirect": _refused("pxe", "redirect", "192.0.2.1"),
    "cmc silent": _refused("cmc", "silent", "cmc"),
    "pxe hangs up": _refused("pxe", "hang-up", "pxe"),
    "refused ports": _refused("frisbee", "refuse", "refused"),
    # -- services that fail in the middle
    "pxe slow": _service("pxe", "slow=1"),
    "frisbee slow": _service("frisbee", "slow=1"),
    "cmc slow": _service("cmc", "slow=1", "on"),
    "pxe cannot link": _service("pxe", "error", "setBootImage", expect=_everybody("link_failed")),
    "pxe links, but does not say so": _service(
        "pxe", "lost", "setBootImage", 1, expect=_everybody("link_failed|imaged")
    ),
    "pxe link list": _service("pxe", "list", "setBootImage", expect=_everybody("link_failed")),
    "pxe cannot unlink once": _service("pxe", "error", "clearBootImage", 1, boot=True),
    "pxe cannot unlink": _service(
        "pxe",
        "error",
        "clearBootImage",
        expect=_everybody("link_failed"),
        lasting=True,
    ),
    "one stream not served": _service("frisbee", "empty", "getAddress", 1, counts={"serve_failed": _FEW}),
    "stream served, but nobody told": _service(
        "frisbee", "lost", "getAddress", 1, counts={"serve_failed": _FEW}
    ),
    "no stream address": _service("frisbee", "garbage", "getAddress", expect=_everybody("serve_failed")),
    "silent at stop": _service("frisbee", "silent", "stop", 1),
    # Nodes that are off are switched on; others are reset, and switched off and on when that fails.
    "cmc does not switch on": _service("cmc", "error", "on", expect=_everybody("power_failed")),
    "cmc says nothing at some power-ons": _service(
        "cmc",
        "empty",
        "on",
        2,
        hits=2,
        expect=_everybody("power_failed|imaged"),
    ),
    "cmc does not reset": _service("cmc", "empty", "reset", boot=True),
    "cmc restarted at a power-on": _service(
        "cmc",
        "restart=0.3",
        "on",
        expect=_everybody("power_failed|imaged"),
    ),
    "frisbee restarted at a stop": _service("frisbee", "restart=0.5", "stop"),
    "frisbeed dies and comes back": _service("frisbee", "die=0.5", None, 3, hits=3),
}
