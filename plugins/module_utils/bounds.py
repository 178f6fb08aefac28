# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bounds for what others say: nodes, their clients and the services.

What they send may be long, endless or binary, by a fault or on purpose. It goes into records, files and
messages only through here.
"""

from __future__ import annotations

import typing as t

#: Characters of a line, and lines of a text, that are kept.
WIDTH = 400
LINES = 40
# Nothing that is counted is more: files, memory and JSON of other languages end there.
_LARGEST = 2**63 - 1
_DIGITS = 19


def bound(text: str, lines: int = LINES, width: int = WIDTH) -> str:
    """Return ``text`` with at most ``lines`` lines of at most ``width`` characters, all of them printable.

    What is left out is said: the end of a long line, and the middle of a long text.
    """
    found = text.split("\n")
    if len(found) <= lines:
        return "\n".join(_line(line, width) for line in found)
    head = lines // 2
    tail = lines - head - 1
    kept = [_line(line, width) for line in [*found[:head], *found[len(found) - tail :]]]
    return "\n".join([*kept[:head], f"... ({len(found) - head - tail} lines left out)", *kept[head:]])


def _line(line: str, width: int) -> str:
    more = len(line) - width
    shown = "".join(c if c.isprintable() or c == "\t" else "?" for c in line[:width].rstrip("\r"))
    return f"{shown}... ({more} characters more)" if more > 0 else shown


def number(text: str) -> t.Optional[int]:
    """Return the number that ``text`` says in digits, from 0 to 2**63 - 1; None when it is no such thing."""
    if not (text.isascii() and text.isdigit()) or len(text) > _DIGITS:
        return None
    value = int(text)
    return value if value <= _LARGEST else None
