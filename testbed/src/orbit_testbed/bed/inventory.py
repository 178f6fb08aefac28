# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of a running testbed, for the plugin orbit.imaging.nodes."""

from __future__ import annotations

import json

from orbit_testbed.nodes.layout import SSH_PORT, Settings, State
from orbit_testbed.tiers.base import tier

#: Every boot of a node is another machine to ssh, and a dead one must not hold a caller for ever.
SSH_OPTIONS = (
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
    "-o",
    "GlobalKnownHostsFile=/dev/null",
    "-o",
    "IdentitiesOnly=yes",
    "-o",
    "PasswordAuthentication=no",
    "-o",
    "ConnectTimeout=10",
    "-o",
    "ServerAliveInterval=3",
    "-o",
    "ServerAliveCountMax=2",
    "-o",
    "KexAlgorithms=curve25519-sha256",
)


def text(settings: Settings, state: State) -> str:
    """Return the inventory: all nodes, the first row in group senders, the other rows in group receivers."""
    number = settings.number
    url = settings.service_url()
    variables = {
        "ansible_port": SSH_PORT,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(state.key),
        "ansible_ssh_common_args": " ".join(SSH_OPTIONS),
        "orbit_pxe_url": url,
        "orbit_frisbee_url": url,
        "orbit_cmc_url": url,
        "orbit_memory_image": "memory",
        "orbit_disk": settings.disk,
        "orbit_disk_type": settings.kind.disk_type,
    }
    if settings.token_file is not None:
        variables["orbit_service_token"] = (
            f"{{{{ lookup('ansible.builtin.file', {settings.token_file!r}) }}}}"
        )
    if settings.tls_cert is not None:
        # One that is signed by itself; for another one, the inventory of a real lab names the authority.
        variables["orbit_service_ca"] = settings.tls_cert
    sender, receiver = tier(settings.tier).recipes
    lines = [
        "---",
        f"# Testbed {settings.name}, written by orbit-testbed up.",
        "plugin: orbit.imaging.nodes",
        f"domain: {settings.domain}",
        f"size: [{settings.columns}, {settings.rows}]",
        f'control_ip: "10.{number}.{{x}}.{{y}}"',
        f'ansible_host: "127.{number}.{{x}}.{{y}}"',
        "# Nodes of a testbed have new SSH host keys with every boot, and are reached by loopback alone: so",
        "# the options of ssh switch the checking of host keys off. Do not take them over to a real lab.",
        "vars:",
        *(f"  {name}: {json.dumps(value)}" for name, value in variables.items()),
        "groups:",
        "  senders:",
        f'    nodes: "[1..{settings.columns},1]"',
        f"    image: {sender}",
    ]
    if settings.rows > 1:
        lines += [
            "  receivers:",
            f'    nodes: "[1..{settings.columns},2..{settings.rows}]"',
            f"    image: {receiver}",
        ]
    return "\n".join(lines) + "\n"
