#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: ping
short_description: Ping nodes, at once or while something else happens
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - Runs the system's C(ping) for each node, all at the same time, on the host that the task runs on (the
    console, by C(delegate_to)), and returns packets, loss and round-trip times.
  - With O(state=measured), sends O(count) packets to each node and waits for their answers.
  - With O(state=started), begins and returns at once; with O(state=stopped), ends what was begun and returns
    what came of it. Of each node only those packets count that were sent within its window in O(windows).
  - A node that does not answer is no failure; it has lost all packets.
  - Besides its own options, the task may name a run with O(run), from which the nodes, or their windows,
    are taken.
  - What was started ends by itself after O(limit) seconds.
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    support: full
    details: Nothing is sent.
  diff_mode:
    support: none
  platform:
    platforms: linux
options:
  state:
    description: What to do.
    type: str
    choices: [measured, started, stopped]
    default: measured
  run:
    description:
      - Folder of a run. With O(state=stopped), the windows are those in which the nodes' clients wrote in
        this run, as its C(result.json) has them; otherwise the nodes are those of the run, as
        M(orbit.imaging.image_plan) chose them.
    type: path
  nodes:
    description: The nodes; not needed with O(run) nor with O(state=stopped).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the node.
        type: str
        required: true
      address:
        description: Address that is pinged.
        type: str
        required: true
  command:
    description:
      - The program, and what comes before its options. With O(state=started) it must be C(ping) of
        iputils, as others cannot tell when a packet was sent.
    type: list
    elements: str
    default: [ping]
  interval:
    description: Seconds from packet to packet. Less than 0.2 needs root with some versions of C(ping).
    type: float
    default: 0.2
  count:
    description: Packets for each node with O(state=measured).
    type: int
    default: 25
  limit:
    description: Seconds after which pings that were started end by themselves.
    type: int
    default: 3600
  folder:
    description: What O(state=started) has returned; needed with O(state=stopped), which removes it.
    type: path
  windows:
    description: For each node, the first and the last moment that count, in seconds since 1970.
    type: dict
    default: {}
notes:
  - The windows of a run are by the clock of the control host, the packets by that of the console.
"""

EXAMPLES = r"""
- name: Ping the nodes of the run
  orbit.imaging.ping:
    run: "{{ orbit_run.dir }}"
    count: 50
  delegate_to: console
  run_once: true

- name: Begin to ping two nodes
  orbit.imaging.ping:
    state: started
    nodes:
      - {name: node1-1, address: 10.10.1.1}
      - {name: node1-2, address: 10.10.1.2}
  register: pings
"""

RETURN = r"""
folder:
  description: Where the pings that were started write.
  returned: with state started
  type: str
  sample: /tmp/orbit-ping-8sk2
nodes:
  description: What came of each node.
  returned: with state measured or stopped
  type: list
  elements: dict
  contains:
    name:
      description: Name of the node.
      type: str
    packets:
      description: Packets sent.
      type: int
    received:
      description: Packets answered.
      type: int
    duplicates:
      description: Answers beyond the first of a packet.
      type: int
    lost_percent:
      description: Per cent of the packets without an answer; null when there were no packets.
      type: float
    min:
      description: Shortest round trip in milliseconds; null when nothing came back, as are the next three.
      type: float
    avg:
      description: Mean round trip in milliseconds.
      type: float
    max:
      description: Longest round trip in milliseconds.
      type: float
    mdev:
      description: Standard deviation of the round trips in milliseconds; null when C(ping) does not tell it.
      type: float
    msg:
      description: Why there are no numbers, or empty.
      type: str
"""

import shutil
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.orbit.imaging.plugins.module_utils import pings
from ansible_collections.orbit.imaging.plugins.module_utils.ping import PingError


def _program(module: AnsibleModule) -> t.List[str]:
    command: t.List[str] = module.params["command"]
    if not command:
        module.fail_json(msg="command is empty. Name the program, usually ping.")
    if shutil.which(command[0]) is None:
        module.fail_json(
            msg=f"command: there is no program {command[0]} here. "
            "On Debian, ping is in the package iputils-ping."
        )
    return command


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["measured", "started", "stopped"], "default": "measured"},
            "run": {"type": "path"},
            "nodes": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                },
            },
            "command": {"type": "list", "elements": "str", "default": ["ping"]},
            "interval": {"type": "float", "default": 0.2},
            "count": {"type": "int", "default": 25},
            "limit": {"type": "int", "default": 3600},
            "folder": {"type": "path"},
            "windows": {"type": "dict", "default": {}},
        },
        required_if=[("state", "stopped", ["folder"])],
        supports_check_mode=True,
    )
    params, state = module.params, module.params["state"]
    for name, least in (("interval", 0.002), ("count", 1), ("limit", 1)):
        if not params[name] >= least:
            module.fail_json(msg=f"{name} is {params[name]}, but must be at least {least}")
    odd = [node["address"] for node in params["nodes"] if node["address"].startswith("-")]
    if odd:
        module.fail_json(msg=f"nodes: {odd[0]!r} is no address")
    if module.check_mode:
        module.exit_json(changed=False, nodes=[], folder="")
    try:
        if state == "stopped":
            module.exit_json(changed=True, nodes=pings.stop(params["folder"], params["windows"]))
        what = _program(module), params["nodes"], params["interval"]
        if state == "started":
            module.exit_json(changed=True, folder=pings.start(*what, params["limit"]))
        module.exit_json(changed=False, nodes=pings.measure(*what, params["count"]))
    except PingError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"ping cannot be run: {error}")


if __name__ == "__main__":
    main()
