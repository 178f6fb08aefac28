# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the services must be told: the domain, its nodes, and where things live."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .access import Access
from .links import is_link_name

#: Names that are safe as one path component: the set that OMF 5.4 allows in image and user names.
_SAFE = re.compile(r"[0-9A-Za-z._-]+", re.ASCII)


class ConfigError(Exception):
    """The configuration contradicts itself; the text names the field and what is wrong with it."""


def is_safe_name(name: str) -> bool:
    """Return whether ``name`` may name a file in one folder: allowed characters, not only dots."""
    return _SAFE.fullmatch(name) is not None and name.strip(".") != ""


@dataclass(frozen=True)
class NodeRecord:
    """One node of the domain."""

    name: str
    x: int
    y: int
    hrn: str
    control_ip: str
    disk: str = "/dev/sda"

    @cached_property
    def hex_ip(self) -> str:
        """The control IP as pxelinux spells it in a file name: four octets, upper-case hex."""
        return f"{int(ipaddress.IPv4Address(self.control_ip)):08X}"


@dataclass(frozen=True)
class ServicesConfig:
    """Settings shared by all dialects.

    ``tftp_dir`` is the ``pxelinux.cfg`` folder itself, ``grub_dir`` the one where GRUB looks for
    ``grub.cfg-HEX`` when there are machines with UEFI; ``frisbeed`` is the command (a prefix of argument
    strings) that the stream's options and the image path are appended to; ``interface`` is the IPv4
    address the multicast leaves by; ``bandwidth`` is bit/s of one stream (0: as fast as its
    clients can); times are seconds; ``access`` says
    who may use the services.

    ``faithful`` brings back the traps of the historic programs (shared ports, leaking counters, links that
    can no longer be set, replies whose connection then drops) so that clients can be tested against them.
    """

    domain: str
    nodes: tuple[NodeRecord, ...]
    image_dir: Path
    tftp_dir: Path
    state_file: Path
    log_dir: Path
    frisbeed: tuple[str, ...]
    interface: str = "127.0.0.1"
    group_base: str = "239.77.0.0"
    port_base: int = 7000
    bandwidth: int = 50_000_000
    memory_image: str = "memory"
    default_image: str = "baseline.ndz"
    max_daemons: int = 10
    link_lifetime: float = 1800.0
    stream_timeout: float = 3600.0
    start_timeout: float = 10.0
    stop_timeout: float = 8.0
    power_timeout: float = 90.0
    gather: float | None = None
    grub_dir: Path | None = None
    faithful: bool = False
    faithful_wait: float = 1.0
    access: Access = field(default_factory=Access)

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for node in self.nodes:
            for kind, value in (
                ("name", node.name),
                ("hrn", node.hrn),
                ("control IP", node.control_ip),
                ("coordinates", f"[{node.x},{node.y}]"),
            ):
                other = seen.setdefault(f"{kind} {value}", node.name)
                if other != node.name:
                    raise ConfigError(f"nodes {other} and {node.name} have the same {kind}: {value}")
        if len({node.name for node in self.nodes}) != len(self.nodes):
            raise ConfigError("a node is listed twice")
        base = ipaddress.IPv4Address(self.group_base)
        if int(base) & 0xFFFF or base not in ipaddress.IPv4Network("239.0.0.0/8"):
            raise ConfigError(f"group_base {base}: a /16 of 239.0.0.0/8 is needed, such as 239.77.0.0")
        if not 1024 <= self.port_base <= 65000:
            raise ConfigError(f"port_base {self.port_base}: not within 1024..65000")
        if not self.frisbeed:
            raise ConfigError("frisbeed: no command")
        if not is_safe_name(self.memory_image) or is_link_name(self.memory_image):
            raise ConfigError(
                f"memory_image {self.memory_image!r}: not a plain file name, or one of a node's link"
            )

    @cached_property
    def by_hrn(self) -> Mapping[str, NodeRecord]:
        """Nodes by human-readable name."""
        return {node.hrn: node for node in self.nodes}

    @cached_property
    def by_name(self) -> Mapping[str, NodeRecord]:
        """Nodes by short name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def by_position(self) -> Mapping[tuple[int, int], NodeRecord]:
        """Nodes by coordinates."""
        return {(node.x, node.y): node for node in self.nodes}

    @cached_property
    def by_ip(self) -> Mapping[str, NodeRecord]:
        """Nodes by control IP."""
        return {node.control_ip: node for node in self.nodes}

    @cached_property
    def in_rows(self) -> tuple[NodeRecord, ...]:
        """Nodes in the order of the historic replies: y outer, x inner."""
        return tuple(sorted(self.nodes, key=lambda node: (node.y, node.x)))


def grid(domain: str, columns: int, rows: int, network: int = 77, host: int = 10) -> tuple[NodeRecord, ...]:
    """Return the nodes of a full grid: ``nodeX-Y`` with control IP ``host.network.X.Y``."""
    return tuple(
        NodeRecord(f"node{x}-{y}", x, y, f"node{x}-{y}.{domain}", f"{host}.{network}.{x}.{y}")
        for y in range(1, rows + 1)
        for x in range(1, columns + 1)
    )
