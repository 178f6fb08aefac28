# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample of the random runs; `make faults-random` does many."""

from __future__ import annotations

import os

import pytest

from . import random_runs, schedule

SEED = 2026
#: The first one has a node that dies, a service that restarts, and a signal to the playbook.
RUNS = int(os.environ.get("ORBIT_TEST_RANDOM_RUNS") or 1)


@pytest.mark.parametrize("index", range(RUNS))
def test_a_random_run_keeps_all_promises(bed, rows, index):
    plan = schedule.draw(SEED, index)
    row, output = random_runs.run(bed, plan)
    rows.append(row)
    assert not row.problems, "\n".join([str(plan), *row.problems, output])


def test_a_schedule_can_be_drawn_again():
    plans = [schedule.draw(7, index) for index in range(50)]
    assert plans == [schedule.draw(7, index) for index in range(50)]
    assert len({str(plan) for plan in plans}) > 45
