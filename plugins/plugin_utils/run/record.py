# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The record of a run: what became of each node in each step, and what that makes of the run."""

from __future__ import annotations

import copy
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import outcome as outcomes
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import quorum

# The cause a node ends with when a step that asks a service fails for it.
_CAUSE_OF_STEP = {
    "link": "link_failed",
    "serve": "serve_failed",
    "unlink": "link_failed",
    "reset": "power_failed",
    "boot": "power_failed",
}

# What a service must be told again to take back what it was asked for.
_ASKED = ("url", "dialect", "domain", "user", "timeout", "ca_path", "validate_certs", "token_from")

_POWER_STEPS = ("reset", "boot")


def active(record: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """Return the nodes of the run that have not failed so far, in the order of the plan."""
    return [node for node in record["nodes"].values() if node["outcome"] in (None, outcomes.IMAGED)]


def booting(record: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """Return the nodes that have not failed so far and are to run their new disk in the end."""
    return [node for node in active(record) if last_step(node) == "proof"]


def fail(node: dict[str, t.Any], cause: str, evidence: str) -> None:
    """End ``node`` with a named cause; the first cause stays, what follows from it is no news."""
    if cause not in outcomes.OUTCOMES:
        raise ValueError(f"{cause!r} is not a named cause")
    if node["outcome"] in (None, outcomes.IMAGED):
        node["outcome"] = cause
        node["evidence"] = evidence


def preflight_errors(
    images: t.Iterable[t.Mapping[str, t.Any]],
    power: t.Iterable[t.Mapping[str, t.Any]],
    links: t.Iterable[t.Mapping[str, t.Any]],
) -> list[str]:
    """Return, in words, why the services could not do what is planned.

    The arguments are results of the modules that were asked about the images, the power and the links. Only
    what they say yes to is no mistake: a task whose failure was put off still looks like a success here.
    """
    found: list[str] = []
    for answer in images:
        said = {entry.get("image"): entry for entry in answer.get("images") or []}
        for image in answer["item"]["images"]:
            entry = said.get(image, {})
            if entry.get("exists") is not True:
                reason = entry.get("msg") or answer.get("msg") or "the service does not know it"
                place = f"frisbee at {answer['item']['url']}, domain {answer['item']['domain']}"
                found.append(f"image {image!r}: {reason} ({place})")
    for answer in power:
        known = {entry.get("name") for entry in answer.get("nodes") or [] if entry.get("raw") is not None}
        found += _unanswered(answer, known, "cmc")
    for answer in links:
        known = {entry.get("name") for entry in answer.get("nodes") or [] if entry.get("ok") is True}
        found += _unanswered(answer, known, "pxe")
    return list(dict.fromkeys(found))


def _unanswered(answer: t.Mapping[str, t.Any], known: t.Container[str], service: str) -> list[str]:
    missing = [node["name"] for node in answer["item"]["nodes"] if node["name"] not in known]
    if not missing:
        return []
    # The module's own message names the nodes and the reasons.
    return [
        str(answer.get("msg") or f"{service} at {answer['item']['url']}: no answer for {', '.join(missing)}")
    ]


def judge_nodes(
    record: t.Mapping[str, t.Any], step: str, results: t.Sequence[t.Mapping[str, t.Any]], now: float
) -> dict[str, t.Any]:
    """Take over what a module said of each node.

    ``results`` are the module's results, one for each batch (``item``). A node that the module did not
    name at all has failed too: success is what was observed, not what was not denied.
    """
    changed = copy.deepcopy(dict(record))
    for result in results:
        said = {entry.get("name"): entry for entry in result.get("nodes") or []}
        for asked in result["item"]["nodes"]:
            node = changed["nodes"][asked["name"]]
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
            fail(node, _CAUSE_OF_STEP[step], str(reason))
    return _close(changed, step, now)


def judge_streams(
    record: t.Mapping[str, t.Any], results: t.Sequence[t.Mapping[str, t.Any]], now: float
) -> dict[str, t.Any]:
    """Give each node the address and port of its image's stream, or the reason why there is none."""
    changed = copy.deepcopy(dict(record))
    changed.setdefault("streams", [])
    for result in results:
        item = result["item"]
        said = {entry.get("image"): entry for entry in result.get("streams") or []}
        served = [image for image in item["images"] if (said.get(image) or {}).get("ok")]
        if served:
            # What has to be stopped again, by the same service in the same words.
            asked = {key: item[key] for key in _ASKED}
            changed["streams"].append({**asked, "images": served})
        for image in item["images"]:
            entry = said.get(image) or {}
            for named in item["nodes"]:
                node = changed["nodes"][named["name"]]
                if node["image"] != image:
                    continue
                if image in served:
                    node["stream"] = {"address": entry.get("address"), "port": entry.get("port")}
                    node["steps"]["serve"] = {"at": now}
                else:
                    reason = entry.get("msg") or result.get("msg") or "the service gave no address"
                    fail(node, _CAUSE_OF_STEP["serve"], str(reason))
    return _close(changed, "serve", now)


def judge_fleet(
    record: t.Mapping[str, t.Any], step: str, reports: t.Mapping[str, t.Mapping[str, t.Any]], now: float
) -> dict[str, t.Any]:
    """Take over what was seen on the nodes themselves.

    A report has ``cause`` (or none), ``evidence``, ``attempts`` and whatever else the step measured. In the
    step ``boot`` a node can only lose what it had; in ``client`` it can only win the right to go on.
    """
    changed = copy.deepcopy(dict(record))
    for name, report in reports.items():
        node = changed["nodes"][name]
        node["steps"][step] = {k: v for k, v in report.items() if k not in ("cause", "evidence", "attempts")}
        node.setdefault("attempts", []).extend(report.get("attempts", []))
        if report.get("cause"):
            fail(node, report["cause"], report.get("evidence", ""))
    return _close(changed, step, now)


def _close(record: dict[str, t.Any], step: str, now: float) -> dict[str, t.Any]:
    """Note when a step was over; the next one begins here."""
    record.setdefault("timeline", []).append({"step": step, "began_at": record["at"], "ended_at": now})
    record["at"] = now
    return record


def last_step(node: t.Mapping[str, t.Any]) -> str:
    """Return the step that must have been seen on a node for it to be imaged."""
    return "proof" if node["settings"]["orbit_boot"] else "client"


def conclude(
    record: t.Mapping[str, t.Any], left: t.Sequence[str] = (), now: float | None = None
) -> dict[str, t.Any]:
    """Give every node its final outcome, every group and the run its verdict.

    A node is imaged only when its last step was observed on it; one without a cause that never got
    there was interrupted. A group passes with its quorum. The run passes when all its groups do and
    nothing of it is ``left`` behind (in words). ``now`` is when it ended, by default with its last step.
    """
    changed = copy.deepcopy(dict(record))
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


def failed(record: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """Return the nodes of a concluded run that are not imaged, in the order of the plan."""
    return [node for node in record["nodes"].values() if node["outcome"] != outcomes.IMAGED]


def culprits(record: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Return, in words, why the nodes for which a concluded run fails have failed: those of failed groups."""
    of_failed_group = {name for group in record["groups"] if not group["passed"] for name in group["nodes"]}
    return {
        node["name"]: f"{node['outcome']}: {first_line(node['evidence'])}"
        for node in failed(record)
        if node["name"] in of_failed_group
    }


def first_line(text: str) -> str:
    """Return the first line of an evidence."""
    return text.splitlines()[0] if text else "no evidence"
