# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the control plane: ratios within one run, and the time of each step.

Nothing here passes or fails: machines differ. What counts are the ratios, both sides of which are measured on
the same machine against the same testbed, one after the other.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests.integration.kit import Testbed, finish, play, start

HERE = pathlib.Path(__file__).resolve().parent


def timed(*arguments: str) -> float:
    """Run a playbook; return its wall seconds."""
    begin = time.monotonic()
    # The obvious playbook takes minutes.
    played = finish(start(*arguments), limit=3600)
    seconds = time.monotonic() - begin
    if played.status != 0:
        raise SystemExit(f"the playbook failed:\n{played.output[-4000:]}")
    return seconds


def settled(testbed: Testbed) -> None:
    """Switch all nodes off, so that the next measurement does not share the machine with booting nodes."""
    played = play("-i", testbed.inventory(), "playbooks/power.yml", "--limit", "all", "-e", "power=off")
    if played.status != 0:
        raise SystemExit(f"the nodes cannot be switched off:\n{played.output[-4000:]}")


def control_plane(grid: str) -> None:
    """Link, serve and reset: the modules against one call per node and step."""
    columns, rows = grid.split("x")
    groups = f'groups:\n  everybody:\n    nodes: "[1..{columns},1..{rows}]"\n    image: sender.ndz\n'
    with tempfile.TemporaryDirectory() as folder, Testbed(pathlib.Path(folder), grid) as testbed:
        inventory = testbed.inventory(groups)
        ours = timed("-i", inventory, str(HERE / "modules.yml"))
        settled(testbed)
        theirs = timed("-i", inventory, "-f", "10", str(HERE / "obvious.yml"))
        settled(testbed)
    nodes = int(columns) * int(rows)
    print(f"\nlink + serve + reset of {nodes} light nodes (whole ansible-playbook, seconds)")
    print(f"  one uri call per node and step, 10 forks   {theirs:8.1f}")
    print(f"  modules of orbit.imaging                   {ours:8.1f}")
    print(f"  ratio                                      {theirs / ours:8.1f}", flush=True)


def steps(grid: str) -> None:
    """Where the time of a whole run goes."""
    columns, rows = grid.split("x")
    groups = f'groups:\n  everybody:\n    nodes: "[1..{columns},1..{rows}]"\n    image: sender.ndz\n'
    with tempfile.TemporaryDirectory() as folder, Testbed(pathlib.Path(folder), grid) as testbed:
        begin = time.time()
        played = play("-i", testbed.inventory(groups), "playbooks/image.yml")
        end = time.time()
        if played.status != 0:
            raise SystemExit(f"the run failed:\n{played.output[-4000:]}")
        record = played.result
        (stream,) = testbed.state()["ended_streams"]
    print(f"\na whole run for {len(record['nodes'])} light nodes (seconds)")
    print(f"  {'step':<28} {'wall':>6} {'processor of the control host':>30}")
    print(f"  {'start of ansible-playbook':<28} {record['started_at'] - begin:6.2f}")
    control = record["started_at"] - begin
    for entry in record["timeline"]:
        wall = entry["ended_at"] - entry["began_at"]
        step = entry["step"] if entry is not record["timeline"][0] else f"questions and {entry['step']}"
        cpu = entry.get("cpu_seconds")
        control += wall if cpu is None else cpu
        print(f"  {step:<28} {wall:6.2f} {'' if cpu is None else f'{cpu:30.2f}'}")
    last = end - record["timeline"][-1]["ended_at"]
    print(f"  {'report and end':<28} {last:6.2f}")
    print(f"  controller time: {control + last:.2f} (of the steps with boot or transfer, the processor time)")
    stats = stream["stats"]
    print(f"  blocks sent {stats['blocks_sent']} for an image of {stats['blocks_in_file']}", flush=True)


def main() -> None:
    """Run the measurements that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", default="20x20", help="nodes of the comparison (20x20)")
    parser.add_argument("--run", default="8x5", help="nodes of the whole run (8x5)")
    options = parser.parse_args()
    steps(options.run)
    control_plane(options.grid)


if __name__ == "__main__":
    main()
