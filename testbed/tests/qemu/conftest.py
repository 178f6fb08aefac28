# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orbit_testbed.nodes import host, qemu_packages, qemu_tier
from orbit_testbed.nodes.errors import TestbedError

sys.path.append(str(Path(__file__).parents[1] / "nodes"))

from beds import Bed


@pytest.fixture(scope="session")
def packages() -> qemu_packages.Packages:
    """Debian's kernel and Python; tests on a machine that cannot have them say so."""
    try:
        qemu_packages.require()
        return qemu_packages.packages()
    except TestbedError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def bed(packages: qemu_packages.Packages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Two virtual machines that tests share: each test switches them off in the end."""
    try:
        host.require_programs()
        host.find_isolation()
        qemu_tier.require()
    except TestbedError as error:
        pytest.skip(str(error))
    made = Bed(tmp_path_factory.mktemp("bed") / "state", name="machines")
    try:
        made.up("2x1", "--tier", "qemu")
        yield made
    finally:
        made.down("--purge")
