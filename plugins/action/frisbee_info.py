# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module frisbee_info, or with the option run a step of a run; see its documentation."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail

from ansible_collections.orbit.imaging.plugins.plugin_utils.play.action import StepAction
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import manifests


class ActionModule(StepAction):
    """Does the steps of frisbee_info; manifests that it brings become files on the control host."""

    module = "frisbee_info"

    def by_hand(self, tmp: t.Any, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        """Return the module's result, in which each manifest is a path instead of a text."""
        folder = self._task.args.get("manifest_dir")
        if self._task.check_mode:
            self._task.args.pop("manifest_dir", None)
        result = super().by_hand(tmp, task_vars)
        mistakes = manifests.unpack(result, str(folder))
        if mistakes:
            raise AnsibleActionFail("; ".join(mistakes))
        return result
