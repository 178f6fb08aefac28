# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a client says to have done is compared with what must be."""

from __future__ import annotations

import asyncio

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import verification
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.boot_wait import Failed
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.monitor import ClientMonitor
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.verification import Agreed, Amounts
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.progress import Progress

from ...manifestkit import make

IMAGE = Amounts(data=1000, covered=4000, chunks=4)
CHECKED = Agreed({"digest": "d"}, verify=True, resume=True, amounts=IMAGE)
UNCHECKED = Agreed(reason="never", amounts=IMAGE)
UNKNOWN = Agreed(reason="no manifest")


class Said:
    """A session in which a client has said some lines."""

    def __init__(self, *lines):
        self._lines = [[*lines, "@orbit exit 0", *lines, "@orbit end"]]

    async def lines(self):
        return self._lines.pop() if self._lines else None


def judge(agreed, *lines):
    said = []
    progress = Progress([{"label": "all", "image": "x.ndz", "nodes": ["node1-1"]}], said.append)
    monitor = ClientMonitor({"name": "node1-1", "settings": {"orbit_stall_timeout": 60}}, progress)
    assert asyncio.run(monitor.watch(Said(*lines)))
    return monitor.judge(agreed)


WROTE = "Wrote 4000 bytes (1000 actual)"


@pytest.mark.parametrize(
    ("agreed", "lines"),
    [
        (CHECKED, ["Verified 1000 bytes", WROTE]),
        (CHECKED, ["Kept 1 of 4 chunks", "Verified 1000 bytes", "Wrote 4000 bytes (700 actual)"]),
        (CHECKED, ["Kept 4 of 4 chunks", "Verified 1000 bytes", "Wrote 4000 bytes (0 actual)"]),
        # With free space that was zeroed.
        (CHECKED, ["Verified 4000 bytes", "Wrote 4000 bytes (4000 actual)"]),
        # A client that began again by itself: the last word counts.
        (CHECKED, ["Wrote 5 bytes (5 actual)", "Verified 1000 bytes", WROTE]),
        (UNCHECKED, [WROTE]),
        (UNKNOWN, ["Wrote 5 bytes (5 actual)"]),
    ],
)
def test_all_that_must_be_there(agreed, lines):
    report = judge(agreed, *lines)
    assert report["verified"] is agreed.verify
    assert report["bytes_covered"] >= report["bytes_written"]


@pytest.mark.parametrize(
    ("agreed", "lines", "cause", "words"),
    [
        (CHECKED, ["Verified 5 bytes", WROTE], "verify_failed", "read back 5 bytes of 1000"),
        (CHECKED, ["Verified 999 bytes", WROTE], "verify_failed", "read back 999 bytes of 1000"),
        (CHECKED, [f"Verified {'9' * 5000} bytes", WROTE], "verify_failed", "read back"),
        (CHECKED, ["Verified 0 bytes", WROTE], "verify_failed", "no word of a disk that was read back"),
        (
            CHECKED,
            ["Verified 1000 bytes", "Wrote 4000 bytes (1500 actual)"],
            "verify_failed",
            "read back 1000 bytes of 1500",
        ),
        (
            CHECKED,
            ["Kept 4 of 4 chunks", "Verified 5 bytes", "Wrote 4000 bytes (0 actual)"],
            "verify_failed",
            "read back 5 bytes of 1000",
        ),
        (
            CHECKED,
            ["Kept 3 of 3 chunks", "Verified 1000 bytes", WROTE],
            "client_failed",
            "kept 3 of 3 chunks",
        ),
        (
            CHECKED,
            ["Kept 5 of 4 chunks", "Verified 1000 bytes", WROTE],
            "client_failed",
            "kept 5 of 4 chunks",
        ),
        (UNCHECKED, ["Wrote 4000 bytes (999 actual)"], "client_failed", "wrote 999 bytes"),
        (UNCHECKED, ["Wrote 3999 bytes (1000 actual)"], "client_failed", "covered 3999 bytes"),
        (UNCHECKED, ["Wrote 4000 bytes (0 actual)"], "client_failed", "wrote no byte"),
        (UNKNOWN, [f"Wrote {'9' * 5000} bytes (1 actual)"], "client_failed", "no word of a written disk"),
        (UNKNOWN, [f"Wrote {2**63} bytes (1 actual)"], "client_failed", "no word of a written disk"),
        (UNKNOWN, [f"Wrote 1 bytes ({'9' * 5000} actual)"], "client_failed", "no word of a written disk"),
    ],
)
def test_less_is_no_success(agreed, lines, cause, words):
    with pytest.raises(Failed, match=words) as failed:
        judge(agreed, *lines)
    assert failed.value.cause == cause


def test_a_percentage_of_many_digits_is_none():
    assert judge(UNKNOWN, f"Progress: {'9' * 5000}%", "Progress: 999%", WROTE)["bytes_written"] == 1000


def test_the_amounts_are_those_of_the_manifest(tmp_path):
    path = tmp_path / "x.manifest"
    path.write_bytes(make(count=3, chunk_bytes=700))
    assert verification.amounts(str(path)) == Amounts(2100, 0, 3)
