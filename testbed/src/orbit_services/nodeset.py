# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Node sets of the dialects A to C, parsed. (The historic services evaluated the text.)

Grammar, as those services accept it::

    set    := '[]' | pair | '[' set (',' set)* ']'
    pair   := '[' coord ',' coord ']'
    coord  := INT | INT '..' INT | INT '...' INT      (three dots: the end does not belong to the range)

Blanks between the parts are allowed. ``[[1,1],[1..5,2]]`` is (1,1) (1,2) (2,2) (3,2) (4,2) (5,2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: A request may not name more nodes than this; it bounds what ``[1..99999,1..99999]`` can cost.
MAX_NODES = 65536
_MAX_DEPTH = 16
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<mark>[\[\],])
      | (?P<range>-?[0-9]{1,6}\.{2,3}-?[0-9]{1,6})
      | (?P<float>-?[0-9]{1,6}\.[0-9]{1,6})
      | (?P<int>-?[0-9]{1,6})(?![0-9])
      | "(?P<text>[^"\\]{0,64})"
      )""",
    re.VERBOSE | re.ASCII,
)


class NodeSetError(ValueError):
    """The text is not a node set. ``str()`` has the form of the historic 400 replies."""


class SyntaxFault(NodeSetError):
    """The text does not parse."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"Error while parsing '{text}'\n\t{reason}")


class ShapeFault(NodeSetError):
    """The text parses, but ``part`` of it is not what a node set is made of."""

    def __init__(self, part: str) -> None:
        super().__init__(f"Illegal node set declaration '{part}'")


@dataclass(frozen=True)
class _Coord:
    text: str
    values: range


@dataclass(frozen=True)
class _Other:
    text: str


_Value = _Coord | _Other | list["_Value"]


def parse_node_set(text: str) -> list[tuple[int, int]]:
    """Return the coordinates named by ``text``, in its order; within a pair y is the outer loop.

    Raises :class:`NodeSetError` for everything the grammar does not cover, for an empty range and for more
    than :data:`MAX_NODES` nodes.
    """
    if not text.strip():
        raise ShapeFault(text)
    found: list[tuple[int, int]] = []
    _collect(_parse(text), found)
    return found


def has_range(text: str) -> bool:
    """Return whether a (valid) node set uses ranges, which the pxe service of B and C cannot expand."""
    return ".." in text


def _parse(text: str) -> _Value:
    tokens = _tokens(text)
    value, rest = _value(text, tokens, 0, 0)
    if rest != len(tokens):
        raise SyntaxFault(text, f"unexpected {tokens[rest][1]!r} after the end of the set")
    return value


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    end = len(text.rstrip())
    place = 0
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise SyntaxFault(text, f"unexpected text at character {place + 1}")
        tokens.append((match.lastgroup, match.group(match.lastgroup)))
        place = match.end()
    return tokens


def _value(text: str, tokens: list[tuple[str, str]], place: int, depth: int) -> tuple[_Value, int]:
    if place >= len(tokens):
        raise SyntaxFault(text, "the text ends where a value is expected")
    kind, word = tokens[place]
    if kind == "int":
        number = int(word)
        return _Coord(word, range(number, number + 1)), place + 1
    if kind == "range":
        return _Coord(word, _range(word)), place + 1
    if kind in ("float", "text"):
        return _Other(word), place + 1
    if word != "[":
        raise SyntaxFault(text, f"unexpected {word!r}")
    if depth == _MAX_DEPTH:
        raise SyntaxFault(text, f"more than {_MAX_DEPTH} levels of brackets")
    items: list[_Value] = []
    place += 1
    if place < len(tokens) and tokens[place][1] == "]" and tokens[place][0] == "mark":
        return items, place + 1
    while True:
        item, place = _value(text, tokens, place, depth + 1)
        items.append(item)
        if place >= len(tokens):
            raise SyntaxFault(text, "a closing bracket is missing")
        kind, word = tokens[place]
        place += 1
        if kind == "mark" and word == "]":
            return items, place
        if kind != "mark" or word != ",":
            raise SyntaxFault(text, f"unexpected {word!r}")


def _range(word: str) -> range:
    first, dots, last = re.split(r"(\.{2,3})", word, maxsplit=1)
    return range(int(first), int(last) + (1 if dots == ".." else 0))


def _collect(value: _Value, found: list[tuple[int, int]]) -> None:
    if not isinstance(value, list):
        raise ShapeFault(value.text)
    if len(value) == 2 and isinstance(value[0], _Coord) and isinstance(value[1], _Coord):
        columns, rows = value[0].values, value[1].values
        count = len(columns) * len(rows)
        if count == 0 or len(found) + count > MAX_NODES:
            raise ShapeFault(f"[{value[0].text},{value[1].text}]")
        found.extend((x, y) for y in rows for x in columns)
        return
    if value and not any(isinstance(item, list) for item in value):
        raise ShapeFault(_joined(value))
    for item in value:
        if isinstance(item, list) and not item:
            raise ShapeFault("")
        _collect(item, found)


def _joined(value: _Value) -> str:
    """The parts without brackets and commas, as the historic messages quote an array."""
    if isinstance(value, list):
        return "".join(_joined(item) for item in value)
    return value.text
