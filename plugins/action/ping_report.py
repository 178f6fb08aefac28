# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Say what a ping experiment has found; see the module of the same name for its documentation."""

from __future__ import annotations

import json
import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.orbit.imaging.plugins.plugin_utils import private
from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import plain
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import (
    page,
    ping,
    result as results,
    speech,
)
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records


class ActionModule(ActionBase):
    """Prints the table and writes ``ping.json``, ``ping.svg`` and, once more, ``report.html``."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return ``lines`` (the table) and ``paths`` of the files."""
        result = super().run(tmp, task_vars)
        lists: dict[str, t.Any] = {
            phase: {"type": "list", "elements": "dict", "default": []} for phase in ping.PHASES
        }
        _unused, arguments = self.validate_argument_spec(
            argument_spec={
                "run": {"type": "str", "required": True},
                "chosen": {"type": "str", "required": True},
                "interval": {"type": "float", "required": True},
                **lists,
            }
        )
        arguments = plain(arguments)
        result.update(changed=False, lines=[], paths={})
        records.forget(arguments["chosen"])
        if self._task.check_mode:
            return result
        folder = arguments["run"]
        try:
            of_run = results.read(os.path.join(folder, "result.json"))
            document = ping.make(of_run, {phase: arguments[phase] for phase in lists}, arguments["interval"])
            result["lines"] = ping.lines(document)
            for name, text in (
                ("ping.json", json.dumps(document, indent=1) + "\n"),
                ("ping.svg", ping.svg(document)),
            ):
                path = os.path.join(folder, name)
                private.write(path, text.encode())
                result["paths"][name[5:]] = path
            # It was written at the end of the run, without the pings.
            result["paths"]["page"] = page.write(records.load(folder), of_run)
        except (OSError, ValueError, KeyError, records.RecordError) as error:
            raise AnsibleActionFail(f"run: the pings of {folder} cannot be told: {error}") from None
        result["lines"].append(f"Pings: {result['paths']['json']} and ping.svg")
        for line in result["lines"]:
            speech.say(line)
        return result
