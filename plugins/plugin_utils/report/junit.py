# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A concluded run as JUnit XML, which CI systems show: a suite per image group, a case per node."""

from __future__ import annotations

import datetime
import re
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.orbit.imaging.plugins.module_utils import outcome as outcomes
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import result
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Node, Record

# What XML 1.0 cannot hold, in any notation: most control characters, halves of surrogate pairs.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REPLACEMENT = "\ufffd"


def make(record: Record) -> bytes:
    """Return the XML document of a concluded run, encoded in UTF-8."""
    nodes = record["nodes"]
    root = ET.Element(
        "testsuites",
        _attributes(
            name=f"orbit.imaging {record['id']}",
            tests=len(nodes),
            failures=len(records.failed(record)),
            errors=0,
            time=_seconds(record["ended_at"] - record["started_at"]),
        ),
    )
    for number, group in enumerate(record["groups"]):
        members = [nodes[name] for name in group["nodes"]]
        seconds = {node["name"]: result.seconds_of(node, record) for node in members}
        suite = ET.SubElement(
            root,
            "testsuite",
            _attributes(
                name=group["label"],
                id=number,
                tests=len(members),
                failures=len(members) - group["imaged"],
                errors=0,
                skipped=0,
                time=_seconds(max(seconds.values(), default=0.0)),
                timestamp=_moment(record["started_at"]),
                hostname="localhost",
            ),
        )
        properties = ET.SubElement(suite, "properties")
        said = {
            "run": record["id"],
            "image": group["image"],
            "quorum": group["quorum"],
            "passed": str(group["passed"]).lower(),
            "left_behind": "; ".join(record["left_behind"]),
        }
        for name, value in said.items():
            ET.SubElement(properties, "property", _attributes(name=name, value=value))
        for node in members:
            _case(suite, group["label"], node, seconds[node["name"]])
    ET.indent(root)
    return t.cast(bytes, ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _case(suite: ET.Element, label: str, node: Node, seconds: float) -> None:
    # A dot in a class name is a package to most readers; the group is one name.
    place = "orbit.imaging." + label.replace(".", "_")
    case = ET.SubElement(
        suite, "testcase", _attributes(name=node["name"], classname=place, time=_seconds(seconds))
    )
    if node["outcome"] != outcomes.IMAGED:
        failure = ET.SubElement(
            case,
            "failure",
            _attributes(type=node["outcome"], message=records.first_line(node["evidence"])),
        )
        failure.text = printable(node["evidence"] or "no evidence")
    attempts = node.get("attempts") or []
    if len(attempts) > 1:
        output = ET.SubElement(case, "system-out")
        output.text = printable(
            "\n".join(
                f"attempt {one.get('number')} ({one.get('power')}): {one.get('cause') or 'imaged'}"
                for one in attempts
            )
        )


def printable(text: str) -> str:
    """Return ``text`` with everything replaced that an XML document cannot hold."""
    return _FORBIDDEN.sub(_REPLACEMENT, text)


def _attributes(**values: t.Any) -> dict[str, str]:
    return {name: printable(str(value)) for name, value in values.items()}


def _seconds(value: float) -> str:
    return f"{max(0.0, value):.3f}"


def _moment(seconds: float) -> str:
    """Return a time as the JUnit schema wants it: ISO 8601 in UTC, without fraction and zone."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
