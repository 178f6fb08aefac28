# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The light tier: what `orbit-testbed up` makes, and what the hub then runs."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orbit_testbed.nodes import tree
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.host import mount
from orbit_testbed.nodes.layout import Settings, State
from orbit_testbed.tiers.base import Say
from orbit_testbed.tiers.light import disk as light_disk, memory as light_memory, network as light_network
from orbit_testbed.tiers.light.machine import Chassis, Machine

#: The script that every node starts with.
_FIRMWARE = Path(__file__).with_name("firmware.sh")
#: Devices that light nodes see besides their disk, as far as this machine has them.
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


class LightPlant:
    """Nodes that are containers, each in its network namespace."""

    dnsmasq: Sequence[str] = ()

    def __init__(self, settings: Settings, state: State, nested: bool, launch: str) -> None:
        self._settings = settings
        base = Path("/run/orbit")
        chassis = Chassis(
            settings=settings,
            state=state,
            nested=nested,
            work=base / "work",
            devices=base / "dev",
            trees=base / "trees",
            launch=base / "trees" / launch / light_memory.LAUNCH_AT,
            firmware=base / "firmware.sh",
        )
        self.machines: Mapping[str, Machine] = {node.name: Machine(node, chassis) for node in settings.nodes}

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Make the network; it ends with the hub's namespaces."""
        await asyncio.to_thread(light_network.create, self._settings)


@dataclass(frozen=True)
class _Made:
    image: light_memory.MemoryImage
    in_use: set[Path]

    @property
    def launch(self) -> str:
        return self.image.tree.name

    def furnish(self, settings: Settings, state: State, name: str) -> None:
        tree.write_file(state.pxe / "default", light_memory.LOCAL_BOOT)
        tree.write_file(state.pxe / name, light_memory.pxe_config(name))
        tree.write_file(state.tftp / "boot" / name, light_memory.kernel_text(self.image))


def _make_devices(devices: Path) -> None:
    """Make the /dev tree of all nodes."""
    devices.mkdir()
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(devices))
    for name in filter(lambda name: Path("/dev", name).exists(), _DEVICES):
        (devices / name).touch()
        mount("--bind", f"/dev/{name}", str(devices / name))
    (devices / "pts").mkdir()
    (devices / "sda").touch()
    for name, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
        ("shm", "/tmp"),
    ):
        (devices / name).symlink_to(target)
    # Shared by all nodes, so none may change it; writing to the devices is no write to this file system.
    # With the source given, mount does not add the old options, whose uid means nothing in here.
    mount("-o", "remount,ro,mode=755", "tmpfs", str(devices))


class _LightTier:
    recipes = tuple(recipe.name for recipe in light_disk.RECIPES)

    def missing(self) -> dict[str, str]:
        return {}

    def require(self) -> None:
        pass

    def describe(self) -> str | None:
        return None

    def make(self, state: State, say: Say) -> _Made:
        public = tree.make_login_key(state.key)
        before = set(state.cache.iterdir()) if state.cache.exists() else set()
        began = time.monotonic()
        hostkey = tree.make_hostkey(state.root / "keys/memory")
        image = light_memory.build(state.cache, hostkey=hostkey, authorized_key=public)
        disks = light_disk.build_all(
            state.cache, state.images, keys=state.root / "keys", authorized_key=public
        )
        made = ["memory image"] if {image.tree, image.runtime} - before else []
        made += [name for name, path in zip(self.recipes, disks, strict=True) if path not in before]
        if made:
            say(f"made {', '.join(made)} ({time.monotonic() - began:.1f} s)")
        return _Made(image, {image.tree, image.runtime, *disks})

    def memory_files(self, state: State) -> dict[str, Path]:
        raise TestbedError("the memory image of light nodes is a tree, no kernel boots it", "--tier qemu")

    def prepare(self, base: Path) -> None:
        for folder in (Path("/run/netns"), base / "work"):
            folder.mkdir()
        _make_devices(base / "dev")
        # A copy: shells read scripts bit by bit, and an upgrade must not change one under a booting node.
        shutil.copyfile(_FIRMWARE, base / "firmware.sh")

    def plant(self, settings: Settings, state: State, nested: bool, launch: str) -> LightPlant:
        return LightPlant(settings, state, nested, launch)


TIER = _LightTier()
