# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of virtual machines: a bridge with a tap device per machine, DHCP beside TFTP."""

from __future__ import annotations

from pathlib import Path

from orbit_testbed.nodes import network
from orbit_testbed.nodes.layout import Settings, State

#: Files on the TFTP server that a machine's firmware loads: BIOS, UEFI.
LOADER, UEFI_LOADER = "pxelinux.0", "grubnetx64.efi"
#: What clients say they are when they want a program for UEFI on x86-64 (RFC 4578, option 93; many say 9).
_UEFI_CLIENTS = (7, 9)


def create(settings: Settings) -> None:
    """Make the bridge with the services' addresses and the tap devices of the machines."""
    lines = network.bridge_lines(settings)
    if Path("/proc/sys/net/ipv6").exists():
        lines.append(f"addr add fd00:{settings.number:x}::1/64 dev {network.BRIDGE} nodad")
    for node in settings.nodes:
        lines += [
            f"tuntap add dev {node.port} mode tap",
            f"link set {node.port} master {network.BRIDGE} up",
        ]
    network.batch(lines)
    network.fix_bridge_address(settings)


def dnsmasq_options(settings: Settings, state: State) -> list[str]:
    """Return what makes dnsmasq a DHCP server, too: each machine has its lease and nobody else gets one.

    The router advertisements are for iPXE of before 2020, which waits 16 seconds for one; the encapsulated
    option tells it not to wait for a proxy's offer. Which boot loader a machine gets depends on its firmware.
    """
    options = [
        f"--interface={network.BRIDGE}",
        "--bind-dynamic",
        "--dhcp-authoritative",
        "--no-ping",
        f"--dhcp-range=10.{settings.number}.0.0,static,255.255.0.0,infinite",
        f"--dhcp-leasefile={state.logs / 'leases'}",
        "--dhcp-option=3",
        "--dhcp-option=6",
        "--dhcp-option=encap:175,176,1b",
        *(f"--dhcp-match=set:uefi,option:client-arch,{kind}" for kind in _UEFI_CLIENTS),
        f"--dhcp-boot=tag:uefi,{UEFI_LOADER}",
        f"--dhcp-boot=tag:!uefi,{LOADER}",
    ]
    if Path("/proc/sys/net/ipv6").exists():
        options += ["--enable-ra", f"--dhcp-range=fd00:{settings.number:x}::,ra-only,64"]
    return options + [f"--dhcp-host={node.mac},{node.control_ip},{node.name}" for node in settings.nodes]
