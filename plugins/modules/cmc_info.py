#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: cmc_info
short_description: Ask for the power state of nodes
version_added: 0.1.0
description:
  - Asks the cmc service of a testbed for the power state of nodes, by one call where the service has it.
  - The module fails when a node named is not known to the service or could not be asked for, after all have
    been tried. A node whose state the service does not know is no failure.
author:
  - The orbit.imaging authors (@orbit-imaging)
extends_documentation_fragment:
  - orbit.imaging.attributes
  - orbit.imaging.attributes.info
  - orbit.imaging.services
  - orbit.imaging.services.nodes
options:
  nodes:
    description:
      - The nodes, of one domain, in the forms that M(orbit.imaging.cmc_power) takes.
      - By default all nodes of the domain. Services of dialects V(E1) and V(E2) cannot list them unless they
        describe a method for it.
    required: false
    default: []
seealso:
  - module: orbit.imaging.cmc_power
"""

EXAMPLES = r"""
- name: Ask for all nodes of a sandbox
  orbit.imaging.cmc_info:
    url: http://cmc:5012
    domain: sb1.orbit-lab.org
  register: power

- name: Tell how many are on
  ansible.builtin.debug:
    msg: "{{ power.counts.on }} of {{ power.nodes | length }} nodes are on"
"""

RETURN = r"""
nodes:
  description: The state of each node, in the order given or that of the service.
  returned: when the nodes could be tried
  type: list
  elements: dict
  contains:
    name:
      description: Name of the node.
      type: str
      sample: node1-1
    state:
      description: One of V(on), V(off), V(unknown) and V(not_available).
      type: str
      sample: 'on'
    raw:
      description: The service's own word; null when it gave none for this node.
      type: str
      sample: POWERON
    msg:
      description: Why there is none.
      type: str
    code:
      description: The same for programs, V(unknown_node) or a code of RV(error); empty when there is one.
      type: str
counts:
  description: Number of nodes in each state.
  returned: when the nodes could be tried
  type: dict
  sample: {"on": 3, "off": 1, "unknown": 0, "not_available": 0}
failed_nodes:
  description: Names of the nodes the service told nothing about.
  returned: when the nodes could be tried
  type: list
  elements: str
dialect:
  description: The dialect spoken.
  returned: when the nodes could be tried
  type: str
  sample: A
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

from ansible_collections.orbit.imaging.plugins.module_utils.cmc import STATES, CmcClient, PowerState
from ansible_collections.orbit.imaging.plugins.module_utils.module import (
    Failed,
    Results,
    argument_spec,
    describe_failures,
    nodes_of,
    run,
)
from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection


def work(module: AnsibleModule, connection: Connection) -> Results:
    """Ask and return the results of the module."""
    if module.params["nodes"]:
        nodes, domain = nodes_of(module)
        client = CmcClient(connection, module.params["dialect"], domain)
        states = client.states(nodes)
    else:
        client = CmcClient(connection, module.params["dialect"], module.params["domain"] or "")
        states = client.listed()
    failed = [state for state in states if state.raw is None]
    results = {
        "changed": False,
        "nodes": [_as_dict(state) for state in states],
        "counts": {name: sum(state.state == name for state in states) for name in STATES},
        "failed_nodes": [state.name for state in failed],
        "dialect": client.speaker.dialect.name,
    }
    if failed:
        reasons = [(state.name, state.message) for state in failed]
        raise Failed(describe_failures(f"cmc at {connection.url}", "known", reasons, len(states)), results)
    return results


def _as_dict(state: PowerState) -> t.Dict[str, t.Any]:
    return {
        "name": state.name,
        "state": state.state,
        "raw": state.raw,
        "msg": state.message,
        "code": state.code,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=argument_spec(nodes={"type": "list", "elements": "raw", "default": []}),
        supports_check_mode=True,
    )
    run(module, work)


if __name__ == "__main__":
    main()
