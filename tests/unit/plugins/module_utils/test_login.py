# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who is at work, also where nobody has a name."""

from __future__ import annotations

import getpass

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils.login import login_name


def test_it_is_what_the_system_says(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "alice")
    assert login_name() == "alice"


@pytest.mark.parametrize("error", [KeyError("uid not found"), OSError("no user name")])
def test_where_there_is_none(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(getpass, "getuser", fail)
    assert login_name() == ""
