# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run on a terminal: groups with bars, nodes as cells, what is wrong by name.

Nothing here needs a colour: states have characters of their own.
"""

from __future__ import annotations

import os
import time
import typing as t

try:
    from rich.console import Console, Group as Rows
    from rich.live import Live
    from rich.text import Text

    HAS_RICH = True
except ImportError:
    HAS_RICH = False

from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import printable
from ansible_collections.orbit.imaging.plugins.plugin_utils.report.board import Board, Cell

#: Character and style of each state.
LOOKS = {
    "waiting": ("·", "dim"),
    "booting": ("○", "yellow"),
    "ready": ("◍", "cyan"),
    "imaging": ("▶", "bright_blue"),
    "imaged": ("■", "green"),
    "up": ("✔", "bold green"),
    "failed": ("✘", "bold red"),
}
# Columns that the names of nodes in trouble need beside the grid, and those of groups beside it.
_NAMES = 24
_GROUPS = 26
# So many nodes in trouble are named, however many groups there are.
_LEAST = 3


def picture(board: Board, width: int, height: int, now: float | None = None) -> Rows:
    """Return a picture of the run that fits into ``width`` columns and ``height`` rows."""
    now = time.time() if now is None else now
    rows = _title(board, now)
    rows += _body(board, width, height - len(rows), now)
    legend = Text("  ").join(Text(f"{look} {state}", style) for state, (look, style) in LOOKS.items())
    if len(rows) < height and legend.cell_len <= width:
        rows.append(legend)
    for row in rows:
        row.truncate(width, overflow="ellipsis")
        row.no_wrap = True
    return Rows(*rows[:height])


def _title(board: Board, now: float) -> list[Text]:
    row = Text(board.heading, "bold")
    row.append(f"    {max(0.0, now - board.step_began):.0f} s", "default")
    row.append(f"    {len(board.nodes)} nodes, {max(0.0, now - board.began):.0f} s in all", "dim")
    return [row]


def _body(board: Board, width: int, height: int, now: float) -> list[Text]:
    grid = board.grid()
    picture = _grid(grid) if grid and _fits(grid, width, height) else None
    across = picture[0].cell_len if picture else 0
    if picture and len(board.groups) + len(picture) <= height:
        rows = _groups(board, width, now)
        if width - across - 2 >= _NAMES:
            return rows + _beside(picture, _troubles(board, height - len(rows)))
        rows += picture
        return rows + _troubles(board, height - len(rows))
    if picture and width - across - 2 >= _GROUPS:
        return _beside(picture, _panel(board, width - across - 2, height, now))
    rows = _panel(board, width, height, now)
    cells = _in_a_row(board, width)
    # What is wrong is worth more than cells; how many nodes are in which state stands in the groups' rows.
    return (
        rows[: len(board.groups)] + cells + rows[len(board.groups) :]
        if len(rows) + len(cells) <= height
        else rows
    )


def _panel(board: Board, width: int, height: int, now: float) -> list[Text]:
    """Return the groups, and below them the nodes in trouble, of which the first are always there."""
    rows = _groups(board, width, now)
    least = min(_LEAST, len(board.troubles()))
    if len(rows) > max(1, height - least):
        keep = max(0, height - least - 1)
        rows = [*rows[:keep], Text(f"... and {len(rows) - keep} more groups", "dim")]
    return rows + _troubles(board, height - len(rows))


def _fits(grid: t.Mapping[tuple[int, int], Cell], width: int, height: int) -> bool:
    xs, ys = {x for x, _y in grid}, {y for _x, y in grid}
    return 2 * (max(xs) - min(xs) + 1) - 1 <= width and max(ys) - min(ys) + 1 <= height


def _cell(cell: Cell | None) -> tuple[str, str]:
    return (" ", "") if cell is None else LOOKS.get(cell.state, LOOKS["waiting"])


def _grid(grid: t.Mapping[tuple[int, int], Cell]) -> list[Text]:
    """Return the nodes as they stand in the testbed: x to the right, y downwards."""
    xs, ys = [x for x, _y in grid], [y for _x, y in grid]
    rows = []
    for y in range(min(ys), max(ys) + 1):
        cells = [_cell(grid.get((x, y))) for x in range(min(xs), max(xs) + 1)]
        rows.append(Text(" ").join(Text(*cell) for cell in cells))
    return rows


def _in_a_row(board: Board, width: int) -> list[Text]:
    """Return the nodes of each group one after another."""
    label = min(12, max(map(len, board.groups), default=0))
    wide = max(1, width - label - 2)
    rows: list[Text] = []
    for group in board.groups:
        cells = [_cell(cell) for cell in board.members(group)]
        for first in range(0, len(cells), wide):
            row = Text(f"{group[:label] if first == 0 else '':<{label}}  ")
            for cell in cells[first : first + wide]:
                row.append(*cell)
            rows.append(row)
    return rows


def _beside(left: t.Sequence[Text], right: t.Sequence[Text]) -> list[Text]:
    wide = max(row.cell_len for row in left)
    rows = []
    for number in range(max(len(left), len(right))):
        whole = left[number].copy() if number < len(left) else Text()
        if number < len(right):
            whole.append(" " * (wide - whole.cell_len + 2))
            whole.append_text(right[number])
        rows.append(whole)
    return rows


def _groups(board: Board, width: int, now: float) -> list[Text]:
    """Return a row for each group, with as much of it as there is room for."""
    counts = {group: _counts(board.counts(group)) for group in board.groups}
    numbers = {group: _numbers(board, group, now) for group in board.groups}
    label = min(14 if width >= 60 else 10, max(map(len, board.groups), default=0))
    image = min(18, max(map(len, board.groups.values()), default=0)) if width >= 60 else 0
    right = max((row.cell_len for row in counts.values()), default=0)
    middle = max((len(words) for words in numbers.values()), default=0)
    length = min(40, width - label - image - middle - right - (8 if image else 6))
    if label + middle + right + 4 > width:
        # How many nodes are in which state is worth more than a rate.
        numbers = {group: words[:5] for group, words in numbers.items()}
        middle = 5
    rows = []
    for group in board.groups:
        row = Text(f"{group[:label]:<{label}}  ")
        if image:
            row.append(f"{board.groups[group][:image]:<{image}}  ", "dim")
        if length >= 5:
            full = length * board.percent(group) // 100
            row.append("━" * full, "green").append("─" * (length - full), "dim").append("  ")
        row.append(f"{numbers[group]:<{middle}}  ")
        row.append_text(counts[group])
        rows.append(row)
    return rows


def _numbers(board: Board, group: str, now: float) -> str:
    return "  ".join([f"{board.percent(group):3d} %", *board.pace(group, now)])


def _counts(counts: t.Mapping[str, int]) -> Text:
    return Text(" ").join(Text(f"{LOOKS[s][0]}{number}", LOOKS[s][1]) for s, number in counts.items())


def _troubles(board: Board, height: int) -> list[Text]:
    found = board.troubles()
    rows = []
    for name, state, words in found:
        look, style = LOOKS[state]
        row = Text(f"{look} {name}: ", style)
        row.append(printable(words), "default")
        rows.append(row)
    if len(rows) <= height:
        return rows
    return [*rows[: max(0, height - 1)], Text(f"... and {len(rows) - height + 1} more", "dim")][
        : max(0, height)
    ]


class Screen:
    """The terminal at the standard output, by a descriptor of its own.

    Ansible locks the standard output and writes to it from several threads; rich has locks of its own. With
    one file for both, the two would wait for each other for ever. The cursor is never hidden: a run that is
    killed could not bring it back.
    """

    def __init__(self, *, color: bool) -> None:
        class Terminal(Console):
            def show_cursor(self, show: bool = True) -> bool:
                return False

        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
        self._console = Terminal(
            file=self._file, force_terminal=True, no_color=not color, highlight=False, legacy_windows=False
        )
        self._live: Live | None = None

    def draw(self, board: Board) -> None:
        """Draw the run, in place of what was drawn before."""
        size = os.get_terminal_size(self._file.fileno())
        # A terminal that does not say how large it is, is as large as terminals were.
        width, height = size.columns or 80, size.lines or 24
        self._console.size = (width, height)
        # One row stays free: a picture as high as the screen would scroll it.
        rows = picture(board, width - 1, max(1, height - 1))
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )
            self._live.start()
        self._live.update(rows, refresh=True)

    def hide(self) -> None:
        """Take the picture away; what is printed next stands where it was."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
