#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ping_report
short_description: Say what a ping experiment has found
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - Prints packets, loss and round-trip times of each phase beside the figures of 2006, and writes them as
    C(ping.json) and as a drawing C(ping.svg) into the folder of the run, beside C(result.json). The page of
    the run, C(report.html), is written again with them.
  - In check mode, only removes O(chosen).
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
    description: Folder of the run during which the nodes were pinged.
    type: str
    required: true
  chosen:
    description: Folder of the run that only chose the nodes; it is removed.
    type: str
    required: true
  interval:
    description: Seconds from packet to packet.
    type: float
    required: true
  idle:
    description: What M(orbit.imaging.ping) returned as C(nodes) before the run.
    type: list
    elements: dict
    default: []
  imaging:
    description: The same for the time in which the nodes were imaged.
    type: list
    elements: dict
    default: []
  after:
    description: The same for the time after.
    type: list
    elements: dict
    default: []
seealso:
  - module: orbit.imaging.ping
"""

EXAMPLES = r"""
- name: Say what the pings have found
  orbit.imaging.ping_report:
    run: "{{ orbit_run.dir }}"
    chosen: "{{ chosen.dir }}"
    interval: 0.2
    idle: "{{ before.nodes }}"
    imaging: "{{ during.nodes }}"
    after: "{{ after.nodes }}"
  run_once: true
"""

RETURN = r"""
lines:
  description: What is printed.
  returned: always
  type: list
  elements: str
paths:
  description: The files that were written, C(json), C(svg) and C(page).
  returned: always
  type: dict
"""
