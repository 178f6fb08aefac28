# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module ping, with the nodes or the windows of a run; see its documentation."""

from __future__ import annotations

import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action.normal import ActionModule as PlainAction

from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import plain
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import ping, result as results
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records


class ActionModule(PlainAction):
    """Fills the options of the module from a run, when the task names one."""

    TRANSFERS_FILES = False

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return what the module says."""
        arguments = {key: plain(value) for key, value in self._task.args.items()}
        run = arguments.get("run")
        if run:
            given = "windows" if arguments.get("state") == "stopped" else "nodes"
            if arguments.get(given):
                raise AnsibleActionFail(f"{given}: the run says them. Give run or {given}, not both.")
            self._task.args = {**self._task.args, given: _FROM_RUN[given](str(run))}
        return t.cast("dict[str, t.Any]", super().run(tmp, task_vars))


def _nodes(folder: str) -> list[dict[str, str]]:
    try:
        record = records.load(folder)
    except records.RecordError as error:
        raise AnsibleActionFail(str(error)) from None
    return [{"name": name, "address": node["control_ip"]} for name, node in record["nodes"].items()]


def _windows(folder: str) -> dict[str, list[float]]:
    try:
        return ping.windows(results.read(os.path.join(folder, "result.json")))
    except FileNotFoundError:
        # The run ended before its report: nothing was imaged, and the module says so of each node.
        return {}
    except (OSError, ValueError) as error:
        raise AnsibleActionFail(f"run: the result in {folder} cannot be read: {error}") from None


_FROM_RUN: dict[str, t.Callable[[str], t.Any]] = {"nodes": _nodes, "windows": _windows}
