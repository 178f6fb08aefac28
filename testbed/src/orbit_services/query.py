# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Request parameters, as the historic web server took them apart."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

_SEPARATOR = re.compile("[&;]")


def parse_query(text: str) -> dict[str, str]:
    """Return the parameters of a query string or form body.

    ``&`` and ``;`` separate, ``+`` is a blank, of two equal names the first counts, a name without ``=`` has
    an empty value, and a percent sign that starts no escape stands for itself. Bytes that are not UTF-8
    become replacement characters. Never fails.
    """
    found: dict[str, str] = {}
    for part in _SEPARATOR.split(text):
        if part:
            name, _, value = part.partition("=")
            found.setdefault(_unescape(name), _unescape(value))
    return found


def _unescape(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "replace")


def normalize_path(path: str) -> list[str] | None:
    """Return the parts of an (unescaped) URL path without empty ones, ``.`` and ``..``.

    None means that the path leaves the root, which the historic server refused.
    """
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return parts
