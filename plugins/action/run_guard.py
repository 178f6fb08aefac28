# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guard a run; see the module of the same name for its documentation."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims, guard
from ansible_collections.orbit.imaging.plugins.plugin_utils.play import guarding, hosts
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.events import Events
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Record

HostVars = t.Mapping[str, t.Mapping[str, t.Any]]


class ActionModule(ActionBase):
    """Claims the nodes of a run and starts its guard, and lets both go."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return what the state asked for says; see the methods below."""
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            argument_spec={
                "state": {"type": "str", "choices": ["started", "released"], "required": True},
                "run": {"type": "str", "required": True},
                "claimed": {"type": "str", "choices": ["refuse", "skip", "force"], "default": "refuse"},
            },
        )
        result["changed"] = False
        folder = str(arguments["run"])
        hostvars = hosts.Tokens(self)
        try:
            record = records.load(folder)
            if arguments["state"] == "released":
                result.update(self._release(record, hostvars))
            else:
                result.update(self._start(record, arguments["claimed"], hostvars))
            records.save(record)
        except (guard.GuardError, claims.ClaimError, records.RecordError, OSError) as error:
            if arguments["state"] == "released":
                # The report that follows tells it; nothing else would be won by an end here.
                return {**result, "left": [str(error)], "msg": str(error)}
            if folder:
                # Nothing was touched, so nothing has to be kept.
                records.forget(folder)
            raise AnsibleActionFail(str(error)) from None
        return result

    def _start(self, record: Record, mode: str, hostvars: HostVars) -> dict[str, t.Any]:
        """Refuse what the services cannot do, claim the nodes, start the guard; in check mode only look."""
        if record.get("errors"):
            raise guard.GuardError("\n".join(record["errors"]))
        nodes = record["nodes"]
        if not nodes:
            return {"msg": "no nodes to claim", "claimed": {}}
        said: t.Any = {}
        if self._task.check_mode:
            held = claims.holders(guarding.paths(record))
            if mode != "refuse":
                said["skipped"] = {name: str(holder) for name, holder in held.items()}
            elif held:
                said["held"] = claims.describe(held)
        else:
            for folder in guarding.folders(record):
                claims.make_folder(folder)
            said = guard.start(guarding.config(record, hostvars, skip=mode != "refuse"))
        if "held" in said:
            raise guard.GuardError(
                f"nodes are claimed by another run: {said['held']}. Nothing was touched. "
                "Wait for that run, end it, or choose other nodes."
            )
        claimed = said.get("skipped") or {}
        if len(claimed) == len(nodes) and mode == "skip" and not self._task.check_mode:
            # Of a run without nodes nothing would be released in the end.
            guarding.release(record, hostvars)
        if mode == "skip":
            record["nodes"] = {name: node for name, node in nodes.items() if name not in claimed}
        record["claimed"] = claimed
        record.setdefault("found", {})["in_use"] = [
            stream for folder in guarding.folders(record) for stream in claims.streams_in(folder)
        ]
        return {"claimed": claimed, "msg": f"{len(nodes) - len(claimed)} of {len(nodes)} nodes claimed"}

    def _release(self, record: Record, hostvars: HostVars) -> dict[str, t.Any]:
        """Let the guard go; it undoes first what it was not told to be gone."""
        if self._task.check_mode or not record["nodes"]:
            return {"left": [], "msg": "nothing was guarded"}
        said = guarding.release(record, hostvars)
        if said["undone"]:
            Display().warning(f"The run guard had to clean up: {', '.join(said['undone'])}.")
        record["left_behind"] = list(said["left"])
        events = Events(record["id"], record["dir"])
        events.emit("released", left=record["left_behind"])
        events.close()
        words = f"left behind: {'; '.join(said['left'])}" if said["left"] else "nothing of the run is left"
        return {"left": record["left_behind"], "msg": words}
