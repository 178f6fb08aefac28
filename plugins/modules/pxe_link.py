#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pxe_link
short_description: Let nodes boot a memory image over the network
version_added: 0.1.0
description:
  - Sets or removes the PXE links of nodes by the pxe service of a testbed.
  - A linked node boots the memory image at its next reset; an unlinked node boots its disk.
  - All nodes are set by one call. When the service refuses it because of some nodes, these are found out and
    the others are linked nevertheless.
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
    support: none
    details:
      - The services do not tell which nodes are linked, so every run sets or clears again and reports a
        change. The result is the same.
options:
  image:
    description:
      - Name of the memory image.
      - Without it the service takes the one its own inventory has for the node.
      - Services of dialect V(B) always do. A name is then refused before a node is touched, unless the
        service is known to take just that one.
      - No historic service looks whether there is such a memory image. That of the embedded testbed tells
        which there are and how the links are, and is asked before and after, in every dialect.
    type: str
  state:
    description:
      - V(present) links the nodes, V(absent) removes their links.
      - The services of 2006 have no method to remove a link. The module then fails unless the service
        describes one.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: orbit.imaging.cmc_power
"""

EXAMPLES = r"""
- name: Let two nodes boot the memory image at their next reset
  orbit.imaging.pxe_link:
    url: http://pxe:5012
    domain: sb1.orbit-lab.org
    nodes: [node1-1, node1-2]
    image: orbit-2.0.0

- name: Remove the links of a whole node set
  orbit.imaging.pxe_link:
    url: http://pxe:5054
    dialect: E2
    domain: grid.orbit-lab.org
    nodes: ["[[1..20,1..20]]"]
    state: absent
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
      description: Whether the service confirmed it.
      type: bool
    changed:
      description: Whether the link was set or removed.
      type: bool
    link:
      description: File name of the link, the control address in hexadecimal; empty when that is not known.
      type: str
      sample: 0A0B0101
    image:
      description: Memory image the node is linked to; empty without a link or when the service does not say.
      type: str
      sample: orbit-2.0.0
    msg:
      description: The reason of a failure.
      type: str
    code:
      description:
        - The reason of a failure for programs, empty when there is none.
        - V(no_memory_image), V(wrong_memory_image), V(wrong_address), V(unknown_node); V(not_linked) and
          V(still_linked) when the service shows something else than it has confirmed; or a code of RV(error).
      type: str
      sample: no_memory_image
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
      sample: pxe
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

from ansible_collections.orbit.imaging.plugins.module_utils.frisbee import check_image_name
from ansible_collections.orbit.imaging.plugins.module_utils.module import (
    Failed,
    argument_spec,
    describe_failures,
    nodes_of,
    run,
)
from ansible_collections.orbit.imaging.plugins.module_utils.pxe import Link, PxeClient, link_name
from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection


def work(module: AnsibleModule, connection: Connection) -> t.Dict[str, t.Any]:
    """Link or unlink the nodes and return the results of the module."""
    nodes, domain = nodes_of(module)
    image = module.params["image"] or ""
    present = module.params["state"] == "present"
    if image:
        check_image_name(image, "memory image")
    client = PxeClient(connection, module.params["dialect"], domain)
    # Asked for first, so that an address without a service gives a clear error.
    dialect = client.speaker.dialect.name
    # The same question in check mode and before it is done, so that both come to the same end.
    missing = client.check_image(image, client.look()) if present else None
    if missing:
        links = [
            Link(node, False, link_name(node.control_ip), "", missing, "no_memory_image") for node in nodes
        ]
    elif module.check_mode:
        links = client.expected(nodes, image, present)
    else:
        links = client.read_back(client.link(nodes, image) if present else client.unlink(nodes), present)
    failed = [link for link in links if not link.ok]
    results = {
        "changed": len(failed) < len(links),
        "nodes": [_as_dict(link, present) for link in links],
        "failed_nodes": [link.node.name for link in failed],
        "dialect": dialect,
        "diff": _diff(links, present),
    }
    verb = "linked" if present else "unlinked"
    if failed:
        reasons = [(link.node, link.message) for link in failed]
        raise Failed(describe_failures(f"pxe at {connection.url}", verb, reasons, len(links)), results)
    results["msg"] = f"{len(links)} nodes {'would be ' if module.check_mode else ''}{verb}"
    return results


def _as_dict(link: Link, present: bool) -> t.Dict[str, t.Any]:
    return {
        "name": link.node.name,
        "ok": link.ok,
        "changed": link.ok,
        "link": link.link or link_name(link.node.control_ip),
        "image": link.image if present or not link.ok else "",
        "msg": link.message,
        "code": link.code,
    }


def _diff(links: t.Sequence[Link], present: bool) -> t.Dict[str, str]:
    """Return the links as text; what was linked before is not known, so it is not claimed."""
    after = "".join(
        f"{link.node.name}: {link.image or 'default memory image' if present else 'no link'}\n"
        for link in links
        if link.ok
    )
    before = "".join(f"{link.node.name}: not known\n" for link in links if link.ok)
    return {"before_header": "PXE links", "after_header": "PXE links", "before": before, "after": after}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=argument_spec(
            nodes={"type": "list", "elements": "raw", "required": True},
            image={"type": "str"},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
        ),
        supports_check_mode=True,
    )
    run(module, work)


if __name__ == "__main__":
    main()
