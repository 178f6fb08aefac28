#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_plan
short_description: Plan an imaging run and refuse bad input
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - Chooses the nodes of a run, gives each its image, and checks everything that the inventory, the play,
    the role and the command line say of them, with Ansible's own precedence for each host.
  - All mistakes are reported at once, each with host, place and remedy, before any service or node is asked.
  - The chosen nodes are those of the node set C(nodes) (or C(orbit_nodes)); without one, all hosts of the
    play's batch, when the play names them by C(hosts), C(--limit) or a condition; or else those to which
    the inventory gives an image or that stand in a C(*.nodes) file. A play on all hosts that says nothing
    more chooses none.
  - The image is C(image), said by the play, the role or the command line, or C(orbit_image), said anywhere.
  - Begins the record of the run, a file in the run's folder, which is of its owner alone.
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    platforms: posix
options:
  need_image:
    description: Whether a chosen node without an image is a mistake.
    type: bool
    default: true
  everybody:
    description: Whether all hosts of the play are meant when nothing chooses among them.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Plan the run
  orbit.imaging.image_plan:
  register: orbit_run
  run_once: true
"""

RETURN = r"""
dir:
  description: Folder of the run.
  returned: success
  type: str
console:
  description: Host on which the modules ask the services.
  returned: success
  type: str
nodes:
  description: Names of the chosen nodes.
  returned: success
  type: list
  elements: str
"""
