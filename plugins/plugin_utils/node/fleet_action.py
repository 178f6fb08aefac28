# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the actions that look after all nodes of a run have in common."""

from __future__ import annotations

import asyncio
import copy
import functools
import os
import resource
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.orbit.imaging.plugins.plugin_utils import limits
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import guard
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.fleet import Fleet
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.monitor import Report
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.resets import Resets
from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import plain
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records, tokens
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.progress import Progress


class FleetAction(ActionBase):
    """Runs one piece of work on nodes that are still still active, and returns their reports."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def work(self, fleet: Fleet) -> t.Coroutine[t.Any, t.Any, dict[str, Report]]:
        """Return what is to be done with ``fleet``."""
        raise NotImplementedError

    def nodes(self, record: dict[str, t.Any]) -> list[dict[str, t.Any]]:
        """Return the nodes of ``record`` that the work is for."""
        return records.active(record)

    def predict(self, node: t.Mapping[str, t.Any]) -> str:
        """Say in one sentence what would be done with ``node``."""
        raise NotImplementedError

    def switch_power(self, task_vars: dict[str, t.Any], options: dict[str, t.Any]) -> t.Mapping[str, t.Any]:
        """Run the module cmc_power with ``options``; may be called in several threads at a time.

        It goes by the task's own connection: with delegate_to, to the host that reaches the services.
        """
        # Modules that run side by side must not share the folder into which they are put.
        alone = copy.copy(self)
        alone._connection = copy.copy(self._connection)
        alone._connection._shell = copy.copy(self._connection._shell)
        alone._connection._shell.tmpdir = None
        try:
            said = alone._execute_module(
                module_name="orbit.imaging.cmc_power",
                module_args=tokens.spend(options, task_vars.get("hostvars", {})),
                task_vars=task_vars,
            )
        finally:
            alone.cleanup()
        return t.cast(t.Mapping[str, t.Any], plain(said))

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return ``reports`` (node name to what was seen), ``cpu_seconds`` (ssh included) and ``msg``."""
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            argument_spec={"record": {"type": "dict", "required": True}}
        )
        record = plain(arguments["record"])
        nodes = self.nodes(record)
        if self._task.check_mode:
            result.update(changed=bool(nodes), reports={}, predicted=[self.predict(node) for node in nodes])
            return result
        try:
            limits.allow(limits.needed_files(len(nodes)), f"{len(nodes)} sessions")
        except limits.LimitError as error:
            raise AnsibleActionFail(str(error)) from error
        guard.end_with_parent()
        progress = Progress(record["groups"], Display().display)
        for node in record["nodes"].values():
            if node not in nodes:
                progress.change(node["name"], "failed", quiet=True)
        interval = min((node["settings"]["orbit_voice"] for node in nodes), default=5.0)

        fleet = Fleet(
            record,
            nodes,
            progress,
            known_hosts=os.path.join(record["dir"], "known_hosts"),
            interval=interval,
            resets=Resets(functools.partial(self.switch_power, task_vars or {})),
        )
        reports = asyncio.run(self.work(fleet))
        failed = sorted(name for name, report in reports.items() if report.get("cause"))
        result.update(changed=bool(nodes), reports=reports, failed_nodes=failed)
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        result["cpu_seconds"] = sum(u.ru_utime + u.ru_stime for u in used)
        result["msg"] = f"{len(reports) - len(failed)} of {len(reports)} nodes"
        return result
