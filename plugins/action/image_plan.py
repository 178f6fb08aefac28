# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plan a run; see the module of the same name for its documentation."""

from __future__ import annotations

import os
import time
import typing as t
import uuid

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.orbit.imaging.plugins.plugin_utils import limits
from ansible_collections.orbit.imaging.plugins.plugin_utils.node import ssh
from ansible_collections.orbit.imaging.plugins.plugin_utils.play import hosts
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import (
    command,
    events,
    plan,
    record as records,
    settings,
)
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Record


class ActionModule(ActionBase):
    """Reads what the play says of its hosts, plans the run, and begins its record."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return the folder of the run, the host that asks the services, and the names of the nodes."""
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            argument_spec={
                "need_image": {"type": "bool", "default": True},
                "everybody": {"type": "bool", "default": False},
            }
        )
        try:
            play = hosts.read(self, task_vars or {})
            made = plan.make(
                play.hosts,
                nodes=play.nodes,
                limited=play.chosen or arguments["everybody"],
                need_image=arguments["need_image"],
                groups=play.groups,
                others=play.others,
                left_out=play.left_out,
                elsewhere=play.elsewhere,
            )
            # Found here, not when the nodes are waiting for their sessions.
            number = len(made["nodes"])
            limits.allow(limits.needed_files(number), f"{number} nodes at once")
            record = _begin(made)
            if arguments["need_image"]:
                _check_keys(record)
            records.create(record)
            told = events.Events(record["id"], record["dir"])
            events.introduce(told, record, check=bool(self._task.check_mode))
            told.close()
        except (hosts.PlayError, plan.PlanError, limits.LimitError, records.RecordError) as error:
            raise AnsibleActionFail(str(error)) from None
        if arguments["need_image"]:
            _warn_of_unchecked_keys(record)
        result.update(
            changed=False,
            dir=record["dir"],
            console=record["console"],
            nodes=list(record["nodes"]),
            msg=f"{len(record['nodes'])} nodes, {len(record['groups'])} image groups",
        )
        return result


def _check_keys(record: Record) -> None:
    """Refuse keys that are not there: ssh would only find that out when all nodes have been reset."""
    users: dict[str, list[str]] = {}
    for name, node in record["nodes"].items():
        key = os.path.expanduser(node["ssh"]["private_key_file"] or "")
        if key and not os.access(key, os.R_OK):
            users.setdefault(key, []).append(name)
    if users:
        raise plan.PlanError(
            "\n".join(
                f"host {names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: the key file {key} is "
                "not there or cannot be read. Correct ansible_ssh_private_key_file or --private-key."
                for key, names in users.items()
            )
        )


def _begin(made: dict[str, t.Any]) -> Record:
    """Return the record of a planned run before its first step."""
    # All nodes agree on what is needed here.
    setting = next((node["settings"] for node in made["nodes"].values()), None) or settings.resolve({})
    identity = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:6]}"
    now = time.time()
    return {
        "id": identity,
        "dir": os.path.join(setting["orbit_run_dir"], identity),
        "console": setting["orbit_console"],
        "playbooks": command.playbooks(),
        "started_at": now,
        "at": now,
        "nodes": made["nodes"],
        "groups": made["groups"],
    }


def _warn_of_unchecked_keys(record: Record) -> None:
    unchecked = [name for name, node in record["nodes"].items() if not ssh.checks_host_key(node)]
    if unchecked:
        Display().warning(
            f"SSH host keys are not checked on {len(unchecked)} nodes ({', '.join(unchecked[:3])}"
            f"{', ...' if len(unchecked) > 3 else ''}): their options of ssh say "
            "StrictHostKeyChecking=no, or host_key_checking is false. Leave that out: each run has a file of "
            "host keys of its own."
        )
