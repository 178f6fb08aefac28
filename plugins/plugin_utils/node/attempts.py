# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was tried with one node in one step, and whether it is tried again."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.bounds import bound
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.boot_wait import Boot, Failed
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Node

# Causes that another boot of the same memory image, or of the same disk, does not change: a device that is
# not there, a client that the memory image lacks, a system on the disk that is another one.
_LASTING = frozenset(["wrong_disk", "client_missing", "no_boot_from_disk"])


class Attempts:
    """The attempts with one node; the first one is under way, after the reset that the role has given.

    :param node: with ``power``, the moments before and after that reset.
    :param retries: how often the node may be tried again.
    """

    def __init__(self, node: Node, step: str, retries: int) -> None:
        power = node["power"]
        self._node = node
        self._step = step
        self._last = 1 + max(0, retries)
        self._power = "reset"
        self._began = float(power["before"])
        # The system that wrote the disk is not the one that the disk has.
        known = node["steps"].get("client", {}).get("boot_id") if step != "client" else None
        #: The boot that is waited for.
        self.boot = Boot.since(power["before"], power["after"], node["settings"]["orbit_boot_timeout"])
        self.boot.old = frozenset([known] if known else [])
        #: What was tried: number, step, power, began_at, ended_at, cause (or none) and evidence.
        self.done: list[dict[str, t.Any]] = []

    def succeeded(self) -> None:
        """The attempt under way has done what it was for."""
        self._end(None, "")

    def failed(self, failure: Failed) -> bool:
        """The attempt under way has failed; return whether the node is tried again."""
        self._end(failure.cause, str(failure))
        return len(self.done) < self._last and failure.cause not in _LASTING

    def _end(self, cause: str | None, evidence: str) -> None:
        self.done.append(
            {
                "number": len(self.done) + 1,
                "step": self._step,
                "power": self._power,
                "began_at": self._began,
                "ended_at": time.time(),
                "cause": cause,
                "evidence": evidence,
            }
        )

    def next(self) -> str:
        """Begin the next attempt; return the power action that it begins with.

        The last one, and one after power that did not follow, has the power taken away and given back, which
        also wakes hardware that ignores a reset. That needs a service that tells whether a node is off.
        """
        last = len(self.done) + 1 == self._last
        hard = last or self.done[-1]["cause"] == "power_failed"
        can_cycle = self._node["settings"]["orbit_power_verify"]
        self._power = "cycle" if hard and can_cycle else "reset"
        self._began = time.time()
        return self._power

    def powered(self, before: float, after: float) -> None:
        """The power action of the attempt under way is over; its two moments are those of time.monotonic."""
        self.boot = self.boot.again(before, after)

    @property
    def words(self) -> str:
        """The attempt under way, for people."""
        power = {"cycle": "power off and on", "reset": "reset"}[self._power]
        return f"try {len(self.done) + 1} of {self._last} after {self.done[-1]['cause']}: {power}"

    @property
    def evidence(self) -> str:
        """The evidence of the last attempt, and a line about each one before."""
        lines = [self.done[-1]["evidence"]]
        for attempt in self.done[:-1]:
            said = f"{attempt['cause']}: {records.first_line(attempt['evidence'])}"
            lines.append(f"try {attempt['number']} ({attempt['power']}): {said}")
        return bound("\n".join(lines), lines=60)
