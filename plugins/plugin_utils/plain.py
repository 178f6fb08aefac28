# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Turn values that come out of templates into plain Python data, and what nodes say into plain text."""

from __future__ import annotations

import typing as t


def plain(value: t.Any) -> t.Any:
    """Return ``value`` as built-in containers and scalars.

    What Ansible hands to plugins are lazy or tagged containers; a record that is kept, changed and
    written to a file must not depend on them.
    """
    if isinstance(value, t.Mapping):
        return {_text(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return _text(value)
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def printable(text: str) -> str:
    """Return ``text`` as a line that does nothing to a terminal: controls and ends of lines become blanks."""
    return "".join(char if char.isprintable() else " " for char in text)


def _text(value: t.Any) -> str:
    # str() of a text that ansible-core before 2.19 has marked as unsafe is marked, too.
    return str.__str__(value) if isinstance(value, str) else str(value)
