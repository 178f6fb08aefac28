# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Say what a playbook has found; see the module of the same name for its documentation."""

from __future__ import annotations

import asyncio
import json
import os
import time
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.orbit.imaging.plugins.plugin_utils import limits
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims
from ansible_collections.orbit.imaging.plugins.plugin_utils.node import systems
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import findings, overview, speech
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Record


class ActionModule(ActionBase):
    """Shows the answers of the services, and fails when some of them are not what was asked for."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return ``lines`` (what was found) and, as the reason of a failure, what is wrong."""
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            argument_spec={
                "run": {"type": "str", "required": True},
                "grid": {"type": "bool", "default": False},
                "ssh": {"type": "bool", "default": False},
                "json": {"type": "path"},
            }
        )
        path = arguments["json"]
        if path is not None:
            unfit = _unfit(self._task.args["json"])
            if unfit:
                raise AnsibleActionFail(f"json: {unfit}. Name a file in a folder that is there.")
        try:
            record = records.load(str(arguments["run"]))
        except records.RecordError as error:
            raise AnsibleActionFail(str(error)) from None
        lines, wrong = findings.tell(record, bool(self._task.check_mode))
        if arguments["grid"]:
            told, bad = self._overview(record, arguments["ssh"], path)
            lines, wrong = [*told, *lines], [*wrong, *bad]
        for line in lines:
            speech.say(line)
        if not os.path.exists(os.path.join(record["dir"], "guard.log")):
            # Nothing was changed, so there is nothing to look up later.
            records.forget(record["dir"])
        result.update(changed=False, lines=lines)
        if wrong:
            result.update(failed=True, msg="\n".join(wrong))
        return result

    def _overview(self, record: Record, ssh: bool, path: str | None) -> tuple[list[str], list[str]]:
        """Return the grid and what belongs to it, and what of that could not be had."""
        try:
            answers = None
            if ssh:
                limits.allow(limits.needed_files(len(record["nodes"])), f"{len(record['nodes'])} sessions")
                answers = asyncio.run(systems.ask(record))
            found = overview.gather(record, answers, time.time())
        except (claims.ClaimError, limits.LimitError, OSError) as error:
            return [], [str(error)]
        lines = overview.lines(found)
        if path and self._task.check_mode:
            lines.append(f"would be written: {path}")
        elif path:
            try:
                with open(path, "w", encoding="utf-8") as stream:
                    json.dump(found, stream, indent=2)
                    stream.write("\n")
            except OSError as error:
                return lines, [f"json: {path} cannot be written: {error.strerror}. Name another file."]
        return lines, []


def _unfit(path: t.Any) -> str:
    """Return why nothing can be written there, before anybody is asked for what is to be written."""
    if not isinstance(path, str):
        return f"{path!r} is no path"
    if not path:
        return "no file is named"
    path = os.path.expanduser(os.path.expandvars(path))
    if os.path.isdir(path):
        return f"{path} cannot be written: it is a folder"
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        return f"{path} cannot be written: there is no folder {folder}"
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        return f"{path} cannot be written: permission denied"
    return ""
