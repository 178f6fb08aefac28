# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Conclude a run and say what became of it; see the module of the same name for its documentation."""

from __future__ import annotations

import os
import time
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.orbit.imaging.plugins.plugin_utils.report import page, runs, speech, table
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.events import Events
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Record

_REMEDY = "Name the folder that holds the folders of the runs (orbit_run_dir)."


class ActionModule(ActionBase):
    """Prints the table and writes the files."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return which nodes fail the run and why, what else does, and the paths of the files written."""
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            argument_spec={"run": {"type": "str"}, "runs": {"type": "path"}},
            required_one_of=[("run", "runs")],
            mutually_exclusive=[("run", "runs")],
        )
        if arguments["runs"] is not None:
            named = self._task.args["runs"]
            if not isinstance(named, str):
                raise AnsibleActionFail(f"runs: {named!r} is no path. {_REMEDY}")
            result.update(_compare(arguments["runs"], bool(self._task.check_mode)))
            _say(result["report_lines"])
            return result
        try:
            record = records.load(str(arguments["run"]))
        except records.RecordError as error:
            raise AnsibleActionFail(str(error)) from None
        result.update(changed=False, culprits={}, wrong=[])
        outcomes: dict[str, str | None] = {}
        if self._task.check_mode:
            records.forget(record["dir"])
            result["report_lines"] = table.forecast(record)
        elif not record["nodes"]:
            records.forget(record["dir"])
            result["report_lines"] = ["No node of this batch is chosen."]
        else:
            record = records.conclude(record, record.get("left_behind", []), time.time())
            outcomes = {name: node["outcome"] for name, node in record["nodes"].items()}
            result.update(_write(record))
        events = Events(record["id"], record["dir"])
        if not events.report(result["report_lines"], outcomes):
            _say(result["report_lines"])
        events.close()
        return result


def _say(lines: t.Sequence[str]) -> None:
    for line in lines:
        speech.say(line)


def _write(concluded: Record) -> dict[str, t.Any]:
    lines = table.lines(concluded)
    wrong = [f"left behind: {'; '.join(concluded['left_behind'])}"] if concluded["left_behind"] else []
    paths: dict[str, str] = {}
    try:
        paths = table.write(concluded, concluded["playbooks"])
        lines.append(f"Record of the run: {paths['result']}")
    except OSError as error:
        # The disks are written all the same, and people must learn of that.
        wrong.append(f"the result could not be written to {concluded['dir']}: {error.strerror}")
        lines.append(f"  {wrong[-1]}")
    else:
        try:
            paths["page"] = page.write(concluded)
            lines.append(f"Page of the run: {paths['page']}")
        except OSError as error:
            wrong.append(f"the page could not be written to {concluded['dir']}: {error.strerror}")
            lines.append(f"  {wrong[-1]}")
    if "rerun" in paths:
        lines.append(f"Run again: {table.again(paths['rerun'], concluded['playbooks'])}")
    return {"culprits": records.culprits(concluded), "wrong": wrong, "paths": paths, "report_lines": lines}


def _compare(folder: str, check: bool) -> dict[str, t.Any]:
    """Write the page of the runs in a folder; what of them cannot be read is said there and here."""
    if not folder:
        raise AnsibleActionFail(f"runs: no folder is named. {_REMEDY}")
    try:
        found = runs.read(folder)
        if not found.results:
            damaged = f" ({len(found.damaged)} cannot be read)" if found.damaged else ""
            raise AnsibleActionFail(f"runs: no run has left a result in {folder}{damaged}. {_REMEDY}")
        path = os.path.join(folder, page.FILE)
        if not check:
            path = runs.write(folder, found)
    except OSError as error:
        raise AnsibleActionFail(f"runs: {error.filename or folder}: {error.strerror}. {_REMEDY}") from None
    lines = [f"{len(found.results)} runs: {'would be written to ' if check else ''}{path}"]
    lines += [f"  cannot be read: {name}: {why}" for name, why in found.damaged]
    return {"changed": not check, "paths": {} if check else {"page": path}, "report_lines": lines}
