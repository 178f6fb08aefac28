# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import sys

import pytest

from .kit import ROOT, Testbed

# The collection under the name that Python knows it by; tools/setup makes the link.
sys.path.append(str(ROOT / ".venv" / "collections"))


@pytest.fixture(scope="session")
def testbed(tmp_path_factory):
    with Testbed(tmp_path_factory.mktemp("testbed"), "3x2") as testbed:
        yield testbed


@pytest.fixture(autouse=True)
def _nothing_left_behind(request):
    """Whatever a test did, no link and no stream may be left when it is over."""
    yield
    if "testbed" in request.fixturenames:
        testbed = request.getfixturevalue("testbed")
        state = testbed.state()
        assert testbed.links() == []
        assert state["links"] == []
        assert state["streams"] == []
