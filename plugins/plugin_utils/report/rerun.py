# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The nodes of a run that failed, as an inventory with which the same run is done for them again."""

from __future__ import annotations

import re
import typing as t

import yaml

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import ssh_options
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records, settings
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Node, Record

# Settings that do not go with the nodes: how the run chose them, what its nodes were part of, and secrets.
_LEFT_OUT = ("orbit_image", "orbit_nodes", "orbit_quorum")
# Programs that ssh is told to use may be given secrets in their arguments; ssh itself takes none there.
_SECRET = re.compile(r"sshpass|\b(?:pass|passwd|password|passphrase|token|secret)[=: ]", re.IGNORECASE)

_HEAD = """\
# The nodes of run {run} that were not imaged. Image them again:
#   {command}
# Passwords, passphrases and service tokens are not in this file; give them as you gave them for that run.
"""


class _Unsafe(str):
    """A text in which Ansible would look for templates."""


class _Dumper(yaml.SafeDumper):
    """Writes texts with braces so that Ansible takes them as they are."""


_Dumper.add_representer(
    _Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"')
)


def make(record: Record, command: str) -> str:
    """Return the text of the inventory of the failed nodes of a concluded run.

    :param command: how the run is done again with it; the first lines tell.
    """
    failed = records.failed(record)
    names = _group_names(record)
    groups: dict[str, t.Any] = {}
    missing: list[str] = []
    for node in failed:
        group = groups.setdefault(names[node["name"]], {"vars": {"orbit_image": node["image"]}, "hosts": {}})
        variables, left_out = _variables(node)
        group["hosts"][node["name"]] = variables
        missing += left_out
    head = _HEAD.format(run=record["id"], command="".join(c if c.isprintable() else "?" for c in command))
    for name in dict.fromkeys(missing):
        head += f"# {name} may hold a secret and is left out; give it again.\n"
    body = yaml.dump(
        _guarded({"all": {"children": groups}}),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=110,
    )
    return f"---\n{head}{body}"


def _variables(node: Node) -> tuple[dict[str, t.Any], list[str]]:
    """Return all that the run must know of a node, and the names of what had to be left out."""
    usual = settings.resolve({})
    found: dict[str, t.Any] = {}
    left_out = []
    for name, value in ssh_options.variables_of(node["ssh"]).items():
        if name.endswith("_args") and _SECRET.search(str(value)):
            left_out.append(name)
            continue
        found[name] = value
    own = {
        "orbit_domain": node["domain"],
        "orbit_hrn": node["hrn"],
        "orbit_x": node["x"],
        "orbit_y": node["y"],
        "orbit_control_ip": node["control_ip"],
    }
    found.update({name: value for name, value in own.items() if value not in (None, "")})
    for name, value in node["settings"].items():
        if name not in (*own, *_LEFT_OUT) and value is not None and value != usual.get(name):
            found[name] = value
    return found, left_out


def _group_names(record: Record) -> dict[str, str]:
    """Return for each node the name of its image group, close to the label, as Ansible accepts it."""
    taken = {"all", "ungrouped", *record["nodes"]}
    found = {}
    for group in record["groups"]:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", group["label"])
        name = plain if re.match(r"[A-Za-z_]", plain) else f"image_{plain}"
        while name in taken:
            name += "_"
        taken.add(name)
        found.update(dict.fromkeys(group["nodes"], name))
    return found


def _guarded(value: t.Any) -> t.Any:
    if isinstance(value, dict):
        return {key: _guarded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_guarded(item) for item in value]
    if isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value):
        return _Unsafe(value)
    return value
