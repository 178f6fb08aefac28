# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power drivers by name.

A driver is called with the nodes: a mapping of their names to whatever it switches them by (for a lab, say,
:class:`~orbit_services.config.NodeRecord`, which has their addresses). A package of its own adds one with an
entry in its ``pyproject.toml``, as this project's does in the same table::

    [project.entry-points."orbit_services.power"]
    chassis = "mylab.chassis:ChassisPower"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from .base import Power

GROUP = "orbit_services.power"

Driver = Callable[[Mapping[str, Any]], Power]


class DriverError(Exception):
    """There is no such driver, or it cannot be loaded; the text names it and those that there are."""


def driver(name: str) -> Driver:
    """Return the driver of that name. Raises :class:`DriverError`."""
    table = entry_points(group=GROUP)
    if name not in table.names:
        known = ", ".join(sorted(table.names)) or "none; install the package orbit-testbed"
        raise DriverError(f"power driver {name!r}: there is none of that name; there are {known}")
    try:
        found: Driver = table[name].load()
    except (ImportError, AttributeError) as error:
        raise DriverError(f"power driver {name!r} ({table[name].value}) cannot be loaded: {error}") from error
    return found
