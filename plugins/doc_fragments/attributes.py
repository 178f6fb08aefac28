# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Attributes of the modules."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and say what would be done, without doing it.
  diff_mode:
    description: Returns details on what has changed, or would change in C(check_mode), with C(diff).
  idempotent:
    description: Doing the same again changes nothing.
  action_group:
    description: Can be given defaults by C(module_defaults) for the whole group.
    support: full
    membership:
      - orbit.imaging.services
  platform:
    description: Systems on which it runs.
    support: full
    platforms: posix
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - Changes nothing.
  diff_mode:
    support: N/A
    details:
      - Changes nothing.
  idempotent:
    support: full
    details:
      - Changes nothing.
"""
