# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules share: options, start and the way results are reported."""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.orbit.imaging.plugins.module_utils.dialects import CHOICES
from ansible_collections.orbit.imaging.plugins.module_utils.login import login_name
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import (
    Node,
    NodeSetError,
    format_nodes,
    make_nodes,
)
from ansible_collections.orbit.imaging.plugins.module_utils.service import (
    REQUESTS_IMPORT_ERROR,
    Connection,
    ServiceError,
)

Results = t.Dict[str, t.Any]


def argument_spec(**own: t.Dict[str, t.Any]) -> t.Dict[str, t.Dict[str, t.Any]]:
    """Return the options of a module: those of the fragment ``orbit.imaging.services`` and its own."""
    return {
        "url": {"type": "str", "required": True},
        "dialect": {"type": "str", "default": "auto", "choices": list(CHOICES)},
        "domain": {"type": "str"},
        "user": {"type": "str"},
        "timeout": {"type": "float", "default": 30.0},
        "parallel": {"type": "int", "default": 16},
        "validate_certs": {"type": "bool", "default": True},
        "ca_path": {"type": "path"},
        "token": {"type": "str", "no_log": True},
        **own,
    }


class Failed(Exception):
    """Some items failed; carries the results of all.

    :param message: which, and why.
    """

    def __init__(self, message: str, results: Results) -> None:
        super().__init__(message)
        self.message = message
        self.results = results


def run(module: AnsibleModule, work: t.Callable[[AnsibleModule, Connection], Results]) -> None:
    """Do the work of a module and leave it.

    All errors of the clients end here, and nowhere else, in ``fail_json``.
    """
    if REQUESTS_IMPORT_ERROR is not None:
        module.fail_json(msg=missing_required_lib("requests"), exception=REQUESTS_IMPORT_ERROR)
    for name, least in (("timeout", 0.1), ("parallel", 1)):
        if not module.params[name] >= least:
            module.fail_json(msg=f"{name} is {module.params[name]}, but must be at least {least}")
    try:
        with Connection(
            module.params["url"],
            timeout=module.params["timeout"],
            parallel=module.params["parallel"],
            validate_certs=module.params["validate_certs"],
            ca_path=module.params["ca_path"],
            token=module.params["token"],
        ) as connection:
            results = work(module, connection)
    except Failed as failure:
        module.fail_json(msg=failure.message, **failure.results)
    except NodeSetError as error:
        module.fail_json(msg=str(error), error=ServiceError(error.message, remedy=error.remedy).as_dict())
    except ServiceError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    else:
        module.exit_json(**results)


def nodes_of(module: AnsibleModule) -> t.Tuple[t.List[Node], str]:
    """Return the nodes of the option ``nodes`` and their domain.

    :raises NodeSetError: when there are none or one is not acceptable.
    """
    nodes = make_nodes(module.params["nodes"] or [], module.params["domain"] or "")
    if not nodes:
        raise NodeSetError("no nodes are chosen", source="nodes", remedy="Name at least one node")
    return nodes, module.params["domain"] or nodes[0].domain


def user_of(module: AnsibleModule) -> str:
    """Return the option ``user``, by default the login name; "" when there is none."""
    given: t.Optional[str] = module.params["user"]
    return given or login_name()


def describe_failures(
    service: str, verb: str, failed: t.Sequence[t.Tuple[t.Union[Node, str], str]], total: int
) -> str:
    """Return one text for all failures; nodes which failed for one reason are named together.

    :param service: the service and where it is, e.g. ``pxe at http://pxe:5012``.
    :param verb: what did not happen, e.g. ``linked``.
    :param failed: (node or name, reason).
    """
    by_reason: t.Dict[str, t.List[t.Union[Node, str]]] = {}
    for item, reason in failed:
        by_reason.setdefault(reason, []).append(item)
    parts = []
    for reason, items in by_reason.items():
        nodes = [item for item in items if isinstance(item, Node)]
        names = format_nodes(nodes) if nodes else ", ".join(str(item) for item in items)
        parts.append(f"{names}: {reason}")
    return f"{service}: {len(failed)} of {total} not {verb}: {'; '.join(parts[:8])}" + (
        f"; and {len(parts) - 8} more reasons" if len(parts) > 8 else ""
    )
