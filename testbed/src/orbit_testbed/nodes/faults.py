# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that can be ordered for a node; the only place that knows their names."""

from __future__ import annotations

from dataclasses import dataclass

from orbit_testbed.nodes.errors import TestbedError

#: Name -> what it does, from the next power on. ``slow-boot`` takes seconds.
KINDS = {
    "none": "the node is sound",
    "never-boot": "the power-on self test fails: the link is up, nothing ever answers",
    "boot-disk": "the firmware does not look at the network and boots from the disk",
    "ssh-refuse": "the system comes up without its SSH server",
    "slow-boot": "slow-boot=SECONDS: the power-on self test takes that much longer",
}


@dataclass(frozen=True)
class Fault:
    """A fault of one node. ``seconds`` belongs to ``slow-boot``."""

    kind: str = "none"
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read ``never-boot`` or ``slow-boot=3.5``; raises :class:`TestbedError` for anything else."""
        kind, equals, value = text.partition("=")
        if kind not in KINDS or (bool(equals) != (kind == "slow-boot")):
            raise TestbedError(
                f"fault {text!r} is unknown",
                "one of never-boot, boot-disk, ssh-refuse, slow-boot=SECONDS, none",
            )
        if kind != "slow-boot":
            return cls(kind)
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= 86400:
            raise TestbedError(f"fault {text!r}: {value!r} is not a number of seconds (0 to 86400)")
        return cls(kind, seconds)

    def __str__(self) -> str:
        return f"{self.kind}={self.seconds:g}" if self.kind == "slow-boot" else self.kind

    def firmware(self, delay: float) -> dict[str, str]:
        """Return the firmware's view: environment variables, given the self test's usual time in seconds."""
        words = {"never-boot": "never-boot", "boot-disk": "boot-disk", "ssh-refuse": "ssh=off"}
        return {"FAULT": words.get(self.kind, ""), "DELAY": f"{delay + self.seconds:g}"}
