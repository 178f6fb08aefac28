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
  - Waits, over raw SSH, until each node answers with a system that has booted since the last reset and
    that is no memory image, and reads the name this system gives itself.
  - A node that does not answer, or whose power did not follow, is power-cycled and waited for again,
    C(orbit_retries) times. One that answers with another system than the expected one is not.
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
    description: The record of the run after the step C(boot).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: See every node run its new disk
  orbit.imaging.node_proof:
    record: "{{ orbit_run }}"
  register: proof
  run_once: true
"""

RETURN = r"""
reports:
  description:
    - What was seen of each node, by host name. Either C(cause) and C(evidence), or C(identity) and
      C(up_at); and C(attempts) as of M(orbit.imaging.frisbee_client) when one was not enough.
  returned: always
  type: dict
failed_nodes:
  description: Names of the nodes with a cause.
  returned: when not in check mode
  type: list
  elements: str
cpu_seconds:
  description: Processor time that the task took on the control host, with that of its SSH sessions.
  returned: when not in check mode
  type: float
predicted:
  description: What would be expected of each node.
  returned: in check mode
  type: list
  elements: str
"""
