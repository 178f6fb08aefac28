# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The qemu tier: what `orbit-testbed up --tier qemu` makes, and what the hub then runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from orbit_services.serve import HttpServers, listen
from orbit_testbed.nodes import tree
from orbit_testbed.nodes.layout import Settings, State
from orbit_testbed.tiers.qemu import (
    disk as qemu_disk,
    memory as qemu_memory,
    network as qemu_network,
    packages as qemu_packages,
)
from orbit_testbed.tiers.qemu.machine import Chassis, QemuMachine, find_accelerator

log = logging.getLogger(__name__)

#: Folder on the TFTP server whose files machines also get by HTTP.
_BOOT = "boot"


def make_memory_image(state: State) -> tuple[qemu_memory.MemoryImage, qemu_packages.Packages]:
    """Make the memory image that lets in the testbed's key; return it and what it was made from."""
    packages = qemu_packages.packages()
    public = tree.make_login_key(state.key)
    hostkey = tree.make_hostkey(state.root / "keys/memory")
    return qemu_memory.build(state.cache, packages, hostkey=hostkey, authorized_key=public), packages


def make_images(state: State, say: Callable[[str], None]) -> tuple[qemu_memory.MemoryImage, set[Path]]:
    """Make the memory image and the disk images; return the former, and all that they use of the cache."""
    began = time.monotonic()
    before = set(state.cache.iterdir()) if state.cache.exists() else set()
    image, packages = make_memory_image(state)
    public = tree.make_login_key(state.key)
    disks = qemu_disk.build_all(
        state.cache, state.images, packages, keys=state.root / "keys", authorized_key=public
    )
    made = [] if image.initramfs in before else ["memory image"]
    made += [recipe.name for recipe, path in zip(qemu_disk.RECIPES, disks, strict=True) if path not in before]
    if made:
        say(f"made {', '.join(made)} ({time.monotonic() - began:.1f} s)")
    return image, {image.initramfs, *disks}


def equip(settings: Settings, state: State) -> None:
    """Give machines that start by UEFI their firmware."""
    for node in settings.nodes:
        if settings.firmware_of(node) == "uefi":
            for source, target in zip(qemu_packages.packages().uefi, state.uefi(node), strict=True):
                shutil.copyfile(source, target)


def fill_tftp(settings: Settings, state: State, image: qemu_memory.MemoryImage, name: str) -> None:
    """Put boot loaders, configurations and the memory image ``name`` where machines look for them."""
    shutil.copyfile(qemu_packages.PXELINUX, state.tftp / qemu_network.LOADER)
    shutil.copyfile(qemu_packages.LDLINUX, state.tftp / qemu_packages.LDLINUX.name)
    shutil.copyfile(image.kernel, state.tftp / _BOOT / f"{name}.vmlinuz")
    shutil.copyfile(image.initramfs, state.tftp / _BOOT / f"{name}.img")
    tree.write_file(state.pxe / "default", qemu_memory.LOCAL_BOOT)
    url = f"http://{settings.server_ip}/{_BOOT}"
    tree.write_file(state.pxe / name, qemu_memory.pxe_config(name, url))
    loader = qemu_packages.packages().grub_image("grubnetx64.efi")
    shutil.copyfile(loader, state.tftp / qemu_network.UEFI_LOADER)
    tree.write_file(state.grub.parent / "grub.cfg", qemu_memory.GRUB_BOOTSTRAP)
    tree.write_file(state.grub / "grub.cfg", qemu_memory.GRUB_LOCAL_BOOT)
    tree.write_file(state.grub / name, qemu_memory.grub_config(name, settings.server_ip, _BOOT))


class QemuPlant:
    """The virtual machines of a testbed, their network, and the HTTP server they boot from."""

    def __init__(self, settings: Settings, state: State) -> None:
        self._settings = settings
        self._state = state
        accelerator = find_accelerator()
        log.info("virtual machines by %s", accelerator)
        chassis = Chassis(settings, state, accelerator)
        self.machines: Mapping[str, QemuMachine] = {
            node.name: QemuMachine(node, chassis) for node in settings.nodes
        }

    @property
    def dnsmasq(self) -> Sequence[str]:
        """Options of dnsmasq besides those for TFTP."""
        return qemu_network.dnsmasq_options(self._settings, self._state)

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Make the network and serve the boot files; ``stack`` gets what has to be closed."""
        await asyncio.to_thread(qemu_network.create, self._settings)
        files = StaticFiles(directory=self._state.tftp / _BOOT)
        http = HttpServers(
            {"boot": Starlette(routes=[Mount(f"/{_BOOT}", files)])},
            {"boot": listen(self._settings.server_ip, 80)},
        )
        stack.push_async_callback(http.close)
        await http.start()


@dataclass(frozen=True)
class _Made:
    image: qemu_memory.MemoryImage
    in_use: set[Path]
    launch: str = ""

    def furnish(self, settings: Settings, state: State, name: str) -> None:
        fill_tftp(settings, state, self.image, name)
        equip(settings, state)


class _QemuTier:
    recipes = tuple(recipe.name for recipe in qemu_disk.RECIPES)

    def missing(self) -> dict[str, str]:
        return qemu_packages.missing()

    def require(self) -> None:
        qemu_packages.require()
        qemu_packages.require_tun()

    def describe(self) -> str | None:
        return f"virtual machines: by {find_accelerator()}"

    def make(self, state: State, say: Callable[[str], None]) -> _Made:
        return _Made(*make_images(state, say))

    def memory_files(self, state: State) -> dict[str, Path]:
        qemu_packages.require()
        image, _ = make_memory_image(state)
        return {"vmlinuz": image.kernel, "initramfs": image.initramfs}

    def prepare(self, base: Path) -> None:
        pass

    def plant(self, settings: Settings, state: State, nested: bool, launch: str) -> QemuPlant:
        return QemuPlant(settings, state)


TIER = _QemuTier()
