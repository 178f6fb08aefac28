#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_report
short_description: Conclude a run and say what became of every node
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - Gives every node its final outcome, prints a table with a line per image group and a line per failed
    node, and writes the record of the run to C(result.json) in the folder of the run.
  - In check mode it prints what a run would do.
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
  record:
    description: The record of the run after its last step.
    type: dict
    required: true
  last_step:
    description: The step that must have been seen on a node before it counts as imaged.
    type: str
    default: proof
"""

EXAMPLES = r"""
- name: Report
  orbit.imaging.image_report:
    record: "{{ orbit_run }}"
  register: reported
  run_once: true
"""

RETURN = r"""
record:
  description: The concluded record; every node has an C(outcome), every group C(imaged) and C(passed).
  returned: always
  type: dict
report_lines:
  description: The report as text.
  returned: always
  type: list
  elements: str
path:
  description: Path of the result file.
  returned: when not in check mode
  type: str
"""
