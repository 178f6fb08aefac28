#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_report
short_description: Conclude a run and say what became of it
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - Gives every node its final outcome and every image group its verdict, and prints them as a table.
  - Writes C(result.json), C(junit.xml) and, when nodes failed, C(rerun.yml) into the run's folder, and
    C(report.html), a page for people.
  - In check mode, says what would be done, and removes the folder.
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
    description: Folder of the run, as M(orbit.imaging.image_plan) returns it. This or O(runs) is needed.
    type: str
  runs:
    description:
      - A folder that holds the folders of runs. In place of concluding a run, writes C(report.html) there, a
        page that lays the runs beside each other with success rate and times of each node, flaky nodes first.
    type: path
"""

EXAMPLES = r"""
- name: Report
  orbit.imaging.image_report:
    run: "{{ orbit_run.dir }}"
  register: orbit_report
  run_once: true

- name: Lay all runs beside each other
  orbit.imaging.image_report:
    runs: ~/.local/state/orbit-imaging
"""

RETURN = r"""
culprits:
  description: For each node that fails the run, why; nodes of groups that passed are not among them.
  returned: with O(run)
  type: dict
wrong:
  description: What else fails the run, in words.
  returned: with O(run)
  type: list
  elements: str
paths:
  description: The files that were written, C(result), C(junit), C(page) and C(rerun).
  returned: when a run has ended, or with O(runs)
  type: dict
report_lines:
  description: What is printed.
  returned: always
  type: list
  elements: str
"""
