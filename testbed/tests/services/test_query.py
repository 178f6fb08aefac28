# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Request parameters and paths."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, strategies as st

from orbit_services.query import normalize_path, parse_query


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("", {}),
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a=1;b=2", {"a": "1", "b": "2"}),
        ("a=1&a=2", {"a": "1"}),
        ("&&a=1&;", {"a": "1"}),
        ("a", {"a": ""}),
        ("a=", {"a": ""}),
        ("=x", {"": "x"}),
        ("a=b=c", {"a": "b=c"}),
        ("a+b=c+d", {"a b": "c d"}),
        ("a=%2B%26", {"a": "+&"}),
        ("a=100%&b=%zz", {"a": "100%", "b": "%zz"}),
        ("a=%ff", {"a": "\ufffd"}),
        ("ns=[[1,1],[1..5,2]]", {"ns": "[[1,1],[1..5,2]]"}),
        ("%61=1", {"a": "1"}),
    ],
)
def test_parameters(text: str, parameters: dict[str, str]) -> None:
    assert parse_query(text) == parameters


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=20), max_size=6))
def test_encoded_parameters_are_read_back(parameters: dict[str, str]) -> None:
    try:
        text = urlencode(parameters)
    except UnicodeEncodeError:  # lone surrogates have no encoding
        return
    assert parse_query(text) == parameters


@given(st.text(alphabet="ab=&;%+0fz\xe9", max_size=40))
def test_no_text_is_too_odd(text: str) -> None:
    for name, value in parse_query(text).items():
        assert isinstance(name, str)
        assert isinstance(value, str)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/", []),
        ("", []),
        ("/pxe", ["pxe"]),
        ("/pxe/", ["pxe"]),
        ("//pxe//x", ["pxe", "x"]),
        ("/a/./b", ["a", "b"]),
        ("/a/../b", ["b"]),
        ("/..", None),
        ("/a/../../b", None),
    ],
)
def test_paths(path: str, parts: list[str] | None) -> None:
    assert normalize_path(path) == parts


@given(st.text(alphabet="a./ ", max_size=30))
def test_no_path_keeps_dots(path: str) -> None:
    parts = normalize_path(quote(path, safe="/. "))
    assert parts is None or not {"", ".", ".."} & set(parts)
