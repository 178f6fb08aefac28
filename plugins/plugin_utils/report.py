# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run in words: a table that is understood at a glance, and the result file."""

from __future__ import annotations

import json
import os
import tempfile
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import outcome as outcomes

# Set in the environment by the callback that shows the report at the end of everything.
AT_END = "ORBIT_IMAGING_REPORT_AT_END"


def lines(record: t.Mapping[str, t.Any]) -> list[str]:
    """Return the report of a concluded run, a line per group and a line per node that failed."""
    rows = [("group", "image", "nodes", "disk data", "slowest", "result")]
    failed: list[str] = []
    for group in record["groups"]:
        nodes = [record["nodes"][name] for name in group["nodes"]]
        clients = [n["steps"]["client"] for n in nodes if n["steps"].get("client", {}).get("bytes_written")]
        data = sum(c["bytes_written"] for c in clients)
        slowest = max((c["ended_at"] - c["started_at"] for c in clients), default=0.0)
        rows.append(
            (
                group["label"],
                group["image"],
                f"{group['imaged']} of {len(nodes)}",
                f"{data / 1e6:.1f} MB",
                f"{slowest:.1f} s",
                "imaged" if group["passed"] else "FAILED",
            )
        )
        failed += [
            f"  {n['name']}: {n['outcome']}: {first_line(n['evidence'])}"
            for n in nodes
            if n["outcome"] != outcomes.IMAGED
        ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    total = sum(len(group["nodes"]) for group in record["groups"])
    imaged = sum(group["imaged"] for group in record["groups"])
    seconds = record["at"] - record["started_at"]
    verdict = f"{imaged} of {total} nodes imaged in {seconds:.1f} s"
    if failed:
        verdict += f", {total - imaged} failed:"
    return ["", *table, "", verdict, *failed]


def forecast(record: t.Mapping[str, t.Any]) -> list[str]:
    """Return what a run would do, for check mode."""
    told = [""]
    for group in record["groups"]:
        told.append(f"{group['label']}: {group['image']} would be served to {len(group['nodes'])} nodes:")
        for name in group["nodes"]:
            node = record["nodes"][name]
            memory = node["settings"]["orbit_memory_image"] or "its memory image"
            told.append(
                f"  {name} ({node['control_ip']}): linked to {memory}, reset, "
                f"{node['settings']['orbit_disk']} overwritten, unlinked"
                + (", reset again" if node["settings"]["orbit_boot"] else "")
            )
    told.append("Check mode: no node, link or stream was touched.")
    return told


def first_line(text: str) -> str:
    """Return the first line of an evidence."""
    return text.splitlines()[0] if text else "no evidence"


def write(record: t.Mapping[str, t.Any]) -> str:
    """Write the record to ``result.json`` in the run's folder, whole or not at all; return its path."""
    os.makedirs(record["dir"], mode=0o700, exist_ok=True)
    path = os.path.join(record["dir"], "result.json")
    descriptor, temporary = tempfile.mkstemp(dir=record["dir"])
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(record, stream, indent=2, sort_keys=True)
        stream.write("\n")
    os.replace(temporary, path)
    return path
