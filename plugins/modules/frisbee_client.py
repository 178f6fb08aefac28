#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: frisbee_client
short_description: Write the images to the disks of all nodes of a run
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - Waits for every node of the run, over raw SSH. Checks that it is a memory image that has booted since
    the reset, that the disk is what the plan says, and that the node does not run from it.
  - Starts the frisbee client so that it outlives the connection, follows it, and judges it by its own
    exit status and its line of bytes written.
  - Nodes of one image that become ready within a few seconds of each other start together and share one
    pass of the stream.
  - A node that fails is power-cycled by M(orbit.imaging.cmc_power) and tried again, C(orbit_retries)
    times, while the others go on. The module runs where the task runs, so delegate the task to the host that
    reaches the cmc service. A wrong disk and a missing client are not tried again.
  - A client is given up when it comes no further (C(orbit_stall_timeout)), however long all takes. Only the
    boot has a time of its own.
  - All nodes are looked after by one task with one progress. A node that does not answer is a failed node
    with a named cause, never an unreachable host.
  - Authenticates by key; the login is C(ansible_user), by default C(root). C(ansible_ssh_common_args) and
    the other variables of the ssh connection for host, port and key are honoured.
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
    description: The record of the run after the step C(reset).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Write the images
  orbit.imaging.frisbee_client:
    record: "{{ orbit_run }}"
  register: clients
  run_once: true
"""

RETURN = r"""
reports:
  description:
    - What was seen of each node, by host name. Either C(cause) and C(evidence), or C(bytes_written),
      C(bytes_covered), C(boot_id), C(booted_at), C(started_at) and C(ended_at) (seconds since 1970).
    - In both cases C(attempts), a list of what was tried; each has C(number), C(step), C(power) (C(reset) or
      C(cycle)), C(began_at), C(ended_at), C(cause) (none for success) and C(evidence). The cause of the
      report is that of the last attempt.
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
  description: What would be done with each node.
  returned: in check mode
  type: list
  elements: str
"""
