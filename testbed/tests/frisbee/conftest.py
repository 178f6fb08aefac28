# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .stand import Stand


@pytest.fixture(autouse=True)
def _files_are_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORBIT_TESTBED_DISK", "1")


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path)
    try:
        yield stand
    finally:
        stand.close()
