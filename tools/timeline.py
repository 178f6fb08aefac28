# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draw a run from its record: ``python tools/timeline.py [PATH]``.

PATH is a record (result.json, see docs/results.md), or a folder of runs, of which the last one counts: by
default the folder where runs keep their records unless told otherwise.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any

#: Characters that the whole run is drawn in.
WIDTH = 72

#: What a node does between two times of its record: sign, from step and time, to step and time.
PHASES = (
    (".", ("reset", "at"), ("client", "booted_at")),
    ("=", ("client", "started_at"), ("client", "ended_at")),
    (":", ("boot", "at"), ("proof", "up_at")),
)
LEGEND = ". boots the memory image   = receives and writes   : boots its new disk   # step"


def runs() -> pathlib.Path:
    """Return the folder of runs."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return pathlib.Path(state).expanduser() / "orbit-imaging"


def newest(folder: pathlib.Path) -> pathlib.Path:
    """Return the record of the run in the folder that ended last."""
    records = sorted(folder.glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    if not records:
        sys.exit(f"timeline: no run has left a record in {folder}")
    return records[-1]


class Ruler:
    """Turns times (seconds of the epoch) into columns."""

    def __init__(self, began: float, ended: float) -> None:
        self._began = began
        self.seconds = max(ended - began, 0.001)

    def column(self, at: float) -> int:
        """Return the column of a time."""
        return min(WIDTH, max(0, round((at - self._began) / self.seconds * WIDTH)))

    def scale(self) -> str:
        """Return the line with the seconds: a number every so many columns that it is a round one."""
        apart = next(
            (step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600) if self.seconds / step <= 9), 1800
        )
        line = ""
        for mark in range(0, int(self.seconds) + 1, apart):
            line = line.ljust(self.column(self._began + mark)) + str(mark)
        return line


def painted(pieces: list[tuple[str, int, int]]) -> str:
    """Return a line with a sign from one column to another, for each of the pieces."""
    line = [" "] * (WIDTH + 1)
    for sign, start, end in pieces:
        for column in range(start, max(end, start + 1)):
            line[column] = sign
    return "".join(line)


def node_pieces(node: dict[str, Any], ruler: Ruler) -> list[tuple[str, int, int]]:
    """Return what a node did as far as its record tells."""
    pieces = []
    for sign, begin, end in PHASES:
        times = [node["steps"].get(step, {}).get(name) for step, name in (begin, end)]
        if None not in times:
            pieces.append((sign, ruler.column(times[0]), ruler.column(times[1])))
    return pieces


def draw(record: dict[str, Any]) -> list[str]:
    """Return the lines of the picture."""
    ruler = Ruler(record["started_at"], record["ended_at"])
    names = [*record["nodes"], *(entry["step"] for entry in record["timeline"]), "seconds"]
    indent = max(map(len, names)) + 4
    lines = [f"{'seconds':<{indent}}{ruler.scale()}"]
    for entry in record["timeline"]:
        drawn = painted([("#", ruler.column(entry["began_at"]), ruler.column(entry["ended_at"]))])
        lines.append(f"{entry['step']:<{indent}}{drawn} {entry['ended_at'] - entry['began_at']:6.1f} s")
    for name, node in record["nodes"].items():
        lines.append(f"  {name:<{indent - 2}}{painted(node_pieces(node, ruler))} {node['outcome']}")
    return [line.rstrip() for line in [*lines, "", f"{'':<{indent}}{LEGEND}"]]


def main(arguments: list[str]) -> int:
    """Draw the record that is named, or the newest one."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print("usage: timeline.py [PATH]", file=sys.stderr)
        return 2
    path = pathlib.Path(arguments[0]) if arguments else runs()
    if not path.is_file():
        path = newest(path)
    try:
        lines = draw(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"timeline: {path} is no record of a run: {error!r}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
