# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub: the one long-running process of a testbed, inside the testbed's namespaces.

It gets its listening sockets from outside, makes the network, and runs the services, the TFTP server, the SSH
gateway and the nodes' power supplies. Everything else in the testbed is its descendant in its PID namespace,
so whatever ends it ends all of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from orbit_services.access import Access
from orbit_services.config import NodeRecord, ServicesConfig
from orbit_services.power.base import Action
from orbit_services.power.drivers import DriverError, driver
from orbit_services.state import StateError
from orbit_testbed import servicefaults as service_faults
from orbit_testbed.bed import control
from orbit_testbed.bed.frontdesk import FrontDesk
from orbit_testbed.bed.power import FaultyPower
from orbit_testbed.bed.relay import Gateway
from orbit_testbed.bed.tftp import TftpServer
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.faults import Fault
from orbit_testbed.nodes.host import mount
from orbit_testbed.nodes.layout import SERVICE_PORTS, Settings, State
from orbit_testbed.nodes.supply import Supply
from orbit_testbed.tiers.base import Plant, tier

log = logging.getLogger(__name__)


def _prepare_mounts(state: State) -> None:
    """Give the hub a /run of its own, where nodes get what they start from.

    The cache is shown there under a short path that overlayfs can take, whatever the real one contains.
    """
    cache = os.open(state.cache, os.O_PATH | os.O_DIRECTORY)
    folder = os.open(state.root, os.O_PATH | os.O_DIRECTORY)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    base = Path("/run/orbit")
    (base / "trees").mkdir(parents=True)
    mount("--no-canonicalize", "--bind", f"/proc/{os.getpid()}/fd/{cache}", str(base / "trees"))
    if state.root.is_relative_to("/run"):
        state.root.mkdir(parents=True)
        mount("--no-canonicalize", "--bind", f"/proc/{os.getpid()}/fd/{folder}", str(state.root))
    os.close(cache)
    os.close(folder)


def _services_config(settings: Settings, state: State, access: Access) -> ServicesConfig:
    return ServicesConfig(
        domain=settings.domain,
        nodes=tuple(
            NodeRecord(
                node.name, node.x, node.y, f"{node.name}.{settings.domain}", node.control_ip, settings.disk
            )
            for node in settings.nodes
        ),
        image_dir=state.images,
        tftp_dir=state.pxe,
        grub_dir=state.grub if settings.kind.grub else None,
        state_file=state.services,
        log_dir=state.logs,
        frisbeed=(sys.executable, "-m", "orbit_frisbee.frisbee.server_cli"),
        interface=settings.server_ip,
        group_base=f"239.{settings.number}.0.0",
        bandwidth=settings.bandwidth,
        access=access,
    )


class Hub:
    """All parts of a running testbed."""

    def __init__(self, settings: Settings, state: State, plant: Plant, access: Access) -> None:
        self.settings = settings
        self.access = access
        self.state = state
        self.plant = plant
        self.machines = plant.machines
        self.power = FaultyPower(driver(settings.tier)(self.machines), self.machines)
        self.stop = asyncio.Event()
        self._desk: FrontDesk | None = None

    async def run(self, sockets: dict[str, socket.socket], ready: int) -> None:
        """Bring everything up, tell ``ready`` about it, and work until told to stop."""
        async with contextlib.AsyncExitStack() as stack:
            await self.plant.start(stack)
            tftp = TftpServer(
                self.state.tftp, self.settings.server_ip, self.state.logs / "tftp.log", self.plant.dnsmasq
            )
            stack.push_async_callback(tftp.stop)
            await tftp.start()
            desk = FrontDesk(
                _services_config(self.settings, self.state, self.access),
                self.power,
                {name: sockets[name] for name in SERVICE_PORTS},
            )
            stack.push_async_callback(desk.close)
            await desk.start()
            self._desk = desk
            gateway = Gateway()
            stack.callback(gateway.close)
            for node in self.settings.nodes:
                await gateway.serve(sockets[node.name], node.control_ip)
            server = await control.serve(self.state.root, self._answer)
            stack.callback(server.close)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self.stop.set)
            os.write(ready, b'{"ready": true}\n')
            os.close(ready)
            log.info("up: %d nodes", len(self.machines))
            await self.stop.wait()
            log.info("going down")
            for machine in self.machines.values():
                machine.fault = Fault()
            results = await self.power.switch(Action.OFF, list(self.machines))
            for name, reason in results.items():
                if reason is not None:
                    log.error("%s: %s", name, reason)

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        action = request.get("do")
        if action == "status":
            return {
                "nodes": [self._describe(machine) for machine in self.machines.values()],
                "service_faults": self._front_desk().faults.status(),
                "service_hits": self._front_desk().faults.hits(),
            }
        if action == "fault":
            return await self._order(request)
        if action == "stop":
            self.stop.set()
            return {"stopping": True}
        raise TestbedError(f"the hub does not know how to do {action!r}")

    async def _order(self, request: dict[str, Any]) -> dict[str, Any]:
        words = str(request.get("fault"))
        if request.get("service") is not None:
            services = service_faults.SERVICES if request["service"] == "all" else [str(request["service"])]
            try:
                orders = [
                    service_faults.Order.parse(service, words, request.get("method"), request.get("count"))
                    for service in services
                ]
            except service_faults.FaultError as error:
                raise TestbedError(str(error)) from error
            for order in orders:
                await self._front_desk().order(order)
            return {"hit": list(services), "fault": words}
        fault = Fault.parse(words)
        named = list(request.get("nodes") or ())
        names = list(self.machines) if named == ["all"] else [self.settings.node(n).name for n in named]
        for name in names:
            machine = self.machines[name]
            machine.order(fault)
        return {"hit": names, "fault": str(fault)}

    def _front_desk(self) -> FrontDesk:
        if self._desk is None:
            raise TestbedError("the services are not up yet")
        return self._desk

    def _describe(self, machine: Supply) -> dict[str, Any]:
        node = machine.node
        link = self.state.pxe / node.hex_ip
        return {
            "name": node.name,
            "x": node.x,
            "y": node.y,
            "control_ip": node.control_ip,
            "ssh": f"{node.outside_ip}",
            "power": "on" if machine.powered else "off",
            "running": machine.running,
            "link": os.readlink(link).removeprefix("./") if link.is_symlink() else None,
            "boots": machine.boots,
            "fault": str(machine.fault),
        }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m orbit_testbed.bed.hub")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument(
        "--socket-fds", required=True, metavar="N,N,...", help="in the order of Settings.listeners"
    )
    parser.add_argument("--nested", action="store_true")
    parser.add_argument("--launch", default="", metavar="TREE")
    return parser.parse_args()


def main() -> int:
    """Run a hub; ``orbit-testbed up`` starts it with sockets and a pipe to report on."""
    options = _arguments()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    os.umask(0o022)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    state = State(options.folder)
    try:
        settings = Settings.from_json(state.settings.read_text())
        names = [name for name, _, _ in settings.listeners()]
        handles = map(int, options.socket_fds.split(","))
        sockets = {name: socket.socket(fileno=handle) for name, handle in zip(names, handles, strict=True)}
        for sock in sockets.values():
            sock.setblocking(False)
            sock.set_inheritable(False)
        os.set_inheritable(options.ready_fd, False)
        # Now, as what lies below /run is out of sight soon.
        access = settings.access()
        _prepare_mounts(state)
        tier(settings.tier).prepare(Path("/run/orbit"))
        _reap_by_handle()
        asyncio.run(_main(settings, state, options, sockets, access))
    except (TestbedError, DriverError, StateError, OSError) as error:
        message = error.message if isinstance(error, TestbedError) else str(error)
        remedy = error.remedy if isinstance(error, TestbedError) else ""
        log.error("%s", message)
        with contextlib.suppress(OSError):
            os.write(options.ready_fd, json.dumps({"error": message, "remedy": remedy}).encode() + b"\n")
        return 1
    return 0


async def _main(
    settings: Settings,
    state: State,
    options: argparse.Namespace,
    sockets: dict[str, socket.socket],
    access: Access,
) -> None:
    plant = tier(settings.tier).plant(settings, state, options.nested, options.launch)
    await Hub(settings, state, plant, access).run(sockets, options.ready_fd)


def _reap_by_handle() -> None:
    """Wait for asyncio's own children by pidfd; Python before 3.12 starts a thread for each one."""
    if sys.version_info < (3, 12):
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


if __name__ == "__main__":
    sys.exit(main())
