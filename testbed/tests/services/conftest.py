# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures: the stand for the whole session, and services made to measure for a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orbit_services.config import ServicesConfig, grid

from .stand import DOMAIN, NULL_FRISBEED, Stand, World, free_ports


@pytest.fixture(scope="session")
def stand() -> Iterator[Stand]:
    stand = Stand()
    yield stand
    stand.close()


@pytest.fixture
def make_world(stand: Stand, tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**changes: Any) -> World:
        images = tmp_path / "images"
        (images / "sub").mkdir(parents=True)
        for name in ("baseline.ndz", "other.ndz", "third.ndz", "sub/nested.ndz"):
            (images / name).touch()
        links = tmp_path / "pxelinux.cfg"
        links.mkdir()
        for name in ("omf-5.4", "omf-5.4.1", "default"):
            (links / name).write_text(name)
        settings: dict[str, Any] = {
            "domain": DOMAIN,
            "nodes": grid(DOMAIN, 20, 20, network=10),
            "image_dir": images,
            "tftp_dir": links,
            "state_file": tmp_path / "state.json",
            "log_dir": tmp_path / "log",
            "frisbeed": NULL_FRISBEED,
            "port_base": free_ports(8),
            "memory_image": "omf-5.4",
            "faithful_wait": 0.05,
        }
        world = World(stand, ServicesConfig(**{**settings, **changes}))
        made.append(world)
        world.start()
        return world

    yield make
    for world in made:
        world.close()
