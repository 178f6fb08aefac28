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


def board_of(columns, rows, groups=2, *, coordinates=True, step="client", **about):
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
    board.hear(event("run", nodes=nodes, groups=said, **about))
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
    assert "23 s left" in line
    assert "━" in line
    assert "─" in line
    assert "▶2" in line
    assert board.lines(BEGAN + 11)[1] == (
        "[  11.0 s]  group1  image1.ndz: client: 2 imaging, 40 %, 12.0 MB/s, 23 s left"
    )


def test_time_is_left_as_long_as_a_node_is_written():
    """It ends with the last node that is written now; nobody knows when one that boots will be."""
    board = board_of(1, 3, 1)
    for y in (1, 2):
        board.hear(event("node", 1.0, node=f"node1-{y}", state="imaging"))
        board.hear(event("progress", 3.0, node=f"node1-{y}", percent=40))
    assert board.seconds_left("group0", BEGAN + 5.0) == 6.0
    for y in (1, 2):
        board.hear(event("node", 7.0, node=f"node1-{y}", state="imaged"))
    assert board.percent("group0") == 66
    assert board.seconds_left("group0", BEGAN + 30.0) is None
    # One that comes late is as fast as it is itself, and another attempt begins anew.
    for began, attempt in ((31.0, 2), (91.0, 3)):
        board.hear(event("attempt", began - 1.0, node="node1-3", attempt=attempt, cause="no_boot"))
        assert board.seconds_left("group0", BEGAN + began) is None
        board.hear(event("node", began, node="node1-3", state="imaging"))
        board.hear(event("progress", began + 2.0, node="node1-3", percent=50))
        assert board.seconds_left("group0", BEGAN + began + 4.0) == 4.0


def test_a_rate_is_what_a_node_writes_on_average():
    """Disks are written in bursts: at most moments most of the nodes write only their messages."""
    board = board_of(4, 1, 1)
    for x, rate in ((1, 40), (2, 0), (3, 40), (4, 8_000_000)):
        board.hear(event("node", 1.0, node=f"node{x}-1", state="imaging"))
        board.hear(event("progress", 3.0, node=f"node{x}-1", percent=10, rate=rate))
    assert board.rate("group0") == pytest.approx(2_000_020)
    assert "2.0 MB/s" in draw(board, 80, 23)[1]
    board.hear(event("progress", 3.0, node="node4-1", percent=10, rate=40))
    assert "MB/s" not in draw(board, 80, 23)[1]


def test_in_check_mode_nothing_happens():
    board = board_of(2, 1, 1, check=True)
    assert board.counts("group0") == {"waiting": 2}
    assert draw(board, 80, 23)[0].startswith("client (check mode)")
    board.hear(event("step", 2.0, step="unlink", state="began"))
    assert board.percent("group0") == 0
    assert board.line("group0", BEGAN + 3.0) == "image0.ndz: unlink (check mode): 2 waiting"


def test_the_clock_is_that_of_what_is_named():
    """Also of tasks that are no steps, such as the one that releases the nodes."""
    view = views.View([].append)
    view.board = board_of(2, 1, 1, step="proof")
    before = view.board.step_began
    view.entitle("Release the nodes")
    assert view.board.step_began > before
    view.hear(event("step", 5.0, step="unlink", state="began"))
    assert draw(view.board, 80, 23, at=7.0)[0].startswith("Release the nodes    2 s")


def test_a_service_that_is_silent_is_waited_for_in_sight():
    board = board_of(2, 1, 1, step="images")
    assert board.shown
    assert draw(board, 80, 23)[0].startswith("images    10 s")


@pytest.mark.parametrize("step", ["images", "known", "linkable"])
def test_no_line_of_what_comes_before_a_node_is_touched(step):
    said = []
    view = views.View(said.append)
    view.board = board_of(2, 1, 1, step=step)
    view.tick()
    view.tick()
    assert said == []
    view.hear(event("step", 2.0, step="link", state="began"))
    view.tick()
    assert len(said) == 1


def test_a_narrow_terminal_counts_all_the_same():
    board = board_of(4, 2)
    for x in (1, 2):
        board.hear(event("node", 1.0, node=f"node{x}-1", state="imaging"))
        board.hear(event("progress", 5.0, node=f"node{x}-1", percent=50, rate=12_000_000))
    line = next(line for line in draw(board, 40, 23) if line.startswith("group1"))
    assert "○2 ▶2" in line
    assert "25 %" in line


def test_nobody_sees_a_run_among_the_tasks_of_others():
    """Such a task may ask a question, or be slow itself."""
    screen = Screen()
    view = views.View([].append, screen)
    view.board = board_of(2, 1, 1)
    view.tick()
    view.leave()
    assert screen.done == ["draw", "hide"]
    view.tick()
    assert screen.done == ["draw", "hide"]
    view.entitle("Remove the links")
    # Pictures are drawn ten times a second at most.
    while screen.done[-1] != "draw":
        view.tick()


def test_another_attempt_is_a_line_where_there_is_no_table():
    for screen in (None, Screen()):
        said = []
        view = views.View(said.append, screen)
        view.board = board_of(2, 1, 1)
        words = "try 2 of 3 after no_boot: no answer"
        view.hear(event("attempt", 4.0, node="node1-1", attempt=2, cause="no_boot", msg=words))
        view.tick()
        assert [f"[   4.0 s]  node1-1: {words}" in said] == [screen is None]


def test_nodes_in_trouble_are_named_as_far_as_there_is_room():
    board = board_of(8, 5, 1)
    for number in range(12):
        name = list(board.nodes)[number]
        board.hear(event("node", 9.0, node=name, state="failed", cause="no_boot", msg="nothing"))
    named = [sum("no_boot" in row for row in draw(board, 80, height)) for height in (12, 40)]
    assert named[0] < 12
    assert named[1] == 12, "a high terminal has room below the grid"


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
