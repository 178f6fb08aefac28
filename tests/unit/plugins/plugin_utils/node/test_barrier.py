# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who waits for whom before the clients start."""

from __future__ import annotations

from . import fleetkit


def test_nodes_of_two_groups_with_one_image_do_not_wait_for_each_other(tmp_path, run):
    """Two domains may each send an image of one name; what one group lacks does not hold the other up."""
    ready = fleetkit.make_node(tmp_path, "node1-1", orbit_gather=60)
    dead = fleetkit.make_node(tmp_path, "node1-2", orbit_gather=60, orbit_boot_timeout=3, orbit_retries=0)
    dead["group"] = "other"
    fleetkit.executable(dead["ssh"]["executable"], "#!/bin/sh\nexit 255\n")
    reports = run(ready, dead)
    assert reports["node1-2"]["cause"] == "no_boot"
    began, waited = reports["node1-1"]["started_at"], reports["node1-2"]["attempts"][-1]["ended_at"]
    assert began < waited
