# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A concluded run as the document that programs read: ``result.json``, as ``docs/result.schema.json`` says.

The document is made entry by entry. What the record holds besides (settings, arguments of ssh) stays out, and
what is new in the record does not get into the file before the schema knows it.
"""

from __future__ import annotations

import json
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import frisbee
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Node, Record

#: Version of the format; it changes when a reader of the former one could misunderstand the new one.
SCHEMA = 1

# Bytes of a file at most; more is no result.
_LARGEST = 64 << 20
_ATTEMPT = ("number", "power", "began_at", "ended_at", "cause", "evidence")


def make(record: Record) -> dict[str, t.Any]:
    """Return the document of a concluded run. Times are seconds since 1970 (UTC), sizes bytes."""
    group_of = {name: group["label"] for group in record["groups"] for name in group["nodes"]}
    return {
        "schema": SCHEMA,
        "run": record["id"],
        "started_at": record["started_at"],
        "ended_at": record["ended_at"],
        "passed": record["passed"],
        "left_behind": list(record["left_behind"]),
        "groups": [
            {
                key: group[key]
                for key in ("label", "image", "quorum", "needed", "imaged", "total", "passed", "nodes")
            }
            for group in record["groups"]
        ],
        "streams": _streams(record),
        "timeline": [
            {
                "step": entry["step"],
                "began_at": entry["began_at"],
                "ended_at": entry["ended_at"],
                "cpu_seconds": entry.get("cpu_seconds"),
            }
            for entry in record.get("timeline", [])
        ],
        "nodes": {name: _node(node, group_of[name]) for name, node in record["nodes"].items()},
    }


def _streams(record: Record) -> list[dict[str, t.Any]]:
    """Return where each image was sent, by which service, and what that told of it at the end."""
    # Two domains may each send an image of the same name.
    streams = {
        (node["settings"]["orbit_frisbee_url"], node["domain"], node["image"]): node["stream"]
        for node in record["nodes"].values()
        if node.get("stream")
    }
    return [
        {
            "image": image,
            **{
                key: streams.get((asked["url"], asked["domain"], image), {}).get(key)
                for key in ("address", "port", *frisbee.SENT)
            },
            "url": asked["url"],
            "domain": asked["domain"],
        }
        for asked in record.get("streams", [])
        for image in asked["images"]
    ]


def _node(node: Node, group: str) -> dict[str, t.Any]:
    client = node["steps"].get("client", {})
    proof = node["steps"].get("proof", {})
    return {
        "group": group,
        "image": node["image"],
        "domain": node["domain"],
        "hrn": node["hrn"],
        "control_ip": node["control_ip"],
        "disk": node["settings"]["orbit_disk"],
        "memory_image": node["settings"]["orbit_memory_image"],
        "outcome": node["outcome"],
        "evidence": node["evidence"],
        "identity": proof.get("identity") or None,
        "identity_checked": proof.get("identity_checked"),
        "bytes_written": client.get("bytes_written"),
        "bytes_covered": client.get("bytes_covered"),
        "digest": client.get("digest"),
        "verified": client.get("verified"),
        "verified_bytes": client.get("verified_bytes"),
        "verified_reason": client.get("verified_reason"),
        "kept_chunks": client.get("kept_chunks"),
        "rates": _rates(client),
        "steps": {name: _times(step) for name, step in node["steps"].items()},
        "attempts": [{key: attempt.get(key) for key in _ATTEMPT} for attempt in node.get("attempts") or []],
    }


def _rates(client: t.Mapping[str, t.Any]) -> dict[str, float | None]:
    """Return megabytes a second: of data written, and of disk covered (free space included)."""
    seconds = (client.get("ended_at") or 0.0) - (client.get("started_at") or 0.0)
    return {
        name: round(client[key] / 1e6 / seconds, 3) if seconds > 0 and client.get(key) else None
        for name, key in (("written", "bytes_written"), ("covered", "bytes_covered"))
    }


def _times(step: t.Mapping[str, t.Any]) -> dict[str, float]:
    """Return when a step was seen on a node, under the names that end in ``at``."""
    return {name: float(value) for name, value in step.items() if name == "at" or name.endswith("_at")}


def seconds_of(node: Node, record: Record) -> float:
    """Return how long a node took, from the start of the run to the last that was seen of it."""
    began = float(record["started_at"])
    seen = [moment for step in node["steps"].values() for moment in _times(step).values()]
    return max(0.0, max(seen, default=began) - began)


def read(path: str) -> dict[str, t.Any]:
    """Return the document in a file, of which what other files are made of is as it should be.

    :raises OSError: when the file cannot be read.
    :raises ValueError: saying why it is no result that this version reads.
    """
    try:
        with open(path, "rb") as stream:
            found = json.loads(stream.read(_LARGEST))
    except (ValueError, RecursionError):
        found = None
    schema = found.get("schema") if isinstance(found, dict) else None
    if isinstance(schema, int) and schema != SCHEMA:
        raise ValueError(f"its schema is not {SCHEMA}, the one that this version of the collection reads")
    if schema is None or not _is_result(t.cast("dict[str, t.Any]", found)):
        raise ValueError("result.json is no result of a run")
    return t.cast("dict[str, t.Any]", found)


def _is_result(found: dict[str, t.Any]) -> bool:
    nodes = found.get("nodes")
    return (
        isinstance(found.get("run"), str)
        and _is_moment(found.get("started_at"))
        and _is_moment(found.get("ended_at"))
        and isinstance(found.get("passed"), bool)
        and isinstance(nodes, dict)
        and all(isinstance(node, dict) and _is_node(node) for node in nodes.values())
    )


def _is_node(node: dict[str, t.Any]) -> bool:
    steps = node.get("steps")
    return (
        all(isinstance(node.get(key), str) for key in ("domain", "control_ip", "outcome", "image"))
        and isinstance(node.get("attempts"), list)
        and isinstance(steps, dict)
        and all(isinstance(step, dict) and all(map(_is_moment, step.values())) for step in steps.values())
    )


def _is_moment(value: t.Any) -> bool:
    """Whether a value is a number of seconds; larger ones than the year 9999 are no time."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 253_402_300_800
