# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Say what a playbook has found; see the module of the same name for its documentation."""

from __future__ import annotations

import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.orbit.imaging.plugins.plugin_utils.report import findings, speech
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records


class ActionModule(ActionBase):
    """Shows the answers of the services, and fails when some of them are not what was asked for."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return ``lines`` (what was found) and, as the reason of a failure, what is wrong."""
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            argument_spec={"run": {"type": "str", "required": True}}
        )
        try:
            record = records.load(str(arguments["run"]))
        except records.RecordError as error:
            raise AnsibleActionFail(str(error)) from None
        lines, wrong = findings.tell(record, bool(self._task.check_mode))
        for line in lines:
            speech.say(line)
        if not os.path.exists(os.path.join(record["dir"], "guard.log")):
            # Nothing was changed, so there is nothing to look up later.
            records.forget(record["dir"])
        result.update(changed=False, lines=lines)
        if wrong:
            result.update(failed=True, msg="\n".join(wrong))
        return result
