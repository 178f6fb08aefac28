# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from . import table
from .bed import FaultBed

_ROWS = pytest.StashKey[list]()


def pytest_configure(config):
    config.stash[_ROWS] = []


@pytest.fixture(scope="session")
def rows(request):
    """The table of all runs, which pytest prints at the end."""
    return request.config.stash[_ROWS]


@pytest.fixture(scope="session")
def bed(tmp_path_factory):
    """The one testbed of all runs."""
    with FaultBed(tmp_path_factory.mktemp("faults")) as bed:
        yield bed


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[_ROWS]
    if rows:
        text = table.text(rows)
        terminalreporter.section("faults")
        terminalreporter.write(text)
        table.keep("faults", text)
