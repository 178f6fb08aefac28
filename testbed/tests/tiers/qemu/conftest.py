# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from beds import Bed

from orbit_testbed.nodes import host
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.tiers.qemu import packages as qemu_packages


@pytest.fixture(scope="session")
def packages() -> qemu_packages.Packages:
    """Debian's kernel and Python; tests on a machine that cannot have them say so."""
    try:
        qemu_packages.require()
        return qemu_packages.packages()
    except TestbedError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def wanted() -> None:
    """Booting machines takes two cores for a minute: it is done when it is asked for."""
    if os.environ.get("ORBIT_TEST_VM") != "1":
        pytest.skip("virtual machines are booted by `make vm`, or with ORBIT_TEST_VM=1")


@pytest.fixture(scope="session")
def bed(
    wanted: None, packages: qemu_packages.Packages, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bed]:
    """A machine with BIOS and one with UEFI that tests share: each test switches them off in the end."""
    try:
        host.require_programs()
        host.find_isolation()
        qemu_packages.require()
        qemu_packages.require_tun()
    except TestbedError as error:
        pytest.skip(str(error))
    made = Bed(tmp_path_factory.mktemp("bed") / "state", name="machines")
    if os.geteuid() == 0:
        # No privilege is needed: root gives up all capabilities but the one without which Linux (since 5.12)
        # refuses to map it into a user namespace.
        made.prefix = [
            *(host.program("setpriv"), "--bounding-set=-all,+setfcap", "--inh-caps=-all", "--no-new-privs")
        ]
    try:
        made.up("2x1", "--tier", "qemu", "--firmware", "bios,uefi")
        yield made
    finally:
        made.down("--purge")
