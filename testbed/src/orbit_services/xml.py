# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few XML shapes that the services write: one line, single quotes, REXML's escapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&apos;", '"': "&quot;"}
_SPECIAL = re.compile("[&<>'\"]")
#: What XML 1.0 has no way to write, plus the carriage return, which a parser would change.
_UNWRITABLE = re.compile("[^\x20-\x7e\t\n\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escape(text: str) -> str:
    """Return ``text`` as XML character data; characters that XML cannot hold become question marks."""
    return _SPECIAL.sub(lambda match: _ESCAPES[match.group()], _UNWRITABLE.sub("?", text))


def element(name: str, content: str = "", attributes: Mapping[str, str | None] | None = None) -> str:
    """Return one element; ``content`` is XML, attributes are text and those with None are left out."""
    start = name + "".join(
        f" {key}='{escape(value)}'" for key, value in (attributes or {}).items() if value is not None
    )
    return f"<{start}>{content}</{name}>" if content else f"<{start}/>"


def elements(name: str, rows: Iterable[Mapping[str, str | None]]) -> str:
    """Return one empty element per row of attributes."""
    return "".join(element(name, attributes=row) for row in rows)
