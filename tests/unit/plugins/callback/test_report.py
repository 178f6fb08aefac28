# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The callback shows what the report said, and only that, when all else has been said."""

from __future__ import annotations

import os

import pytest

from ansible_collections.orbit.imaging.plugins.callback.report import CallbackModule
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import speech
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import events


@pytest.fixture
def shown(monkeypatch):
    monkeypatch.delenv(events.ADDRESS, raising=False)
    lines = []
    monkeypatch.setattr(speech, "say", lines.append)
    return lines


def test_lines_of_reports_come_last(shown, monkeypatch):
    callback = CallbackModule()
    callback.v2_playbook_on_start(None)
    # As a task would tell it, which is a child of this process.
    monkeypatch.setattr(os, "getppid", os.getpid)
    told = events.Events("r1", None)
    told.emit("step", step="link", state="began")
    assert not told.live
    assert told.report(["one", "two"], {})
    told.close()
    assert shown == []
    for _time in ("first", "second"):
        callback.v2_playbook_on_stats(None)
        assert shown == ["one", "two"]
    callback._listener.close()


def test_the_callback_live_shows_them_already(shown, monkeypatch):
    address = events.callback_address("live", "x")
    monkeypatch.setenv(events.ADDRESS, address)
    callback = CallbackModule()
    callback.v2_playbook_on_start(None)
    assert os.environ[events.ADDRESS] == address
    callback.v2_playbook_on_stats(None)
    assert shown == []
