# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, addresses and folders of one testbed: everything that follows from its name, number and size."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from orbit_services.access import Access, AccessError
from orbit_testbed.nodes.errors import TestbedError

#: TCP ports of the services' dialects, on 127.N.0.1.
SERVICE_PORTS = {"A": 5012, "B": 5022, "C": 5052, "D": 5053, "E2": 5054, "E1": 5055}
#: TCP port of a node's SSH server as seen from the machine that runs the testbed.
SSH_PORT = 2222
#: Bytes of a node's disk; the images are made for a smaller one, as in a real lab.
DISK_SIZE = 128 * 1024 * 1024
#: A bridge takes 1024 ports (Linux BR_MAX_PORTS).
MOST_NODES = 1023

#: What virtual machines start by.
FIRMWARES = ("bios", "uefi")
#: Virtual machines of one testbed: beyond this, booting them all takes longer than anybody waits.
MOST_MACHINES = 16

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", re.ASCII)
_GRID = re.compile(r"([0-9]{1,3})x([0-9]{1,3})", re.ASCII)


@dataclass(frozen=True)
class Kind:
    """What must be known of a kind of nodes before there are any.

    ``disk``: how a node calls its disk, ``disk_type`` what that is (``block`` or ``file``); ``firmwares``:
    what nodes may start by; ``most``: how many a testbed takes; ``loses``: whether they can be made to lose
    datagrams; ``shapes``: whether their cables can have a rate; ``grub``: whether they look for GRUB's links,
    too.
    """

    plural: str
    disk: str
    disk_type: str
    firmwares: tuple[str, ...] = ("bios",)
    most: int | None = None
    loses: bool = False
    shapes: bool = False
    grub: bool = False


#: What nodes are: ``light`` ones are containers, ``qemu`` ones virtual machines.
TIERS = {
    "light": Kind("light nodes", disk="/dev/sda", disk_type="file", loses=True, shapes=True),
    "qemu": Kind(
        "virtual machines",
        disk="/dev/vda",
        disk_type="block",
        firmwares=FIRMWARES,
        most=MOST_MACHINES,
        grub=True,
    ),
}


@dataclass(frozen=True)
class Node:
    """One node: column x, row y of testbed number ``number``."""

    number: int
    x: int
    y: int

    @property
    def name(self) -> str:
        """Short name, such as ``node1-2``."""
        return f"node{self.x}-{self.y}"

    @property
    def control_ip(self) -> str:
        """Address inside the testbed."""
        return f"10.{self.number}.{self.x}.{self.y}"

    @property
    def outside_ip(self) -> str:
        """Loopback address where the gateway takes SSH connections for this node."""
        return f"127.{self.number}.{self.x}.{self.y}"

    @property
    def hex_ip(self) -> str:
        """Control IP as pxelinux names its configuration file: four octets in upper-case hex."""
        return f"0A{self.number:02X}{self.x:02X}{self.y:02X}"

    @property
    def mac(self) -> str:
        """Locally administered hardware address."""
        return f"02:00:0a:{self.number:02x}:{self.x:02x}:{self.y:02x}"

    @property
    def namespace(self) -> str:
        """Name of the node's network namespace inside the testbed."""
        return f"orbit-{self.name}"

    @property
    def port(self) -> str:
        """Name of the bridge's port to this node."""
        return f"v{self.x}-{self.y}"


def parse_grid(text: str) -> tuple[int, int]:
    """Return columns and rows of ``4x2``; each 1 to 254, ``MOST_NODES`` nodes at most."""
    match = _GRID.fullmatch(text)
    if match is None:
        raise TestbedError(f"--nodes {text!r}: not COLUMNSxROWS", "write for example --nodes 4x2")
    columns, rows = int(match[1]), int(match[2])
    if not (1 <= columns <= 254 and 1 <= rows <= 254):
        raise TestbedError(f"--nodes {text!r}: columns and rows go from 1 to 254")
    if columns * rows > MOST_NODES:
        raise TestbedError(f"--nodes {text!r}: {columns * rows} nodes, but one bridge takes {MOST_NODES}")
    return columns, rows


def parse_delay(text: str) -> tuple[float, float]:
    """Return the bounds in seconds of ``0.5-3`` or ``2`` (always the same)."""
    parts = text.split("-")
    try:
        bounds = [float(part) for part in parts]
    except ValueError:
        bounds = []
    if len(bounds) == 1:
        bounds *= 2
    if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] <= 3600:
        raise TestbedError(f"--boot-delay {text!r}: not seconds or FROM-TO in seconds (0 to 3600)")
    return bounds[0], bounds[1]


@dataclass(frozen=True)
class Settings:
    """What a testbed was asked to be. ``bandwidth`` is bit/s per stream (0: as fast as its clients can),
    ``link`` bit/s of each node's cable (0: as fast as can be), ``boot_delay`` the bounds in seconds of a
    power-on self test, ``loss`` the percentage of datagrams that nodes lose, ``tier`` one of TIERS.
    ``firmware`` is what virtual machines start by: one of FIRMWARES, or several that nodes have in turn. The
    last five say who may use the services, and by which names (see ``orbit_services.access``)."""

    name: str = "demo"
    number: int = 77
    columns: int = 4
    rows: int = 2
    bandwidth: int = 80_000_000
    link: int = 0
    boot_delay: tuple[float, float] = (0.0, 0.0)
    loss: float = 0.0
    tier: str = "light"
    firmware: tuple[str, ...] = ("bios",)
    allow: tuple[str, ...] = ()
    token_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    known_as: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise TestbedError(
                f"--name {self.name!r}: only a-z, 0-9 and inner hyphens, 32 characters at most"
            )
        if not 1 <= self.number <= 254:
            raise TestbedError(
                f"--number {self.number}: not within 1..254",
                "it becomes the second octet of 10.N.x.y and 127.N.x.y",
            )
        parse_grid(f"{self.columns}x{self.rows}")
        if self.bandwidth and not 100_000 <= self.bandwidth <= 100_000_000_000:
            raise TestbedError(
                f"--bandwidth {self.bandwidth}: not within 100000..100000000000 bit/s",
                "or 0: as fast as the clients can",
            )
        if self.link and not 100_000 <= self.link <= 100_000_000_000:
            raise TestbedError(
                f"--link {self.link}: not within 100000..100000000000 bit/s", "or 0: as fast as can be"
            )
        if not 0 <= self.loss <= 90:
            raise TestbedError(f"--loss {self.loss}: not within 0..90 percent")
        if self.tier not in TIERS:
            raise TestbedError(f"--tier {self.tier!r}: not one of {', '.join(TIERS)}")
        kind = self.kind
        if kind.most is not None and self.columns * self.rows > kind.most:
            raise TestbedError(
                f"{self.columns * self.rows} {kind.plural}, but a testbed takes {kind.most}",
                "use light nodes, or fewer",
            )
        if not self.firmware or not set(self.firmware) <= set(FIRMWARES):
            raise TestbedError(
                f"--firmware {','.join(self.firmware)!r}: not bios or uefi", "several: --firmware bios,uefi"
            )
        if not set(self.firmware) <= set(kind.firmwares):
            raise TestbedError("--firmware: only virtual machines have a choice", "add --tier qemu")
        if self.loss and not kind.loses:
            raise TestbedError("--loss: only light nodes can lose datagrams", "leave --loss or --tier away")
        if self.link and not kind.shapes:
            raise TestbedError(
                "--link: only light nodes have cables of a rate", "leave --link or --tier away"
            )

    @property
    def domain(self) -> str:
        """Domain of the nodes; a testbed has one, named like itself."""
        return self.name

    @property
    def disk(self) -> str:
        """The device that nodes know their disk by."""
        return self.kind.disk

    @property
    def kind(self) -> Kind:
        """What the nodes are."""
        return TIERS[self.tier]

    @property
    def server_ip(self) -> str:
        """Address of the services inside the testbed."""
        return f"10.{self.number}.0.1"

    @property
    def outside_ip(self) -> str:
        """Loopback address of the services as seen from the machine that runs the testbed."""
        return f"127.{self.number}.0.1"

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, row by row."""
        return tuple(
            Node(self.number, x, y) for y in range(1, self.rows + 1) for x in range(1, self.columns + 1)
        )

    def firmware_of(self, node: Node) -> str:
        """Return which of FIRMWARES a virtual machine starts by."""
        return self.firmware[self.nodes.index(node) % len(self.firmware)]

    def node(self, name: str) -> Node:
        """Return the node of that name, with or without the domain."""
        short = name.removesuffix(f".{self.domain}")
        for node in self.nodes:
            if node.name == short:
                return node
        raise TestbedError(
            f"node {name!r} is not in testbed {self.name}",
            f"its nodes are {self.nodes[0].name} to {self.nodes[-1].name}",
        )

    def service_url(self, dialect: str = "A") -> str:
        """Return the address of the services of a dialect, as seen from the machine that runs the testbed."""
        scheme = "http" if self.tls_cert is None else "https"
        return f"{scheme}://{self.outside_ip}:{SERVICE_PORTS[dialect]}"

    def access(self) -> Access:
        """Read who may use the services: besides what was asked for, the testbed's own network.

        Raises :class:`TestbedError` when a file cannot be used.
        """
        token, certificate, key = (
            None if name is None else Path(name) for name in (self.token_file, self.tls_cert, self.tls_key)
        )
        allow = (f"10.{self.number}.0.0/16", *self.allow)
        try:
            return Access.load(allow, token, certificate, key, self.known_as)
        except AccessError as error:
            raise TestbedError(str(error)) from error

    def listeners(self) -> Iterator[tuple[str, str, int]]:
        """Yield (what, loopback address, port) of everything that is reachable from outside."""
        for dialect, port in SERVICE_PORTS.items():
            yield dialect, self.outside_ip, port
        for node in self.nodes:
            yield node.name, node.outside_ip, SSH_PORT

    def to_json(self) -> str:
        """Return the settings as a JSON document."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read what :meth:`to_json` wrote; raises :class:`TestbedError` when it is something else."""
        try:
            document: dict[str, Any] = json.loads(text)
            low, high = document.pop("boot_delay")
            lists: dict[str, Any] = {
                name: tuple(document.pop(name, getattr(cls, name)))
                for name in ("firmware", "allow", "known_as")
            }
            return cls(boot_delay=(float(low), float(high)), **lists, **document)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TestbedError(f"unreadable testbed settings: {error}") from error


def default_home() -> Path:
    """Return the folder that holds the state folders of all testbeds of this user."""
    given = os.environ.get("ORBIT_TESTBED_HOME")
    if given:
        return Path(given)
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "orbit-testbed"


@dataclass(frozen=True)
class State:
    """The state folder of a testbed; all it keeps is below ``root``."""

    root: Path

    @property
    def settings(self) -> Path:
        """Settings of the testbed that is, or was last, up."""
        return self.root / "testbed.json"

    @property
    def hub_pid(self) -> Path:
        """Identity (pid and start time) of the running hub."""
        return self.root / "hub.pid"

    @property
    def hub_log(self) -> Path:
        """Standard output and error of the hub."""
        return self.root / "hub.log"

    @property
    def lock(self) -> Path:
        """Held by ``up`` and ``down`` while they work."""
        return self.root / "lock"

    @property
    def key(self) -> Path:
        """Private SSH key that every system of the testbed lets in."""
        return self.root / "id_ed25519"

    @property
    def tftp(self) -> Path:
        """Root of the TFTP server."""
        return self.root / "tftpboot"

    @property
    def pxe(self) -> Path:
        """The pxelinux configuration folder, home of the PXE links."""
        return self.tftp / "pxelinux.cfg"

    @property
    def grub(self) -> Path:
        """The folder of GRUB's configurations, home of the PXE links of machines with UEFI."""
        return self.tftp / "grub" / "nodes"

    @property
    def images(self) -> Path:
        """Folder of the disk images (.ndz)."""
        return self.root / "images"

    @property
    def nodes(self) -> Path:
        """Folder of the nodes' own folders."""
        return self.root / "nodes"

    @property
    def logs(self) -> Path:
        """Folder of the frisbeed and TFTP logs."""
        return self.root / "logs"

    @property
    def services(self) -> Path:
        """State document of the services."""
        return self.root / "services.json"

    @property
    def cache(self) -> Path:
        """Memory image trees and disk images, named by the content of what they were made from."""
        given = os.environ.get("ORBIT_TESTBED_CACHE")
        return Path(given) if given else self.root / "cache"

    @property
    def inventory(self) -> Path:
        """Inventory file for the plugin orbit.imaging.nodes."""
        return self.root / "testbed.orbit.yml"

    def disk(self, node: Node) -> Path:
        """The node's disk."""
        return self.nodes / node.name / "disk.raw"

    def uefi(self, node: Node) -> tuple[Path, Path]:
        """The node's UEFI firmware (program and variables); it has none when it starts by BIOS."""
        folder = self.nodes / node.name
        return folder / "uefi.fd", folder / "uefi-variables.fd"

    def console(self, node: Node) -> Path:
        """The node's serial console log."""
        return self.nodes / node.name / "console.log"

    def launch_log(self, node: Node) -> Path:
        """What the programs that start a node's firmware complained about last time."""
        return self.nodes / node.name / "launch.log"
