# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What all actions that do a step of a run are: a module called with ``run`` is a step, without it a module.

The action of a service module has the module's name. With ``run`` and ``step`` it does that step for the
nodes of the run; called by hand, with the module's own options, it hands over to the module.
"""

from __future__ import annotations

import asyncio
import copy
import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action.normal import ActionModule as PlainAction

from ansible_collections.orbit.imaging.plugins.plugin_utils import limits
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import guard
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.fleet import Fleet
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.resets import Resets
from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import plain
from ansible_collections.orbit.imaging.plugins.plugin_utils.play import hosts, walker
from ansible_collections.orbit.imaging.plugins.plugin_utils.play.steps import MODULES, STEPS, Step
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import speech
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records, tokens
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.events import Events
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.progress import Progress
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Node, Record

# Options of a module that the task of a step may give: what the step itself leaves open.
_OPEN = {"power": ("state",)}


class StepAction(PlainAction):
    """One step of a run, or the plain module of the same name."""

    TRANSFERS_FILES = False
    #: Name of the module.
    module = ""

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return what :func:`walker.walk` says of the step, or what the module says."""
        if "run" not in self._task.args and self.module in MODULES:
            return self.by_hand(tmp, task_vars)
        result = super(PlainAction, self).run(tmp, task_vars)
        arguments = {key: plain(value) for key, value in self._task.args.items()}
        folder, name = arguments.pop("run", ""), arguments.pop("step", "")
        step = STEPS.get(name)
        if step is None or step.module != self.module:
            fitting = ", ".join(row.name for row in STEPS.values() if row.module == self.module)
            raise AnsibleActionFail(f"step: {name!r} is no step of {self.module}. Its steps are {fitting}.")
        odd = sorted(key for key in arguments if key not in _OPEN.get(name, ()))
        if odd:
            raise AnsibleActionFail(
                f"{', '.join(odd)}: with run, the run says how services are asked. Set the variables of the "
                "role (orbit_service_timeout and the like) in place of options or module_defaults."
            )
        try:
            result.update(
                walker.walk(folder, name, Edge(self, task_vars or {}, os.path.basename(folder)), **arguments)
            )
        except records.RecordError as error:
            raise AnsibleActionFail(str(error)) from None
        return result

    def by_hand(self, tmp: t.Any, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        """Run the module with the options of the task."""
        return t.cast("dict[str, t.Any]", super().run(tmp, task_vars))


class Edge:
    """Ansible, as the walker needs it."""

    def __init__(self, action: StepAction, task_vars: dict[str, t.Any], run_id: str) -> None:
        self._action = action
        self._run_id = run_id
        self._task_vars = task_vars
        self.check = bool(action._task.check_mode)
        self.hostvars: t.Mapping[str, t.Mapping[str, t.Any]] = hosts.Tokens(action)

    def run_module(self, name: str, arguments: dict[str, t.Any]) -> t.Mapping[str, t.Any]:
        """Run a module by the task's connection: with delegate_to, on the host that reaches the services."""
        # Modules that run side by side must not share the folder into which they are put.
        alone = copy.copy(self._action)
        alone._connection = copy.copy(self._action._connection)
        alone._connection._shell = copy.copy(self._action._connection._shell)
        alone._connection._shell.tmpdir = None
        # By this the guard finds modules that outlive ansible-playbook.
        alone._task = copy.copy(self._action._task)
        alone._task.environment = [*(alone._task.environment or []), {guard.MARK: self._run_id}]
        try:
            said = alone._execute_module(
                module_name=f"orbit.imaging.{name}", module_args=arguments, task_vars=self._task_vars
            )
        finally:
            alone.cleanup()
        # Of a failure, ansible-core 2.19 and newer keep an object that no record can hold; msg says it.
        return t.cast("t.Mapping[str, t.Any]", plain({k: v for k, v in said.items() if k != "exception"}))

    def watch_nodes(self, step: Step, record: Record, nodes: list[Node]) -> dict[str, dict[str, t.Any]]:
        """Look after all nodes of a step at the same time; in check mode nothing is done with them."""
        if self.check:
            return {}
        limits.allow(limits.needed_files(len(nodes)), f"{len(nodes)} sessions")
        guard.end_with_parent()
        events = Events(record["id"], record["dir"])
        progress = Progress(record["groups"], speech.say, events, step.name)
        names = {node["name"] for node in nodes}
        for name in record["nodes"]:
            if name not in names:
                progress.leave_out(name)

        def run_module(options: dict[str, t.Any]) -> t.Mapping[str, t.Any]:
            return self.run_module("cmc_power", tokens.spend(options, self.hostvars))

        fleet = Fleet(
            record,
            nodes,
            progress,
            known_hosts=os.path.join(record["dir"], "known_hosts"),
            interval=min((node["settings"]["orbit_voice"] for node in nodes), default=5.0),
            resets=Resets(run_module),
        )
        try:
            return asyncio.run(fleet.image() if step.name == "client" else fleet.prove())
        finally:
            events.close()
