# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import sys

import pytest

from .kit import IMAGE, ROOT, TWO_GROUPS, Testbed, Watched
from .leftovers import all_gone_soon

# The collection under the name that Python knows it by; tools/setup makes the link.
sys.path.append(str(ROOT / ".venv" / "collections"))


@pytest.fixture(scope="session")
def testbed(tmp_path_factory):
    with Testbed(tmp_path_factory.mktemp("testbed"), "3x2") as testbed:
        yield testbed


@pytest.fixture
def order(testbed):
    """Order a fault for a node, which is sound again when the test is over."""
    faulty = set()

    def order(node, fault):
        faulty.add(node)
        testbed.fault(node, fault)

    yield order
    for node in faulty:
        testbed.fault(node, "none")


@pytest.fixture
def held_up(testbed, order):
    """A run in the step client: node2-1 is being written, node1-1 never comes up."""
    order("node1-1", "never-boot")
    limit = ("--limit", "node1-1,node2-1")
    with Watched("-i", testbed.inventory(TWO_GROUPS), IMAGE, *limit, "-e", "orbit_gather=0") as run:
        run.wait_for("node2-1: imaging")
        yield run
    all_gone_soon(testbed)


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
