# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How many nodes of an image group must be imaged for the group to pass."""

from __future__ import annotations

import dataclasses
import fractions
import math
import re

#: Every node.
ALL = "100%"

_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?%\Z")
_COUNT = re.compile(r"[0-9]{1,5}\Z")
_REMEDY = "Give a part of the nodes, such as 90%, or a number of nodes, such as 12."


class QuorumError(ValueError):
    """The text is no quorum; it says why and what would be one."""


@dataclasses.dataclass(frozen=True)
class Quorum:
    """A part of a group or a number of its nodes.

    :ivar share: part of the nodes, more than 0 and at most 1; None when ``count`` says it.
    :ivar count: number of nodes; None when ``share`` says it.
    """

    share: fractions.Fraction | None = None
    count: int | None = None

    def __str__(self) -> str:
        """Return the one text of what may be written in several ways: ``90%`` also for ``90.0 %``."""
        if self.count is not None:
            return str(self.count)
        # Exact: a percentage has three decimals at most.
        return f"{float((self.share or 1) * 100):.3f}".rstrip("0").rstrip(".") + "%"

    def needed(self, total: int) -> int:
        """Return how many of ``total`` nodes must be imaged; a part of a node counts as a whole one.

        A number may be more than ``total``: such a group cannot pass, and the plan refuses it.
        """
        if self.count is not None:
            return self.count
        # Fractions, as 0.07 * 100 is more than 7 for floating-point numbers.
        return math.ceil((self.share or fractions.Fraction(1)) * total)


def parse(text: str) -> Quorum:
    """Read ``90%`` or ``12``.

    :raises QuorumError: when it is neither, or asks for nothing or for more than all.
    """
    percent = _PERCENT.match(text)
    if percent:
        share = fractions.Fraction(percent[1]) / 100
        if not 0 < share <= 1:
            raise QuorumError(f"{text!r} is not more than 0% and at most 100%. {_REMEDY}")
        return Quorum(share=share)
    if not _COUNT.match(text):
        raise QuorumError(f"{text!r} is neither a percentage nor a number of nodes. {_REMEDY}")
    if int(text) == 0:
        raise QuorumError(f"{text!r} lets a group pass of which no node is imaged. {_REMEDY}")
    return Quorum(count=int(text))
