# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write the images to the nodes' disks; see the module of the same name for its documentation."""

from __future__ import annotations

import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.node.fleet import Fleet
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.fleet_action import FleetAction
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.monitor import Report


class ActionModule(FleetAction):
    """The frisbee client on all nodes at the same time."""

    def work(self, fleet: Fleet) -> t.Coroutine[t.Any, t.Any, dict[str, Report]]:
        """Start, follow and judge the client of every node."""
        return fleet.image()

    def predict(self, node: t.Mapping[str, t.Any]) -> str:
        """Say which disk would be written."""
        return f"{node['name']}: {node['settings']['orbit_disk']} would be overwritten with {node['image']}"
