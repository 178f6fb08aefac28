# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kinds of faults have in common, whether nodes or services have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of fault: what it does, and what its value means."""

    about: str
    unit: str = ""
    """What the value is; a kind without a unit takes none."""
    default: float | None = None
    """The value when none is given; None: it has to be."""


def describe(kinds: Mapping[str, Kind]) -> str:
    """Return the list of all kinds for a person, one a line."""
    lines = []
    for name, kind in kinds.items():
        value = f"={kind.unit}" if kind.unit else ""
        if kind.default is not None:
            value = f"[{value}]"
        lines.append(f"  {name + value:<24} {kind.about}")
    return "\n".join(lines)
