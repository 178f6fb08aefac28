# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import asyncio
import os
import time
import uuid

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import fleet as fleets
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.resets import Resets
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.progress import Progress

# ansible-test has host keys unchecked; what the tests ask for when they are read must be the default.
os.environ.pop("ANSIBLE_HOST_KEY_CHECKING", None)

from .node import fleetkit


@pytest.fixture(autouse=True)
def _nobody_has_set_anything(monkeypatch):
    """What the program that runs the tests says to ansible-core by the environment is none of theirs."""
    for name in [name for name in os.environ if name.startswith("ANSIBLE_")]:
        if name != "ANSIBLE_COLLECTIONS_PATH":
            monkeypatch.delenv(name)


@pytest.fixture
def said():
    """The lines that the fleet has said."""
    return []


@pytest.fixture
def run(tmp_path, said):
    """Run a fleet with nodes of fleetkit; ``power`` stands in for the module cmc_power."""
    made = []

    def _run(*nodes, prove=False, power=None):
        now = time.time()
        for node in nodes:
            # Patience counts from now; the node itself may have any age.
            node["power"]["after"] = now
        record = {"id": uuid.uuid4().hex}
        made.append(record["id"])
        if isinstance(power, fleetkit.Power):
            power.run = record["id"]
        progress = Progress(
            [{"label": "all", "image": "x.ndz", "nodes": [n["name"] for n in nodes]}], said.append
        )
        fleet = fleets.Fleet(
            record,
            nodes,
            progress,
            known_hosts=str(tmp_path / "known"),
            interval=60,
            resets=Resets(power or fleetkit.no_power),
        )
        return asyncio.run(fleet.prove() if prove else fleet.image())

    yield _run
    for name in made:
        fleetkit.end_clients(f"{name}-*")
