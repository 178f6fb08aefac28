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
  - The service accepts a command before it is done. Use O(verify) to have the state read back, and
    O(escalate) to go on with harder commands when it does not follow.
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
      - V(cycle) switches off, waits until the state is read as off, and switches on. A node that is not seen
        off has failed and is given no V(on). Where the service does not tell states, V(reset) is given.
      - V(reboot) lets the running system restart; only services of dialects V(E1) and V(E2) have it.
    type: str
    choices: ['on', 'off', reset, cycle, reboot]
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
  escalate:
    description:
      - With O(verify), give a node whose state does not follow, or whose command was refused, V(reset), and
        then V(off) and V(on). Half of O(verify_timeout) is for the first command, the rest for these.
      - With O(state=reset), a node that is off is given V(on), whatever the dialect.
      - Where the service does not tell states, and for nodes that it calls not available, nothing more is
        tried.
    type: bool
    default: false
  verify_timeout:
    description:
      - Seconds to wait for the state with O(verify). Half of it is for V(off) with O(state=cycle).
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

- name: Take the power from a node that hangs, whatever that needs
  orbit.imaging.cmc_power:
    url: http://cmc:5012
    domain: sb1.orbit-lab.org
    nodes: [node1-1]
    state: cycle
    verify: true
    escalate: true

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
    code:
      description:
        - The reason of a failure for programs, empty when there is none.
        - V(wrong_state), the state read back is another; V(unknown_node); or a code of RV(error).
      type: str
    steps:
      description: The commands that were accepted for the node, in order.
      type: list
      elements: str
      sample: [reset, reset, 'off', 'on']
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
error:
  description: Why the service could not be asked at all, or refused the whole.
  returned: when nothing could be tried
  type: dict
  contains:
    code:
      description:
        - The reason for programs.
        - V(bad_argument) or V(unsupported), nothing was ordered; V(not_sent), nothing can have reached the
          service; V(timeout) or V(no_reply), an order may have been carried out; V(http_error), V(refused) or
          V(unexpected_reply), this is what came back.
      type: str
      sample: not_sent
    message:
      description: What went wrong.
      type: str
    service:
      description: The service asked.
      type: str
      sample: cmc
    method:
      description: Its method.
      type: str
    url:
      description: Address of the method.
      type: str
    asked:
      description: The arguments, shortened.
      type: dict
    reply:
      description: What came back, shortened; null when nothing did.
      type: str
    status:
      description: The HTTP status; null when there was none.
      type: int
    remedy:
      description: What a person can do about it.
      type: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.orbit.imaging.plugins.module_utils.cmc import ACTIONS, ON, CmcClient, PowerResult
from ansible_collections.orbit.imaging.plugins.module_utils.module import (
    Failed,
    Results,
    argument_spec,
    describe_failures,
    nodes_of,
    run,
)
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import Node
from ansible_collections.orbit.imaging.plugins.module_utils.power import Power
from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection, ServiceError


def work(module: AnsibleModule, connection: Connection) -> Results:
    """Switch the nodes and return the results of the module."""
    nodes, domain = nodes_of(module)
    action = module.params["state"]
    _check_options(module)
    if module.params["soft"] and action == "off":
        action = "off_soft"
    client = CmcClient(connection, module.params["dialect"], domain)
    verify = module.params["verify"]
    escalate = module.params["escalate"]
    if verify and not client.can_read():
        raise ServiceError(
            f"the service cannot verify: dialect {client.speaker.dialect.name} tells no states here",
            code="unsupported",
            service="cmc",
            url=f"{connection.url}/cmc",
            remedy="Leave verify out (for a run: orbit_power_verify)",
        )
    power = Power(
        client,
        window=module.params["window"],
        interval=module.params["interval"],
        timeout=module.params["verify_timeout"],
    )
    if module.check_mode:
        outcome = _expected(power, nodes, action, escalate)
    else:
        outcome = power.bring(nodes, action, verify=verify, escalate=escalate)
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


def _check_options(module: AnsibleModule) -> None:
    """Refuse options that would be of no effect, so that nobody relies on them.

    :raises ServiceError: naming the option.
    """
    if module.params["soft"] and module.params["state"] != "off":
        raise ServiceError(
            f"soft says how nodes are switched off, but state is {module.params['state']}",
            remedy="Leave soft out, or use state off",
        )
    if module.params["escalate"] and not module.params["verify"]:
        raise ServiceError(
            "escalate needs the states of the nodes, but verify is false",
            remedy="Set verify, or leave escalate out",
        )


def _expected(power: Power, nodes: t.Sequence[Node], action: str, escalate: bool) -> t.List[PowerResult]:
    """Return what :meth:`Power.bring` would begin with."""
    expected = []
    for node, (commands, state) in zip(nodes, power.expect(nodes, action, look=escalate)):
        given = " and ".join(f"'{command}'" for command in commands)
        message = f"would be given {given}" if given else f"already {state}"
        expected.append(PowerResult(node, True, bool(commands), state, message))
    return expected


def _as_dict(result: PowerResult) -> Results:
    return {
        "name": result.node.name,
        "ok": result.ok,
        "changed": result.changed,
        "state": result.state,
        "msg": result.message,
        "code": result.code,
        "steps": list(result.steps),
    }


def _diff(outcome: t.Sequence[PowerResult], action: str) -> t.Dict[str, str]:
    """Return the commands as text. The state before is only known of the nodes that are left alone."""
    before, after = "", ""
    for result in outcome:
        if result.changed:
            before += f"{result.node.name}: not {ACTIONS.get(action, ON)}, or not known\n"
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
            state={"type": "str", "choices": ["on", "off", "reset", "cycle", "reboot"], "required": True},
            soft={"type": "bool", "default": False},
            window={"type": "int", "default": 50},
            interval={"type": "float", "default": 0.0},
            verify={"type": "bool", "default": False, "aliases": ["wait_state"]},
            escalate={"type": "bool", "default": False},
            verify_timeout={"type": "float", "default": 30.0},
        ),
        supports_check_mode=True,
    )
    if module.params["window"] < 1 or module.params["interval"] < 0:
        module.fail_json(msg="window must be at least 1 and interval at least 0")
    run(module, work)


if __name__ == "__main__":
    main()
