# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run in words: a table that is understood at a glance, and the files for programs."""

from __future__ import annotations

import json
import os
import shlex
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import outcome as outcomes
from ansible_collections.orbit.imaging.plugins.plugin_utils import private
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import junit, rerun, result
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import quorum, record as records
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Record


def lines(record: Record) -> list[str]:
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
                _count(group),
                f"{data / 1e6:.1f} MB",
                f"{slowest:.1f} s",
                _verdict(group),
            )
        )
        failed += [
            f"  {n['name']}: {n['outcome']}: {records.first_line(n['evidence'])}"
            for n in nodes
            if n["outcome"] != outcomes.IMAGED
        ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    total = sum(len(group["nodes"]) for group in record["groups"])
    imaged = sum(group["imaged"] for group in record["groups"])
    seconds = record["ended_at"] - record["started_at"]
    verdict = f"{imaged} of {total} nodes imaged in {seconds:.1f} s"
    if failed:
        verdict += f", {total - imaged} failed:"
    left = [f"  left behind: {words}" for words in record["left_behind"]]
    if record.get("unguarded"):
        left.append(f"  the run had no guard {record['unguarded']}")
    left += [f"  {words}" for words in record.get("warnings", [])]
    return ["", *table, "", verdict, *failed, *left]


def _count(group: t.Mapping[str, t.Any]) -> str:
    words = f"{group['imaged']} of {group['total']}"
    return words if group["quorum"] == quorum.ALL else f"{words} (quorum {group['quorum']})"


def _verdict(group: t.Mapping[str, t.Any]) -> str:
    if not group["passed"]:
        return "FAILED"
    return "imaged" if group["imaged"] == group["total"] else "passed"


def forecast(record: Record) -> list[str]:
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


def write(record: Record, playbooks: t.Sequence[str]) -> dict[str, str]:
    """Write the files of a concluded run into its folder, each whole or not at all.

    :param playbooks: what was run, for the command that runs it again.
    :return: the paths: ``result`` and ``junit``, and ``rerun`` when nodes failed.
    """
    folder = record["dir"]
    private.make_folder(folder)
    contents = {
        "result": ("result.json", json.dumps(result.make(record), indent=2).encode() + b"\n"),
        "junit": ("junit.xml", junit.make(record)),
    }
    if records.failed(record):
        path = os.path.join(folder, "rerun.yml")
        contents["rerun"] = ("rerun.yml", rerun.make(record, again(path, playbooks)).encode())
    return {kind: _put(folder, name, data) for kind, (name, data) in contents.items()}


def again(path: str, playbooks: t.Sequence[str]) -> str:
    """Return the command that does a run again with the inventory in ``path``."""
    return shlex.join(["ansible-playbook", "-i", path, *(playbooks or ["orbit.imaging.image"])])


def _put(folder: str, name: str, data: bytes) -> str:
    """Write a file that only its owner may read: evidence may quote what nodes and services say."""
    path = os.path.join(folder, name)
    private.write(path, data)
    return path
