# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Conclude a run and say what became of it; see the module of the same name for its documentation."""

from __future__ import annotations

import os
import time
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import plain
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import table
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import command, record as records


class ActionModule(ActionBase):
    """Prints the table and writes the files."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return the concluded ``record``, why the run fails, and the paths of the files written."""
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            argument_spec={
                "record": {"type": "dict", "required": True},
                "left": {"type": "list", "elements": "str", "default": []},
            }
        )
        record = plain(arguments["record"])
        result["changed"] = False
        if self._task.check_mode:
            result.update(record=record, culprits={}, report_lines=table.forecast(record))
        else:
            concluded = records.conclude(record, plain(arguments["left"]), time.time())
            playbooks = command.playbooks()
            paths = table.write(concluded, playbooks)
            lines = [*table.lines(concluded), f"Record of the run: {paths['result']}"]
            if "rerun" in paths:
                lines.append(f"Run again: {table.again(paths['rerun'], playbooks)}")
            result.update(
                record=concluded, culprits=records.culprits(concluded), paths=paths, report_lines=lines
            )
        if not os.environ.get(table.AT_END):
            for line in result["report_lines"]:
                Display().display(line)
        return result
