# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The testbed as it is now: power, links, systems, images on disks, claims, streams, as a grid and as data.

The services tell power and streams. What they do not tell is known as far as runs of this host have left it:
links and receivers from the records of runs that are under way, images on disks from results of earlier ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import string
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import outcome as outcomes
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.systems import System
from ansible_collections.orbit.imaging.plugins.plugin_utils.play import guarding
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import result as results_of
from ansible_collections.orbit.imaging.plugins.plugin_utils.report.page import shown
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Node, Record

#: Version of the document.
SCHEMA = 1

_POWER = {"on": "+", "off": "-", "not_available": "x"}
# Results that are looked through for what is on the disks, newest first.
_RUNS = 50
_WIDEST = 60
_ADDRESS = re.compile(r"\b[0-9]+(\.[0-9]+){3}\b")

Document = dict[str, t.Any]


def gather(record: Record, systems: t.Mapping[str, System] | None, now: float) -> Document:
    """Return what is known of the nodes of a run that only asks, and of the streams.

    :param systems: what each node says that it runs; None when they were not asked.
    :param now: seconds since 1970.
    :raises ClaimError: when claims cannot be looked at.
    """
    nodes = record["nodes"]
    power = {
        str(said["name"]): said.get("state")
        for answer in record.get("found", {}).get("states", [])
        for said in answer.get("nodes") or []
        if said.get("raw") is not None
    }
    held = claims.holders(guarding.paths(record))
    base = os.path.dirname(record["dir"])
    under_way = {holder.run: _record(base, holder.run) for holder in held.values()}
    disks = _disks(base, nodes.values())
    return {
        "schema": SCHEMA,
        "at": now,
        "nodes": {
            name: {
                "domain": node["domain"],
                "x": node["x"],
                "y": node["y"],
                "groups": [group for group in node["inventory_groups"] if group != "all"],
                "power": power.get(name),
                "link": _link(under_way.get(held[name].run) if name in held else None, node),
                "system": systems.get(name) if systems is not None else None,
                "disk": disks.get(name),
                "claim": _claim(held.get(name)),
            }
            for name, node in nodes.items()
        },
        "streams": _streams(record, under_way),
    }


def _claim(holder: claims.Holder | None) -> dict[str, t.Any] | None:
    if holder is None:
        return None
    return {
        "run": holder.run,
        "user": holder.user,
        "pid": holder.pid,
        "since": holder.since,
        "words": shown(str(holder), 300),
    }


def _record(base: str, run: str) -> dict[str, t.Any]:
    """Return what is known of a run that is under way; nothing when it is none of ours."""
    # Who the holder of a claim is may have been written by anybody.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", run):
        return {}
    try:
        found = records.load(os.path.join(base, run))
    except records.RecordError:
        return {}
    nodes = found.get("nodes") if isinstance(found, dict) else None
    well = isinstance(nodes, dict) and all(
        isinstance(node, dict) and all(isinstance(node.get(key), dict) for key in ("steps", "settings"))
        for node in nodes.values()
    )
    return dict(found) if well else {}


def _is_same(one: t.Mapping[str, t.Any], other: t.Mapping[str, t.Any]) -> bool:
    """Whether two entries are of one node, whatever inventories call it."""
    return all(str(one.get(key)).lower() == str(other.get(key)).lower() for key in ("domain", "control_ip"))


def _link(run: t.Mapping[str, t.Any] | None, node: Node) -> str | None:
    """Return the memory image that a run under way has linked the node to, None when that is not known."""
    for other in (run or {}).get("nodes", {}).values():
        steps = other.get("steps", {})
        if _is_same(other, node) and "link" in steps and "unlink" not in steps:
            return other.get("settings", {}).get("orbit_memory_image") or "its memory image"
    return None


def _disks(base: str, nodes: t.Iterable[Node]) -> dict[str, dict[str, t.Any]]:
    """Return what the last run that has written on each node's disk has left there."""
    found: dict[str, dict[str, t.Any]] = {}
    by_place = {(node["domain"].lower(), node["control_ip"]): node["name"] for node in nodes}
    try:
        with os.scandir(base) as entries:
            runs = [
                entry.name for entry in entries if os.path.exists(os.path.join(entry.path, "result.json"))
            ]
    except OSError:
        return found
    results = []
    for run in sorted(runs, reverse=True)[:_RUNS]:
        with contextlib.suppress(OSError, ValueError):
            results.append(results_of.read(os.path.join(base, run, "result.json")))
    for result in sorted(results, key=lambda said: float(said["ended_at"]), reverse=True):
        for node in result["nodes"].values():
            name = by_place.get((node["domain"].lower(), node["control_ip"]))
            if name is None or name in found or "reset" not in node["steps"]:
                continue
            good = node["outcome"] == outcomes.IMAGED
            written = good or "client" in node["steps"]
            if written or node["outcome"] in ("stalled", "client_failed", "verify_failed", "interrupted"):
                found[name] = {
                    "image": node["image"],
                    "whole": good,
                    "run": result["run"],
                    "at": result["ended_at"],
                }
    return found


def _streams(record: Record, under_way: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    found = []
    for answer in record.get("found", {}).get("streams", []):
        told = answer.get("streams") or []
        for stream in told:
            receivers = sorted(
                name
                for run in under_way.values()
                for name, node in run.get("nodes", {}).items()
                if node.get("image") == stream.get("image")
                and node.get("settings", {}).get("orbit_frisbee_url") == answer["item"]["url"]
                and node.get("outcome") is None
                and "serve" in node.get("steps", {})
                and "client" not in node.get("steps", {})
            )
            found.append(
                {
                    "url": answer["item"]["url"],
                    **{key: stream.get(key) for key in ("image", "address", "port", "time_left", "own")},
                    # Those of OMF tell one rate, that of the stream that was started last.
                    "rate_mbit": stream.get("bandwidth")
                    or (answer.get("bandwidth") if len(told) == 1 else None),
                    "receivers": receivers,
                }
            )
    return found


# -- in words


def lines(document: Document) -> list[str]:
    """Return the grid of each domain with its legend, and what the signs leave out."""
    nodes: dict[str, dict[str, t.Any]] = document["nodes"]
    images = sorted({str(n["disk"]["image"]) for n in nodes.values() if n["disk"] and n["disk"]["whole"]})
    letters = dict(zip(images, string.ascii_uppercase, strict=False))
    told: list[str] = []
    for domain in dict.fromkeys(node["domain"] for node in nodes.values()):
        told += [
            "",
            shown(domain),
            *_grid({n: v for n, v in nodes.items() if v["domain"] == domain}, letters),
        ]
    told += [
        "",
        "power: + on, - off, ? not told, x no power control; behind it: * claimed, the image on the disk, "
        "! a disk that was not wholly written, . not known",
    ]
    for image in images:
        there = [
            n for n, v in nodes.items() if v["disk"] and v["disk"]["whole"] and v["disk"]["image"] == image
        ]
        told.append(f"on disk {letters.get(image, ' ')}: {shown(image)}: {_names(there)}")
    partly = [n for n, v in nodes.items() if v["disk"] and not v["disk"]["whole"]]
    if partly:
        told.append(f"on disk !: not the whole image: {_names(partly)}")
    told += _by("runs", {n: _system(v["system"]) for n, v in nodes.items() if v["system"]})
    told += _by("claimed", {n: v["claim"]["words"] for n, v in nodes.items() if v["claim"]})
    linked = {n: shown(v["link"]) for n, v in nodes.items() if v["link"]}
    told += _by("linked to", linked) or [
        "links: the services do not tell them, and no run of this host has set one"
    ]
    for stream in document["streams"]:
        rate = "at a rate that the service does not tell"
        if stream["rate_mbit"]:
            rate = f"at {stream['rate_mbit']:g} Mbit/s"
        who = _names(stream["receivers"]) if stream["receivers"] else "none that runs of this host tell"
        told.append(f"stream of {shown(stream['image'])} {rate}, received by {who}")
    return told


def _system(system: System) -> str:
    if system["kind"] == "none":
        # So that many nodes of which the same is known are one line.
        return f"no answer by SSH: {_ADDRESS.sub('its address', shown(system['msg']))}"
    name = shown(system["identity"]) or "a system without a name"
    return f"{name} in memory" if system["kind"] == "memory" else f"{name} from its disk"


def _by(what: str, said: t.Mapping[str, str]) -> list[str]:
    by_words: dict[str, list[str]] = {}
    for name, words in said.items():
        by_words.setdefault(words, []).append(name)
    return [f"{what}: {words}: {_names(names)}" for words, names in sorted(by_words.items())]


def _names(names: t.Sequence[str]) -> str:
    shorter = " ".join(shown(name, _WIDEST) for name in names)
    return f"{len(names)} nodes: {shorter}" if len(names) > 1 else shorter


def _grid(nodes: t.Mapping[str, dict[str, t.Any]], letters: t.Mapping[str, str]) -> list[str]:
    """Return rows of cells by coordinates; nodes without any, or too far apart, stand in rows below."""
    cells = {(v["x"], v["y"]): _cell(v, letters) for v in nodes.values() if None not in (v["x"], v["y"])}
    told = []
    columns = sorted({x for x, _y in cells})
    if columns and columns[-1] - columns[0] < _WIDEST:
        across = range(columns[0], columns[-1] + 1)
        down = sorted({y for _x, y in cells})
        wide = len(str(down[-1]))
        told.append(f"{'y/x':<{wide + 2}}{''.join(f'{x:>3}' for x in across)}")
        told += [
            f"{y:<{wide + 2}} {' '.join(cells.get((x, y), '  ') for x in across)}".rstrip() for y in down
        ]
        rest = [name for name, v in nodes.items() if None in (v["x"], v["y"])]
    else:
        rest = list(nodes)
    return told + [f"  {_cell(nodes[name], letters)}  {shown(name, _WIDEST)}" for name in rest]


def _cell(node: t.Mapping[str, t.Any], letters: t.Mapping[str, str]) -> str:
    disk = node["disk"]
    sign = "."
    if node["claim"]:
        sign = "*"
    elif disk:
        sign = letters.get(str(disk["image"]), "#") if disk["whole"] else "!"
    return _POWER.get(str(node["power"]), "?") + sign
