# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prove that nodes run their disks; see the module of the same name for its documentation."""

from __future__ import annotations

import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.node.fleet import Fleet
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.fleet_action import FleetAction
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.monitor import Report
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records


class ActionModule(FleetAction):
    """Asks every node which system it runs."""

    def work(self, fleet: Fleet) -> t.Coroutine[t.Any, t.Any, dict[str, Report]]:
        """Wait for the system on every node's disk."""
        return fleet.prove()

    def nodes(self, record: dict[str, t.Any]) -> list[dict[str, t.Any]]:
        """Only those that are to run their new disk."""
        return records.booting(record)

    def predict(self, node: t.Mapping[str, t.Any]) -> str:
        """Say what would be expected of the node."""
        return f"{node['name']}: would have to come up from {node['settings']['orbit_disk']}"
