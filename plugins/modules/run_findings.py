#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_findings
short_description: Say what a playbook has found
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - Shows what the services said in the steps of a playbook such as C(status), C(power) or C(clean), a line
    each.
  - Fails when something could not be looked at or done.
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
  grid:
    description:
      - Also show the nodes as a grid by their coordinates, with their power, claims, links and the images on
        their disks, as far as services and runs of this host tell it.
    type: bool
    default: false
  ssh:
    description:
      - With O(grid), ask each node by SSH which system it runs. A node without an answer is no failure.
    type: bool
    default: false
  json:
    description: With O(grid), a file to write all of that into, as JSON. Check mode writes none.
    type: path
"""

EXAMPLES = r"""
- name: Say what was found
  orbit.imaging.run_findings:
    run: "{{ orbit_run.dir }}"
  run_once: true
"""

RETURN = r"""
lines:
  description: What was found.
  returned: always
  type: list
  elements: str
"""
