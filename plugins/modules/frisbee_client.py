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
  - Starts the frisbee client so that it outlives the connection, follows it, and judges it by its own exit
    status and its line of bytes written.
  - Nodes of one image that become ready within a few seconds of each other start together and share one
    pass of the stream.
  - A node that fails is power-cycled by M(orbit.imaging.cmc_power) and tried again, C(orbit_retries) times,
    while the others go on. The module runs where the task runs, so delegate the task to the host that
    reaches the cmc service. A wrong disk and a missing client are not tried again.
  - A client is given up when it comes no further (C(orbit_stall_timeout)), however long all takes. Only the
    boot has a time of its own.
  - All nodes are looked after by one task that tells the progress of all. A node that does not answer is a
    failed node with a named cause, never an unreachable host.
  - Nodes are reached as Ansible's own connection plugin P(ansible.builtin.ssh#connection) would reach them,
    by key; the login is V(root) when nothing else is said. What cannot be honoured, such as a password, the
    plan refuses.
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
    choices: [client]
    required: true
"""

EXAMPLES = r"""
- name: Write the images
  orbit.imaging.frisbee_client:
    run: "{{ orbit_run.dir }}"
    step: client
  run_once: true
"""

RETURN = r"""
failed_nodes:
  description: Names of the nodes that failed in this step. Causes and evidence are in the record of the run.
  returned: always
  type: list
  elements: str
"""
