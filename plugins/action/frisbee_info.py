# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the module of the same name, and keep the manifests it brings as files on the control host."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.orbit.imaging.plugins.plugin_utils.run import manifests


class ActionModule(ActionBase):
    """The module runs where the services are asked; what it finds is needed where the nodes are reached."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return the module's result, in which each manifest is a path instead of a text."""
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        folder = arguments.get("manifest_dir")
        if self._task.check_mode:
            arguments.pop("manifest_dir", None)
        result.update(
            self._execute_module("orbit.imaging.frisbee_info", module_args=arguments, task_vars=task_vars)
        )
        for answer in result.get("images") or []:
            packed = answer.get("manifest", {}).pop("packed", None)
            if packed is not None:
                try:
                    answer["manifest"]["path"] = manifests.store(str(folder), str(packed))
                except manifests.ManifestError as error:
                    raise AnsibleActionFail(f"{answer['image']}: {error}") from error
        return result
