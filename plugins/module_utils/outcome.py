# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The named outcomes of a node, and one line each on what to do about it."""

from __future__ import annotations

import typing as t

#: Every outcome a node can end in; it ends in exactly one.
Outcome = t.Literal[
    "imaged",
    "unknown_node",
    "claimed_elsewhere",
    "image_missing",
    "link_failed",
    "serve_failed",
    "power_failed",
    "no_boot",
    "wrong_memory_image",
    "booted_disk",
    "ssh_refused",
    "wrong_disk",
    "client_missing",
    "stalled",
    "client_failed",
    "verify_failed",
    "no_boot_from_disk",
    "interrupted",
]

#: The one good outcome.
IMAGED: Outcome = "imaged"

#: A hint for a person to each outcome.
OUTCOMES: t.Dict[Outcome, str] = {
    IMAGED: "The image is on the disk.",
    "unknown_node": "The services do not know this node; check its name and domain.",
    "claimed_elsewhere": "Another run holds this node; wait for it or end it.",
    "image_missing": "The frisbee service has no such image, or the user may not read it.",
    "link_failed": "The pxe service did not link the node to the memory image, or did not clear the link.",
    "serve_failed": "The frisbee service did not start the stream of the image.",
    "power_failed": "The cmc service did not accept the power command, or the node's power did not follow.",
    "no_boot": "The node did not come up in the memory image in time; look at its console and power.",
    "wrong_memory_image": "Another memory image came up; check which one is linked, and orbit_memory_id.",
    "booted_disk": "The node came up from its disk, not the memory image; check its boot order and PXE link.",
    "ssh_refused": "The node answers, but SSH does not let us in; check key, user and port.",
    "wrong_disk": "The disk is not the one to write (path, kind, size, serial number) or is in use.",
    "client_missing": "The memory image has no frisbee client, or none that can do what is asked of it.",
    "stalled": "The node stopped receiving; look at its link and at multicast on the switches.",
    "client_failed": "The frisbee client ended with an error; its last lines are in the evidence.",
    "verify_failed": "What was sent, or what the disk gives back, is not the image; see the evidence which.",
    "no_boot_from_disk": "The image was written, but the node did not come up from its disk.",
    "interrupted": "The run was interrupted before the node was done.",
}


def hint(outcome: str) -> str:
    """Return the hint of an outcome.

    :raises ValueError: when there is no such outcome.
    """
    try:
        return OUTCOMES[t.cast(Outcome, outcome)]
    except KeyError:
        raise ValueError(f"there is no outcome '{outcome}'; the outcomes are {', '.join(OUTCOMES)}") from None


def is_failure(outcome: str) -> bool:
    """Whether the outcome (which must exist) is anything but success."""
    hint(outcome)
    return outcome != IMAGED
