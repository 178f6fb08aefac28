# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between kinds of nodes: how they come to be, and what they boot from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

from orbit_testbed.nodes.layout import Settings, State
from orbit_testbed.nodes.supply import Supply

Say = Callable[[str], None]


class Plant(Protocol):
    """The nodes of a testbed that is up; inside the hub."""

    @property
    def machines(self) -> Mapping[str, Supply]:
        """The nodes by name."""

    @property
    def dnsmasq(self) -> Sequence[str]:
        """Options of dnsmasq besides those for TFTP."""

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Make the network and what else nodes need; ``stack`` gets what has to be closed."""


class Made(Protocol):
    """The images of a tier."""

    @property
    def in_use(self) -> set[Path]:
        """All that they use of the cache."""

    @property
    def launch(self) -> str:
        """What the hub must be told of them."""

    def furnish(self, settings: Settings, state: State, name: str) -> None:
        """Put what nodes boot, and the memory image as ``name``, where they look for it."""


class Tier(Protocol):
    """One kind of nodes."""

    @property
    def recipes(self) -> Sequence[str]:
        """The names of its disk images."""

    def missing(self) -> dict[str, str]:
        """Return what this machine lacks for it, each with the Debian package that has it."""

    def require(self) -> None:
        """Raise :class:`TestbedError` when this machine cannot have it."""

    def describe(self) -> str | None:
        """Return a line about how its nodes run here, None when there is nothing to say."""

    def make(self, state: State, say: Say) -> Made:
        """Make the memory image and the disk images, as far as the cache does not have them."""

    def memory_files(self, state: State) -> dict[str, Path]:
        """Make the memory image; return its files by the names that a lab gives them."""

    def prepare(self, base: Path) -> None:
        """Put what nodes start from into a folder that is the hub's alone, before anything else is done."""

    def plant(self, settings: Settings, state: State, nested: bool, launch: str) -> Plant:
        """Return the nodes. ``nested``: in a user namespace; ``launch``: of :class:`Made`."""


def tier(name: str) -> Tier:
    """Return the tier of that name: ``TIER`` of the module ``tier`` in its folder."""
    found: Tier = import_module(f"orbit_testbed.tiers.{name}.tier").TIER
    return found
