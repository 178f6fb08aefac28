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
  - Gives every node its final outcome and every image group its verdict, prints a table with a line per image
    group and a line per failed node, and writes C(result.json), C(junit.xml) and, when nodes failed, the
    inventory C(rerun.yml) to the folder of the run.
  - An image group passes when as many of its nodes are imaged as its quorum says. The task itself does not
    fail for failed nodes.
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
  left:
    description: What of the run could not be taken back, in words, as M(orbit.imaging.run_guard) tells it.
    type: list
    elements: str
    default: []
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
  description:
    - The concluded record. Every node has an C(outcome), every group C(imaged) and C(passed), the run
      C(passed).
  returned: always
  type: dict
report_lines:
  description: The report as text.
  returned: always
  type: list
  elements: str
culprits:
  description: Why the run fails, in words by host name; only nodes of groups that did not pass.
  returned: always
  type: dict
paths:
  description: The files written, by kind (C(result), C(junit) and, when nodes failed, C(rerun)).
  returned: when not in check mode
  type: dict
"""
