#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: playbook_check
short_description: Refuse a playbook that would do nothing
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - Fails when the inventory has no hosts, as Ansible itself only warns of an inventory that it cannot read.
  - Fails when the tags of the command line select nothing of the playbook. Give the task the tag C(always).
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    platforms: posix
options: {}
"""

EXAMPLES = r"""
- name: Refuse what would do nothing
  orbit.imaging.playbook_check:
  run_once: true
  tags: [always]
"""

RETURN = r"""
# Nothing beside what every module returns.
"""
