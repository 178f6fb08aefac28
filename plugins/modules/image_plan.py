#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_plan
short_description: Plan an imaging run and refuse bad input
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - Chooses the nodes of a run, gives each its image, and checks everything that the inventory says of them.
  - All mistakes are reported at once, each with host, place and remedy, before any service or node is
    asked.
  - The chosen nodes are those of O(nodes), or all O(hosts) when O(limited), or else those to which the
    inventory gives an image or that stand in a C(*.nodes) file.
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
  hosts:
    description: Inventory hosts of the play.
    type: list
    elements: str
    required: true
  image:
    description: Image for all chosen nodes, instead of those that the inventory gives them.
    type: str
  nodes:
    description: Node set that chooses the nodes, for example V([[1,1],[1..5,2]]).
    type: str
  limited:
    description: Whether the user has limited the hosts of the play.
    type: bool
    default: false
  need_image:
    description: Whether a chosen node without an image is a mistake.
    type: bool
    default: true
  run_dir:
    description: Folder under which the run keeps its record.
    type: path
    default: ~/.local/state/orbit-imaging
"""

EXAMPLES = r"""
- name: Plan the run
  orbit.imaging.image_plan:
    hosts: "{{ ansible_play_hosts_all }}"
    limited: "{{ ansible_limit is defined }}"
  register: planned
  run_once: true
"""

RETURN = r"""
record:
  description:
    - The run before its first step, with C(id), C(dir), C(nodes) (one record for each node, by host name)
      and C(groups) (label, image and nodes of each image group).
  returned: success
  type: dict
"""
