# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One virtual machine as a node: a power supply, and the QEMU process that is there while it is on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import subprocess
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path

from orbit_testbed.nodes import network
from orbit_testbed.nodes.diskwatch import DiskWatch
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.faults import Fault
from orbit_testbed.nodes.layout import Node, Settings, State
from orbit_testbed.nodes.supply import SOFT_OFF_GRACE, Supply
from orbit_testbed.tiers.qemu.packages import program
from orbit_testbed.tiers.qemu.qmp import Qmp, QmpError

log = logging.getLogger(__name__)

#: MiB of memory of one machine.
MEMORY = 384
#: Seconds for QEMU to say hello, and to end when told to.
_START_TIMEOUT = 60.0
_QUIT_TIMEOUT = 5.0
#: Asset tag of the chassis by which a machine's systems know that they shall not start their SSH server.
NO_SSH_TAG = "orbit-no-ssh"

#: A boot sector that ends QEMU with status 33: out 0x10 to port 0xf4, halt.
_PROBE = bytes.fromhex("b010e6f4f4ebfd").ljust(510, b"\0") + b"\x55\xaa"
_PROBE_STATUS = 33
_PROBE_TIMEOUT = 1.0


def find_accelerator() -> str:
    """Return ``kvm`` when it boots a kernel here as fast as it should, else ``tcg`` (emulation).

    The mere device says little: under some hypervisors KVM works, but 40 times slower than emulation.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    with tempfile.TemporaryDirectory(prefix="orbit-probe-") as folder:
        image = Path(folder, "boot.img")
        image.write_bytes(_PROBE)
        try:
            result = subprocess.run(
                [
                    program("qemu-system-x86_64"),
                    *("-nodefaults", "-no-user-config", "-display", "none", "-accel", "kvm", "-m", "16"),
                    *("-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-boot", "c"),
                    *("-drive", f"if=ide,format=raw,file={escaped(image)}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_PROBE_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "tcg"
    return "kvm" if result.returncode == _PROBE_STATUS else "tcg"


def escaped(path: Path) -> str:
    """Return a path as QEMU's options take it: commas doubled."""
    return str(path).replace(",", ",,")


@dataclass(frozen=True)
class Chassis:
    """What all machines of a testbed have in common. ``accelerator`` is ``kvm`` or ``tcg``."""

    settings: Settings
    state: State
    accelerator: str


def _firmware(node: Node, chassis: Chassis) -> list[str]:
    """Return the options of a machine that starts by UEFI; QEMU's own firmware is a BIOS."""
    if chassis.settings.firmware_of(node) == "bios":
        return []
    firmware, variables = map(escaped, chassis.state.uefi(node))
    return [
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={firmware}"),
        *("-drive", f"if=pflash,unit=1,format=raw,file={variables}"),
    ]


def command_line(node: Node, chassis: Chassis, fault: Fault, monitor: int) -> list[str]:
    """Return QEMU's command line. It starts halted; ``monitor`` is the file descriptor that QMP talks on."""
    state = chassis.state
    accelerator = "tcg,thread=multi,tb-size=64" if chassis.accelerator == "tcg" else chassis.accelerator
    # With boot-disk the card is none of the devices that the firmware boots from.
    card = f"virtio-net-pci,netdev=n0,mac={node.mac}"
    card += ",romfile=" if fault.kind == "boot-disk" else ",bootindex=1"
    tag = NO_SSH_TAG if fault.kind == "ssh-refuse" else ""
    return [
        program("qemu-system-x86_64"),
        *("-name", node.name, "-S"),
        *("-machine", "pc,usb=off,hpet=off,graphics=off", "-accel", accelerator),
        *("-cpu", "max" if chassis.accelerator == "tcg" else "host"),
        *("-smp", "1", "-m", str(MEMORY)),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *_firmware(node, chassis),
        *("-chardev", f"file,id=console,path={escaped(state.console(node))},append=on"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
        *("-netdev", f"tap,id=n0,ifname={node.port},script=no,downscript=no", "-device", card),
        "-drive",
        f"if=none,id=d0,file={escaped(state.disk(node))},format=raw,cache=unsafe,discard=unmap",
        *("-device", "virtio-blk-pci,drive=d0,bootindex=2", "-device", "virtio-rng-pci"),
        *(("-smbios", f"type=3,asset={tag}") if tag else ()),
    ]


class _Run:
    """The QEMU process of one power cycle."""

    def __init__(self, process: asyncio.subprocess.Process, monitor: Qmp) -> None:
        self.process = process
        self.monitor = monitor

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def kill(self) -> None:
        """End QEMU at once."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def end(self) -> None:
        """End QEMU as a power cut would end the machine, and wait until it is gone."""
        with contextlib.suppress(QmpError, TimeoutError):
            async with asyncio.timeout(_QUIT_TIMEOUT):
                await self.monitor.execute("quit")
                await self.process.wait()
        if self.running:
            self.kill()
        await self.process.wait()
        self.monitor.close()


class QemuMachine(Supply):
    """A virtual machine.

    A reset is off and on: a machine that is reset inside QEMU is emulated more slowly from then on.
    """

    def __init__(self, node: Node, chassis: Chassis) -> None:
        super().__init__(node)
        self._chassis = chassis
        self._run: _Run | None = None
        self._unplugged = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> bool:
        """Whether QEMU runs; the machine in it may hang all the same."""
        return self._run is not None and self._run.running

    def order(self, fault: Fault) -> None:
        """Order a fault for the next power on; one that watches begins at once on a machine that runs."""
        self.fault = fault.for_machines()
        if self.running and (fault.watches or self._has.watches):
            self._has = fault if fault.watches else Fault()
            self._look_out()

    async def _start(self) -> None:
        self._has = self.fault
        if self._unplugged:
            self._plug(True)
        self._run = run = await self._spawn()
        if self._has.once and not self._has.watches:
            self.fault = Fault()
        self.powered = True
        self.boots += 1
        self._look_out()
        self._work(self._self_test(run, self._has))
        self._work(self._note_end(run))

    def _work(self, action: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(action)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stop(self, soft: bool) -> None:
        run, self._run = self._run, None
        self.powered = False
        self._look_away()
        for task in list(self._tasks):
            task.cancel()
        if run is None:
            return
        if soft:
            with contextlib.suppress(QmpError, TimeoutError):
                async with asyncio.timeout(SOFT_OFF_GRACE):
                    await run.monitor.execute("system_powerdown")
                    await run.process.wait()
        await run.end()

    def _look_out(self) -> None:
        """Watch for the moment at which the fault of this power cycle strikes."""
        self._look_away()
        if self._has.watches:
            disk = self._chassis.state.disk(self.node)
            self._watch = DiskWatch(disk, self._has.bytes, self._strike)

    def _plug(self, plugged: bool) -> None:
        network.set_link(self.node.port, up=plugged)
        self._unplugged = not plugged

    def _strike(self, _writer: int) -> None:
        self._note_strike()
        if self._has.kind == "unplugged":
            self._plug(False)
        elif self._run is not None:
            self._run.kill()  # _note_end sees it

    async def _self_test(self, run: _Run, fault: Fault) -> None:
        """Let the machine run after the time that its power-on self test takes; a broken one never does."""
        if fault.kind == "never-boot":
            return
        delay = random.uniform(*self._chassis.settings.boot_delay) + fault.seconds
        if delay:
            await asyncio.sleep(delay)
        try:
            await run.monitor.execute("cont")
        except QmpError as error:
            log.error("%s: %s", self.node.name, error)

    async def _note_end(self, run: _Run) -> None:
        """Note when a system switches its machine off, or QEMU fails."""
        status = await run.process.wait()
        if self._run is run:
            self._run = None
            self.powered = False
            self._look_away()
            if status and self._has.kind != "dies":
                log.error("%s: QEMU ended with status %s: %s", self.node.name, status, self._complaint())
            run.monitor.close()

    def _complaint(self) -> str:
        lines = self._chassis.state.launch_log(self.node).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"

    async def _spawn(self) -> _Run:
        ours, theirs = socket.socketpair()
        with theirs, self._chassis.state.launch_log(self.node).open("wb") as complaints:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command_line(self.node, self._chassis, self._has, theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=complaints,
                    stderr=complaints,
                    pass_fds=[theirs.fileno()],
                )
            except BaseException:
                ours.close()
                raise
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                monitor = await Qmp.open(ours)
        except (QmpError, TimeoutError) as error:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
            raise TestbedError(f"QEMU does not start: {self._complaint()}") from error
        return _Run(process, monitor)
