# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repeat the ping experiments of 2006 on light nodes: how do nodes answer while they are imaged?

Each row is run twice, on a fresh testbed each time: with the server as fast as its clients can (unpaced), and
with 92 % of the cable's rate (paced). Every node has a network namespace, and a cable shaped both ways.
Nothing here passes or fails. What this machine cannot hold at 100 Mbit/s is scaled down, and that is said.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from orbit_testbed.bed import lifecycle
from orbit_testbed.nodes import diskimage, tree
from orbit_testbed.nodes.layout import State
from orbit_testbed.tiers.light import disk as light_disk
from tests.integration.kit import ROOT, Testbed, finish, play, start

sys.path.append(str(ROOT / ".venv" / "collections"))

from ansible_collections.orbit.imaging.plugins.plugin_utils.report import ping as report

#: Rate of the cables in 2006, bit/s.
LINK = 100_000_000
#: Per cent of the cable that the paced stream takes.
SHARE = 92
#: Seconds that a stream should take, and bounds of an image's data: the file system of a light node is small.
SECONDS = 8
LEAST, MOST = 1_800_000, 36_000_000
#: Packets a second that all pings together send at most; and the shortest interval.
PINGS, INTERVAL = 1000, 0.02


@dataclasses.dataclass(frozen=True)
class Row:
    """A set-up of 2006."""

    name: str
    columns: int
    rows: int
    images: int

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return self.columns * self.rows

    def link(self, budget: int) -> int:
        """Return the rate of each cable when all together may have ``budget`` bit/s."""
        return min(LINK, budget // self.nodes)

    def ballast(self, link: int) -> int:
        """Return the bytes of an image's data."""
        return max(LEAST, min(MOST, link * SECONDS // 9))

    @property
    def interval(self) -> float:
        """Seconds from one ping of a node to the next."""
        return max(INTERVAL, self.nodes / PINGS)

    def groups(self) -> str:
        """Return the groups of the inventory: the nodes are dealt to the images in turn."""
        nodes = [(x, y) for y in range(1, self.rows + 1) for x in range(1, self.columns + 1)]
        lines = ["groups:"]
        for number in range(self.images):
            named = ",".join(f"[{x},{y}]" for x, y in nodes[number :: self.images])
            lines += [f"  group{number + 1}:", f'    nodes: "[{named}]"', f"    image: ping{number + 1}.ndz"]
        return "\n".join(lines) + "\n"


ROWS = (
    Row("1 node", 1, 1, 1),
    Row("2 nodes, 2 images", 2, 1, 2),
    Row("5 nodes, 1 image", 5, 1, 1),
    Row("10 nodes, 2 images", 5, 2, 2),
    Row("15 nodes, 3 images", 5, 3, 3),
    Row("5 x 20 nodes, 1 image", 20, 5, 1),
    Row("5 x 20 nodes, 2 images", 20, 5, 2),
    Row("10 x 20 nodes, 3 images", 20, 10, 3),
    Row("1 x 100 nodes, 1 image", 10, 10, 1),
)


def _make_images(testbed: Testbed, row: Row, link: int) -> State:
    """Put the images of a row where the frisbee service finds them."""
    state = State(testbed.folder / "state")
    public = tree.make_login_key(state.key)
    for number in range(row.images):
        recipe = diskimage.Recipe(f"ping{number + 1}.ndz", row.ballast(link))
        made = light_disk.build(
            state.cache,
            recipe,
            hostkey=tree.make_hostkey(state.root / "keys" / recipe.name),
            authorized_key=public,
        )
        diskimage.copy_unless_same(made, state.images / recipe.name, recipe.name)
    return state


def run(row: Row, link: int, bandwidth: int) -> dict:
    """Run a row once; return its ``ping.json``. ``bandwidth`` is that of the streams in bit/s, 0: unpaced."""
    options = ("--link", str(link), "--bandwidth", str(bandwidth))
    with tempfile.TemporaryDirectory(prefix="orbit-bench-") as folder:  # noqa: SIM117
        with Testbed(pathlib.Path(folder), f"{row.columns}x{row.rows}", *options) as testbed:
            state = _make_images(testbed, row, link)
            inventory = testbed.inventory(row.groups())
            # A node whose disk is empty hangs, but its adapter has an address: it answers pings.
            played = play("-i", inventory, "playbooks/power.yml", "-e", "power=on", "--limit", "all")
            if played.status != 0:
                raise SystemExit(f"the nodes cannot be switched on:\n{played.output[-4000:]}")
            settings = {
                "ping_command": [*lifecycle.command_prefix(state), shutil.which("ping")],
                "ping_interval": row.interval,
                "ping_count": 50,
            }
            arguments = ("playbooks/ping_experiment.yml", "-e", json.dumps(settings))
            played = finish(start("-i", inventory, *arguments), limit=3600)
            if "Record of the run" not in played.output:
                raise SystemExit(f"the run has no result:\n{played.output[-4000:]}")
            document: dict = json.loads((played.folder / "ping.json").read_text())
            document["passed"] = played.status == 0
            document["imaged"] = sum(o == "imaged" for o in played.outcomes.values())
            return document


def _columns(columns: dict) -> str:
    return " | ".join(report._cells(columns))


def table(found: list[dict]) -> str:
    """Return all rows as a table in Markdown."""
    lines = [
        "| set-up | cable, Mbit/s | | packets | % lost | min | avg | max | mdev (ms) | imaging, s |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for entry in found:
        row, link = next(row for row in ROWS if row.name == entry["row"]), entry["link"]
        said: list[tuple[str, dict, str]] = []
        for figure in report.FIGURES:
            if (figure.nodes, figure.images) == (row.nodes, row.images) and (
                row.nodes != 100 or row.images != 1 or ("1 x 100" in figure.title) == ("1 x 100" in row.name)
            ):
                said.append((f"2006{', after' if figure.phase == 'after' else ''}", figure.as_dict(), ""))
        for kind in ("unpaced", "paced"):
            one = entry[kind]
            seconds = "-" if one["imaging_seconds"] is None else f"{one['imaging_seconds']:.1f}"
            if one["imaged"] < one["nodes"]:
                seconds += f" ({one['imaged']} of {one['nodes']} imaged)"
            for phase in ("imaging",) if kind == "unpaced" else report.PHASES:
                what = kind if phase == "imaging" else f"{kind}, {phase}"
                said.append((what, one["phases"][phase]["all"], seconds if phase == "imaging" else ""))
        for number, (what, columns, seconds) in enumerate(said):
            name, rate = (row.name, f"{link / 1e6:g}") if number == 0 else ("", "")
            lines.append(f"| {name} | {rate} | {what} | {_columns(columns)} | {seconds} |")
    lines += [
        "",
        "| set-up | paced, % lost (below 1) | avg (below 2 ms) | time, of unpaced (at most 1.15) |",
    ]
    lines.append("| --- | --- | --- | --- |")
    for entry in found:
        ours = entry["paced"]["phases"]["imaging"]["all"]
        times = [entry[kind]["imaging_seconds"] for kind in ("paced", "unpaced")]
        ratio = None if None in times else times[0] / times[1]
        lines.append(
            f"| {entry['row']} | {_met(ours['lost_percent'], 1, strict=True)} "
            f"| {_met(ours['avg'], 2, strict=True)} | {_met(ratio, 1.15, strict=False)} |"
        )
    return "\n".join(lines)


def _met(value: float | None, most: float, *, strict: bool) -> str:
    if value is None:
        return "not measured"
    good = value < most if strict else value <= most
    return f"{value:.2f}: {'met' if good else 'NOT MET'}"


def scaled(found: list[dict]) -> list[str]:
    """Say what is not as it was in 2006."""
    lines = []
    for entry in found:
        row, link = next(row for row in ROWS if row.name == entry["row"]), entry["link"]
        words = [
            f"a ping each {row.interval:g} s in place of 1 s",
            f"images of {row.ballast(link) / 1e6:.1f} MB",
        ]
        if link < LINK:
            words.insert(0, f"SCALED DOWN: cables of {link / 1e6:g} Mbit/s in place of 100")
        lines.append(f"{row.name}: {', '.join(words)}")
    return lines


def main() -> None:
    """Run the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default="", help=f"numbers of rows, such as 1,2 (all {len(ROWS)})")
    parser.add_argument("--budget", type=int, default=100 * (os.cpu_count() or 1), metavar="MBIT/S",
                        help="what all cables together may carry (100 for each processor)")  # fmt: skip
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="keep all numbers there, as JSON")
    options = parser.parse_args()
    numbers = [int(number) for number in options.rows.split(",") if number] or range(1, len(ROWS) + 1)
    if not all(1 <= number <= len(ROWS) for number in numbers):
        parser.error(f"--rows {options.rows}: rows go from 1 to {len(ROWS)}")
    if shutil.which("ping") is None:
        raise SystemExit("ping-experiment: there is no ping; install with: apt-get install iputils-ping")
    # So that the testbed is taken down then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found: list[dict] = []
    for row in (ROWS[number - 1] for number in numbers):
        link = row.link(options.budget * 1_000_000)
        entry: dict = {"row": row.name, "link": link}
        print(scaled([entry])[0], flush=True)
        for kind, bandwidth in (("unpaced", 0), ("paced", link * SHARE // 100)):
            began = time.monotonic()
            entry[kind] = run(row, link, bandwidth)
            print(f"{row.name}, {kind}: {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.0f}")
            print("\n".join(f"  {line}" for line in report.lines(entry[kind])), flush=True)
        found.append(entry)
        if options.output is not None:
            options.output.write_text(json.dumps(found, indent=1) + "\n")
    uname = subprocess.run(["uname", "-sr"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"\n{os.cpu_count()} processors, {uname}\n")
    print(table(found))
    print("\n" + "\n".join(scaled(found)))


if __name__ == "__main__":
    main()
