# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration: what contradicts itself is refused with the name of the field."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from orbit_services.config import ConfigError, NodeRecord, ServicesConfig, grid, is_safe_name

_ONE = grid("demo", 1, 1)


def config(**changes: Any) -> ServicesConfig:
    base = ServicesConfig(
        domain="demo",
        nodes=grid("demo", 2, 2),
        image_dir=Path("/i"),
        tftp_dir=Path("/t"),
        state_file=Path("/s"),
        log_dir=Path("/l"),
        frisbeed=("frisbeed",),
    )
    return dataclasses.replace(base, **changes)


def test_grid_is_in_rows() -> None:
    nodes = config().nodes
    assert [node.name for node in nodes] == ["node1-1", "node2-1", "node1-2", "node2-2"]
    assert (nodes[1].hrn, nodes[1].control_ip, nodes[1].hex_ip) == ("node2-1.demo", "10.77.2.1", "0A4D0201")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": _ONE * 2}, "listed twice"),
        ({"nodes": (*_ONE, NodeRecord("b", 2, 2, "b.demo", "10.77.1.1"))}, "same control IP: 10.77.1.1"),
        ({"nodes": (*_ONE, NodeRecord("b", 1, 1, "b.demo", "10.77.1.2"))}, "same coordinates"),
        ({"group_base": "224.0.0.0"}, "group_base"),
        ({"group_base": "239.77.1.0"}, "group_base"),
        ({"port_base": 80}, "port_base"),
        ({"frisbeed": ()}, "frisbeed"),
        ({"memory_image": "../memory"}, "memory_image"),
    ],
)
def test_contradictions(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("baseline-2.1_x.ndz", True),
        ("a", True),
        (".hidden", True),
        ("", False),
        (".", False),
        ("..", False),
        ("a/b", False),
        ("a b", False),
        ("a\n", False),
        ("\xe4", False),
        ("\u0661", False),
        ("a\0", False),
    ],
)
def test_safe_names(name: str, safe: bool) -> None:
    assert is_safe_name(name) is safe
