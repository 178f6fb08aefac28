# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Work out what a run will do, and refuse what it could not do, before any node is touched."""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import nodes as nodeutil
from ansible_collections.orbit.imaging.plugins.plugin_utils.node import connection
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import quorum, settings, tokens
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Batch, Node

_COORDINATES = ("orbit_x", "orbit_y")
_COORDINATES_IN_NAME = re.compile(r"node([0-9]{1,3})-([0-9]{1,3})(?:\.|\Z)")

# Groups that every inventory has; they say nothing of what their hosts are.
_NO_GROUPS = ("all", "ungrouped")

#: What every call of a service module is told.
SERVICE_KEYS = ("url", "dialect", "domain", "timeout", "ca_path", "validate_certs")

# What only one of the services is told. Nodes that differ in it need calls of their own to that service,
# and to no other: an image asked for twice would be counted twice.
_TOLD = {
    "pxe": {"memory_image": "orbit_memory_image"},
    "frisbee": {"user": "orbit_user"},
    "cmc": {
        "window": "orbit_power_window",
        "interval": "orbit_power_interval",
        "verify": "orbit_power_verify",
    },
}


class PlanError(Exception):
    """The run cannot be done as asked. The text has one line per mistake: input, place, remedy."""


@dataclasses.dataclass
class Host:
    """An inventory host as the plan sees it.

    :ivar variables: those of the role and of the connection that somebody has set, as YAML and templates make
        them.
    :ivar image: what ``image`` says for this host; None when nobody has said it.
    :ivar image_of_inventory: whether the inventory itself gives the host an image, or chooses it; None
        where all variables are the inventory's.
    :ivar keywords: what play and command line say of the connection to it.
    :ivar mistakes: what of it cannot be used, one sentence each.
    """

    name: str
    groups: list[str]
    variables: dict[str, t.Any]
    image: t.Any = None
    image_of_inventory: bool | None = None
    keywords: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    mistakes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Group:
    """A group of the inventory: all its hosts, in the play or not, and the image that it gives them."""

    members: frozenset[str]
    image: str | None = None


def make(
    hosts: t.Sequence[Host],
    *,
    image: str | None = None,
    nodes: t.Any = None,
    limited: bool = False,
    need_image: bool = True,
    groups: t.Mapping[str, Group] | None = None,
    others: t.Container[str] = (),
    left_out: t.Container[str] = (),
    elsewhere: bool = False,
) -> dict[str, t.Any]:
    """Return the nodes of the run and the image groups they form.

    :param hosts: hosts of the play that may take part.
    :param image: image for all hosts, over what each says itself.
    :param nodes: node set that restricts the run: a text, or a list of names, coordinates and texts.
    :param limited: whether the play has chosen its hosts, so that all of them are meant.
    :param need_image: whether a node without an image is a mistake.
    :param groups: groups of the inventory; by default those of ``hosts``.
    :param others: names of the play's hosts in other batches.
    :param left_out: names of hosts that a condition of the play leaves out.
    :param elsewhere: whether nodes are chosen in other batches, so that none here is no mistake.
    :return: ``nodes`` (name to record), ``groups`` (label, image, node names, quorum and needed nodes).
    :raises PlanError: naming every mistake at once.
    """
    mistakes: list[str] = []
    if image is not None:
        hosts = [dataclasses.replace(host, image=image) for host in hosts]
    if nodes is not None:
        chosen = _choose_by_set(hosts, nodes, others, left_out)
    else:
        chosen = _choose(hosts, limited, elsewhere)
    # What is said for all of them is told once.
    said = {repr(host.image): host.image for host in chosen if host.image is not None}
    mistakes += filter(None, map(settings.image_mistake, said.values()))
    records: dict[str, dict[str, t.Any]] = {}
    numbers: dict[str, int] = {}
    for host in chosen:
        try:
            record = _record(host, need_image)
        except PlanError as error:
            mistakes += str(error).splitlines()
        else:
            token = host.variables.get(tokens.VARIABLE)
            # Nodes with different tokens cannot share a call; the token itself is nothing for the record.
            record["token"] = numbers.setdefault(str(token), len(numbers) + 1) if token else 0
            records[host.name] = record
    mistakes += _twice(records, "control_ip", "control address")
    mistakes += _twice(records, "hrn", "name on the services")
    mistakes += _twice_in_place(records)
    image_groups = _groups(records, chosen, groups)
    if need_image:
        mistakes += [mistake for group in image_groups for mistake in _give_quorum(group, records)]
    mistakes += [mistake for name, why in _SAME.items() for mistake in _differs(records, name, why)]
    if mistakes:
        raise PlanError("\n".join(_fold(mistakes)))
    return {"nodes": records, "groups": image_groups}


# Settings that concern the whole run, and what to do where nodes want them to differ.
_SAME = {
    "orbit_console": "One host asks the services for a whole run: image these nodes in plays of their own",
    "orbit_run_dir": "A run has one folder: give all its nodes the same",
}


def _differs(records: t.Mapping[str, t.Mapping[str, t.Any]], name: str, why: str) -> list[str]:
    first: dict[str, str] = {}
    for host, record in records.items():
        first.setdefault(record["settings"][name], host)
    if len(first) < 2:
        return []
    said = ", ".join(f"{host} says {value}" for value, host in list(first.items())[:3])
    return [f"{name} differs between the nodes: {said}. {why}."]


def batches(nodes: t.Iterable[Node], service: str) -> list[Batch]:
    """Put nodes that are asked for in one call together.

    ``service`` is ``pxe``, ``frisbee`` or ``cmc``. Nodes share a batch when they share the service's
    address, dialect and domain, the token it wants, and what else this service is told. Batches keep the
    order of the nodes.
    """
    found: dict[tuple[t.Any, ...], Batch] = {}
    for node in nodes:
        setting = node["settings"]
        fresh: Batch = {
            "url": setting[f"orbit_{service}_url"],
            "dialect": setting["orbit_dialect"],
            "domain": node["domain"],
            "timeout": setting["orbit_service_timeout"],
            "ca_path": setting["orbit_service_ca"],
            "validate_certs": setting["orbit_validate_certs"],
            "token_from": node["name"] if node["token"] else None,
        }
        fresh.update(t.cast(Batch, {key: setting[variable] for key, variable in _TOLD[service].items()}))
        same = {**fresh, "domain": node["domain"].lower(), "token_from": node["token"]}
        batch = found.setdefault((*same.values(),), {**fresh, "nodes": [], "images": []})
        batch["nodes"].append(
            {
                "name": node["name"],
                "domain": batch["domain"],
                "x": node["x"],
                "y": node["y"],
                "hrn": node["hrn"],
                "control_ip": node["control_ip"],
            }
        )
        if node["image"] and node["image"] not in batch["images"]:
            batch["images"].append(node["image"])
    return list(found.values())


def _choose(hosts: t.Sequence[Host], limited: bool, elsewhere: bool) -> list[Host]:
    if limited:
        return list(hosts)
    chosen = [host for host in hosts if _has_image(host)]
    if not chosen and not elsewhere:
        raise PlanError(
            f"no nodes chosen: none of the {len(hosts)} hosts of the inventory has an image of its own. "
            "Say which nodes are meant with hosts: in the play, with --limit, "
            "with -e 'nodes=[[1,1],[1..5,2]]', or by giving groups an image in the inventory."
        )
    return chosen


def _has_image(host: Host) -> bool:
    if host.image_of_inventory is not None:
        return host.image_of_inventory
    return bool(host.variables.get("orbit_image") or host.variables.get("orbit_chosen"))


def _choose_by_set(
    hosts: t.Sequence[Host], nodes: t.Any, others: t.Container[str], left_out: t.Container[str]
) -> list[Host]:
    wanted = _members(nodes)
    if not wanted:
        raise PlanError("no nodes chosen: the node set given with -e nodes is empty.")
    found: dict[nodeutil.Member, list[Host]] = {}
    for host in hosts:
        hrn = host.variables.get("orbit_hrn")
        # What is no text is said in full with the other variables of the host.
        known_as = [_place(host), host.name, hrn if isinstance(hrn, str) else None]
        for member in dict.fromkeys(known_as):
            if member is not None:
                found.setdefault(member, []).append(host)
    missing = [member for member in wanted if member not in found and not _is_of(member, others)]
    condition = [_show(member) for member in missing if _is_of(member, left_out)]
    if condition:
        raise PlanError(
            f"-e nodes names {', '.join(condition[:5])}, which a condition (when) of the play leaves out. "
            "Correct either."
        )
    if missing:
        shown = ", ".join(map(_show, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise PlanError(
            f"-e nodes: unknown node {shown}: the play (within hosts: and --limit) has no such host. "
            "Correct the node set or add the nodes to the inventory."
        )
    here = [member for member in wanted if member in found]
    for member in here:
        if len(found[member]) > 1:
            names = ", ".join(host.name for host in found[member])
            raise PlanError(
                f"-e nodes: {_show(member)} means more than one host: {names}. "
                "Choose the domain with --limit."
            )
    return list({found[member][0].name: found[member][0] for member in here}.values())


def _members(nodes: t.Any) -> list[nodeutil.Member]:
    """Return what a node set means: a text, or a list of names, coordinates and texts."""
    parts = nodes if isinstance(nodes, list) else [nodes]
    if nodes and all(isinstance(part, int) and not isinstance(part, bool) for part in parts):
        parts = [parts]
    found: dict[nodeutil.Member, None] = {}
    for part in parts:
        # A list that YAML has read is the text that it was read from.
        text = part if isinstance(part, str) else json.dumps(part, ensure_ascii=False).replace('"', "")
        try:
            found.update(dict.fromkeys(nodeutil.parse_node_set(text, source="-e nodes")))
        except nodeutil.NodeSetError as error:
            raise PlanError(str(error)) from error
    return list(found)


def _is_of(member: nodeutil.Member, names: t.Container[str]) -> bool:
    name = member if isinstance(member, str) else f"node{member[0]}-{member[1]}"
    return name in names


def _show(member: nodeutil.Member) -> str:
    return member if isinstance(member, str) else f"[{member[0]},{member[1]}]"


def _place(host: Host) -> nodeutil.Coordinates | None:
    """Return the coordinates of a host: its variables, or a name like node3-7; none for other names."""
    said = {name: host.variables[name] for name in _COORDINATES if host.variables.get(name) is not None}
    if not said:
        match = _COORDINATES_IN_NAME.match(host.name)
        said = dict(zip(_COORDINATES, match.groups(), strict=True)) if match else {}
    try:
        x, y = (settings.resolve(said)[name] for name in _COORDINATES)
    except settings.SettingsError:
        # What is no coordinate is said in full with the other variables of the host.
        return None
    return None if x is None or y is None else (x, y)


def _record(host: Host, need_image: bool) -> dict[str, t.Any]:
    where = f"host {host.name}"
    mistakes = list(host.mistakes)
    try:
        setting = settings.resolve(host.variables)
    except settings.SettingsError as error:
        setting = error.resolved
        mistakes += [f"{where}: {mistake}" for mistake in error.mistakes]
    setting.pop(tokens.VARIABLE)
    wanted = host.image if host.image is not None else setting["orbit_image"]
    if wanted is None and host.variables.get("orbit_image") is None and need_image:
        mistakes.append(f"{where}: no image. Set orbit_image for it in the inventory, or give -e image=NAME.")
    way = connection.resolve(host.name, host.variables, host.keywords)
    if need_image:
        # Who only asks the services does not log in.
        mistakes += way.mistakes
    place = _place(host)
    given = [name for name in _COORDINATES if host.variables.get(name) is not None]
    if len(given) == 1:
        mistakes.append(f"{where}: {given[0]} is given alone. Give orbit_x and orbit_y, or neither.")
    domain = setting["orbit_domain"]
    if not domain and not host.variables.get("orbit_domain"):
        mistakes.append(f"{where}: no domain. Set orbit_domain, for example sb1.orbit-lab.org.")
    try:
        (node,) = nodeutil.make_nodes(
            [
                {
                    "name": host.name,
                    "x": place and place[0],
                    "y": place and place[1],
                    "hrn": setting["orbit_hrn"],
                    "control_ip": setting["orbit_control_ip"] or way.ssh["host"],
                }
            ],
            domain or "",
            source=where,
        )
    except nodeutil.NodeSetError as error:
        mistakes.append(str(error))
    else:
        if not node.control_ip:
            mistakes.append(
                f"{where}: no control address, and its domain has no rule for one. "
                "Set orbit_control_ip or ansible_host."
            )
    if mistakes:
        raise PlanError("\n".join(mistakes))
    return {
        **node.as_dict(),
        # Results are told by the inventory's name; the services know the node by coordinates, address or HRN.
        "name": host.name,
        "image": wanted,
        "group": "",
        "settings": setting,
        "ssh": way.ssh,
        "inventory_groups": host.groups,
        "outcome": None,
        "evidence": "",
        "steps": {},
    }


def _twice(records: t.Mapping[str, t.Mapping[str, t.Any]], key: str, what: str) -> list[str]:
    first: dict[str, str] = {}
    mistakes = []
    for name, record in records.items():
        other = first.setdefault(record[key], name)
        if other != name:
            mistakes.append(
                f"duplicate node: hosts {other} and {name} have the same {what} {record[key]}. "
                "Remove one of them from the inventory."
            )
    return mistakes


def _twice_in_place(records: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[str]:
    """Refuse hosts that share coordinates: services that know nodes by these would take them for one."""
    first: dict[tuple[t.Any, ...], str] = {}
    mistakes = []
    for name, record in records.items():
        if record["x"] is None:
            continue
        place = (str(record["domain"]).lower(), record["x"], record["y"])
        other = first.setdefault(place, name)
        if other != name:
            mistakes.append(
                f"duplicate node: hosts {other} and {name} have the same coordinates "
                f"[{place[1]},{place[2]}] in the domain {record['domain']}. "
                "Correct orbit_x and orbit_y, or remove one of them."
            )
    return mistakes


def _groups(
    records: t.Mapping[str, dict[str, t.Any]],
    chosen: t.Sequence[Host],
    inventory: t.Mapping[str, Group] | None,
) -> list[dict[str, t.Any]]:
    """Return the image groups: nodes of one stream, which is one image of one service and domain."""
    groups: dict[tuple[str, str, str], dict[str, t.Any]] = {}
    for name, record in records.items():
        if not isinstance(record["image"], str):
            continue
        key = (record["image"], str(record["domain"]).lower(), record["settings"]["orbit_frisbee_url"])
        group = groups.setdefault(key, {"label": record["image"], "image": record["image"], "nodes": []})
        group["nodes"].append(name)
    taken: set[str] = set()
    for key, group in groups.items():
        group["label"] = _label(group, chosen, inventory, taken, key[1:])
        taken.add(group["label"])
        for name in group["nodes"]:
            records[name]["group"] = group["label"]
    return list(groups.values())


def _label(
    group: t.Mapping[str, t.Any],
    chosen: t.Sequence[Host],
    inventory: t.Mapping[str, Group] | None,
    taken: t.Container[str],
    place: tuple[str, str],
) -> str:
    """Return the name by which people know the nodes of an image group.

    That is the group of the inventory that has just these of the run's nodes: one that has no other node at
    all, one that gives them this image, or the smallest. Where there is none, the image names them, with as
    much of its ``place`` (domain and service) as tells it from those that are ``taken``.
    """
    names = frozenset(group["nodes"])
    run = frozenset(host.name for host in chosen)
    if inventory is None:
        members: dict[str, set[str]] = {}
        for host in chosen:
            for group_name in host.groups:
                members.setdefault(group_name, set()).add(host.name)
        inventory = {name: Group(frozenset(found)) for name, found in members.items()}
    fitting = [
        (found.members != names, found.image != group["image"], len(found.members), len(name), name)
        for name, found in inventory.items()
        if name not in _NO_GROUPS and name not in taken and found.members & run == names
    ]
    if fitting:
        return min(fitting)[-1]
    image = str(group["image"])
    labels = (image, f"{image} ({place[0]})", f"{image} ({place[0]}, {place[1]})")
    return next((label for label in labels if label not in taken), labels[-1])


def _give_quorum(group: dict[str, t.Any], records: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[str]:
    """Give an image group its quorum; return why its nodes cannot have the one they ask for."""
    first: dict[quorum.Quorum, str] = {}
    for name in group["nodes"]:
        first.setdefault(quorum.parse(records[name]["settings"]["orbit_quorum"]), name)
    where = f"image group {group['label']}"
    if len(first) > 1:
        said = ", ".join(f"{name} says {wanted}" for wanted, name in list(first.items())[:3])
        return [f"{where}: its nodes disagree on orbit_quorum: {said}. Give all nodes of an image the same."]
    wanted = next(iter(first))
    group["quorum"] = str(wanted)
    group["needed"] = wanted.needed(len(group["nodes"]))
    if group["needed"] > len(group["nodes"]):
        return [
            f"{where}: orbit_quorum asks for {group['needed']} nodes, but only {len(group['nodes'])} are "
            "chosen. Lower it, give it as a percentage, or choose more nodes."
        ]
    return []


def _fold(mistakes: t.Sequence[str]) -> list[str]:
    """Keep a long list readable: the same mistake on many hosts is shown for the first three."""
    shown: list[str] = []
    counts: dict[str, int] = {}
    for mistake in mistakes:
        kind = re.sub(r"^host \S+?([:,])", r"\1", mistake)
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] <= 3:
            shown.append(mistake)
    more = sum(count - 3 for count in counts.values() if count > 3)
    if more:
        shown.append(f"... and the same for {more} more hosts.")
    return shown
