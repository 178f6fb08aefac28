# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of runs: what was broken, what became of it, whether the run survived."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping

from ..integration.kit import ROOT

_HEADS = ("fault", "hit", "outcomes", "seconds", "survived")


@dataclasses.dataclass
class Row:
    """One run. ``problems`` are the promises that it broke."""

    fault: str
    hit: str
    outcomes: str = ""
    seconds: float = 0.0
    problems: list[str] = dataclasses.field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        """Return the row as texts."""
        return self.fault, self.hit, self.outcomes, f"{self.seconds:.1f}", "no" if self.problems else "yes"


def count(outcomes: Mapping[str, str]) -> str:
    """Return outcomes as ``10 imaged, 2 no_boot``, the most frequent first."""
    return ", ".join(
        f"{number} {name}" for name, number in collections.Counter(outcomes.values()).most_common()
    )


def text(rows: Iterable[Row]) -> str:
    """Return the table, with what each run that did not survive has broken, and the totals."""
    rows = list(rows)
    cells = [_HEADS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row, texts in zip([None, *rows], cells, strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(texts, widths, strict=True)).rstrip())
        lines += [f"    {problem}" for problem in (row.problems if row else ())]
    survived = sum(not row.problems for row in rows)
    seconds = sum(row.seconds for row in rows)
    lines.append(f"{len(rows)} runs, {survived} survived, {seconds:.0f} s")
    return "\n".join(lines) + "\n"


def keep(name: str, words: str) -> None:
    """Keep a table in the work folder of the checkout."""
    folder = ROOT / ".work" / "faults"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text(words)
