# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sizes as people write them."""

from __future__ import annotations

import math
import re

_SIZE = re.compile(r"([0-9]{1,20})\s*(?:([KMGT])(B|iB)?|B)?\Z", re.ASCII)
_UNITS = " KMGT"


def parse(text: str) -> int:
    """Return how many bytes ``5120``, ``64M`` or ``64MiB`` (units of 1024), or ``500GB`` (of 1000) means.

    Raises :class:`ValueError` for anything else.
    """
    match = _SIZE.match(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write bytes, or a number with K, M, G, T or KB, MB, GB, TB")
    number, unit, suffix = match.groups()
    base = 1000 if suffix == "B" else 1024
    return int(number) * math.prod([base] * _UNITS.index(unit or " "))
