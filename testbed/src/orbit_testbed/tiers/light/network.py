# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of light nodes: a network namespace for each, with a cable to the bridge."""

from __future__ import annotations

from pathlib import Path

from orbit_testbed.nodes import network
from orbit_testbed.nodes.layout import Settings


def create(settings: Settings) -> None:
    """Make the bridge with the services' address, and the nodes' namespaces, cables unplugged.

    A node's side is called ``eth0``; the node configures it when it boots.
    """
    network.batch(
        [
            *network.bridge_lines(settings),
            *(
                line
                for node in settings.nodes
                for line in (
                    f"netns add {node.namespace}",
                    f"link add {node.port} type veth peer name eth0 address {node.mac} "
                    f"netns {node.namespace}",
                    f"link set {node.port} master {network.BRIDGE}",
                )
            ),
        ]
    )
    network.fix_bridge_address(settings)
    if settings.link:
        network.shape(settings)
    # A node without power is given up after one second, not three to eight: boots take one second here, too.
    for name, value in (("delay_first_probe_time", 1), ("ucast_solicit", 1), ("retrans_time_ms", 300)):
        Path(f"/proc/sys/net/ipv4/neigh/{network.BRIDGE}/{name}").write_text(f"{value}\n")


def namespace_path(name: str) -> Path:
    """Return where iproute2 keeps a named network namespace."""
    return Path("/run/netns", name)
