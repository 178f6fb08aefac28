# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs with random faults: ``python -m tests.faults.random_runs --seed S --runs N`` or ``--replay S:INDEX``.

Each run has faults of nodes and services, before it and in the middle of it, and sometimes somebody ends
ansible-playbook. Whatever happens, the promises hold: every node has one outcome, who is healthy is imaged
unless the run was ended or its service was hit, nothing is left behind, and exit status and result agree. A
run that breaks one is kept with its output; the others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator

from ..integration.kit import IMAGE, Played, Watched
from . import promises, schedule, table
from .bed import FaultBed, image_of, node_names
from .schedule import MOMENTS, Order, Schedule

#: Seconds that a run may take; one with two boot time-outs and a service that is silent takes half of it.
LIMIT = 1200.0
#: Seconds for the guard of a run that has died: services that were down come back within five.
SOON = 120.0
VARIABLES = {"orbit_boot_timeout": 12}


def run(bed: FaultBed, plan: Schedule) -> tuple[table.Row, str]:
    """Do one run; return its row of the table, and what ansible-playbook said."""
    row = table.Row(plan.name, str(plan))
    bed.clean()
    if plan.old:
        for name in node_names():
            bed.put(name, image_of(name))
        bed.power_on(node_names())
    for order in plan.orders:
        if order.moment < 0:
            _give(bed, order)
    before = {name: node["boots"] for name, node in bed.nodes().items()}
    inventory = bed.three_groups(**VARIABLES, orbit_retries=plan.retries, orbit_boot=plan.boot)
    began = time.monotonic()
    killed = False
    with Watched("-i", inventory, IMAGE) as running:
        for order in plan.orders:
            if order.moment >= 0 and running.hears(f": {MOMENTS[order.moment]}]"):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.process.wait(order.delay)
                if running.process.poll() is not None:
                    break
                if order.signal:
                    running.end(order.signal)
                    killed = True
                else:
                    _give(bed, order)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(max(0.0, LIMIT - (time.monotonic() - began)))
        if running.process.poll() is None:
            row.problems.append(f"has not ended in {LIMIT:.0f} s")
    row.seconds = time.monotonic() - began
    played = Played(running.process.returncode, "".join(running.lines))
    touched = any(node["boots"] != before[name] for name, node in bed.nodes().items())
    bed.order_service("all", "none")
    bed.wait_for_services()
    row.problems += _judge(bed, plan, row, played, killed, touched)
    return row, played.output


def _give(bed: FaultBed, order: Order) -> None:
    if order.node:
        bed.order(order.node, fault=order.fault)
    else:
        bed.order_service(order.service, order.fault, order.method, order.count)


def _judge(
    bed: FaultBed, plan: Schedule, row: table.Row, played: Played, killed: bool, touched: bool
) -> Iterator[str]:
    has_result = re.search(r"^Record of the run: ", played.output, re.MULTILINE) is not None
    if has_result:
        row.outcomes = table.count(played.outcomes)
        yield from promises.truthful(played, node_names())
        yield from _as_expected(bed, plan, played)
    elif killed:
        row.outcomes = "ended by a signal"
        if played.status == 0:
            yield "exit status 0 of a run that was ended"
    else:
        row.outcomes = "refused"
        if not plan.services:
            yield "refused, although all services were sound"
        if played.status == 0:
            yield "exit status 0 of a run that was refused"
        if touched:
            yield "no result, but nodes were switched"
    # Who was being written when the run died is left to finish; who cannot be reached cannot be told to end.
    spared = node_names() if killed else plan.out_of_reach
    for there in bed.left_soon(spared, SOON):
        yield f"left behind: {there}"


def _as_expected(bed: FaultBed, plan: Schedule, played: Played) -> Iterator[str]:
    for node, outcome in played.outcomes.items():
        allowed = plan.allowed(node)
        evidence = played.result["nodes"][node].get("evidence")
        if outcome not in allowed:
            yield f"{node} ended with {outcome}, allowed are {', '.join(sorted(allowed))}: {evidence}"
        elif outcome == "imaged" and plan.must_fail(node):
            yield f"{node} is said to be imaged, whatever its fault"
    rotten = {order.node for order in plan.orders if order.fault.startswith("disk-corrupt")}
    yield from promises.imaged(
        bed, (name for name, outcome in played.outcomes.items() if outcome == "imaged" and name not in rotten)
    )


def keep(plan: Schedule, row: table.Row, output: str) -> pathlib.Path:
    """Keep what a run that broke a promise said."""
    table.keep(f"random-{plan.seed}-{plan.index}", "\n".join([str(plan), *row.problems, "", output]))
    return table.ROOT / ".work" / "faults" / f"random-{plan.seed}-{plan.index}.txt"


def attempt(bed: FaultBed, plan: Schedule) -> tuple[table.Row, str]:
    """Do one run; whatever goes wrong with it is a problem of this run, and the next one is tried."""
    try:
        return run(bed, plan)
    except Exception:
        text = traceback.format_exc()
        return table.Row(plan.name, str(plan), problems=[f"broken off: {text.splitlines()[-1]}"]), text


def many(plans: list[Schedule]) -> list[table.Row]:
    """Do all runs on one testbed; say each as it ends."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="orbit-faults-") as folder, FaultBed(pathlib.Path(folder)) as bed:
        for plan in plans:
            row, output = attempt(bed, plan)
            rows.append(row)
            print(f"{plan.name:12} {row.seconds:6.1f} s  {row.outcomes}  [{plan}]", flush=True)
            for problem in row.problems:
                print(f"    {problem}", flush=True)
            if row.problems:
                print(f"    see {keep(plan, row, output)}", flush=True)
    return rows


def main() -> int:
    """Do random runs; return 1 when one broke a promise."""
    parser = argparse.ArgumentParser(prog="random_runs", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of all runs (the time)")
    parser.add_argument("--runs", type=int, default=200, metavar="N", help="how many (200)")
    parser.add_argument("--replay", metavar="SEED:INDEX", help="do one run again")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if options.replay is not None:
        seed, _colon, index = options.replay.partition(":")
        plans = [schedule.draw(int(seed), int(index))]
    else:
        print(f"seed {options.seed}", flush=True)
        plans = [schedule.draw(options.seed, index) for index in range(options.runs)]
    rows = many(plans)
    text = table.text(rows)
    table.keep(f"random-{plans[0].seed}", text)
    print(f"\n{text}")
    bad = [row.fault for row in rows if row.problems]
    print(json.dumps({"runs": len(rows), "failed": bad}))
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
