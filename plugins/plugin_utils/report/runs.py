# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several runs laid beside each other: how often each node was imaged, and how long it took."""

from __future__ import annotations

import dataclasses
import os
import statistics
import typing as t
import urllib.parse

from ansible_collections.orbit.imaging.plugins.module_utils import outcome as outcomes
from ansible_collections.orbit.imaging.plugins.plugin_utils import private
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import page, result

# Runs that are read, the newest ones, and of which signs are drawn for each node.
_MOST = 200
_DRAWN = 40

Document = dict[str, t.Any]


@dataclasses.dataclass
class Runs:
    """The runs of a folder.

    :ivar results: name of the run's folder and what its ``result.json`` says, oldest first.
    :ivar damaged: name and reason of each that cannot be read.
    :ivar older: number of runs that are left out.
    """

    results: list[tuple[str, Document]]
    damaged: list[tuple[str, str]]
    older: int = 0


def read(folder: str) -> Runs:
    """Return the runs whose folders are in ``folder``.

    :raises OSError: when that cannot be read.
    """
    paths = []
    with os.scandir(folder) as entries:
        for entry in entries:
            path = os.path.join(entry.path, "result.json")
            if os.path.isfile(path):
                paths.append((os.stat(path).st_mtime, entry.name, path))
    paths.sort()
    found = Runs([], [], max(0, len(paths) - _MOST))
    for _time, name, path in paths[-_MOST:]:
        try:
            found.results.append((name, _kept(result.read(path))))
        except OSError as error:
            found.damaged.append((page.name_of(name), error.strerror or "it cannot be read"))
        except ValueError as error:
            found.damaged.append((page.name_of(name), str(error)))
    found.results.sort(key=lambda run: run[1]["started_at"])
    return found


def _kept(said: Document) -> Document:
    """Return what is needed of a result."""
    nodes = {}
    for name, node in said["nodes"].items():
        client = node["steps"].get("client", {})
        begin, end = client.get("started_at"), client.get("ended_at")
        nodes[(node["domain"], name)] = {
            "outcome": page.name_of(node["outcome"]),
            "tries": len(node["attempts"]),
            "seconds": None if begin is None or end is None else max(0.0, float(end) - float(begin)),
        }
    return {
        "run": said["run"],
        "started_at": float(said["started_at"]),
        "seconds": max(0.0, float(said["ended_at"]) - float(said["started_at"])),
        "passed": said["passed"],
        "nodes": nodes,
    }


def write(folder: str, found: Runs) -> str:
    """Write the page of the runs into their folder; return its path.

    :raises OSError: when it cannot be written.
    """
    path = os.path.join(folder, page.FILE)
    there = {name for name, _run in found.results if os.path.isfile(os.path.join(folder, name, page.FILE))}
    private.write(path, make(found, there))
    return path


def make(found: Runs, pages: t.Container[str] = ()) -> bytes:
    """Return the page of several runs, in UTF-8.

    :param pages: names of the runs that have a page of their own, to which a link leads.
    """
    drawn = found.results[-_DRAWN:]
    names = dict.fromkeys(key for _name, run in found.results for key in run["nodes"])
    nodes = [_node(key, [run for _name, run in found.results], drawn) for key in names]
    # A node that fails now and then is what one looks for; one that never works comes next.
    nodes.sort(key=lambda node: (not node["flaky"], node["rate"], -node["retried"], node["name"]))
    several = len({domain for domain, _name in names}) > 1
    return page.render(
        "runs.html.j2",
        title=f"{len(found.results)} runs",
        nodes=[{**node, "id": number} for number, node in enumerate(nodes)],
        several=several,
        counts=page.counted(node["last"] for node in nodes),
        older=found.older,
        damaged=found.damaged[: page.MOST_SAID],
        more=len(found.damaged) - page.MOST_SAID,
        drawn=len(drawn),
        signs=page.counted(node["outcome"] for _name, run in found.results for node in run["nodes"].values()),
        runs=[
            {
                "name": page.name_of(run["run"]),
                "link": f"{urllib.parse.quote(name, safe='')}/{page.FILE}" if name in pages else "",
                "began": page.moment(run["started_at"]),
                "seconds": f"{run['seconds']:.1f}",
                "passed": run["passed"],
                "imaged": sum(node["outcome"] == outcomes.IMAGED for node in run["nodes"].values()),
                "total": len(run["nodes"]),
            }
            for name, run in reversed(found.results)
        ],
    )


def _node(
    key: tuple[str, str], runs: t.Sequence[Document], drawn: t.Sequence[tuple[str, Document]]
) -> dict[str, t.Any]:
    took_part = [run["nodes"][key] for run in runs if key in run["nodes"]]
    good = sum(node["outcome"] == outcomes.IMAGED for node in took_part)
    seconds = [node["seconds"] for node in took_part if node["seconds"] is not None]
    retried = sum(node["tries"] > 1 for node in took_part)
    return {
        "domain": page.name_of(key[0]),
        "name": page.name_of(key[1]),
        "runs": len(took_part),
        "good": good,
        "rate": good / len(took_part),
        "retried": retried,
        "flaky": 0 < good < len(took_part) or (good > 0 and retried > 0),
        "median": f"{statistics.median(seconds):.1f}" if seconds else "",
        "slowest": f"{max(seconds):.1f}" if seconds else "",
        "last": took_part[-1]["outcome"],
        "strip": "".join(
            page.sign_of(run["nodes"][key]["outcome"]) if key in run["nodes"] else "·" for _name, run in drawn
        ),
    }
