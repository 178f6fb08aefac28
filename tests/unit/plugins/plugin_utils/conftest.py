# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import asyncio
import time
import uuid

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils import crew as crews
from ansible_collections.orbit.imaging.plugins.plugin_utils.resets import Resets
from ansible_collections.orbit.imaging.plugins.plugin_utils.voice import Voice

from . import crewkit


@pytest.fixture
def said():
    """The lines that the crew has said."""
    return []


@pytest.fixture
def run(tmp_path, said):
    """Run a crew with nodes of crewkit; ``power`` stands in for the module cmc_power."""
    made = []

    def _run(*nodes, prove=False, power=None):
        now = time.time()
        for node in nodes:
            # Patience counts from now; the node itself may have any age.
            node["power"]["after"] = now
        record = {"id": uuid.uuid4().hex}
        made.append(record["id"])
        if isinstance(power, crewkit.Power):
            power.run = record["id"]
        voice = Voice([{"label": "all", "image": "x.ndz", "nodes": [n["name"] for n in nodes]}], said.append)
        crew = crews.Crew(
            record,
            nodes,
            voice,
            known_hosts=str(tmp_path / "known"),
            interval=60,
            resets=Resets(power or crewkit.no_power),
        )
        return asyncio.run(crew.prove() if prove else crew.image())

    yield _run
    for name in made:
        crewkit.end_clients(f"{name}-*")
