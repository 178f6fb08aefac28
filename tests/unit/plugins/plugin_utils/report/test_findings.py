# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from ansible_collections.orbit.imaging.plugins.plugin_utils.report import findings


def test_what_happened_to_the_claims_is_told():
    record = {
        "claimed": {"node1-2": "run r2 of eve"},
        "unguarded": "at its end: the run guard has ended",
        "warnings": ["the claims of node1-1 were removed by somebody"],
        "left_behind": ["a link"],
    }
    lines, wrong = findings.tell(record, False)
    assert lines == [
        "node1-2: claimed, left alone: run r2 of eve",
        "left behind: a link",
        "the nodes had no guard at its end: the run guard has ended",
        "the claims of node1-1 were removed by somebody",
    ]
    assert wrong == []


def test_nothing_is_told_as_such():
    assert findings.tell({}, False) == (["nothing was found"], [])
