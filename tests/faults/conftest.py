# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses

import pytest

from . import table
from .bed import FaultBed

_ROWS = pytest.StashKey[list]()
_ROW = "row"


class _Rows:
    """Collects the rows of all reports."""

    def __init__(self, rows):
        self._rows = rows

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown":
            self._rows += [table.Row(**row) for name, row in report.user_properties if name == _ROW]


def pytest_configure(config):
    config.stash[_ROWS] = []
    config.pluginmanager.register(_Rows(config.stash[_ROWS]))


@pytest.fixture
def rows(request):
    """Rows of the table of all runs, which pytest prints at the end."""
    made = []
    yield made
    # Tests run in several processes; what reaches the one that prints is their reports.
    request.node.user_properties += [(_ROW, dataclasses.asdict(row)) for row in made]


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
