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
from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import plain
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import (
    command,
    plan,
    record as records,
    tokens,
)

Record = dict[str, t.Any]
HostVars = t.Mapping[str, t.Mapping[str, t.Any]]

_STEPS = ("link", "serve", "client", "unlink", "stop")


class ActionModule(ActionBase):
    """Starts the guard of a run, tells it what the run does, and lets it go."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return what the state asked for says; see the three methods below."""
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            argument_spec={
                "state": {"type": "str", "choices": ["started", "note", "released"], "required": True},
                "record": {"type": "dict", "required": True},
                "step": {"type": "str", "choices": list(_STEPS)},
                "result": {"type": "dict"},
                "claimed": {"type": "str", "choices": ["refuse", "skip"], "default": "refuse"},
            },
            required_if=[("state", "note", ["step"])],
        )
        record = plain(arguments["record"])
        result["changed"] = False
        hostvars = (task_vars or {}).get("hostvars", {})
        try:
            if arguments["state"] == "started":
                result.update(self._start(record, arguments["claimed"] == "skip", hostvars))
            elif self._task.check_mode:
                result["msg"] = "nothing to guard in check mode"
            elif arguments["state"] == "note":
                _note(record, arguments["step"], plain(arguments["result"]), hostvars)
            else:
                result.update(_release(record))
        except (guard.GuardError, claims.ClaimError) as error:
            raise AnsibleActionFail(str(error)) from error
        return result

    def _start(self, record: Record, skip: bool, hostvars: HostVars) -> dict[str, t.Any]:
        """Claim the nodes and start the guard; in check mode only look who has claims."""
        nodes = record["nodes"]
        folders = [node["settings"]["orbit_claim_dir"] for node in nodes.values()]
        paths = {
            claims.node_path(folder, node): name
            for folder, (name, node) in zip(folders, nodes.items(), strict=True)
        }
        said: dict[str, t.Any] = {}
        if self._task.check_mode:
            held = claims.holders(paths)
            if skip:
                said["skipped"] = {name: str(holder) for name, holder in held.items()}
            elif held:
                said["held"] = claims.describe(held)
        else:
            for folder in dict.fromkeys(folders):
                claims.make_folder(folder)
            said = guard.start(
                {
                    "run": record["id"],
                    "dir": record["dir"],
                    "user": login_name() or str(os.getuid()),
                    "since": record["started_at"],
                    "claims": paths,
                    "skip": skip,
                    "links": _batches(nodes.values(), "pxe", hostvars),
                    "claim_dir": folders[0],
                }
            )
        if "held" in said:
            raise AnsibleActionFail(
                f"nodes are claimed by another run: {said['held']}. Nothing was touched. "
                "Wait for that run, end it, or choose other nodes."
            )
        skipped = said.get("skipped") or {}
        free = {name: node for name, node in nodes.items() if name not in skipped}
        return {
            "record": {**record, "nodes": free},
            "skipped": skipped,
            "streams_in_use": _streams_in_use(nodes.values()),
        }


def _streams_in_use(nodes: t.Iterable[t.Mapping[str, t.Any]]) -> list[dict[str, str]]:
    """Return the streams that runs of this host use."""
    folders = dict.fromkeys(node["settings"]["orbit_claim_dir"] for node in nodes)
    return [stream for folder in folders for stream in claims.streams_in(folder)]


def _batches(nodes: t.Iterable[Record], service: str, hostvars: HostVars) -> list[Record]:
    """Return what the guard may have to ask, with tokens: it is told through pipe and socket alone."""
    return [tokens.spend(batch, hostvars) for batch in plan.batches(nodes, service)]


def _note(record: Record, step: str, result: t.Any, hostvars: HostVars) -> None:
    message: dict[str, t.Any] = {"say": "note", "step": step}
    if result is not None:
        message["results"] = _RESULTS[step](result["results"])
    else:
        # From which the guard writes the result, should the run not come to that.
        message.update(record=record, playbooks=command.playbooks())
        if step == "serve":
            message["streams"] = _batches(records.active(record), "frisbee", hostvars)
        elif step == "client":
            message["nodes"] = [node["name"] for node in records.active(record)]
    # Before it answers to an intention to serve, the guard asks the services what they are sending already.
    guard.tell(record["dir"], message, timeout=60.0)


def _release(record: Record) -> dict[str, t.Any]:
    said = guard.tell(record["dir"], {"say": "release"}, timeout=guard.PATIENCE_AT_RELEASE + 60.0)
    if said["undone"]:
        Display().warning(f"The run guard had to clean up: {', '.join(said['undone'])}.")
    words = f"left behind: {'; '.join(said['left'])}" if said["left"] else "nothing of the run is left"
    return {"undone": said["undone"], "left": said["left"], "msg": words}


def _streams(results: t.Sequence[t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Return what frisbee_server said of each stream, with the service that said it."""
    found = []
    for result in results:
        item = result["item"]
        asked = {key: item[key] for key in ("url", "dialect", "domain", "user")}
        for stream in result.get("streams") or []:
            found.append({**asked, **{k: stream.get(k) for k in ("image", "ok", "port", "joined")}})
    return found


def _links(results: t.Sequence[t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Return what pxe_link said of each node."""
    return [
        {"name": node.get("name"), "ok": bool(node.get("ok"))}
        for result in results
        for node in result.get("nodes") or []
    ]


_RESULTS = {"serve": _streams, "unlink": _links, "stop": _streams}
