# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample of what ``fuzz_http`` does by the hundred thousand, and proof that it would notice."""

from __future__ import annotations

import pytest

from orbit_services.frisbee import Frisbee
from orbit_services.pxe import Pxe

from . import fuzz_http
from .stand import Stand


def test_the_services_survive_any_request(stand: Stand) -> None:
    done = fuzz_http.fuzz(2000, 20261122, stand)
    assert set(done.seen) <= fuzz_http.STATUSES
    assert min(done.seen[status] for status in (200, 400)) > 200
    assert min(done.seen[status] for status in (404, 405, 414, 500)) > 0


def test_a_seed_repeats_a_run(stand: Stand) -> None:
    first, second = (fuzz_http.fuzz(100, 5, stand) for _ in range(2))
    assert first.last == second.last


def test_faults_are_found(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Frisbee, "status", lambda self, call: 1 / 0)
        with pytest.raises(fuzz_http.Finding, match="an error was logged"):
            fuzz_http.fuzz(300, 1, stand)
    with monkeypatch.context() as patch:
        patch.setattr(Pxe, "_image", lambda self, call, parameter: "../x")
        with pytest.raises(fuzz_http.Finding, match="links to what is no memory image"):
            fuzz_http.fuzz(300, 1, stand)
