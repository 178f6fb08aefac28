# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The testbed's network, made inside the hub's namespaces: a bridge with a port for each node."""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
from collections.abc import Iterable

from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.host import program
from orbit_testbed.nodes.layout import Settings

BRIDGE = "orbit0"

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def batch(lines: Iterable[str]) -> None:
    """Run ``ip`` once for many commands (400 nodes: 0.4 s instead of 3 s)."""
    text = "\n".join(lines) + "\n"
    result = subprocess.run(
        [program("ip"), "-batch", "-"], input=text, capture_output=True, text=True, timeout=120, check=False
    )
    if result.returncode != 0:
        raise TestbedError(f"cannot set up the testbed's network: {result.stderr.strip()}")


def bridge_lines(settings: Settings) -> list[str]:
    """Return the ``ip`` commands that make the bridge with the services' address.

    Snooping stays off: every node sees every group, as behind a switch that floods.
    """
    return [
        "link set lo up",
        f"link add {BRIDGE} type bridge mcast_snooping 0",
        f"link set {BRIDGE} up",
        f"addr add {settings.server_ip}/16 dev {BRIDGE}",
        f"route add 239.0.0.0/8 dev {BRIDGE}",
    ]


def fix_bridge_address(settings: Settings) -> None:
    """Give the bridge an address of its own; else it has the lowest of its ports, and changes with them."""
    batch([f"link set {BRIDGE} address 02:00:0a:{settings.number:02x}:00:01"])


def set_link(port: str, up: bool) -> None:
    """Plug or unplug a node's cable at the bridge."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", port.encode(), 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        wanted = flags | _IFF_UP if up else flags & ~_IFF_UP
        if wanted != flags:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", port.encode(), wanted))
