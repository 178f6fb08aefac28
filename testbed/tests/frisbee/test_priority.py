# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Precedence of a thread: given and taken back, and done without where it is refused."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager

import pytest

from orbit_frisbee.frisbee import priority


def now() -> tuple[int, int]:
    """Return scheduler and niceness of this thread."""
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have precedence")
def test_it_is_given_for_a_time_to_one_thread() -> None:
    seen = []

    def run() -> None:
        before = now()
        with priority.raised():
            seen.append(now())
        with priority.real_time():
            seen.append(now())
        seen.append(before)
        assert now() == before

    others = now()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(os.SCHED_OTHER, priority.NICE), (os.SCHED_RR, seen[2][1]), others]
    assert now() == others


@pytest.mark.parametrize("precedence", [priority.raised, priority.real_time])
def test_who_may_not_goes_on_as_it_is(
    monkeypatch: pytest.MonkeyPatch, precedence: type[AbstractContextManager[None]]
) -> None:
    def refuse(*_arguments: object) -> None:
        refused.append(True)
        raise PermissionError

    refused: list[bool] = []
    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    before = now()
    with precedence():
        assert now() == before
    assert refused
