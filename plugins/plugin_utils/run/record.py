# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The record of a run: what became of each node in each step, and what that makes of the run."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import frisbee, outcome as outcomes
from ansible_collections.orbit.imaging.plugins.module_utils.outcome import Outcome
from ansible_collections.orbit.imaging.plugins.plugin_utils import private
from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import printable
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import quorum
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import (
    Answer,
    Batch,
    Node,
    Record,
    Stream,
)

# What a service must be told again to take back what it was asked for.
_ASKED = ("url", "dialect", "domain", "user", "timeout", "ca_path", "validate_certs", "token_from")

_POWER_STEPS = ("reset", "boot")

_FILE = "record.json"


class RecordError(Exception):
    """The record of a run cannot be read or written; the text names the place and the remedy."""


# -- its file


def load(folder: str) -> Record:
    """Return the record of the run in ``folder``.

    :raises RecordError: when there is none, or it cannot be read.
    """
    if not folder:
        raise RecordError(
            "this step has no run: the task that plans it was left out (--start-at-task, --step). "
            "Start the play from its beginning"
        )
    for path in (_spare(folder), os.path.join(folder, _FILE)):
        with contextlib.suppress(FileNotFoundError):
            try:
                with open(path, encoding="utf-8") as stream:
                    return t.cast(Record, json.load(stream))
            except (OSError, ValueError) as error:
                if not isinstance(error, FileNotFoundError):
                    raise RecordError(f"the record of the run cannot be read: {path}: {error}") from error
    raise RecordError(f"the record of the run is gone: {os.path.join(folder, _FILE)}")


def create(record: Record) -> None:
    """Write the record of a run that begins, into a folder that is made for it.

    :raises RecordError: when that is impossible; unlike in the middle of a run, nothing is lost by an end.
    """
    folder = str(record["dir"])
    try:
        private.make_folder(folder)
        _put(folder, json.dumps(record).encode())
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise _unkept(folder, error) from error


def save(record: Record) -> None:
    """Write the record into the folder of its run, whole or not at all, for its owner only.

    When that is impossible in the middle of a run (a full disk), it is kept in memory until it is possible.

    :raises RecordError: when there is no place for it at all.
    """
    folder = str(record["dir"])
    data = json.dumps(record).encode()
    spare = _spare(folder)
    try:
        private.make_folder(folder)
        _put(folder, data)
    except OSError as error:
        try:
            private.make_folder(os.path.dirname(spare))
            _put(os.path.dirname(spare), data)
        except OSError:
            raise _unkept(folder, error) from error
        return
    if os.path.exists(spare):
        shutil.rmtree(os.path.dirname(spare), ignore_errors=True)


def _unkept(folder: str, error: OSError) -> RecordError:
    return RecordError(
        f"the record of the run cannot be kept in {folder}: {error.strerror}. "
        "Make room or correct its permissions, or set orbit_run_dir"
    )


def forget(folder: str) -> None:
    """Remove the folder of a run that touched nothing."""
    for path in (folder, os.path.dirname(_spare(folder))):
        shutil.rmtree(path, ignore_errors=True)


def _spare(folder: str) -> str:
    """Return where the record is kept while its own folder takes nothing: in memory, where Linux has that."""
    name = f"orbit-imaging-{os.getuid()}-{os.path.basename(folder)}"
    return os.path.join("/dev/shm", name, _FILE)


def _put(folder: str, data: bytes) -> None:
    private.write(os.path.join(folder, _FILE), data)


# -- its nodes


def everybody(record: Record) -> list[Node]:
    """Return all nodes of the run, in the order of the plan."""
    return list(record["nodes"].values())


def active(record: Record) -> list[Node]:
    """Return the nodes of the run that have not failed so far, in the order of the plan."""
    return [node for node in record["nodes"].values() if node["outcome"] in (None, outcomes.IMAGED)]


def ours(record: Record) -> list[Node]:
    """Return the nodes of the run but for those that another run has claimed since, with their links."""
    return [node for node in everybody(record) if node["outcome"] != "claimed_elsewhere"]


def booting(record: Record) -> list[Node]:
    """Return the nodes that have not failed so far and are to run their new disk in the end."""
    return [node for node in active(record) if last_step(node) == "proof"]


def fail(node: Node, cause: Outcome, evidence: str) -> None:
    """End ``node`` with a named cause; the first cause stays, what follows from it is no news."""
    if cause not in outcomes.OUTCOMES:
        raise ValueError(f"{cause!r} is not a named cause")
    if node["outcome"] in (None, outcomes.IMAGED):
        node["outcome"] = cause
        node["evidence"] = evidence


# -- what the steps have seen


def images_missing(answer: Answer) -> list[str]:
    """Return, in words, which images of a batch the frisbee service does not say to have."""
    found = []
    said = {entry.get("image"): entry for entry in answer.get("images") or []}
    for image in answer["item"]["images"]:
        entry = said.get(image, {})
        if entry.get("exists") is not True:
            reason = entry.get("msg") or answer.get("msg") or "the service does not know it"
            place = f"frisbee at {answer['item']['url']}, domain {answer['item']['domain']}"
            found.append(f"image {image!r}: {reason} ({place})")
    return found


def nodes_missing(answer: Answer, service: str, key: str, value: t.Any = None) -> list[str]:
    """Return, in words, for which nodes of a batch a service has not said ``key`` (to be ``value``)."""
    known = {
        entry.get("name")
        for entry in answer.get("nodes") or []
        if (entry.get(key) is not None if value is None else entry.get(key) is value)
    }
    missing = [node["name"] for node in answer["item"]["nodes"] if node["name"] not in known]
    if not missing:
        return []
    # The module's own message names the nodes and the reasons.
    return [
        str(answer.get("msg") or f"{service} at {answer['item']['url']}: no answer for {', '.join(missing)}")
    ]


def judge_nodes(record: Record, step: str, cause: Outcome, results: t.Sequence[Answer], now: float) -> Record:
    """Take over what a module said of each node; ``cause`` is what nodes end with for which it failed.

    A node that the module did not name at all has failed too: success is what was observed, not what was not
    denied.
    """
    for result in results:
        said = {entry.get("name"): entry for entry in result.get("nodes") or []}
        for asked in result["item"]["nodes"]:
            node = record["nodes"][asked["name"]]
            entry = said.get(asked["name"])
            if entry is not None and entry.get("ok"):
                node["steps"][step] = {"at": now}
                if step in _POWER_STEPS:
                    # A system that booted before the step began is the old one; patience counts from its end.
                    node["power"] = {"before": record["at"], "after": now}
                continue
            reason = (
                (entry or {}).get("msg") or result.get("msg") or "the service did not answer for this node"
            )
            fail(node, cause, str(reason))
    return record


def judge_streams(record: Record, cause: Outcome, results: t.Sequence[Answer], now: float) -> Record:
    """Give each node the address and port of its image's stream, or the reason why there is none."""
    record.setdefault("streams", [])
    for result in results:
        item = result["item"]
        said = {entry.get("image"): entry for entry in result.get("streams") or []}
        served = [image for image in item["images"] if (said.get(image) or {}).get("ok")]
        if served:
            # What has to be stopped again, by the same service in the same words.
            asked = t.cast(Batch, {key: value for key, value in item.items() if key in _ASKED})
            record["streams"].append({**asked, "images": served})
        for named in item["nodes"]:
            node = record["nodes"][named["name"]]
            entry = said.get(node["image"]) or {}
            if node["image"] in served:
                told = {key: entry[key] for key in ("address", "port", "server") if entry.get(key)}
                node["stream"] = t.cast(Stream, told)
                node["steps"]["serve"] = {"at": now}
            else:
                reason = entry.get("msg") or result.get("msg") or "the service gave no address"
                fail(node, cause, str(reason))
    return record


def note_sent(record: Record, answer: Answer) -> None:
    """Note what was sent to each node, as far as the service told it when the streams were stopped."""
    item = answer["item"]
    told = {
        stream["image"]: {key: stream[key] for key in frisbee.SENT if stream.get(key) is not None}
        for stream in answer.get("streams") or []
    }
    for node in record["nodes"].values():
        asked = (node["settings"]["orbit_frisbee_url"], node["domain"])
        if asked == (item["url"], item["domain"]) and node.get("stream") and node["image"] in told:
            node["stream"].update(t.cast(Stream, told[node["image"]]))


def judge_fleet(record: Record, step: str, reports: t.Mapping[str, t.Mapping[str, t.Any]]) -> Record:
    """Take over what was seen on the nodes themselves.

    A report has ``cause`` (or none), ``evidence``, ``attempts`` and whatever else the step measured. In the
    step ``proof`` a node can only lose what it had; in ``client`` it can only win the right to go on.
    """
    for name, report in reports.items():
        node = record["nodes"][name]
        node["steps"][step] = {k: v for k, v in report.items() if k not in ("cause", "evidence", "attempts")}
        node.setdefault("attempts", []).extend(report.get("attempts", []))
        if report.get("cause"):
            fail(node, report["cause"], report.get("evidence", ""))
    return record


def close(record: Record, step: str, now: float, cpu_seconds: float | None = None) -> Record:
    """Note when a step was over; the next one begins here."""
    record.setdefault("timeline", []).append(
        {"step": step, "began_at": record["at"], "ended_at": now, "cpu_seconds": cpu_seconds}
    )
    record["at"] = now
    return record


def not_undone(record: Record) -> list[str]:
    """Return, in words, what of a run was not seen to be taken back."""
    left = [n["name"] for n in ours(record) if "link" in n["steps"] and "unlink" not in n["steps"]]
    found = [f"links of {', '.join(left)}"] if left else []
    for stream in record.get("streams", []):
        found += [
            f"a use of {image} (frisbee at {stream['url']}, domain {stream['domain']})"
            for image in stream["images"]
            if image not in stream.get("stopped", [])
        ]
    return found


def last_step(node: Node) -> str:
    """Return the step that must have been seen on a node for it to be imaged."""
    return "proof" if node["settings"]["orbit_boot"] else "client"


def conclude(record: Record, left: t.Sequence[str] = (), now: float | None = None) -> Record:
    """Give every node its final outcome, every group and the run its verdict.

    A node is imaged only when its last step was observed on it; one without a cause that never got
    there was interrupted. A group passes with its quorum. The run passes when all its groups do and
    nothing of it is ``left`` behind (in words). ``now`` is when it ended, by default with its last step.
    """
    changed = copy.deepcopy(record)
    for node in changed["nodes"].values():
        if node["outcome"] is None:
            step = last_step(node)
            if step in node["steps"]:
                node["outcome"] = outcomes.IMAGED
            else:
                fail(node, "interrupted", f"the run ended before the step {step} was seen on this node")
    for group in changed["groups"]:
        group["total"] = len(group["nodes"])
        group["imaged"] = sum(changed["nodes"][n]["outcome"] == outcomes.IMAGED for n in group["nodes"])
        group.setdefault("quorum", quorum.ALL)
        group.setdefault("needed", group["total"])
        group["passed"] = group["imaged"] >= group["needed"]
    changed["left_behind"] = list(left)
    changed["passed"] = not left and all(group["passed"] for group in changed["groups"])
    changed["ended_at"] = changed["at"] if now is None else now
    return changed


def failed(record: Record) -> list[Node]:
    """Return the nodes that have failed, in the order of the plan; of a concluded run, all not imaged."""
    return [node for node in record["nodes"].values() if node["outcome"] not in (None, outcomes.IMAGED)]


def culprits(record: Record) -> dict[str, str]:
    """Return, in words, why the nodes for which a concluded run fails have failed: those of failed groups."""
    of_failed_group = {name for group in record["groups"] if not group["passed"] for name in group["nodes"]}
    return {
        node["name"]: f"{node['outcome']}: {first_line(node['evidence'])}"
        for node in failed(record)
        if node["name"] in of_failed_group
    }


def first_line(text: str) -> str:
    """Return the first line of an evidence, fit for a terminal."""
    return printable(text.splitlines()[0]) if text else "no evidence"
