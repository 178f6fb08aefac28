# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A concluded run as one page for people: ``report.html``.

The page refers to nothing outside itself, and its policy lets a browser load and run nothing but the style
and the script that are written here. Whatever nodes and services said is text in it: markup is escaped, and
what has no shape of its own or turns the direction of writing is spelt out.
"""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import json
import math
import os
import pathlib
import statistics
import typing as t
import unicodedata

import jinja2
import markupsafe

from ansible_collections.orbit.imaging.plugins.module_utils import outcome as outcomes
from ansible_collections.orbit.imaging.plugins.plugin_utils import private
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import result
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import events as run_events
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Record

#: Name of the page in the folder of a run.
FILE = "report.html"

#: Bytes that a page takes at most: so many, or so many for each node when that is more.
LARGEST = 60_000
LARGEST_PER_NODE = 1_500

#: Complaints that a page shows; of more it tells the number.
MOST_SAID = 20

#: A sign for each outcome, as colours alone tell nothing to many people and printers.
SIGNS: dict[str, str] = {
    outcomes.IMAGED: "✓",
    "unknown_node": "U",
    "claimed_elsewhere": "C",
    "image_missing": "I",
    "link_failed": "L",
    "serve_failed": "S",
    "power_failed": "P",
    "no_boot": "B",
    "wrong_memory_image": "M",
    "booted_disk": "D",
    "ssh_refused": "H",
    "wrong_disk": "W",
    "client_missing": "K",
    "stalled": "T",
    "client_failed": "F",
    "verify_failed": "V",
    "no_boot_from_disk": "N",
    "interrupted": "X",
}

_KINDS = (
    ("b", "boots the memory image"),
    ("h", "waits for its group"),
    ("w", "receives and writes"),
    ("d", "boots its new disk"),
    ("x", "a try that failed"),
)
_PARTS = (
    "services",
    "tries that failed",
    "boot",
    "group",
    "wire",
    "slowest node",
    "new boot",
    "others, steps",
)
_PART_KINDS = ("s", "x", "b", "h", "w", "x", "d", "s")

# Characters of a name or a line, lines of an evidence, tries that are drawn; less of all where a page would
# get too large, down to nothing.
_NAME = 60
_DETAILS = ((4000, 12), (1500, 8), (600, 5), (250, 3), (100, 2), (0, 1), (0, 0))
_PARTS_OF_CHART = 100
# Bytes on the cable for each byte of an image: blocks of 1024 have 90 of headers, checksum and gap.
_ON_WIRE = 1114 / 1024
_LINES = 12
_LARGEST_EVENTS = 64 << 20
# Categories of characters that are spelt out: controls, formats (also those that turn the direction of
# writing), halves of pairs, private and unassigned ones, separators of lines.
_SPELT = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])

Document = t.Mapping[str, t.Any]
Event = t.Mapping[str, t.Any]


def write(record: Record, document: Document | None = None) -> str:
    """Write the page of a run into its folder; return its path.

    :param document: what ``result.json`` holds; not needed with a record that is concluded.

    Beside the record it takes what the run has left in its folder: ``events.jsonl`` and ``ping.json``.
    Neither has to be there, and what cannot be read of them is left out.

    :raises OSError: when the page cannot be written.
    """
    folder = record["dir"]
    places = {name: (node.get("x"), node.get("y")) for name, node in record["nodes"].items()}
    sizes = {
        node["image"]: node["manifest"]["size"]
        for node in record["nodes"].values()
        if node["image"] and node.get("manifest", {}).get("size")
    }
    text = make(
        document or result.make(record),
        places=places,
        sizes=sizes,
        events=read_events(os.path.join(folder, run_events.FILE)),
        pings=read_pings(os.path.join(folder, "ping.json")),
        notes=[f"The run had no guard {record['unguarded']}."] if record.get("unguarded") else [],
    )
    path = os.path.join(folder, FILE)
    private.write(path, text)
    return path


def make(
    document: Document,
    *,
    places: t.Mapping[str, tuple[t.Any, t.Any]] | None = None,
    sizes: t.Mapping[str, int] | None = None,
    events: t.Sequence[Event] = (),
    pings: t.Sequence[Event] = (),
    notes: t.Sequence[str] = (),
) -> bytes:
    """Return the page of a run, in UTF-8.

    :param document: what ``result.json`` holds.
    :param places: coordinates (x, y) of nodes.
    :param sizes: bytes of each image as it is sent.
    :param events: what ``events.jsonl`` holds; how far the nodes were (``progress``) is taken from it.
    :param pings: round trips: name, packets, lost_percent, min, avg, max and mdev (milliseconds).
    :param notes: sentences to be shown with the summary.
    """
    placed = {name: place for name, place in (places or {}).items() if None not in place}
    largest = max(LARGEST, LARGEST_PER_NODE * len(document["nodes"]))
    page = b""
    story = _Story(document, placed, sizes or {}, events)
    values = {**story.values(), "pings": _pings(pings), "notes": [shown(note) for note in notes]}
    for characters, tries in _DETAILS:
        page = render("page.html.j2", **values, **story.details(characters, tries))
        if len(page) <= largest:
            break
    return page


# -- texts


def shown(text: t.Any, most: int | None = None) -> str:
    """Return a text as a page may show it: everything that cannot be seen is spelt out.

    :param most: characters that are kept at most.
    """
    cut = str(text) if most is None or len(str(text)) <= most else f"{str(text)[: max(0, most - 1)]}…"
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _SPELT else _spelt(ord(c)) for c in cut)


def _spelt(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def name_of(text: t.Any) -> str:
    """Return a name within bounds, on one line."""
    return shown(" ".join(str(text).split()), _NAME)


def sign_of(outcome: str) -> str:
    """Return the sign of an outcome."""
    return SIGNS.get(outcome, "?")


def moment(seconds: float) -> str:
    """Return a time in UTC for people."""
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return "at an unknown time"


def counted(found: t.Iterable[str]) -> list[dict[str, t.Any]]:
    """Return how often each outcome is there: its sign, name and number, the good one first."""
    numbers: dict[str, int] = {}
    for outcome in found:
        numbers[outcome] = numbers.get(outcome, 0) + 1
    return [
        {"name": name, "sign": sign_of(name), "number": numbers[name], "failed": name != outcomes.IMAGED}
        for name in sorted(numbers, key=lambda name: (name != outcomes.IMAGED, name))
    ]


# -- the templates


def render(template: str, **values: t.Any) -> bytes:
    """Return a page made from a template of this folder, with its style, its script and their policy."""
    style, script = _part("page.css"), _part("page.js")
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    text: str = (
        _templates()
        .get_template(template)
        .render(
            **{"seconds": 0.0, "counts": [], **values},
            policy=policy,
            style=markupsafe.Markup(style),
            script=markupsafe.Markup(script),
        )
    )
    return text.encode()


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
    )


@functools.cache
def _part(name: str) -> str:
    """Return style or script without the lines and indentation that only readers of the source need."""
    text = (pathlib.Path(__file__).parent / name).read_text(encoding="utf-8")
    head, end, body = text.partition("*/")
    return "\n".join(line.strip() for line in (body if end else head).splitlines() if line.strip())


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# -- what lies beside the result


def read_events(path: str) -> list[Event]:
    """Return the events of a run as far as they can be read: none where there is no such file."""
    found: list[Event] = []
    try:
        with open(path, "rb") as stream:
            lines = stream.read(_LARGEST_EVENTS).splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            # The last line of a run that was cut off, or no event at all.
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str) and _number(event.get("at")):
            found.append(event)
    return found


def read_pings(path: str) -> list[Event]:
    """Return the round trips that were measured during a run; none where there is no such file."""
    try:
        with open(path, "rb") as stream:
            told = json.loads(stream.read(_LARGEST_EVENTS))
    except (OSError, ValueError, RecursionError):
        return []
    if isinstance(told, dict) and isinstance(told.get("phases"), dict):
        # What an experiment writes: of each phase, what all nodes together came to.
        phases = {name: phase for name, phase in told["phases"].items() if isinstance(phase, dict)}
        told = [
            {**phase["all"], "name": name}
            for name, phase in phases.items()
            if isinstance(phase.get("all"), dict)
        ]
    return [row for row in told if isinstance(row, dict)] if isinstance(told, list) else []


def _pings(rows: t.Sequence[Event]) -> list[dict[str, t.Any]]:
    found = []
    for row in rows[:100]:
        lost = _number(row.get("lost_percent"))
        cells = [_plain(row.get("packets"), "{:.0f}"), "" if lost is None else f"{lost:.1f} %"]
        cells += [_plain(row.get(key), "{:.3f} ms") for key in ("min", "avg", "max", "mdev")]
        found.append({"name": name_of(row.get("name") or row.get("node") or ""), "cells": cells})
    return found


def _number(value: t.Any) -> float | None:
    """Return a finite number, else None: events and files may say anything."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _plain(value: t.Any, form: str) -> str:
    number = _number(value)
    return "" if number is None else form.format(number)


# -- the story of a run


class _Story:
    """The values of the template, made from a result."""

    def __init__(
        self,
        document: Document,
        places: t.Mapping[str, tuple[t.Any, t.Any]],
        sizes: t.Mapping[str, int],
        events: t.Sequence[Event],
    ) -> None:
        self._document = document
        self._places = places
        self._sizes = sizes
        self._began = float(document["started_at"])
        self._seconds = max(0.001, float(document["ended_at"]) - self._began)
        self._nodes: dict[str, dict[str, t.Any]] = document["nodes"]
        self._amounts = self._written(events)
        self._ids = {name: number for number, name in enumerate(self._nodes)}
        self._bars = {name: self._spans(node) for name, node in self._nodes.items()}

    def values(self) -> dict[str, t.Any]:
        """Return what a page shows however large it gets."""
        document = self._document
        written = sum(node["bytes_written"] or 0 for node in self._nodes.values())
        return {
            "title": f"Run {shown(document['run'], _NAME)}",
            "run": shown(document["run"], _NAME),
            "passed": document["passed"],
            "seconds": self._seconds,
            "began": moment(self._began),
            "ended": moment(float(document["ended_at"])),
            "data": _amount(written),
            "imaged": sum(node["outcome"] == outcomes.IMAGED for node in self._nodes.values()),
            "retried": sum(len(node["attempts"]) > 1 for node in self._nodes.values()),
            "left": [shown(words, 300) for words in document["left_behind"][:MOST_SAID]],
            "left_more": len(document["left_behind"]) - MOST_SAID,
            "groups": [self._group(group) for group in document["groups"]],
            "shares": [s for g in document["groups"] if (s := self._share(g))],
            "parts": _PARTS,
            "chart": self._chart(),
            "grids": self._grids(),
            "counts": counted(node["outcome"] for node in self._nodes.values()),
            "kinds": _KINDS,
            "ticks": [f"{self._seconds * part / 4:.0f}" for part in range(5)],
            "steps": [self._step(entry) for entry in document["timeline"]],
        }

    def details(self, characters: int, tries: int) -> dict[str, t.Any]:
        """Return the nodes with so many of their last tries, and evidence of so many characters each."""
        nodes = self._nodes.items()
        return {
            "nodes": [self._node(name, node, tries) for name, node in nodes],
            "evidence": [e for name, node in nodes if (e := self._evidence(name, node, characters, tries))],
        }

    def _at(self, name: str, step: str, moment_of: str) -> float | None:
        value = self._nodes[name]["steps"].get(step, {}).get(moment_of)
        return None if value is None else float(value)

    def _spans(self, node: dict[str, t.Any]) -> list[tuple[str, float, float, str]]:
        """Return what a node did: kind, begin and end (seconds of the run), cause of a try that failed."""
        steps = node["steps"]
        reset = steps.get("reset", {}).get("at")
        client = steps.get("client", {})
        boot = steps.get("boot", {}).get("at")
        found: list[tuple[str, float | None, float | None, str]] = []
        for attempt in node["attempts"]:
            if attempt["cause"]:
                found.append(("x", attempt["began_at"], attempt["ended_at"], attempt["cause"]))
            elif attempt["began_at"] and client.get("booted_at"):
                if attempt["began_at"] <= client["booted_at"]:
                    reset = max(reset or 0.0, attempt["began_at"])
                else:
                    boot = max(boot or 0.0, attempt["began_at"])
        found.append(("b", reset, client.get("booted_at"), ""))
        found.append(("h", client.get("booted_at"), client.get("started_at"), ""))
        found.append(("w", client.get("started_at"), client.get("ended_at"), ""))
        found.append(("d", boot, steps.get("proof", {}).get("up_at"), ""))
        if node["outcome"] != outcomes.IMAGED and not any(kind == "x" for kind, *_rest in found):
            # All that is known is when it was last well, and when the step ended in which it failed.
            seen = [moment for step in steps.values() for name, moment in step.items() if name != "ended_at"]
            last = max(seen, default=self._began)
            ends = [e["ended_at"] for e in self._document["timeline"] if e["ended_at"] > last]
            found.append(("x", last, min(ends, default=float(self._document["ended_at"])), node["outcome"]))
        return [
            (kind, max(0.0, float(begin) - self._began), min(self._seconds, float(end) - self._began), cause)
            for kind, begin, end, cause in found
            if begin is not None and end is not None and end >= begin
        ]

    def _scaled(self, value: float) -> str:
        return f"{value / self._seconds * 1000:.1f}".removesuffix(".0")

    def _node(self, name: str, node: dict[str, t.Any], tries: int) -> dict[str, t.Any]:
        spans = self._bars[name]
        failed = [span for span in spans if span[0] == "x"][-tries:] if tries else []
        spans = [span for span in spans if span[0] != "x" or span in failed]
        label = next((i for i, g in enumerate(self._document["groups"]) if name in g["nodes"]), 0)
        return {
            "id": self._ids[name],
            "name": name_of(name),
            "outcome": node["outcome"],
            "failed": node["outcome"] != outcomes.IMAGED,
            "sign": sign_of(node["outcome"]),
            "group": label,
            "seconds": f"{max((end for _k, _b, end, _c in spans), default=0.0):.1f}",
            "write": f"{sum(end - begin for kind, begin, end, _c in spans if kind == 'w'):.1f}",
            "tries": len(node["attempts"]),
            "told": _is_told(node, tries),
            "bars": [
                {
                    "kind": kind,
                    "x": self._scaled(begin),
                    "width": self._scaled(max(end - begin, self._seconds / 1000)),
                    "cause": cause,
                }
                for kind, begin, end, cause in spans
            ],
        }

    def _evidence(
        self, name: str, node: dict[str, t.Any], characters: int, tries: int
    ) -> dict[str, t.Any] | None:
        if not _is_told(node, tries):
            return None
        first, _newline, rest = (node["evidence"] or "").partition("\n")
        attempts = [
            {
                "number": attempt["number"],
                "words": shown(
                    f"{attempt['power']}: {attempt['cause'] or 'good'}"
                    + (f": {(attempt['evidence'] or '').partition(chr(10))[0]}" if attempt["cause"] else ""),
                    max(40, characters // 4),
                ),
            }
            for attempt in node["attempts"][-tries:]
        ]
        rest = rest.strip("\n")
        text = shown(rest, characters) if characters else ""
        if len(rest) > characters:
            text += "\n(cut; all of it is in result.json)"
        failed = node["outcome"] != outcomes.IMAGED
        return {
            "id": self._ids[name],
            "name": name_of(name),
            "outcome": node["outcome"],
            "sign": sign_of(node["outcome"]),
            "failed": failed,
            "first": shown(first, max(60, min(200, characters))),
            "hint": outcomes.OUTCOMES.get(node["outcome"], "") if failed and characters else "",
            "tries": attempts if len(attempts) > 1 else [],
            "text": text,
        }

    def _step(self, entry: dict[str, t.Any]) -> dict[str, t.Any]:
        cpu = entry["cpu_seconds"]
        return {
            "name": entry["step"],
            "began": f"{entry['began_at'] - self._began:.1f}",
            "took": f"{entry['ended_at'] - entry['began_at']:.1f}",
            "cpu": "" if cpu is None else f"{cpu:.1f} s",
        }

    def _writes(self, group: dict[str, t.Any]) -> dict[str, float]:
        found = {}
        for name in group["nodes"]:
            begin, end = self._at(name, "client", "started_at"), self._at(name, "client", "ended_at")
            if begin is not None and end is not None:
                found[name] = max(0.0, end - begin)
        return found

    def _streams(self, group: dict[str, t.Any]) -> list[dict[str, t.Any]]:
        """Return the streams of a group's image: one for each domain of its nodes."""
        domains = {self._nodes[name]["domain"] for name in group["nodes"]}
        return [
            stream
            for stream in self._document["streams"]
            if stream["image"] == group["image"] and stream["domain"] in domains
        ]

    def _repeated(self, group: dict[str, t.Any]) -> str:
        """Return how many of the blocks of a group's streams were sent again, where services tell it."""
        streams = self._streams(group)
        told = [s for s in streams if s["blocks_sent"] is not None and s["blocks_repeated"] is not None]
        if not told or len(told) < len(streams):
            return "unknown"
        sent, again = (sum(stream[key] for stream in told) for key in ("blocks_sent", "blocks_repeated"))
        return f"{again} of {sent} ({again / sent * 100:.0f} %)" if sent else "0 of 0"

    def _group(self, group: dict[str, t.Any]) -> dict[str, t.Any]:
        writes = self._writes(group)
        slowest = max(writes, key=lambda name: writes[name]) if writes else None
        return {
            **{key: group[key] for key in ("imaged", "total", "needed", "passed")},
            "label": name_of(group["label"]),
            "image": name_of(group["image"]),
            "quorum": name_of(group["quorum"]),
            "data": _amount(sum(self._nodes[name]["bytes_written"] or 0 for name in group["nodes"])),
            "slowest": f"{writes[slowest]:.1f} s, {name_of(slowest)}" if slowest is not None else "none",
            "repeated": self._repeated(group),
        }

    # -- what limited it

    def _share(self, group: dict[str, t.Any]) -> dict[str, t.Any] | None:
        """Return where the time went of the node of a group that was done last."""
        ends = {
            name: max(end for kind, _b, end, _c in self._bars[name] if kind in "wd")
            for name in group["nodes"]
            if any(kind == "w" for kind, *_rest in self._bars[name])
        }
        if not ends:
            return None
        writes = self._writes(group)
        last = max(ends, key=lambda name: (ends[name], writes[name]))
        took = dict.fromkeys("bhwd", 0.0)
        for kind, begin, end, _cause in self._bars[last]:
            if kind in took:
                took[kind] += end - begin
        begins = min(begin for _k, begin, _e, _c in self._bars[last])
        failed = sum(end - begin for kind, begin, end, _c in self._bars[last] if kind == "x")
        usual = min(statistics.median(writes.values()), took["w"])
        known = begins + failed + sum(took.values())
        seconds = [
            begins,
            failed,
            took["b"],
            took["h"],
            usual,
            took["w"] - usual,
            took["d"],
            max(0.0, self._seconds - known),
        ]
        percent = [part / self._seconds * 100 for part in seconds]
        bars, x = [], 0.0
        for kind, part in zip(_PART_KINDS, percent, strict=True):
            if part > 0:
                bars.append({"kind": kind, "x": f"{x:.2f}", "width": f"{part:.2f}"})
            x += part
        most = max(range(len(_PARTS)), key=lambda i: percent[i])
        return {
            "group": name_of(group["label"]),
            "node": name_of(last),
            "most": _PARTS[most],
            "percent": percent,
            "wire": self._wire(group, max(writes.values())),
            "bars": bars,
        }

    def _wire(self, group: dict[str, t.Any], seconds: float) -> str:
        """Return how much of the rate of a stream was used, where rate and size are known."""
        size = self._sizes.get(group["image"])
        rates = [stream["bandwidth"] for stream in self._streams(group)]
        if not size or not rates or not all(rates) or seconds <= 0:
            return "unknown"
        needed = size * _ON_WIRE * 8 / (min(rates) * 1e6)
        return f"{min(100.0, needed / seconds * 100):.0f} %"

    # -- the rates

    def _chart(self) -> dict[str, t.Any] | None:
        groups = self._document["groups"]
        lines = [(name_of(g["label"]), rates) for g in groups[:_LINES] if (rates := self._rates(g))]
        if not lines:
            return None
        begin = min(rates[0][0] for _name, rates in lines)
        end = max(rates[-1][1] for _name, rates in lines)
        top = max(rate for _name, rates in lines for _begin, _end, rate in rates) or 1.0
        drawn = []
        for name, rates in lines:
            path = ""
            for since, until, rate in rates:
                x1, x2 = (f"{(at - begin) / (end - begin) * 600:.0f}" for at in (since, until))
                path += f"{'V' if path else f'M{x1} '}{150 - rate / top * 150:.0f}H{x2}"
            known = [rate for _begin, _end, rate in rates]
            words = f"{statistics.fmean(known):.1f} on average, {max(known):.1f} at most"
            drawn.append({"name": name, "path": path, "words": words})
        return {
            "lines": drawn,
            "top": f"{top:.1f}",
            "half": f"{top / 2:.1f}",
            "from": f"{begin:.0f}",
            "to": f"{end:.0f}",
            "more": max(0, len(groups) - _LINES),
        }

    def _rates(self, group: dict[str, t.Any]) -> list[tuple[float, float, float]]:
        """Return what writing nodes of a group wrote on average: begin and end (seconds of the run), MB/s."""
        told = {name: points for name in group["nodes"] if len(points := self._amounts[name]) > 1}
        if not told:
            return []
        begin = min(points[0][0] for points in told.values())
        end = max(points[-1][0] for points in told.values())
        # Nodes are told of once a second at most: less than that is no rate.
        number = max(1, min(_PARTS_OF_CHART, int(end - begin)))
        width = (end - begin) / number
        if width <= 0:
            return []
        edges = [begin + width * i for i in range(number + 1)]
        sums = [0.0] * number
        busy = [0] * number
        for points in told.values():
            amounts = _interpolated(points, edges)
            for i in range(number):
                if points[0][0] < edges[i + 1] and edges[i] < points[-1][0]:
                    # A client that begins anew begins at nothing.
                    sums[i] += max(0.0, amounts[i + 1] - amounts[i])
                    busy[i] += 1
        return [(edges[i], edges[i + 1], sums[i] / width / 1e6 / (busy[i] or 1)) for i in range(number)]

    def _written(self, events: t.Sequence[Event]) -> dict[str, list[tuple[float, float]]]:
        """Return how many bytes each node had written when (seconds of the run), as its events tell it."""
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in self._nodes}
        for event in events:
            name = event.get("node")
            if event["event"] != "progress" or not isinstance(name, str) or name not in found:
                continue
            percent, amount = _number(event.get("percent")), _number(event.get("bytes")) or 0.0
            if percent is not None and "msg" not in event:
                # Told at once, the bytes up to a second later. With a message it is not about writing.
                amount = max(amount, percent / 100 * (self._nodes[name]["bytes_written"] or 0))
            found[name].append((float(event["at"]) - self._began, max(0.0, amount)))
        for name, points in found.items():
            begin, end = self._at(name, "client", "started_at"), self._at(name, "client", "ended_at")
            if points and begin is not None and end is not None:
                # How it began and ended was seen, whatever was told between.
                points[:] = [point for point in points if point[0] < end - self._began]
                points.append((begin - self._began, 0.0))
                points.append((end - self._began, float(self._nodes[name]["bytes_written"] or 0)))
            points.sort()
        return found

    # -- the grid

    def _grids(self) -> list[dict[str, t.Any]]:
        """Return a grid for each domain; nodes without coordinates, or in one place, stand in rows below."""
        domains: dict[str, list[str]] = {}
        for name, node in self._nodes.items():
            domains.setdefault(str(node["domain"]), []).append(name)
        grids = []
        for domain, names in domains.items():
            placed = {name: self._places[name] for name in names if name in self._places}
            left = min((x for x, _y in placed.values()), default=0)
            top = min((y for _x, y in placed.values()), default=0)
            spread = any(x - left > 60 or y - top > 400 for x, y in placed.values())
            if spread or len(set(placed.values())) < len(placed):
                placed = {}
            cells = {name: (x - left, y - top) for name, (x, y) in placed.items()}
            columns = max((x + 1 for x, _y in cells.values()), default=0)
            rows = max((y + 1 for _x, y in cells.values()), default=0)
            columns = max(columns, min(20, len(names) - len(cells)))
            for number, name in enumerate(name for name in names if name not in placed):
                cells[name] = (number % columns, rows + number // columns)
            height = max(y for _x, y in cells.values()) + 1
            grids.append(
                {
                    "name": name_of(domain) if len(domains) > 1 else "",
                    "columns": columns,
                    "rows": height,
                    "cells": [self._cell(name, *cells[name]) for name in names],
                }
            )
        return grids

    def _cell(self, name: str, x: int, y: int) -> dict[str, t.Any]:
        outcome = self._nodes[name]["outcome"]
        return {
            "id": self._ids[name],
            "name": name_of(name),
            "outcome": outcome,
            "sign": sign_of(outcome),
            "failed": outcome != outcomes.IMAGED,
            "x": x,
            "y": y,
        }


def _is_told(node: dict[str, t.Any], tries: int) -> bool:
    return bool(tries) and (node["outcome"] != outcomes.IMAGED or len(node["attempts"]) > 1)


def _amount(number: float) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _interpolated(points: list[tuple[float, float]], edges: t.Sequence[float]) -> list[float]:
    """Return the values at the edges (ascending) of a line through the points (ascending)."""
    found = []
    place = 0
    for edge in edges:
        while place < len(points) - 2 and points[place + 1][0] <= edge:
            place += 1
        (x1, y1), (x2, y2) = points[place], points[place + 1]
        part = 0.0 if x2 == x1 else (edge - x1) / (x2 - x1)
        found.append(y1 + (y2 - y1) * min(1.0, max(0.0, part)))
    return found
