#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_guard
short_description: Claim the nodes of a run, and have a guard clean up should it die
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - With O(state=started), refuses what the services cannot do, claims the nodes for the run, and starts its
    guard.
  - The guard is a process of its own on the control host. It holds the claims, hears of each step, and
    takes back links and streams when C(ansible-playbook) ends without having done so.
  - With O(state=released), lets the guard go; what it was not told to be gone it undoes first.
  - In check mode, only looks whether nodes are claimed.
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
  run:
    description: Folder of the run, as M(orbit.imaging.image_plan) returns it.
    type: str
    required: true
  state:
    description: Whether the guard is started or let go.
    type: str
    choices: [started, released]
    required: true
  claimed:
    description:
      - What is done when nodes are claimed by other runs. V(refuse) fails and claims none, V(skip) leaves
        these nodes out of the run, V(force) keeps them in it without a claim.
    type: str
    choices: [refuse, skip, force]
    default: refuse
"""

EXAMPLES = r"""
- name: Claim the nodes
  orbit.imaging.run_guard:
    run: "{{ orbit_run.dir }}"
    state: started
  run_once: true
"""

RETURN = r"""
claimed:
  description: Nodes that other runs have claimed, and who they are.
  returned: when started
  type: dict
left:
  description: What could not be taken back, in words.
  returned: when released
  type: list
  elements: str
"""
