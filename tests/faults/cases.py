# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault matrix: what is broken in a run of twelve nodes, and what must become of it.

Nodes that a case does not name must be imaged; so must those whose fault heals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .bed import COLUMNS, GROUPS, node_names

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
    lasting: bool = False

    @property
    def hit(self) -> str:
        """What is hit, for the table."""
        if self.service is not None:
            return str(self.service)
        faults: dict[str, list[str]] = {}
        for node, fault in self.nodes.items():
            faults.setdefault(fault, []).append(node.removeprefix("node"))
        return "; ".join(f"{fault} on {' '.join(names)}" for fault, names in faults.items()) or "nothing"


def _nodes(fault: str, cause: str, *names: str, **more: object) -> Case:
    """Return the case of a fault that ends these nodes by that cause."""
    expect = {} if cause == IMAGED else dict.fromkeys(names, cause)
    return Case(nodes=dict.fromkeys(names, fault), expect=expect, **more)  # type: ignore[arg-type]


def _everybody(cause: str) -> dict[str, str]:
    return dict.fromkeys(node_names(), cause)


def _group(name: str, cause: str) -> dict[str, str]:
    return {f"node{x}-{GROUPS[name][0]}": cause for x in range(1, COLUMNS + 1)}


def _refused(service: str, fault: str, words: str, method: str | None = None) -> Case:
    return Case(service=ServiceFault(service, fault, method), refused=words)


CASES: dict[str, Case] = {
    "nothing": Case(boot=True),
    # -- nodes that do not come up
    "never boots": _nodes("never-boot", "no_boot", "node1-1", "node3-2", boot=True),
    "boots late": _nodes("slow-boot=3", IMAGED, "node1-1", "node2-3"),
    "boots its disk although linked": _nodes("boot-disk", "booted_disk", "node1-1", old=("node1-1",)),
    "memory image of the wrong kind": _nodes("wrong-memory", "wrong_memory_image", "node1-1", "node4-3"),
    "SSH refuses": _nodes("ssh-refuse", "ssh_refused", "node2-2"),
    # The testbed's gateway takes connections for silent nodes, too, so this looks like one that is not there.
    "SSH hangs": _nodes("ssh-hang", "no_boot", "node2-2"),
    "power command lost, node off": _nodes("power-lost", "power_failed|imaged", "node1-1", "node2-1"),
    "power stuck on the old system": _nodes("power-stuck", "power_failed", "node1-1", old=("node1-1",)),
    # -- nodes that cannot be written
    "client missing": _nodes("client-missing", "client_missing", "node1-1", "node1-2", "node1-3"),
    "disk is no disk": _nodes("disk-missing", "wrong_disk", "node3-1"),
    "disk full": _nodes("disk-full=2", "client_failed", "node1-2", "node4-3"),
    "disk error": _nodes("disk-error=2", "client_failed", "node1-2", "node4-3"),
    "disk forgets a byte": _nodes("disk-corrupt", "verify_failed", "node1-2", "node4-3"),
    # -- in the middle of the work
    "dies while imaging": _nodes("dies=1", "stalled", "node1-2", "node4-3"),
    "cable pulled while imaging": _nodes(
        "unplugged=1", "stalled", "node1-2", spared=("node1-2",)
    ),
    "client killed": _nodes("client-killed=1", "client_failed", "node1-2", "node4-3"),
    "client hangs": _nodes("client-hangs=1", "stalled", "node1-2", spared=("node1-2",)),
    "packet loss 5 %": _nodes("loss=5", IMAGED, "node1-1", "node1-2", "node1-3"),
    # -- after the work
    "dead disk": _nodes("disk-dead", "no_boot_from_disk", "node2-1", "node2-3", boot=True),
    # -- what a second try heals, and what it does not
    "died once": Case(
        nodes={"node1-1": "dies=1,once", "node2-2": "client-killed=1,once", "node3-3": "never-boot,once"},
        variables={"orbit_retries": 1},
        attempts={"node1-1": 2, "node2-2": 2, "node3-3": 2, "node4-3": 1},
        boot=True,
    ),
    "disk full, tried twice": _nodes(
        "disk-full=2", "client_failed", "node1-2", variables={"orbit_retries": 1}, attempts={"node1-2": 2}
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
    "pxe slow": Case(service=ServiceFault("pxe", "slow=1")),
    "frisbee slow": Case(service=ServiceFault("frisbee", "slow=1")),
    "cmc slow": Case(service=ServiceFault("cmc", "slow=1", "on")),
    "pxe cannot link": Case(
        service=ServiceFault("pxe", "error", "setBootImage"), expect=_everybody("link_failed")
    ),
    "pxe links, but does not say so": Case(
        service=ServiceFault("pxe", "lost", "setBootImage", 1), expect=_everybody("link_failed|imaged")
    ),
    "pxe link list": Case(
        service=ServiceFault("pxe", "list", "setBootImage"), expect=_everybody("link_failed")
    ),
    "pxe cannot unlink once": Case(service=ServiceFault("pxe", "error", "clearBootImage", 1), boot=True),
    "pxe cannot unlink": Case(
        service=ServiceFault("pxe", "error", "clearBootImage"),
        expect=_everybody("link_failed"),
        lasting=True,
    ),
    "one stream not served": Case(
        service=ServiceFault("frisbee", "empty", "getAddress", 1), counts={"serve_failed": 4}
    ),
    "stream served, but nobody told": Case(
        service=ServiceFault("frisbee", "lost", "getAddress", 1), counts={"serve_failed": 4}
    ),
    "no stream address": Case(
        service=ServiceFault("frisbee", "garbage", "getAddress"), expect=_everybody("serve_failed")
    ),
    "silent at stop": Case(
        service=ServiceFault("frisbee", "silent", "stop", 1)
    ),
    # Nodes that are off are switched on; others are reset, and switched off and on when that fails.
    "cmc does not switch on": Case(
        service=ServiceFault("cmc", "error", "on"), expect=_everybody("power_failed")
    ),
    "cmc says nothing at some power-ons": Case(
        service=ServiceFault("cmc", "empty", "on", 2, hits=2),
        expect=_everybody("power_failed|imaged"),
    ),
    "cmc does not reset": Case(service=ServiceFault("cmc", "empty", "reset"), boot=True),
    "cmc restarted at a power-on": Case(
        service=ServiceFault("cmc", "restart=0.3", "on"),
        expect=_everybody("power_failed|imaged"),
    ),
    "frisbee restarted at a stop": Case(
        service=ServiceFault("frisbee", "restart=0.5", "stop")
    ),
    "frisbeed dies and comes back": Case(
        service=ServiceFault("frisbee", "die=0.5", None, 3, hits=3)
    ),
}  # fmt: skip
