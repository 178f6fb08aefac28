# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Work out what a run will do, and refuse what it could not do, before any node is touched."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import nodes as nodeutil
from ansible_collections.orbit.imaging.plugins.plugin_utils.node import connection
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import quorum, settings, sizes, tokens

# The services of 2013 accept exactly these characters in an image name; older ones hand the name to a shell.
_IMAGE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
_DISK = re.compile(r"/dev/[A-Za-z0-9][A-Za-z0-9/._:-]*\Z")
_CLIENT = re.compile(r"[A-Za-z0-9/._-]+\Z")
_COORDINATES_IN_NAME = re.compile(r"node([0-9]{1,3})-([0-9]{1,3})(?:\.|\Z)")

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

    :ivar keywords: what play and command line say of the connection to it.
    """

    name: str
    groups: list[str]
    variables: dict[str, t.Any]
    keywords: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)


def make(
    hosts: t.Sequence[Host],
    *,
    image: str | None = None,
    nodes: str | None = None,
    limited: bool = False,
    need_image: bool = True,
) -> dict[str, t.Any]:
    """Return the nodes of the run and the image groups they form.

    ``hosts`` are the hosts of the play, ``image`` overrides the inventory's images, ``nodes`` is a
    node set that restricts the run, ``limited`` says that ``--limit`` chose the hosts, ``need_image`` that a
    node without an image is a mistake. The result has ``nodes`` (name to record) and ``groups`` (list of
    label, image and node names).

    Raises :class:`PlanError` that names every mistake at once.
    """
    mistakes: list[str] = []
    if image is not None:
        mistakes += _check_image(str(image), "-e image")
    chosen = _choose(hosts, nodes, limited)
    records: dict[str, dict[str, t.Any]] = {}
    numbers: dict[str, int] = {}
    for host in chosen:
        try:
            record = _record(host, image, need_image)
        except PlanError as error:
            mistakes += str(error).splitlines()
        else:
            token = host.variables.get(tokens.VARIABLE)
            # Nodes with different tokens cannot share a call; the token itself is nothing for the record.
            record["token"] = numbers.setdefault(str(token), len(numbers) + 1) if token else 0
            records[host.name] = record
    mistakes += _twice(records, "control_ip", "control address")
    mistakes += _twice(records, "hrn", "name on the services")
    groups = _groups(records, chosen)
    if need_image:
        mistakes += [mistake for group in groups for mistake in _give_quorum(group, records)]
    if mistakes:
        raise PlanError("\n".join(_fold(mistakes)))
    return {"nodes": records, "groups": groups}


def batches(nodes: t.Iterable[t.Mapping[str, t.Any]], service: str) -> list[dict[str, t.Any]]:
    """Put nodes that are asked for in one call together.

    ``service`` is ``pxe``, ``frisbee`` or ``cmc``. Nodes share a batch when they share the service's
    address, dialect and domain, the token it wants, and what else this service is told. Batches keep the
    order of the nodes. ``token_from`` is the host whose variable has the token, None for no token.
    """
    found: dict[tuple[t.Any, ...], dict[str, t.Any]] = {}
    for node in nodes:
        setting = node["settings"]
        key = {
            "url": setting[f"orbit_{service}_url"],
            "dialect": setting["orbit_dialect"],
            "domain": node["domain"],
            "timeout": setting["orbit_service_timeout"],
            "ca_path": setting["orbit_service_ca"],
            "validate_certs": setting["orbit_validate_certs"],
            **{name: setting[variable] for name, variable in _TOLD[service].items()},
        }
        batch = found.setdefault(
            (*key.values(), node["token"]),
            {**key, "token_from": node["name"] if node["token"] else None, "nodes": [], "images": []},
        )
        batch["nodes"].append({k: node[k] for k in ("name", "domain", "x", "y", "hrn", "control_ip")})
        if node["image"] and node["image"] not in batch["images"]:
            batch["images"].append(node["image"])
    return list(found.values())


def _choose(hosts: t.Sequence[Host], nodes: str | None, limited: bool) -> list[Host]:
    if nodes is not None:
        return _choose_by_set(hosts, nodes)
    if limited:
        return list(hosts)
    chosen = [h for h in hosts if h.variables.get("orbit_image") or h.variables.get("orbit_chosen")]
    if not chosen:
        raise PlanError(
            f"no nodes chosen: none of the {len(hosts)} hosts of the inventory has an image of its own. "
            "Say which nodes are meant with --limit, with -e 'nodes=[[1,1],[1..5,2]]', "
            "or by giving groups an image in the inventory."
        )
    return chosen


def _choose_by_set(hosts: t.Sequence[Host], nodes: str) -> list[Host]:
    try:
        wanted = nodeutil.parse_node_set(nodes, source="-e nodes")
    except nodeutil.NodeSetError as error:
        raise PlanError(str(error)) from error
    if not wanted:
        raise PlanError("no nodes chosen: the node set given with -e nodes is empty.")
    found: dict[nodeutil.Member, list[Host]] = {}
    for host in hosts:
        known_as: list[nodeutil.Member | None] = [_place(host), host.name, host.variables.get("orbit_hrn")]
        for member in dict.fromkeys(known_as):
            if member is not None:
                found.setdefault(member, []).append(host)
    missing = [_show(member) for member in wanted if member not in found]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise PlanError(
            f"-e nodes: unknown node {shown}: the inventory (within --limit) has no such host. "
            "Correct the node set or add the nodes to the inventory."
        )
    for member in wanted:
        if len(found[member]) > 1:
            names = ", ".join(host.name for host in found[member])
            raise PlanError(
                f"-e nodes: {_show(member)} means more than one host: {names}. "
                "Choose the domain with --limit."
            )
    return list({found[member][0].name: found[member][0] for member in wanted}.values())


def _show(member: nodeutil.Member) -> str:
    return member if isinstance(member, str) else f"[{member[0]},{member[1]}]"


def _place(host: Host) -> nodeutil.Coordinates | None:
    """Return the coordinates of a host: its variables, or a name like node3-7; none for other names."""
    x, y = host.variables.get("orbit_x"), host.variables.get("orbit_y")
    if x is None or y is None:
        match = _COORDINATES_IN_NAME.match(host.name)
        if match is None:
            return None
        x, y = match.groups()
    try:
        return int(x), int(y)
    except (TypeError, ValueError) as error:
        raise PlanError(
            f"host {host.name}: orbit_x and orbit_y must be numbers, not {x!r}, {y!r}."
        ) from error


def _record(host: Host, image: str | None, need_image: bool) -> dict[str, t.Any]:
    mistakes: list[str] = []
    where = f"host {host.name}"
    try:
        setting = settings.resolve(host.variables)
    except settings.SettingsError as error:
        raise PlanError(f"{where}: {error}") from error
    token = setting.pop(tokens.VARIABLE)
    if tokens.mistake(token):
        mistakes.append(f"{where}: {tokens.mistake(token)}")
    wanted = image if image is not None else setting["orbit_image"]
    if not wanted and need_image:
        mistakes.append(f"{where}: no image. Set orbit_image for it in the inventory, or give -e image=NAME.")
    if wanted and image is None:
        mistakes += _check_image(wanted, f"{where}, orbit_image")
    if setting["orbit_memory_image"] is not None:
        mistakes += _check_image(setting["orbit_memory_image"], f"{where}, orbit_memory_image")
    for name, pattern, remedy in (
        ("orbit_disk", _DISK, "Give the whole path of a device, for example /dev/sda."),
        ("orbit_client", _CLIENT, "Give the path of the frisbee client on the node."),
    ):
        if not pattern.match(setting[name]) or ".." in setting[name]:
            mistakes.append(
                f"{where}: {name} is {setting[name]!r}, which is no path that can be used. {remedy}"
            )
    if setting["orbit_disk_min_size"] is not None:
        try:
            sizes.parse(setting["orbit_disk_min_size"])
        except ValueError as error:
            mistakes.append(f"{where}: orbit_disk_min_size: {error}")
    if not _is_one_line(setting["orbit_disk_serial"]):
        mistakes.append(
            f"{where}: orbit_disk_serial is {setting['orbit_disk_serial']!r}, which is no serial number. "
            "Give it as the kernel of the node tells it."
        )
    try:
        quorum.parse(setting["orbit_quorum"])
    except quorum.QuorumError as error:
        mistakes.append(f"{where}: orbit_quorum: {error}")
    way = connection.resolve(host.name, host.variables, host.keywords)
    if need_image:
        mistakes += way.mistakes
    place = _place(host)
    domain = setting["orbit_domain"]
    if not domain:
        mistakes.append(f"{where}: no domain. Set orbit_domain, for example sb1.orbit-lab.org.")
    try:
        (node,) = nodeutil.make_nodes(
            [
                {
                    "name": host.name if place is None else "",
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
        "settings": setting,
        "ssh": way.ssh,
        "inventory_groups": host.groups,
        "outcome": None,
        "evidence": "",
        "steps": {},
    }


def _is_one_line(text: str | None) -> bool:
    """Whether a text, if there is one, can come back in a line of output."""
    return text is None or bool(text and text.isprintable() and text == text.strip())


def _check_image(name: str, where: str) -> list[str]:
    if _IMAGE_NAME.match(name) and ".." not in name:
        return []
    return [
        f"{where}: {name!r} is no image name. Use a file name of letters, digits, dot, dash and underscore, "
        "as it stands on the service, without a folder."
    ]


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


def _groups(
    records: t.Mapping[str, t.Mapping[str, t.Any]], chosen: t.Sequence[Host]
) -> list[dict[str, t.Any]]:
    groups: dict[str, dict[str, t.Any]] = {}
    for name, record in records.items():
        if not record["image"]:
            continue
        group = groups.setdefault(
            record["image"], {"label": record["image"], "image": record["image"], "nodes": []}
        )
        group["nodes"].append(name)
    # People know their nodes by the inventory's group; the image names the group when no such group is exact.
    members: dict[str, set[str]] = {}
    for host in chosen:
        for group_name in host.groups:
            members.setdefault(group_name, set()).add(host.name)
    for group in groups.values():
        exact = [
            g
            for g, names in members.items()
            if names == set(group["nodes"]) and g not in ("all", "ungrouped")
        ]
        if exact:
            group["label"] = min(exact, key=lambda g: (len(g), g))
    return list(groups.values())


def _give_quorum(group: dict[str, t.Any], records: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[str]:
    """Give an image group its quorum; return why its nodes cannot have the one they ask for."""
    first: dict[str, str] = {}
    for name in group["nodes"]:
        first.setdefault(records[name]["settings"]["orbit_quorum"], name)
    where = f"image group {group['label']}"
    if len(first) > 1:
        said = ", ".join(f"{name} says {text}" for text, name in list(first.items())[:3])
        return [f"{where}: its nodes disagree on orbit_quorum: {said}. Give all nodes of an image the same."]
    group["quorum"] = next(iter(first))
    group["needed"] = quorum.parse(group["quorum"]).needed(len(group["nodes"]))
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
