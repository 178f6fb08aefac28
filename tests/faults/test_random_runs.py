# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample of the random runs; `make faults-random` does many."""

from __future__ import annotations

import pytest

from . import random_runs, schedule

SEED = 2026


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_random_run_keeps_all_promises(bed, rows, index):
    plan = schedule.draw(SEED, index)
    row, output = random_runs.run(bed, plan)
    rows.append(row)
    assert not row.problems, "\n".join([str(plan), *row.problems, output])


def test_a_schedule_can_be_drawn_again():
    plans = [schedule.draw(7, index) for index in range(50)]
    assert plans == [schedule.draw(7, index) for index in range(50)]
    assert len({str(plan) for plan in plans}) > 45
