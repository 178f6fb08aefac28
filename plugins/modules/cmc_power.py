#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: cmc_power
short_description: Switch nodes on and off, or reset them
version_added: 0.1.0
description:
  - Gives power commands to nodes by the cmc service of a testbed, many at the same time, in bursts of a
    chosen size.
  - The service accepts a command before it is done. Use O(verify) to have the state read back.
  - Every node is tried before the module fails.
author:
  - The orbit.imaging authors (@orbit-imaging)
extends_documentation_fragment:
  - orbit.imaging.attributes
  - orbit.imaging.services
  - orbit.imaging.services.nodes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - V(on) and V(off) leave alone nodes that the service shows in that state. V(reset) and V(reboot) always
        act.
options:
  state:
    description:
      - V(on) and V(off) switch the power.
      - V(reset) power-cycles; a node that is off is switched on. For services which would leave such a node
        off (dialects V(A) to V(C)) it is given V(on).
      - V(reboot) lets the running system restart; only services of dialects V(E1) and V(E2) have it.
    type: str
    choices: ['on', 'off', reset, reboot]
    required: true
  soft:
    description:
      - With O(state=off), let the running system shut down instead of cutting its power.
    type: bool
    default: false
  window:
    description:
      - How many nodes get their command in one burst.
    type: int
    default: 50
  interval:
    description:
      - Seconds from the start of a burst to the start of the next, so that not all nodes draw their starting
        current at once. V(0) does not wait.
    type: float
    default: 0
  verify:
    description:
      - Whether to read the state of the nodes until it is the one asked for.
    type: bool
    default: false
    aliases: [wait_state]
  verify_timeout:
    description:
      - Seconds to wait for the state with O(verify).
    type: float
    default: 30
seealso:
  - module: orbit.imaging.cmc_info
"""

EXAMPLES = r"""
- name: Reset two nodes and see that they are on
  orbit.imaging.cmc_power:
    url: http://cmc:5012
    domain: sb1.orbit-lab.org
    nodes: [node1-1, node1-2]
    state: reset
    verify: true

- name: Switch the whole grid off, 20 nodes each second
  orbit.imaging.cmc_power:
    url: http://cmc:5054
    domain: grid.orbit-lab.org
    nodes: ["[[1..20,1..20]]"]
    state: 'off'
    window: 20
    interval: 1
"""

RETURN = r"""
nodes:
  description: What became of each node, in the order given.
  returned: when the nodes could be tried
  type: list
  elements: dict
  contains:
    name:
      description: Name of the node.
      type: str
      sample: node1-1
    ok:
      description: Whether the command was accepted or not needed and, with O(verify), the state was seen.
      type: bool
    changed:
      description: Whether a command was accepted.
      type: bool
    state:
      description: The state last read, V(on), V(off), V(not_available), or V(unknown) when it was not read.
      type: str
      sample: 'on'
    msg:
      description: The reason of a failure, or what was done.
      type: str
failed_nodes:
  description: Names of the nodes that are not as asked.
  returned: when the nodes could be tried
  type: list
  elements: str
dialect:
  description: The dialect spoken.
  returned: when the nodes could be tried
  type: str
  sample: E2
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.orbit.imaging.plugins.module_utils.cmc import ACTIONS, CmcClient, PowerResult
from ansible_collections.orbit.imaging.plugins.module_utils.module import (
    Failed,
    Results,
    argument_spec,
    describe_failures,
    nodes_of,
    run,
)
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import Node
from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection


def work(module: AnsibleModule, connection: Connection) -> Results:
    """Switch the nodes and return the results of the module."""
    nodes, domain = nodes_of(module)
    action = module.params["state"]
    if module.params["soft"] and action == "off":
        action = "off_soft"
    client = CmcClient(connection, module.params["dialect"], domain)
    if module.check_mode:
        outcome = _expected(client, nodes, action)
    else:
        outcome = client.switch(
            nodes, action, window=module.params["window"], interval=module.params["interval"]
        )
        if module.params["verify"]:
            outcome = client.verify(outcome, action, module.params["verify_timeout"])
    failed = [result for result in outcome if not result.ok]
    results = {
        "changed": any(result.changed for result in outcome),
        "nodes": [_as_dict(result) for result in outcome],
        "failed_nodes": [result.node.name for result in failed],
        "dialect": client.speaker.dialect.name,
        "diff": _diff(outcome, action),
    }
    if failed:
        reasons = [(result.node, result.message) for result in failed]
        verb = {"on": "switched on", "off": "switched off", "off_soft": "switched off"}.get(action, action)
        raise Failed(describe_failures(f"cmc at {connection.url}", verb, reasons, len(outcome)), results)
    commanded = sum(result.changed for result in outcome)
    results["msg"] = (
        f"{module.params['state']}: {commanded} nodes {'would be ' if module.check_mode else ''}commanded, "
        f"{len(outcome) - commanded} already so"
    )
    return results


def _expected(client: CmcClient, nodes: t.Sequence[Node], action: str) -> t.List[PowerResult]:
    """Return what :meth:`CmcClient.switch` would do."""
    expected = []
    for node, (command, state) in zip(nodes, client.plan(nodes, action)):
        message = f"would be given '{command}'" if command else f"already {state.state}"
        expected.append(PowerResult(node, True, bool(command), state.state, message))
    return expected


def _as_dict(result: PowerResult) -> Results:
    return {
        "name": result.node.name,
        "ok": result.ok,
        "changed": result.changed,
        "state": result.state,
        "msg": result.message,
    }


def _diff(outcome: t.Sequence[PowerResult], action: str) -> t.Dict[str, str]:
    """Return the commands as text. The state before is only known of the nodes that are left alone."""
    before, after = "", ""
    for result in outcome:
        if result.changed:
            before += f"{result.node.name}: not {ACTIONS[action]}, or not known\n"
            after += f"{result.node.name}: {action.replace('_', ' ')}\n"
        else:
            line = f"{result.node.name}: {result.state}\n"
            before += line
            after += line
    return {"before_header": "power", "after_header": "power", "before": before, "after": after}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=argument_spec(
            nodes={"type": "list", "elements": "raw", "required": True},
            state={"type": "str", "choices": ["on", "off", "reset", "reboot"], "required": True},
            soft={"type": "bool", "default": False},
            window={"type": "int", "default": 50},
            interval={"type": "float", "default": 0.0},
            verify={"type": "bool", "default": False, "aliases": ["wait_state"]},
            verify_timeout={"type": "float", "default": 30.0},
        ),
        supports_check_mode=True,
    )
    if module.params["window"] < 1 or module.params["interval"] < 0:
        module.fail_json(msg="window must be at least 1 and interval at least 0")
    run(module, work)


if __name__ == "__main__":
    main()
