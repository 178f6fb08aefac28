# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is a name, an address or a number. Each rule is said here only, and each looks at bounded text."""

from __future__ import annotations

import math
import re
import typing as t

#: The rule of :func:`is_image_name` in words, for an error's remedy.
IMAGE_NAME_RULE = "the bare file name: letters, digits, '.', '_' and '-', not starting with '.' or '-'"

#: Characters of the longest file name and of the longest host name.
MAX_IMAGE_NAME = 255
MAX_HOST_NAME = 253

_IMAGE_NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z._-]*", re.ASCII)
_HOST_NAME = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*", re.ASCII
)
_DIGITS = frozenset("0123456789")


def is_image_name(text: t.Any) -> bool:
    """Whether this is the name of an image or a memory image.

    The rule is that of OMF 5.4, the only service that checks: letters, digits, ``.``, ``_`` and ``-``. Others
    take slashes and ``..``, and stream a folder for an empty name. No name starts like an option or hides.
    """
    return isinstance(text, str) and len(text) <= MAX_IMAGE_NAME and bool(_IMAGE_NAME.fullmatch(text))


def is_host_name(text: t.Any) -> bool:
    """Whether this can be the name of a node, short or with its domain: labels of letters, digits, - _."""
    return isinstance(text, str) and len(text) <= MAX_HOST_NAME and bool(_HOST_NAME.fullmatch(text))


def is_ipv4(text: t.Any) -> bool:
    """Whether this is one IPv4 address as everybody writes it: four numbers, no leading zeros, no blanks."""
    if not isinstance(text, str) or len(text) > 15:
        return False
    octets = [whole_number(octet, 255) for octet in text.split(".")]
    return None not in octets and len(octets) == 4 and ".".join(map(str, octets)) == text


def whole_number(text: t.Any, most: int) -> t.Optional[int]:
    """Return the number that a text of decimal digits is, None when it is none from 0 to ``most``.

    The text may come from a stranger: Python refuses to convert thousands of digits, or takes long for them.
    """
    if not isinstance(text, str) or not 0 < len(text) <= 20 or not _DIGITS.issuperset(text):
        return None
    number = int(text)
    return number if number <= most else None


def measure(text: t.Any) -> t.Optional[float]:
    """Return the finite number, not below 0, that a text is; None when it is none."""
    if not isinstance(text, str) or len(text) > 40:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
