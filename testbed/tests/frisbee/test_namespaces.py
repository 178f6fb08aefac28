# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Server and clients in network namespaces of their own, on a bridge: separate machines to the protocol."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .stand import Stand, assert_one_pass

LAB = ["unshare", "-Urnpf", "--mount-proc", "--kill-child"]


@functools.cache
def why_not() -> str | None:
    """Return why there can be no namespaces here, None when there can."""
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            return f"no program {tool}"
    probe = [*LAB, "sh", "-c", "ip link add br0 type bridge && ip link add v0 type veth peer name v1"]
    done = subprocess.run(probe, capture_output=True, text=True)
    return done.stderr.strip() or "refused" if done.returncode else None


@pytest.mark.parametrize("clients", [1, 4])
def test_clients_on_a_bridge(stand: Stand, tmp_path: Path, clients: int) -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(f"no network namespaces: {reason}")
    path, disk = stand.image(8, sectors=1000)
    lab = [sys.executable, str(Path(__file__).with_name("netns_lab.py"))]
    done = subprocess.run(
        [*LAB, *lab, str(path), str(clients), str(tmp_path), str(len(disk))],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0] * (clients + 1), done.stderr
    for number in range(clients):
        assert (tmp_path / f"disk{number}").read_bytes() == disk
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["joins"] == stats["leaves"] == clients
    assert_one_pass(stats, 8)
    assert stats["foreign"] == 0
