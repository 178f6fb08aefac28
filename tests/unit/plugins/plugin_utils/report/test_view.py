# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs as they are seen: on terminals of two sizes, and as lines."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ansible_collections.orbit.imaging.plugins.plugin_utils.report import screen as screens, view as views
from ansible_collections.orbit.imaging.plugins.plugin_utils.report.board import Board

BEGAN = 1_700_000_000.0


def event(kind, at=0.0, **fields):
    return {"v": 1, "at": BEGAN + at, "run": "r1", "event": kind, **fields}


def board_of(columns, rows, groups=2, *, coordinates=True, step="client"):
    """A run of a grid of nodes whose rows are dealt out to the groups."""
    board = Board()
    nodes = [
        {
            "node": f"node{x}-{y}",
            "group": f"group{y % groups}",
            "x": x if coordinates else None,
            "y": y if coordinates else None,
        }
        for y in range(1, rows + 1)
        for x in range(1, columns + 1)
    ]
    said = [{"group": f"group{g}", "image": f"image{g}.ndz"} for g in range(groups)]
    board.hear(event("run", nodes=nodes, groups=said))
    board.hear(event("step", 1.0, step=step, state="began"))
    return board


def draw(board, width, height, at=11.0):
    """The rows of the picture as text, drawn by rich into a file."""
    file = io.StringIO()
    console = Console(file=file, record=True, width=width, height=height, force_terminal=True)
    console.print(screens.picture(board, width, height, BEGAN + at))
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.mark.parametrize("size", [(80, 23), (200, 49)])
@pytest.mark.parametrize("coordinates", [True, False])
@pytest.mark.parametrize(("columns", "rows", "groups"), [(4, 2, 2), (20, 20, 2), (20, 20, 5), (20, 20, 20)])
def test_every_node_is_seen_and_all_fits(size, coordinates, columns, rows, groups):
    board = board_of(columns, rows, groups, coordinates=coordinates)
    board.hear(event("node", 2.0, node="node1-1", state="imaging"))
    board.hear(event("node", 2.0, node="node2-1", state="failed", cause="no_boot", msg="no answer\x1b[2J"))
    seen = draw(board, *size)
    assert len(seen) <= size[1]
    assert all(len(line) <= size[0] for line in seen)
    text = "\n".join(seen)
    assert "\x1b" not in text
    assert "✘ node2-1: no_boot: no answer" in text
    # Twenty groups leave no room for cells that have no place in a grid; their states are counted.
    crowded = not coordinates and groups == 20 and size[1] == 23
    for group in range(groups if not crowded else 18):
        assert f"group{group}" in text
    if not crowded:
        # Beside the cells there is one in the count of each group that has such nodes, and one in the legend.
        counted = sum("booting" in board.counts(f"group{g}") for g in range(groups))
        assert text.count("○") == columns * rows - 2 + counted + text.count("○ booting")


def test_a_grid_is_a_grid():
    board = board_of(20, 20)
    board.hear(event("node", 2.0, node="node3-5", state="imaging"))
    seen = draw(board, 80, 23)
    # Below the title and two groups, the fifth row and the third column.
    assert len(seen) == 23
    assert seen[3 + 4][:7] == "○ ○ ▶ ○"


def test_bars_rates_and_times():
    board = board_of(2, 2)
    for name, percent in (("node1-1", 50), ("node2-1", 30)):
        board.hear(event("node", 1.0, node=name, state="imaging"))
        board.hear(event("progress", 5.0, node=name, percent=percent, rate=12_000_000))
    line = next(line for line in draw(board, 80, 23) if line.startswith("group1"))
    assert "40 %" in line
    assert "12.0 MB/s" in line
    assert "15 s left" in line
    assert "━" in line
    assert "─" in line
    assert "▶2" in line
    assert board.lines(BEGAN + 11)[1] == (
        "[  11.0 s]  group1  image1.ndz: client: 2 imaging, 40 %, 12.0 MB/s, 15 s left"
    )


def test_slow_nodes_are_named():
    board = board_of(4, 1, 1)
    for x, percent in ((1, 80), (2, 90), (3, 10)):
        board.hear(event("node", 2.0, node=f"node{x}-1", state="imaging"))
        board.hear(event("progress", 3.0, node=f"node{x}-1", percent=percent))
    assert ("node3-1", "imaging", "at 10 %, others at 45 %") in board.troubles()
    assert ("node4-1", "booting", "still booting") in board.troubles()
    board.hear(event("attempt", 4.0, node="node3-1", attempt=2, cause="stalled", msg="try 2"))
    assert ("node3-1", "booting", "try 2 after stalled") in board.troubles()


def test_a_run_goes_through_its_states():
    board = board_of(1, 1, 1, step="link")
    assert board.counts("group0") == {"waiting": 1}
    board.hear(event("step", 2.0, step="client", state="began"))
    assert board.counts("group0") == {"booting": 1}
    board.hear(event("node", 3.0, node="node1-1", state="imaged"))
    board.hear(event("step", 4.0, step="proof", state="began"))
    assert board.counts("group0") == {"booting": 1}
    assert board.percent("group0") == 100
    board.hear(event("node", 3.0, node="node1-1", state="up"))
    assert board.shown
    board.hear(event("report", 5.0, lines=["one"], outcomes={"node1-1": "imaged"}))
    assert not board.shown
    assert board.report == ["one"]


def test_a_run_inside_of_a_run_is_not_mixed_up_with_it():
    board = board_of(1, 1, 1)
    board.hear({**event("node", 2.0, node="node1-1", state="failed"), "run": "r2"})
    assert board.counts("group0") == {"booting": 1}


class Screen:
    def __init__(self):
        self.done = []

    def draw(self, board):
        self.done.append("draw")

    def hide(self):
        self.done.append("hide")


def test_no_picture_while_somebody_prints():
    screen, said = Screen(), []
    view = views.View(said.append, screen)
    view.board = board_of(2, 1, 1)
    view.tick()
    assert screen.done == ["draw"]
    with view.aside():
        assert screen.done == ["draw", "hide"]
        view.tick()
        assert screen.done == ["draw", "hide"]
    view.end()
    view.tick()
    assert screen.done.count("draw") == 1


def test_a_failure_is_said_once_and_all_at_a_time():
    screen, said = Screen(), []
    view = views.View(said.append, screen)
    view.board = board_of(2, 1, 1)
    for x in (1, 2):
        view.hear(event("node", 2.0, node=f"node{x}-1", state="failed", cause="no_boot", msg="no answer"))
    view.tick()
    view.tick()
    assert said == [f"[   2.0 s]  node{x}-1: failed: no_boot: no answer" for x in (1, 2)]
    assert screen.done == ["draw"]


def test_lines_at_each_step_and_failure_and_no_more():
    said = []
    view = views.View(said.append)
    view.board = board_of(2, 1, 1)
    view.tick()
    view.tick()
    assert len(said) == 1
    view.hear(event("node", 2.0, node="node1-1", state="imaging"))
    view.tick()
    assert len(said) == 1
    view.hear(event("node", 3.0, node="node1-1", state="failed", cause="stalled"))
    view.tick()
    assert [line.partition("]  ")[2] for line in said[1:]] == [
        "node1-1: failed: stalled",
        "group0  image0.ndz: client: 1 booting, 1 failed, 0 %",
    ]
    view.entitle("Remove the links")
    view.hear(event("step", 4.0, step="unlink", state="began"))
    view.tick()
    assert said[-1].endswith("group0  image0.ndz: Remove the links: 1 booting, 1 failed")
