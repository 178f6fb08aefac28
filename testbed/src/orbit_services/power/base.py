# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cmc service asks of whatever switches the nodes' power."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol


class PowerState(enum.StrEnum):
    """State of a node's power supply, as far as the back end can tell."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class PowerError(Exception):
    """The back end could not do what was asked; the text names the node and the reason."""


class Power(Protocol):
    """Switches nodes by name.

    Commands return when the power has been switched, not when a node has booted. A name that the back
    end does not know raises :class:`PowerError` before any other node of the call is touched.
    """

    async def on(self, nodes: Sequence[str]) -> None:
        """Switch nodes on; a node that is on stays as it is."""

    async def off(self, nodes: Sequence[str], *, soft: bool = False) -> None:
        """Switch nodes off; ``soft`` lets the running system stop first."""

    async def reset(self, nodes: Sequence[str]) -> None:
        """Power-cycle nodes; a node that is off is switched on."""

    def state(self, node: str) -> PowerState:
        """Return the state of one node."""
