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
from ansible_collections.orbit.imaging.plugins.plugin_utils.node import connection, ssh
from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import plain
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import plan, settings


class ActionModule(ActionBase):
    """Collects what the inventory says of the hosts and hands it to the planner."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return ``record``, the run before its first step."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        _unused, arguments = self.validate_argument_spec(
            argument_spec={
                "hosts": {"type": "list", "elements": "str", "required": True},
                "image": {"type": "str"},
                "nodes": {"type": "str"},
                "limited": {"type": "bool", "default": False},
                "need_image": {"type": "bool", "default": True},
                "run_dir": {"type": "path", "default": settings.specification()["orbit_run_dir"]["default"]},
            }
        )
        names = (*settings.specification(), *connection.variables(), "orbit_chosen")
        keywords = connection.keywords(self._task)
        hosts = []
        for name in arguments["hosts"]:
            host_vars = variables["hostvars"][name]
            values = {key: plain(host_vars[key]) for key in names if key in host_vars}
            groups = plain(host_vars.get("group_names", []))
            hosts.append(plan.Host(str(name), groups, values, keywords))
        try:
            made = plan.make(
                hosts,
                image=plain(arguments["image"]),
                nodes=plain(arguments["nodes"]),
                limited=arguments["limited"],
                need_image=arguments["need_image"],
            )
        except plan.PlanError as error:
            raise AnsibleActionFail(str(error)) from error
        try:
            # Found here, not when the nodes are waiting for their sessions.
            limits.allow(limits.needed_files(len(made["nodes"])), f"{len(made['nodes'])} nodes at once")
        except limits.LimitError as error:
            raise AnsibleActionFail(str(error)) from error
        unchecked = [name for name, node in made["nodes"].items() if not ssh.checks_host_key(node)]
        if unchecked and arguments["need_image"]:
            Display().warning(
                f"SSH host keys are not checked on {len(unchecked)} nodes ({', '.join(unchecked[:3])}"
                f"{', ...' if len(unchecked) > 3 else ''}): their options of ssh say "
                "StrictHostKeyChecking=no, or host_key_checking is false. Leave that out: each run has a "
                "file of host keys of its own."
            )
        run_id = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:6]}"
        folder = os.path.join(os.path.expanduser(plain(arguments["run_dir"])), run_id)
        result["record"] = {"id": run_id, "dir": folder, "started_at": time.time(), "at": time.time(), **made}
        result["changed"] = False
        return result
