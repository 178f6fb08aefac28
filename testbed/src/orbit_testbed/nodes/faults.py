# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that can be ordered for a node; the only place that knows their names.

A fault is written ``KIND``, ``KIND=VALUE`` or ``KIND=VALUE,once``. It holds from the next power on until
``none`` is ordered; with ``once`` for one power cycle only. Faults that *watch* (their value is how many MB
the node has written to its disk) also begin at once on a node that runs; with ``once`` they strike once.
"""

from __future__ import annotations

from dataclasses import dataclass

from orbit_testbed import faultkinds
from orbit_testbed.nodes.errors import TestbedError


@dataclass(frozen=True)
class Kind(faultkinds.Kind):
    """One kind of fault of a node."""

    most: float = 0.0
    """The largest value."""
    watches: bool = False
    """Whether it strikes in the middle of the work, when so much has been written to the disk."""
    machines: bool = False
    """Whether virtual machines can have it, too."""
    power: bool = False
    """Whether it is a fault of the power supply, which does not wait for a power on."""


#: Bytes of the unit MB.
MEGABYTE = 1_000_000

KINDS = {
    "none": Kind("the node is sound", machines=True),
    "never-boot": Kind("the power-on self test fails: the link is up, nothing answers", machines=True),
    "slow-boot": Kind("the power-on self test takes so much longer", "SECONDS", None, 86400, machines=True),
    "boot-disk": Kind("the firmware does not look at the network and boots from the disk", machines=True),
    "ssh-refuse": Kind("the system comes up without its SSH server", machines=True),
    "ssh-hang": Kind("port 22 takes connections, but nothing is ever said"),
    "wrong-memory": Kind("the memory image that boots is one of another kind"),
    "client-missing": Kind("the memory image has no frisbee client"),
    "disk-missing": Kind("the device of the disk is there, but it is no disk"),
    "disk-full": Kind("a blank disk with less room than it says: writes fail with ENOSPC", "MB", 1.0, 4096),
    "disk-error": Kind("writes from this place of the disk on fail with EIO", "MB", 1.0, 1_000_000),
    "disk-corrupt": Kind("a byte of the disk changes behind the back of who has written it"),
    "disk-dead": Kind("nothing boots from the disk, whatever is on it"),
    "dies": Kind("loses its power when this much is written, until power is switched", "MB", 1.0, 1_000_000,
                 watches=True, machines=True),
    "unplugged": Kind("loses its network when this much is written, until power is switched", "MB", 1.0,
                      1_000_000, watches=True, machines=True),
    "client-killed": Kind("the client gets SIGKILL when it has written this much", "MB", 1.0, 1_000_000,
                          watches=True),
    "client-hangs": Kind("the client stops (SIGSTOP) when it has written this much", "MB", 1.0, 1_000_000,
                         watches=True),
    "loss": Kind("the client loses this share of the datagrams", "PERCENT", None, 90),
    "power-lost": Kind("so many power commands are accepted and do nothing", "TIMES", 1, 1_000_000,
                       machines=True, power=True),
    "power-stuck": Kind("power commands are accepted and do nothing, but the state reads as if they had",
                        machines=True, power=True),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """A fault of one node; ``value`` is in the unit of its kind, ``once`` limits it to one power cycle."""

    kind: str = "none"
    value: float = 0.0
    once: bool = False

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read ``never-boot``, ``slow-boot=3.5`` or ``dies=2,once``; raises :class:`TestbedError` else."""
        words, comma, end = text.partition(",")
        name, equals, given = words.partition("=")
        kind = KINDS.get(name)
        if kind is None or (comma and end != "once"):
            raise TestbedError(
                f"fault {text!r} is unknown", f"KIND[=VALUE][,once], KIND one of {', '.join(KINDS)}"
            )
        once = bool(comma)
        if once and (kind.power or name == "none"):
            raise TestbedError(f"fault {text!r}: {name} cannot be ordered for one power cycle")
        if not kind.unit:
            if equals:
                raise TestbedError(f"fault {text!r}: {name} takes no value")
            return cls(name, 0.0, once)
        if not equals and kind.default is not None:
            return cls(name, kind.default, once)
        try:
            value = float(given)
        except ValueError:
            value = -1.0
        if not 0 <= value <= kind.most:
            raise TestbedError(
                f"fault {text!r}: {given!r} is no number of {kind.unit} (0 to {kind.most:g})",
                f"for example {name}={kind.default or 1:g}",
            )
        return cls(name, value, once)

    def __str__(self) -> str:
        value = f"={self.value:g}" if KINDS[self.kind].unit else ""
        return f"{self.kind}{value}{',once' if self.once else ''}"

    @property
    def seconds(self) -> float:
        """What the fault adds to the power-on self test."""
        return self.value if self.kind == "slow-boot" else 0.0

    @property
    def watches(self) -> bool:
        """Whether it strikes when so many bytes have been written."""
        return KINDS[self.kind].watches

    @property
    def power(self) -> bool:
        """Whether it is the power supply that has it."""
        return KINDS[self.kind].power

    @property
    def bytes(self) -> int:
        """The value of a fault that is measured in MB."""
        return round(self.value * MEGABYTE)

    def for_machines(self) -> Fault:
        """Return itself; raises :class:`TestbedError` when virtual machines cannot have it."""
        if not KINDS[self.kind].machines:
            known = ", ".join(name for name, kind in KINDS.items() if kind.machines)
            raise TestbedError(f"fault {self.kind}: only light nodes can have it", f"one of {known}")
        return self

    def firmware(self, delay: float, loss: float) -> dict[str, str]:
        """Return the firmware's view: environment variables.

        ``delay`` is the self test's usual time in seconds, ``loss`` the per cent that all nodes lose.
        """
        booting = (
            self.kind if self.kind not in ("none", "slow-boot") and not (self.watches or self.power) else ""
        )
        return {
            "FAULT": booting,
            "ROOM": str(self.bytes // 1024),
            "DELAY": f"{delay + self.seconds:g}",
            "LOSS": f"{max(loss, self.value) if self.kind == 'loss' else loss:g}",
        }
