#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_proof
short_description: See every node of a run come up from its new disk
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - Waits for the system on the disk of every node, over raw SSH, and asks it for its identity.
  - A node that does not come up is switched off and on again by M(orbit.imaging.cmc_power),
    C(orbit_retries) times.
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
  step:
    description: The step of the run.
    type: str
    choices: [proof]
    required: true
"""

EXAMPLES = r"""
- name: See every node run its new disk
  orbit.imaging.node_proof:
    run: "{{ orbit_run.dir }}"
    step: proof
  run_once: true
"""

RETURN = r"""
failed_nodes:
  description: Names of the nodes that failed in this step. Causes and evidence are in the record of the run.
  returned: always
  type: list
  elements: str
"""
