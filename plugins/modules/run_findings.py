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
