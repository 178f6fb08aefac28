# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Node sets: the grammar, its refusals, and that nothing is ever evaluated."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from orbit_services.nodeset import MAX_NODES, NodeSetError, ShapeFault, SyntaxFault, parse_node_set


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("[]", []),
        ("[1,1]", [(1, 1)]),
        ("[[1,1],[1..5,2]]", [(1, 1), (1, 2), (2, 2), (3, 2), (4, 2), (5, 2)]),
        ("[1..2,1..2]", [(1, 1), (2, 1), (1, 2), (2, 2)]),
        ("[1...3,1]", [(1, 1), (2, 1)]),
        ("[[[1,1],[2,1]],[[3,1]]]", [(1, 1), (2, 1), (3, 1)]),
        (" [ [1 , 1],\n[2,1] ] ", [(1, 1), (2, 1)]),
        ("[[5,1],[5,1]]", [(5, 1), (5, 1)]),
        ("[-1,1]", [(-1, 1)]),
        ("[[007,1]]", [(7, 1)]),
    ],
)
def test_sets(text: str, nodes: list[tuple[int, int]]) -> None:
    assert parse_node_set(text) == nodes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Illegal node set declaration ''"),
        ("7", "Illegal node set declaration '7'"),
        ("[1]", "Illegal node set declaration '1'"),
        ("[[1,1,1]]", "Illegal node set declaration '111'"),
        ('[["a",1]]', "Illegal node set declaration 'a1'"),
        ("[[1,1],2]", "Illegal node set declaration '2'"),
        ("[[1.5,1]]", "Illegal node set declaration '1.51'"),
        ("[[]]", "Illegal node set declaration ''"),
        ("[5..1,1]", "Illegal node set declaration '[5..1,1]'"),
        ("[1..99999,1..99999]", "Illegal node set declaration '[1..99999,1..99999]'"),
    ],
)
def test_shapes_that_are_no_node_sets(text: str, message: str) -> None:
    with pytest.raises(ShapeFault) as caught:
        parse_node_set(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        "[[1,1",
        "[1,1]]",
        "node1-1",
        "[1 1]",
        "[1,,1]",
        "[1,1],[2,1]",
        "system('id')",
        "[`id`,1]",
        "[1,1]#",
        "[1..,1]",
        "[1234567,1]",
        "[" * 17 + "1,1" + "]" * 17,
        "[1,1]\0",
        "[\u0661,1]",
    ],
)
def test_texts_that_do_not_parse(text: str) -> None:
    with pytest.raises(SyntaxFault, match="Error while parsing '"):
        parse_node_set(text)


def test_sets_are_bounded_together() -> None:
    half = f"[1..{MAX_NODES // 2},1]"
    assert len(parse_node_set(f"[{half},{half}]")) == MAX_NODES
    with pytest.raises(ShapeFault):
        parse_node_set(f"[{half},{half},[1,1]]")


@given(st.text(alphabet='[]0123456789.,"- a\n', max_size=60) | st.text(max_size=60))
def test_any_text_gives_nodes_or_the_one_error(text: str) -> None:
    try:
        nodes = parse_node_set(text)
    except NodeSetError:
        return
    assert all(isinstance(x, int) and isinstance(y, int) for x, y in nodes)


_NUMBER = st.integers(0, 400)
_RANGE = st.tuples(_NUMBER, st.integers(0, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))
_Pair = tuple[tuple[int, int], tuple[int, int]]


@given(st.lists(st.tuples(_RANGE, _RANGE), max_size=8), st.booleans())
def test_written_sets_are_read_back(ranges: list[_Pair], dots: bool) -> None:
    def write(first: int, last: int) -> str:
        return str(first) if first == last and dots else f"{first}..{last}"

    text = "[" + ",".join(f"[{write(*columns)},{write(*rows)}]" for columns, rows in ranges) + "]"
    expected = [
        (x, y)
        for columns, rows in ranges
        for y in range(rows[0], rows[1] + 1)
        for x in range(columns[0], columns[1] + 1)
    ]
    assert parse_node_set(text) == expected
