# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The callback shows what the report said, and only that, when all else has been said."""

from __future__ import annotations

import types

import pytest

from ansible_collections.orbit.imaging.plugins.callback.report import CallbackModule


@pytest.fixture
def shown(monkeypatch):
    callback = CallbackModule()
    lines = []
    monkeypatch.setattr(callback, "_display", types.SimpleNamespace(display=lines.append))
    return callback, lines


@pytest.mark.parametrize("name", ["result", "_result"])
def test_lines_of_reports_come_last(shown, name):
    callback, lines = shown
    callback.v2_runner_on_ok(types.SimpleNamespace(**{name: {"report_lines": ["one", "two"]}}))
    callback.v2_runner_on_ok(types.SimpleNamespace(**{name: {"msg": "another task"}}))
    assert lines == []
    callback.v2_playbook_on_stats(None)
    assert lines == ["one", "two"]
