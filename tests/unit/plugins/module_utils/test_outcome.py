# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import outcome


def test_every_outcome_has_one_line_that_helps():
    for name, text in outcome.OUTCOMES.items():
        assert name == name.lower()
        assert text.endswith(".")
        assert "\n" not in text
        assert 20 < len(text) < 110


def test_one_outcome_is_good():
    assert [name for name in outcome.OUTCOMES if not outcome.is_failure(name)] == [outcome.IMAGED]


def test_hint():
    assert outcome.hint("no_boot") == outcome.OUTCOMES["no_boot"]
    with pytest.raises(ValueError, match="there is no outcome 'fine'; the outcomes are imaged, "):
        outcome.is_failure("fine")
