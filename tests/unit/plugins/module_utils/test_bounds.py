# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils.bounds import bound, number


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("as it\nis", "as it\nis"),
        ("", ""),
        ("abcdefgh", "abcde... (3 characters more)"),
        ("\x1b[1m\0\x07\x85", "?[1m?... (2 characters more)"),
        ("a\tb\r\nc", "a\tb\nc"),
        ("1\n2\n3\n4\n5\n6", "1\n2\n... (3 lines left out)\n6"),
    ],
)
def test_a_text_is_bounded_and_says_what_is_left_out(text, kept):
    assert bound(text, lines=4, width=5) == kept


def test_no_text_is_longer_than_its_bounds():
    assert len(bound("x" * 900_000 + "\n" * 100_000)) < 41 * 450


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("0042", 42),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
        ("9" * 5000, None),
        ("", None),
        ("-1", None),
        ("1e3", None),
        ("\u0663", None),
        ("\u00b2", None),
    ],
)
def test_a_number_is_what_a_counter_can_hold(text, value):
    assert number(text) == value
