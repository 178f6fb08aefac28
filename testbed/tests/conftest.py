# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all unit tests of the testbed share: testbeds that are real."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from beds import Bed

from orbit_testbed.nodes import host, tree
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.tiers.light import disk as light_disk, memory as light_memory

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def namespaces() -> None:
    """What real testbeds need; tests on a machine without it say so."""
    try:
        host.require_programs()
        host.find_isolation()
    except TestbedError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, namespaces: None) -> tuple[Path, Path]:
    """A folder of keys and a cache of the images that let them in."""
    keys, cache = tmp_path_factory.mktemp("keys"), tmp_path_factory.mktemp("cache")
    public = tree.make_login_key(keys / "id_ed25519")
    light_memory.build(cache, hostkey=tree.make_hostkey(keys / "keys/memory"), authorized_key=public)
    for recipe in light_disk.RECIPES:
        light_disk.build(
            cache, recipe, hostkey=tree.make_hostkey(keys / "keys" / recipe.name), authorized_key=public
        )
    return keys, cache


NewBed = Callable[..., Bed]


@pytest.fixture(scope="session")
def new_bed_session(store: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewBed]:
    beds: list[Bed] = []

    def make(name: str = "test") -> Bed:
        keys, cache = store
        beds.append(Bed(tmp_path_factory.mktemp("bed") / "state", name=name, keys=keys, cache=cache))
        return beds[-1]

    yield make
    for made in beds:
        made.down()
        shutil.rmtree(made.state.root)


@pytest.fixture
def new_bed(store: tuple[Path, Path], tmp_path: Path) -> Iterator[NewBed]:
    """Make testbeds that are not up yet; all are taken down in the end."""
    beds: list[Bed] = []

    def make(name: str = "test") -> Bed:
        keys, cache = store
        beds.append(Bed(tmp_path / f"state-{len(beds)}", name=name, keys=keys, cache=cache))
        return beds[-1]

    yield make
    for made in beds:
        made.down()


@pytest.fixture(scope="session")
def bed(new_bed_session: NewBed) -> Bed:
    """A testbed of 5x2 nodes that tests share; each test uses nodes of its own."""
    made = new_bed_session("shared")
    made.up("5x2")
    return made
