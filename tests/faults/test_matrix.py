# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault: who is hit ends by name, the others are imaged, nothing is left behind."""

from __future__ import annotations

import collections
import time

import pytest

from ..integration.kit import Played, play
from . import promises, schedule, table
from .bed import GROUPS, FaultBed
from .cases import CASES, IMAGED, Case

CLEAN = "playbooks/clean.yml"


@pytest.mark.parametrize("name", CASES)
def test_a_fault(bed, rows, name):
    case = CASES[name]
    row = table.Row(name, case.hit)
    rows.append(row)
    row.problems.append("did not end")
    _prepare(bed, case)
    began = time.monotonic()
    played = bed.run("--limit", ",".join(case.chosen), **{"orbit_boot": case.boot, **case.variables})
    row.seconds = time.monotonic() - began
    row.outcomes = "refused" if case.refused else table.count(played.outcomes)
    problems = [
        *_struck(bed, case),
        *(_refused(bed, case, played) if case.refused else _ended(bed, case, played)),
    ]
    if case.lasting:
        problems += _told_and_mended(bed, played)
    else:
        problems += promises.nothing_left(bed, case.spared)
    row.problems[:] = problems
    assert not problems, "\n".join([*problems, played.output])


def test_every_fault_of_a_node_has_its_place_beside_a_sound_node():
    there = {
        fault.partition(",")[0].partition("=")[0] for case in CASES.values() for fault in case.nodes.values()
    }
    assert there == {fault.partition("=")[0] for fault in schedule.NODE_FAULTS}
    for case in CASES.values():
        for row, _image in GROUPS.values():
            assert {name for name in case.chosen if name.endswith(f"-{row}")} - set(case.nodes)


def _prepare(bed: FaultBed, case: Case) -> None:
    bed.clean()
    for name in case.old:
        bed.put(name, "sender.ndz")
    if case.old:
        bed.power_on(case.old)
    for name, fault in case.nodes.items():
        bed.order(name, fault=fault)
    if case.service is not None:
        order = case.service
        bed.order_service(order.service, order.fault, order.method, order.count)


def _struck(bed: FaultBed, case: Case):
    """A case whose fault was never met says nothing."""
    if case.service is not None and bed.hits().get(case.service.service, 0) < case.service.hits:
        yield f"the fault has struck {bed.hits()}, expected {case.service.hits}"


def _refused(bed: FaultBed, case: Case, played: Played):
    if played.status != 2:
        yield f"exit status {played.status}, expected 2"
    if case.refused not in played.output:
        yield f"no word of {case.refused!r}"
    if played.output.count("fatal:") + played.output.count("failed: [") != 1:
        yield "not exactly one error"
    if "Link the nodes" in played.output:
        yield "not refused before the first change"
    if on := [name for name, node in bed.nodes().items() if node["power"] == "on"]:
        yield f"nodes were switched on: {', '.join(on)}"


def _ended(bed: FaultBed, case: Case, played: Played):
    yield from promises.truthful(played, case.chosen)
    outcomes = played.outcomes
    for node in case.chosen:
        allowed = case.expect.get(node, "|".join([IMAGED, *case.counts])).split("|")
        if outcomes.get(node) not in allowed:
            evidence = played.result["nodes"].get(node, {}).get("evidence")
            yield f"{node} ended with {outcomes.get(node)}, expected {' or '.join(allowed)}: {evidence}"
    found = collections.Counter(outcomes.values())
    for cause, number in case.counts.items():
        if found[cause] != number:
            yield f"{found[cause]} nodes ended with {cause}, expected {number}"
    yield from promises.imaged(bed, (node for node, outcome in outcomes.items() if outcome == IMAGED))
    for node, number in case.attempts.items():
        tried = len(played.result["nodes"][node]["attempts"])
        if tried != number:
            yield f"{node} was tried {tried} times, expected {number}"


def _told_and_mended(bed: FaultBed, played: Played):
    """What stays because a service is down is told, and goes when the service is up again."""
    there = promises.nothing_left(bed) if not bed.links() else ()
    yield from there
    if "left" not in played.output:
        yield "no word of what is left behind"
    bed.order_service("all", "none")
    mended = play("-i", bed.three_groups(), CLEAN)
    if mended.status != 0:
        yield f"clean.yml ended with {mended.status}: {mended.output[-2000:]}"
    yield from promises.nothing_left(bed)
