# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A ping experiment: the document, its table, its plot, and the figures of 2006 to compare with."""

from __future__ import annotations

import html
import math
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.ping import Statistics, pooled

#: Version of ``ping.json``.
VERSION = 1

#: What the packets of each phase are.
PHASES = {
    "idle": "before the run",
    "imaging": "while the node's client wrote, from its start to its end",
    "after": "when the new systems run",
}


class Figure(t.NamedTuple):
    """A line of the experiments of 2006; times are milliseconds, what was not noted is None."""

    title: str
    nodes: int
    images: int
    packets: int | None
    lost_percent: float | None
    least: float
    mean: float
    most: float
    mdev: float | None
    phase: str = "imaging"

    def as_dict(self) -> dict[str, t.Any]:
        """Return it with the names of the columns of ``ping.json``."""
        return {
            **{key: getattr(self, key) for key in ("title", "nodes", "images", "phase", "packets", "mdev")},
            "lost_percent": self.lost_percent,
            "min": self.least,
            "avg": self.mean,
            "max": self.most,
        }


#: All that is known of 2006.
FIGURES = (
    Figure("sandbox 1, 2 nodes, 2 images", 2, 2, None, None, 0.12, 0.2, 1.8, None),
    Figure("sandbox 1, 1 node", 1, 1, None, None, 0.1, 0.2, 1.2, None),
    Figure("grid, 5 nodes, 1 image", 5, 1, None, None, 0.142, 0.287, 6.648, 0.691),
    Figure("grid, 10 nodes, 2 images", 10, 2, None, None, 0.126, 0.288, 7.413, 0.734),
    Figure("grid, 15 nodes, 3 images", 15, 3, None, None, 0.138, 0.315, 7.215, 0.792),
    Figure("grid, 15 nodes, 3 images", 15, 3, None, None, 0.087, 0.148, 0.221, 0.039, "after"),
    Figure("grid, 5 x 20 nodes, 1 image", 100, 1, 178, 11, 0.119, 10.434, 100.857, 23.052),
    Figure("grid, 5 x 20 nodes, 1 image", 100, 1, 150, 8, 0.122, 6.047, 89.048, 16.729),
    Figure("grid, 5 x 20 nodes, 2 images", 100, 2, 180, 15, 0.119, 5.172, 169.088, 22.689),
    Figure("grid, 5 x 20 nodes, 2 images", 100, 2, 186, 23, 0.120, 5.283, 100.583, 16.698),
    Figure("grid, 5 x 20 nodes, 2 images", 100, 2, 164, 22, 0.112, 5.253, 115.325, 17.858),
    Figure("grid, 10 x 20 nodes, 3 images", 200, 3, 174, 4, 0.084, 2.184, 99.143, 10.905),
    Figure("grid, 1 x 100 nodes, 1 image", 100, 1, 176, 27, 0.140, 11.937, 371.617, 41.183),
    Figure("grid, 1 x 100 nodes, 1 image", 100, 1, 213, 28, 0.127, 4.609, 142.233, 16.122),
)


def windows(result: t.Mapping[str, t.Any]) -> dict[str, list[float]]:
    """Return when each node's client began and ended, from a ``result.json``; nodes without are left out."""
    found = {}
    for name, node in result["nodes"].items():
        client = node["steps"].get("client", {})
        if "started_at" in client and "ended_at" in client:
            found[name] = [client["started_at"], client["ended_at"]]
    return found


def nearest(nodes: int, images: int) -> list[Figure]:
    """Return the figures of 2006 of the set-up that is most like this one."""

    def distance(figure: Figure) -> tuple[float, int]:
        return abs(math.log(figure.nodes / max(1, nodes))), abs(figure.images - images)

    best = min(map(distance, FIGURES))
    return [figure for figure in FIGURES if distance(figure) == best]


def make(
    result: t.Mapping[str, t.Any], phases: t.Mapping[str, t.Sequence[t.Mapping[str, t.Any]]], interval: float
) -> dict[str, t.Any]:
    """Return the document of an experiment.

    :param result: the ``result.json`` of the run; of a run that had none, only its ``nodes`` and ``run``.
    :param phases: for each of :data:`PHASES`, the entries that the module ping returned.
    """
    spans = windows(result).values()
    images = len({node["image"] for node in result["nodes"].values()})
    document: dict[str, t.Any] = {
        "version": VERSION,
        "run": result["run"],
        "nodes": len(result["nodes"]),
        "images": images,
        "interval_seconds": interval,
        "imaging_seconds": (
            round(max(ended for _began, ended in spans) - min(began for began, _ended in spans), 3)
            if spans
            else None
        ),
        "phases": {},
        "figures_of_2006": [figure.as_dict() for figure in nearest(len(result["nodes"]), images)],
    }
    for phase, sampled in PHASES.items():
        entries = phases.get(phase, ())
        document["phases"][phase] = {
            "sampled": sampled,
            "all": pooled(Statistics.from_dict(entry) for entry in entries).as_dict(),
            "nodes": {entry["name"]: {k: v for k, v in entry.items() if k != "name"} for entry in entries},
        }
    return document


def _cells(columns: t.Mapping[str, t.Any]) -> list[str]:
    packets, lost = columns["packets"], columns["lost_percent"]
    return [
        "-" if packets is None else str(packets),
        "-" if lost is None else f"{lost:.1f}" if isinstance(lost, float) else str(lost),
        *("-" if columns[key] is None else f"{columns[key]:.3f}" for key in ("min", "avg", "max", "mdev")),
    ]


def _rows(document: t.Mapping[str, t.Any]) -> list[tuple[str, t.Mapping[str, t.Any]]]:
    """Return title and columns of each line: ours, then those of 2006."""
    return [
        *((phase, found["all"]) for phase, found in document["phases"].items()),
        *(
            (f"2006: {figure['title']}{', after' if figure['phase'] == 'after' else ''}", figure)
            for figure in document["figures_of_2006"]
        ),
    ]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def lines(document: t.Mapping[str, t.Any]) -> list[str]:
    """Return the experiment as a table, with what was sampled, and nodes of which something is to be said."""
    head = ("", "packets", "% lost", "min", "avg", "max", "mdev (ms)")
    table = [head, *((title, *_cells(columns)) for title, columns in _rows(document))]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    seconds = document["imaging_seconds"]
    said = [
        f"Pings of {_counted(document['nodes'], 'node')}, {_counted(document['images'], 'image')}, "
        f"one packet each {document['interval_seconds']:g} s; imaging took "
        + ("no time: nothing was imaged" if seconds is None else f"{seconds:.1f} s"),
        *(
            "  ".join(
                [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            )
            for row in table
        ),
        *(f"  {phase}: {found['sampled']}" for phase, found in document["phases"].items()),
    ]
    for phase, found in document["phases"].items():
        problems: dict[str, list[str]] = {}
        for name, node in found["nodes"].items():
            silent = "no answer" if node["packets"] and not node["received"] else ""
            if node["msg"] or silent:
                problems.setdefault(node["msg"] or silent, []).append(name)
        for words, names in problems.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            said.append(f"  {phase}: {', '.join(names[:3])}{more}: {words}")
    return said


# -- the plot

_LEFT, _RIGHT, _ROW, _TOP, _WIDTH = 260, 90, 26, 40, 860
_DECADES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


def svg(document: t.Mapping[str, t.Any]) -> str:
    """Return the table as a drawing: from the shortest to the longest round trip, the mean, and the loss."""
    rows = _rows(document)
    height = _TOP + _ROW * len(rows) + 36
    text = (
        "<style>text{font:12px sans-serif;fill:#222}line,rect{stroke-width:1}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}.paper{fill:#1b1b1b}}</style>"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>Round-trip times of run {html.escape(str(document['run']))}</title>{text}",
        f'<rect class="paper" width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="18">round trip in ms (line: min to max, dot: avg)</text>',
        f'<text x="{_WIDTH - _RIGHT + 16}" y="18">% lost</text>',
    ]
    for decade in _DECADES:
        x = _across(decade)
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="{_TOP - 12}" y2="{height - 30}" stroke="#999" opacity=".4"/>'
        )
        parts.append(f'<text x="{x}" y="{height - 12}" text-anchor="middle">{decade:g}</text>')
    for number, (title, columns) in enumerate(rows):
        y = _TOP + _ROW * number
        colour = "#b35900" if title.startswith("2006") else "#0b62a8"
        parts.append(f'<text x="8" y="{y + 4}">{html.escape(title)}</text>')
        if columns["avg"] is None:
            parts.append(f'<text x="{_LEFT}" y="{y + 4}">no answer</text>')
        else:
            low, mean, high = (_across(columns[key]) for key in ("min", "avg", "max"))
            parts.append(
                f'<line x1="{low}" x2="{high}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>'
            )
            parts.append(f'<circle cx="{mean}" cy="{y}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 16}" y="{y + 4}">{_cells(columns)[1]}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _across(milliseconds: float) -> float:
    low, high = math.log10(_DECADES[0]), math.log10(_DECADES[-1])
    share = (math.log10(max(milliseconds, _DECADES[0])) - low) / (high - low)
    return round(_LEFT + min(1.0, share) * (_WIDTH - _LEFT - _RIGHT), 1)
