# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import names


@pytest.mark.parametrize("name", ["baseline.ndz", "a", "A-b_c.0", "_x", "a..b", "x" * 255])
def test_image_name(name):
    assert names.is_image_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "../x", "a b", "$(x)", "-rf", ".", ".x", "a\n", "\u00fc", "\u0663", "x" * 256, None, 7],
)
def test_no_image_name(name):
    assert not names.is_image_name(name)


@pytest.mark.parametrize("name", ["node1-1", "node1-1.sb1.orbit-lab.org", "a_b", "7", "a" * 253])
def test_host_name(name):
    assert names.is_host_name(name)


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "a..b", ".a", "a.", "a b", "\u00fc", "a\n", "a" * 254, None, 1]
)
def test_no_host_name(name):
    assert not names.is_host_name(name)


@pytest.mark.parametrize("text", ["0.0.0.0", "10.10.1.1", "255.255.255.255"])
def test_ipv4(text):
    assert names.is_ipv4(text)


@pytest.mark.parametrize(
    "text",
    ["", "10.10.1", "10.10.1.1.1", "10.10.1.256", "010.1.1.1", "10.10.1.1 ", "1e1.1.1.1", "10.10.1.-1",
     "\u0661.1.1.1", "::1", "9" * 5000, ".".join(["1" * 5000] * 4), None, 1],
)  # fmt: skip
def test_no_ipv4(text):
    assert not names.is_ipv4(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("007", 7), ("65535", 65535), ("65536", None), ("", None), ("-1", None), ("+1", None),
     (" 1", None), ("1_0", None), ("\u0663", None), ("9" * 5000, None), (None, None), (7, None)],
)  # fmt: skip
def test_whole_number(text, number):
    assert names.whole_number(text, 65535) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("50.0", 50.0), ("3594.866836", 3594.866836), ("0", 0.0), ("-1", None), ("nan", None), ("inf", None),
     ("1e999", None), ("9" * 5000, None), ("", None), ("x", None), (None, None), (1.5, None)],
)  # fmt: skip
def test_measure(text, number):
    assert names.measure(text) == number
