# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the playbooks power, status and clean have found, in words, and what of it is wrong."""

from __future__ import annotations

import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Answer, Record


def tell(record: Record, check: bool) -> tuple[list[str], list[str]]:
    """Return lines for a person, and the reasons why the playbook has failed (none when it has not).

    :param record: that of the run, whose ``found`` has the answers to each step of the playbook.
    :param check: whether nothing was changed.
    """
    found = record.get("found", {})
    claimed = sorted(record.get("claimed", {}).items())
    if "power" in found:
        lines = [f"claimed, switched all the same: {name}: {holder}" for name, holder in claimed]
    else:
        lines = [f"{name}: claimed, left alone: {holder}" for name, holder in claimed]
    wrong: list[str] = []
    for step, words in _WORDS.items():
        for answer in found.get(step, []):
            said, bad = words(answer, check)
            lines += said
            wrong += bad
    lines += [f"left behind: {words}" for words in record.get("left_behind", [])]
    if record.get("unguarded"):
        lines.append(f"the nodes had no guard {record['unguarded']}")
    lines += record.get("warnings", [])
    if not lines and not wrong:
        lines = ["nothing was found"]
    return lines, list(dict.fromkeys(wrong))


def _states(answer: Answer, _check: bool) -> tuple[list[str], list[str]]:
    """Group the nodes by state, those that the service does not know last."""
    nodes = answer.get("nodes") or []
    by_state: dict[str, list[str]] = {}
    for node in nodes:
        by_state.setdefault(str(node.get("state") or "unknown"), []).append(str(node["name"]))
    lines = [f"{state}: {len(names)} nodes: {' '.join(names)}" for state, names in sorted(by_state.items())]
    silent = [node["name"] for node in nodes if node.get("raw") is None]
    named = {node["name"] for node in nodes}
    silent += [node["name"] for node in answer["item"]["nodes"] if node["name"] not in named]
    if not silent:
        return lines, []
    return lines, [f"no power state of {' '.join(silent)}: {answer.get('msg') or _place(answer, 'cmc')}"]


def _power(answer: Answer, check: bool) -> tuple[list[str], list[str]]:
    good = [node["name"] for node in answer.get("nodes") or [] if node.get("ok")]
    bad = [node["name"] for node in answer["item"]["nodes"] if node["name"] not in good]
    verb = "would be switched" if check else "switched"
    lines = [f"{verb}: {' '.join(good)}"] if good else []
    if not bad:
        return lines, []
    return lines, [f"not {verb}: {' '.join(bad)}: {answer.get('msg') or _place(answer, 'cmc')}"]


def _streams(answer: Answer, _check: bool) -> tuple[list[str], list[str]]:
    streams = answer.get("streams")
    if streams is None:
        return [], [str(answer.get("msg") or _place(answer, "frisbee"))]
    lines = []
    for stream in streams:
        words = f"is being sent: {stream['image']}"
        if stream.get("address") and stream.get("port"):
            words += f" at {stream['address']}:{stream['port']}"
        elif stream.get("port"):
            words += f" at port {stream['port']}, at an address that the service does not tell"
        if stream.get("time_left"):
            words += f", ends by itself in {int(stream['time_left'])} s"
        lines.append(words)
    return lines, []


def _clear(answer: Answer, check: bool) -> tuple[list[str], list[str]]:
    good = [node["name"] for node in answer.get("nodes") or [] if node.get("ok")]
    bad = [node["name"] for node in answer["item"]["nodes"] if node["name"] not in good]
    verb = "would be cleared" if check else "cleared"
    lines = [f"links {verb}: {' '.join(good)}"] if good else []
    if not bad:
        return lines, []
    return lines, [f"links not cleared: {' '.join(bad)}: {answer.get('msg') or _place(answer, 'pxe')}"]


def _end(answer: Answer, _check: bool) -> tuple[list[str], list[str]]:
    streams = answer.get("streams")
    if streams is None:
        return [], [str(answer.get("msg") or _place(answer, "frisbee"))]
    lines = [f"stream of {stream['image']}: {stream.get('msg')}" for stream in streams if stream.get("ok")]
    return lines, [f"stream of {one['image']}: {one.get('msg')}" for one in streams if not one.get("ok")]


def _place(answer: Answer, service: str) -> str:
    return f"{service} at {answer['item']['url']} did not answer"


_WORDS: dict[str, t.Callable[[Answer, bool], tuple[list[str], list[str]]]] = {
    "power": _power,
    "states": _states,
    "clear": _clear,
    "streams": _streams,
    "end": _end,
}
