# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
from pathlib import Path

from orbit_testbed.bed.process import ProcessId, start_time


def test_a_process_is_told_from_its_successor() -> None:
    child = subprocess.Popen(["sleep", "1000"])
    try:
        identity = ProcessId.of(child.pid)
        assert identity is not None
        assert identity.alive()
        assert not ProcessId(identity.pid, identity.started + 1).alive()
        assert ProcessId(identity.pid, identity.started + 1).kill()
        assert identity.alive(), "another process of that pid was killed"
        assert not identity.wait(0.01)
        assert identity.kill()
        assert not identity.alive()
    finally:
        child.kill()
        child.wait()
    assert start_time(child.pid) is None
    assert identity.wait(1.0)


def test_identity_survives_a_file(tmp_path: Path) -> None:
    ProcessId(12, 34).save(tmp_path / "pid")
    assert ProcessId.load(tmp_path / "pid") == ProcessId(12, 34)
    assert ProcessId.load(tmp_path / "none") is None
    (tmp_path / "pid").write_text("12\n")
    assert ProcessId.load(tmp_path / "pid") is None
