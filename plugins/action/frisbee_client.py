# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write the images to the nodes' disks; see the module of the same name for its documentation."""

from __future__ import annotations

import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.crew import Crew
from ansible_collections.orbit.imaging.plugins.plugin_utils.crew_action import CrewAction
from ansible_collections.orbit.imaging.plugins.plugin_utils.follow import Report


class ActionModule(CrewAction):
    """The frisbee client on all nodes at the same time."""

    def work(self, crew: Crew) -> t.Coroutine[t.Any, t.Any, dict[str, Report]]:
        """Start, follow and judge the client of every node."""
        return crew.image()

    def predict(self, node: t.Mapping[str, t.Any]) -> str:
        """Say which disk would be written."""
        return f"{node['name']}: {node['settings']['orbit_disk']} would be overwritten with {node['image']}"
