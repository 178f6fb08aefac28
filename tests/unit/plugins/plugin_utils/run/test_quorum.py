# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import fractions

import pytest
from hypothesis import given, strategies as st

from ansible_collections.orbit.imaging.plugins.plugin_utils.run import quorum


@pytest.mark.parametrize(
    ("text", "total", "needed"),
    [
        ("100%", 7, 7),
        ("90%", 10, 9),
        ("90%", 11, 10),
        ("7%", 100, 7),
        ("0.1%", 3, 1),
        ("66.7 %", 3, 3),
        ("66.6%", 3, 2),
        ("3", 10, 3),
        ("1", 1, 1),
        ("12", 10, 12),
    ],
)
def test_how_many_are_needed(text, total, needed):
    assert quorum.parse(text).needed(total) == needed


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (("100%", "100 %", "100.0%", "100.000 %"), "100%"),
        (("90%", "090%", "90.0 %"), "90%"),
        (("7.5%", "7.50 %", "007.500%"), "7.5%"),
        (("0.001%",), "0.001%"),
        (("66.667%", "66.667 %"), "66.667%"),
        (("12", "012", "00012"), "12"),
        (("10", "00010"), "10"),
    ],
)
def test_what_means_the_same_is_the_same(texts, shown):
    assert len({quorum.parse(text) for text in texts}) == 1
    assert {str(quorum.parse(text)) for text in texts} == {shown}


@given(st.integers(1, 100_000))
def test_its_text_means_the_same(thousandths):
    wanted = quorum.parse(f"{thousandths / 1000:.3f}%")
    assert quorum.parse(str(wanted)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0%",
        "0.0%",
        "101%",
        "100.1%",
        "-1",
        "-5%",
        "half",
        "9/10",
        "0.9",
        "1e2",
        "90%%",
        "٩%",
        "12\n",
        "%",
    ],
)
def test_nonsense_is_refused_with_a_remedy(text):
    with pytest.raises(quorum.QuorumError, match="such as 90%"):
        quorum.parse(text)


@given(st.integers(1, 100_000), st.integers(1, 1000))
def test_a_percentage_is_reached_and_never_by_less(thousandths, total):
    text = f"{thousandths / 1000:.3f}%"
    needed = quorum.parse(text).needed(total)
    wanted = fractions.Fraction(thousandths, 100_000) * total
    assert needed >= wanted > needed - 1
    assert 1 <= needed <= total
