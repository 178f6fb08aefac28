# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random runs: which faults come when, drawn from a seed, and what each of them may lead to."""

from __future__ import annotations

import dataclasses
import random
import signal
from collections.abc import Mapping, Sequence

from .bed import GROUPS, node_names

#: What Ansible says when a run is so far; orders in the middle of a run follow one of these.
MOMENTS = (
    "Claim the nodes",
    "Link the nodes to their memory image",
    "Serve the images",
    "Reset the nodes into their memory image",
    "Write the images",
    "Remove the links",
    "Stop serving",
    "Reset the nodes into their new disk",
    "See every node run its new disk",
)

#: Fault of a node -> what it may end in when it holds in the whole run. Ordered later, or healed by a
#: second try, it may have come too late to do harm.
NODE_FAULTS: Mapping[str, tuple[str, ...]] = {
    "never-boot": ("no_boot", "no_boot_from_disk"),
    "slow-boot=2": ("imaged",),
    "boot-disk": ("no_boot", "booted_disk", "ssh_refused"),
    "ssh-refuse": ("ssh_refused", "no_boot_from_disk"),
    "ssh-hang": ("no_boot", "ssh_refused", "no_boot_from_disk"),
    "wrong-memory": ("wrong_memory_image",),
    "client-missing": ("client_missing",),
    "disk-missing": ("wrong_disk",),
    # A disk that has its image already does not fit the smaller one after a power cycle.
    "disk-full=2": ("client_failed", "no_boot_from_disk"),
    "disk-error=2": ("client_failed",),
    "disk-corrupt": ("verify_failed",),
    "disk-dead": ("no_boot_from_disk",),
    "dies=1": ("stalled", "client_failed", "no_boot"),
    "unplugged=1": ("stalled", "client_failed"),
    "client-killed=1": ("client_failed",),
    "client-hangs=1": ("stalled",),
    "loss=5": ("imaged",),
    "power-lost=1": ("imaged", "power_failed", "no_boot", "no_boot_from_disk"),
    "power-stuck": ("power_failed", "no_boot", "no_boot_from_disk"),
}
#: Faults after which nobody can tell the client to end.
_OUT_OF_REACH = ("unplugged", "client-hangs")
_STRIKE_IN_WORK = ("dies", "unplugged", "client-killed", "client-hangs")
_POWER = ("power-lost", "power-stuck")

#: Service -> methods that a run calls, and the causes to which a call that fails may lead.
_METHODS = {
    "pxe": ("setBootImage", "clearBootImage", None),
    "frisbee": ("getAddress", "stop", "checkImage", None),
    "cmc": ("reset", "allStatus", None),
}
_CAUSES = {
    "pxe": ("link_failed", "no_boot_from_disk"),
    "frisbee": ("serve_failed", "stalled", "client_failed"),
    "cmc": ("power_failed", "no_boot", "no_boot_from_disk"),
}
_REPLIES = (
    *("slow=1", "silent", "error", "empty", "list", "garbage", "half-xml"),
    *("huge", "bomb", "redirect", "hang-up", "lost", "restart=0.5"),
)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class Order:
    """Something ordered: ``moment`` (an index of MOMENTS, -1: before the run) and seconds after it."""

    moment: int
    delay: float
    node: str = ""
    service: str = ""
    fault: str = ""
    method: str | None = None
    count: int | None = None
    signal: int = 0

    def __str__(self) -> str:
        when = "" if self.moment < 0 else f" {self.delay:g} s after '{MOMENTS[self.moment]}'"
        if self.signal:
            return f"{signal.Signals(self.signal).name}{when}"
        if self.node:
            return f"{self.fault} on {self.node.removeprefix('node')}{when}"
        times = f" x{self.count}" if self.count else ""
        return f"{self.service}{'/' + self.method if self.method else ''} {self.fault}{times}{when}"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """One run: its orders in time, and how it is configured."""

    seed: int
    index: int
    orders: tuple[Order, ...]
    retries: int
    boot: bool
    old: bool

    @property
    def name(self) -> str:
        """By which the run can be repeated."""
        return f"{self.seed}:{self.index}"

    def __str__(self) -> str:
        settings = f"retries {self.retries}", "" if self.boot else "no boot", "old disks" if self.old else ""
        return "; ".join([*map(str, self.orders), ", ".join(filter(None, settings))])

    @property
    def killed(self) -> bool:
        """Whether somebody ends ansible-playbook."""
        return any(order.signal for order in self.orders)

    @property
    def services(self) -> set[str]:
        """The services that are hit."""
        return {order.service for order in self.orders if order.service}

    @property
    def out_of_reach(self) -> list[str]:
        """Nodes whose clients cannot be told to end."""
        return [o.node for o in self.orders if o.node and o.fault.startswith(_OUT_OF_REACH)]

    def allowed(self, node: str) -> set[str]:
        """Return the outcomes that a node may have."""
        allowed = {"imaged"}
        for order in self.orders:
            if order.service:
                allowed.update(_CAUSES[order.service])
                if order.fault.startswith(("refuse", "restart")):
                    # The services share their ports, and go down together.
                    allowed.update(cause for causes in _CAUSES.values() for cause in causes)
            elif order.node == node:
                allowed.update(NODE_FAULTS[order.fault.partition(",")[0]])
        return allowed

    def must_fail(self, node: str) -> bool:
        """Whether a node cannot be imaged: its fault holds from the beginning to the end."""
        for order in self.orders:
            if order.node != node or order.moment >= 0 or order.fault.startswith(_POWER):
                continue
            if order.fault == "disk-dead" and not self.boot:
                continue
            if self.retries and order.fault.startswith(_STRIKE_IN_WORK):
                # What was written stays, and a second try that has less to write is not struck.
                continue
            # Of those that strike once, a second try may know nothing any more.
            if "imaged" not in NODE_FAULTS.get(order.fault, ("imaged",)):
                return True
        return False


def draw(seed: int, index: int) -> Schedule:
    """Return run ``index`` of a seed; always the same one, and never one in which nothing happens."""
    chance = random.Random(f"{seed}:{index}")
    orders: list[Order] = []
    while not orders:
        orders += _node_orders(chance)
        if chance.random() < 0.4:
            orders.append(_service_order(chance))
        if chance.random() < 0.2:
            orders.append(Order(*_moment(chance), signal=chance.choice(_SIGNALS)))
    orders.sort(key=lambda order: (order.moment, order.delay))
    return Schedule(
        seed,
        index,
        tuple(orders),
        retries=chance.choice((0, 0, 1)),
        boot=chance.random() < 0.8,
        old=chance.random() < 0.3,
    )


def _moment(chance: random.Random) -> tuple[int, float]:
    return chance.randrange(len(MOMENTS)), round(chance.uniform(0, 1.5), 2)


def _node_orders(chance: random.Random) -> Sequence[Order]:
    orders = []
    for node in chance.sample(node_names(), chance.choice((0, 1, 1, 2, 3))):
        fault = chance.choice(sorted(NODE_FAULTS))
        if not fault.startswith(_POWER) and chance.random() < 0.3:
            fault += ",once"
        when = (-1, 0.0) if chance.random() < 0.7 else _moment(chance)
        orders.append(Order(*when, node=node, fault=fault))
    return orders


def _service_order(chance: random.Random) -> Order:
    service = chance.choice(sorted(_METHODS))
    when = _moment(chance) if chance.random() < 0.6 else (-1, 0.0)
    if service == "frisbee" and chance.random() < 0.3:
        return Order(*when, service=service, fault="die=0.5", count=chance.randint(1, len(GROUPS) * 2))
    if chance.random() < 0.15:
        return Order(*when, service=service, fault=f"refuse={chance.randint(1, 5)}")
    fault = chance.choice(_REPLIES)
    method = chance.choice(_METHODS[service])
    return Order(*when, service=service, fault=fault, method=method, count=chance.randint(1, 3))
