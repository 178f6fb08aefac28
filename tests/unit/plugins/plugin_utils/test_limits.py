# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import resource

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils import limits


@pytest.fixture
def soft():
    """Set the soft limit of this process for a while."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda number: resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def test_the_limit_is_raised_to_what_is_needed(soft):
    soft(256)
    limits.allow(300, "40 sessions")
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300
    limits.allow(100, "none")
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300


def test_what_the_host_does_not_allow_is_refused(monkeypatch):
    monkeypatch.setattr(limits.resource, "getrlimit", lambda _kind: (1024, 4096))
    with pytest.raises(limits.LimitError, match=r"1000 sessions need 5100 open files, but .* 4096 here"):
        limits.allow(limits.needed_files(1000), "1000 sessions")


def test_usual_limits_do_for_many_nodes_once_raised():
    assert 1024 < limits.needed_files(400) < 4096
