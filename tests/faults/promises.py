# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every run promises, whatever fails. Each function returns the broken promises in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..integration.kit import Played
from .bed import FaultBed


def truthful(played: Played, nodes: Iterable[str]) -> Iterator[str]:
    """The exit status, the recap and the result file say the same, and each node has one named outcome."""
    from ansible_collections.orbit.imaging.plugins.module_utils.outcome import OUTCOMES

    outcomes = played.outcomes
    missing = set(nodes) ^ set(outcomes)
    if missing:
        yield f"the result does not have the nodes of the run: {', '.join(sorted(missing))}"
    for name, outcome in outcomes.items():
        if outcome not in OUTCOMES:
            yield f"{name} ends with {outcome!r}, which is no outcome"
        elif outcome != "imaged" and not played.result["nodes"][name].get("evidence"):
            yield f"{name} ends with {outcome} and no evidence"
    failed = {name for name, counts in played.recap.items() if counts["failed"]}
    unreachable = {name for name, counts in played.recap.items() if counts["unreachable"]}
    bad = {name for name, outcome in outcomes.items() if outcome != "imaged"}
    if unreachable:
        yield f"unreachable for Ansible: {', '.join(sorted(unreachable))}"
    if failed - bad - {"localhost"} or bad - failed:
        yield f"failed are {', '.join(sorted(bad))}, but the recap says {', '.join(sorted(failed))}"
    if (played.status == 0) != (not bad):
        yield f"exit status {played.status}, but {len(bad)} nodes are not imaged"


def imaged(bed: FaultBed, names: Iterable[str]) -> Iterator[str]:
    """Who is said to be imaged has the image on its disk."""
    for name in names:
        if not bed.has_image(name):
            yield f"{name} is said to be imaged, but its disk is not the image"


def nothing_left(bed: FaultBed, spared: Sequence[str] = ()) -> Iterator[str]:
    """Nothing of the run is left behind."""
    for there in bed.left_soon(spared):
        yield f"left behind: {there}"
