# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Refuse a playbook that would do nothing; see the module of the same name for its documentation."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Looks at the inventory and the tags of the command line."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return nothing, or fail with the reason why nothing would be done."""
        result = super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        variables = task_vars or {}
        if not variables["groups"]["all"]:
            sources = variables.get("ansible_inventory_sources") or ["none given"]
            raise AnsibleActionFail(
                f"The inventory has no hosts: {', '.join(map(str, sources))}. "
                "Warnings above say whether it could be read."
            )
        play = self._task.play
        only, skip = ({str(tag) for tag in tags} for tags in (play.only_tags, play.skip_tags))
        # The other tasks of the playbook have the tags of this one, but for "always".
        if not _selected({str(tag) for tag in self._task.tags} - {"always"}, only, skip):
            said = ", ".join(sorted(only - {"all"} | skip))
            raise AnsibleActionFail(
                f"The tags of the command line ({said}) select nothing of this playbook, which is done as a "
                "whole. Leave --tags and --skip-tags out; choose nodes with --limit."
            )
        result.update(changed=False)
        return result


def _selected(tags: set[str], only: set[str], skip: set[str]) -> bool:
    """Whether a task with these tags runs under ``--tags only --skip-tags skip``, as Ansible decides it."""
    tags = tags or {"untagged"}
    tagged = {"tagged"} if tags != {"untagged"} else set()
    return bool((tags | tagged | {"all"}) & only) and not (tags | tagged | {"all"}) & skip
