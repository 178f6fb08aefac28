# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guard a run; see the module of the same name for its documentation."""

from __future__ import annotations

import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.orbit.imaging.plugins.module_utils.login import login_name
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims, guard
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import plan, record as records, tokens

Record = dict[str, t.Any]
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
        try:
            record = records.load(folder)
            if arguments["state"] == "released":
                result.update(self._release(record))
            else:
                result.update(
                    self._start(record, arguments["claimed"], (task_vars or {}).get("hostvars", {}))
                )
            records.save(record)
        except (guard.GuardError, claims.ClaimError, records.RecordError) as error:
            if arguments["state"] == "released":
                # The report that follows tells it; nothing else would be won by an end here.
                return {**result, "left": [str(error)], "msg": str(error)}
            if folder:
                # Nothing was touched, so nothing has to be kept.
                records.forget(folder)
            raise AnsibleActionFail(str(error)) from error
        return result

    def _start(self, record: Record, mode: str, hostvars: HostVars) -> dict[str, t.Any]:
        """Refuse what the services cannot do, claim the nodes, start the guard; in check mode only look."""
        if record.get("errors"):
            raise guard.GuardError("\n".join(record["errors"]))
        nodes = record["nodes"]
        if not nodes:
            return {"msg": "no nodes to claim", "claimed": {}}
        folders = [node["settings"]["orbit_claim_dir"] for node in nodes.values()]
        paths = {
            claims.node_path(folder, node): name
            for folder, (name, node) in zip(folders, nodes.items(), strict=True)
        }
        said: dict[str, t.Any] = {}
        if self._task.check_mode:
            held = claims.holders(paths)
            if mode != "refuse":
                said["skipped"] = {name: str(holder) for name, holder in held.items()}
            elif held:
                said["held"] = claims.describe(held)
        else:
            for folder in dict.fromkeys(folders):
                claims.make_folder(folder)
            links = [tokens.spend(batch, hostvars) for batch in plan.batches(nodes.values(), "pxe")]
            said = guard.start(
                {
                    "run": record["id"],
                    "dir": record["dir"],
                    "user": login_name() or str(os.getuid()),
                    "since": record["started_at"],
                    "claims": paths,
                    "skip": mode != "refuse",
                    "links": links,
                    "claim_dir": folders[0],
                }
            )
        if "held" in said:
            raise guard.GuardError(
                f"nodes are claimed by another run: {said['held']}. Nothing was touched. "
                "Wait for that run, end it, or choose other nodes."
            )
        claimed = said.get("skipped") or {}
        if mode == "skip":
            record["nodes"] = {name: node for name, node in nodes.items() if name not in claimed}
        record["claimed"] = claimed
        record.setdefault("found", {})["in_use"] = [
            stream for folder in dict.fromkeys(folders) for stream in claims.streams_in(folder)
        ]
        return {"claimed": claimed, "msg": f"{len(nodes) - len(claimed)} of {len(nodes)} nodes claimed"}

    def _release(self, record: Record) -> dict[str, t.Any]:
        """Let the guard go; it undoes first what it was not told to be gone."""
        if self._task.check_mode or not record["nodes"]:
            return {"left": [], "msg": "nothing was guarded"}
        try:
            said = guard.tell(record["dir"], {"say": "release"}, timeout=guard.PATIENCE_AT_RELEASE + 60.0)
        except guard.GuardError as error:
            record.setdefault("unguarded", f"at its end: {error}")
            said = {"undone": [], "left": records.not_undone(record)}
        if said["undone"]:
            Display().warning(f"The run guard had to clean up: {', '.join(said['undone'])}.")
        record["left_behind"] = list(said["left"])
        words = f"left behind: {'; '.join(said['left'])}" if said["left"] else "nothing of the run is left"
        return {"left": record["left_behind"], "msg": words}
