# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One light node's hardware: a power supply, and the processes that run while it is on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from orbit_testbed import inotify
from orbit_testbed.nodes import network
from orbit_testbed.nodes.diskwatch import DiskWatch
from orbit_testbed.nodes.faults import Fault
from orbit_testbed.nodes.host import program
from orbit_testbed.nodes.layout import DISK_SIZE, Node, Settings, State
from orbit_testbed.nodes.supply import SOFT_OFF_GRACE, Supply
from orbit_testbed.tiers.light import badsectors, network as light_network

log = logging.getLogger(__name__)

#: Exit status of process 1 that asks the power supply to start the node again; 0 asks it to switch off.
REBOOT_STATUS = 3
#: Where the master boot record has the disk's signature.
_DISK_SIGNATURE = 440


@dataclass(frozen=True)
class Chassis:
    """What all nodes of a testbed have in common."""

    settings: Settings
    state: State
    nested: bool
    """Whether the hub is in a user namespace, so that a system needs one of its own."""
    work: Path
    """Empty folder that each node mounts its memory on, in its own mount namespace."""
    devices: Path
    """The /dev tree."""
    trees: Path
    """Folder of the memory image trees."""
    launch: Path
    """Folder of the programs that start a node's system."""
    firmware: Path
    """The script that every node starts with."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a node's processes are started."""


class Run:
    """The processes of one power cycle.

    ``outer`` (unshare) waits for ``inner``, the node's process 1, and ends after it; when ``outer`` has been
    reaped, nothing of the node is left.
    """

    def __init__(self, outer: subprocess.Popen[bytes], handshake: int) -> None:
        self.outer = outer
        self.inner: int | None = None
        """Handle (pidfd) of the node's process 1."""
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.status: int | None = None
        self._loop = asyncio.get_running_loop()
        self._handshake = handshake
        self._handle = os.pidfd_open(outer.pid)
        self._loop.add_reader(self._handshake, self._on_handshake)
        self._loop.add_reader(self._handle, self._on_end)

    def _on_handshake(self) -> None:
        try:
            line = os.read(self._handshake, 32).strip()
        except BlockingIOError:
            line = b""
        self._loop.remove_reader(self._handshake)
        os.close(self._handshake)
        self._handshake = -1
        if line.isdigit():
            with contextlib.suppress(ProcessLookupError):
                self.inner = os.pidfd_open(int(line))
        self.started.set()

    def _on_end(self) -> None:
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        self.status = self.outer.wait()
        if self._handshake >= 0:
            self._on_handshake()
        if self.inner is not None:
            os.close(self.inner)
            self.inner = None
        self.ended.set()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the node's process 1."""
        if self.inner is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.inner, number)

    async def kill(self) -> None:
        """End everything of this power cycle and wait until it is gone."""
        await self.started.wait()
        if self.inner is None and not self.ended.is_set():
            self.outer.kill()
        self.signal(signal.SIGKILL)
        await self.ended.wait()


class Machine(Supply):
    """A light node."""

    def __init__(self, node: Node, chassis: Chassis) -> None:
        super().__init__(node)
        self._chassis = chassis
        self._run: Run | None = None
        self._cycle: asyncio.Task[None] | None = None
        self._rotten = b""
        self._strikes: set[asyncio.Task[None]] = set()

    @property
    def _disk(self) -> Path:
        return self._chassis.state.disk(self.node)

    @property
    def running(self) -> bool:
        """Whether a system, or the firmware, executes."""
        return self._run is not None and not self._run.ended.is_set()

    def order(self, fault: Fault) -> None:
        """Order a fault for the next power on; one that watches begins at once on a node that runs."""
        self.fault = fault
        if not self.running:
            return
        if fault.watches:
            self._take_fault()
            self._look_out()
        elif self._has.watches:
            self._has = Fault()
            self._look_away()

    async def _start(self) -> None:
        self.powered = True
        self.boots += 1
        self._take_fault()
        network.set_link(self.node.port, up=True)
        self._cycle = asyncio.get_running_loop().create_task(self._power_cycle())

    async def _stop(self, soft: bool) -> None:
        run, self._run = self._run, None
        cycle, self._cycle = self._cycle, None
        self.powered = False
        if cycle is not None:
            cycle.cancel()
        self._look_away()
        if soft and run is not None:
            await run.started.wait()
            run.signal(signal.SIGUSR2)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(run.ended.wait(), SOFT_OFF_GRACE)
        # The cable first: a machine without power says no good-bye to its peers.
        network.set_link(self.node.port, up=False)
        if run is not None:
            await run.kill()

    async def _power_cycle(self) -> None:
        """Start the firmware, and do what a system asks for that ends by itself."""
        async with self._chassis.turn:
            try:
                self._run = run = self._spawn()
            except OSError as error:
                log.error("%s: cannot start the firmware: %s", self.node.name, error)
                return
            self._look_out()
            await asyncio.sleep(0)  # one start per turn of the loop, so that a big bang does not block it
        await run.ended.wait()
        async with self._lock:
            if self._run is not run:
                return
            if run.status not in (0, REBOOT_STATUS):
                log.warning(
                    "%s: the system ended with status %s; the power stays on", self.node.name, run.status
                )
                return
            self._cycle = None  # this very task, which _stop would cancel
            await self._stop(soft=False)
            if run.status == REBOOT_STATUS:
                await self._start()

    # -- faults that strike in the middle of the work

    def _take_fault(self) -> None:
        """Let the ordered fault be that of this power cycle."""
        self._has = self.fault
        if self.fault.once and not self.fault.watches:
            self.fault = Fault()

    def _look_out(self) -> None:
        self._look_away()
        if self._has.watches:
            self._watch = DiskWatch(self._disk, self._has.bytes, self._strike)
        elif self._has.kind == "disk-corrupt":
            self._watch = inotify.Watch(self._disk, inotify.MODIFY, self._corrupt)

    def _strike(self, writer: int) -> None:
        self._note_strike()
        kind = self._has.kind
        if kind == "unplugged":
            network.set_link(self.node.port, up=False)
        elif kind == "dies":
            task = asyncio.get_running_loop().create_task(self.off())
            self._strikes.add(task)
            task.add_done_callback(self._strikes.discard)
        elif kind in ("client-killed", "client-hangs"):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(
                    writer, signal.SIGKILL if kind == "client-killed" else signal.SIGSTOP
                )

    def _corrupt(self) -> None:
        """Change the disk signature again: part of every image, and nothing that a boot looks at."""
        with self._disk.open("r+b") as disk:
            disk.seek(_DISK_SIGNATURE)
            byte = disk.read(1)
            if byte != self._rotten:
                self._rotten = bytes((byte[0] ^ 0xFF,))
                disk.seek(_DISK_SIGNATURE)
                disk.write(self._rotten)

    def _environment(self) -> dict[str, str]:
        chassis, node = self._chassis, self.node
        delay = round(random.uniform(*chassis.settings.boot_delay), 3)
        return {
            "PATH": os.defpath,
            "NODE": node.name,
            "IP": node.control_ip,
            "HEX": node.hex_ip,
            "MAC": node.mac,
            "SERVER": chassis.settings.server_ip,
            "DISK": str(self._disk),
            "SECTORS": str(DISK_SIZE // 512),
            "DEVICES": str(chassis.devices),
            "TREES": str(chassis.trees),
            "WORK": str(chassis.work),
            "LAUNCH": str(chassis.launch),
            "NESTED": "1" if chassis.nested else "0",
            "DEBUGFS": program("debugfs"),
            **self._has.firmware(delay, chassis.settings.loss),
        }

    def _bad_sectors(self) -> list[str]:
        if self._has.kind != "disk-error":
            return []
        return [sys.executable, "-I", "-S", badsectors.__file__, str(self._has.bytes)]

    def _spawn(self) -> Run:
        read, write = os.pipe()
        os.set_blocking(read, False)
        console = os.open(
            self._chassis.state.console(self.node), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
        )
        # The programs around the firmware are not on the console; what they complain about is kept beside it.
        complaints = os.open(
            self._chassis.state.launch_log(self.node), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644
        )
        try:
            outer = subprocess.Popen(
                [
                    *self._bad_sectors(),
                    program("nsenter"),
                    f"--net={light_network.namespace_path(self.node.namespace)}",
                    program("unshare"),
                    "--mount",
                    "--pid",
                    "--uts",
                    "--fork",
                    "--kill-child",
                    program("busybox"),
                    "sh",
                    str(self._chassis.firmware),
                ],
                stdin=write,
                stdout=console,
                stderr=complaints,
                env=self._environment(),
                start_new_session=True,
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(console)
            os.close(complaints)
            os.close(write)
        return Run(outer, read)
