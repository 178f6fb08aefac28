# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One piece of code does every step of a run.

It tells the guard what is intended, makes the batches, lets the module of the step ask the services, judges
the answers node by node, keeps the record, and tells the guard what came of it. Whatever goes wrong on the
way is evidence for the nodes concerned, never the end of the run: what comes after must clean up.
"""

from __future__ import annotations

import concurrent.futures
import resource
import time
import traceback
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import frisbee
from ansible_collections.orbit.imaging.plugins.plugin_utils.play import guarding
from ansible_collections.orbit.imaging.plugins.plugin_utils.play.steps import STEPS, Step
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import (
    record as records,
    tokens,
)
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.events import Events
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Answer, Batch, Node, Record

# So many services are asked at the same time.
_SERVICES = 8
# A step that repeats ends after so many rounds in any case: a service may say "changed" for ever.
_ROUNDS = 10_000
# What the guard hears of a use of a stream, and of a link.
_OF_STREAM = ("image", "ok", "port", "joined")
_OF_SERVICE = ("url", "dialect", "domain", "user")


class Host(t.Protocol):
    """What the walker needs of Ansible."""

    #: Whether nothing may be changed.
    check: bool
    #: Variables of hosts, of which there is at least the token.
    hostvars: t.Mapping[str, t.Mapping[str, t.Any]]

    def run_module(self, name: str, arguments: dict[str, t.Any]) -> t.Mapping[str, t.Any]:
        """Run a module of the collection where the services are asked, and return its result."""

    def watch_nodes(self, step: Step, record: Record, nodes: list[Node]) -> dict[str, dict[str, t.Any]]:
        """Do what a step does with the nodes themselves; return a report for each."""


def walk(folder: str, name: str, host: Host, **options: t.Any) -> dict[str, t.Any]:
    """Do one step of the run in ``folder``; return what the task of the step shows.

    :param options: options of the module that the task gives, beside those of the step.
    :raises RecordError: when there is no run.
    """
    step = STEPS[name]
    record = records.load(folder)
    events = Events(record["id"], record["dir"])
    try:
        events.emit("step", step=name, state="began")
        said = _walk(step, record, host, options, events)
        events.emit("step", step=name, state="ended", msg=said["msg"] or None)
    finally:
        events.close()
    return said


def _walk(
    step: Step, record: Record, host: Host, options: t.Mapping[str, t.Any], events: Events
) -> dict[str, t.Any]:
    before = _cpu()
    failed_before = {node["name"] for node in records.failed(record)}
    if step.intends is not None:
        _tell(record, step, host, step.intends(step.nodes(record)))
    sent_before = _streams_of(record)
    said = _ask_services(record, step, host, options) if step.service else _watch(record, step, host)
    if not step.asks and (step.cause or not step.service):
        records.close(record, step.name, time.time(), _cpu() - before)
    records.save(record)
    if step.confirms and said["answers"]:
        _tell(record, step, host, {"results": _CONFIRM[step.module](said["answers"])})
    failed = [n["name"] for n in records.failed(record) if n["name"] not in failed_before]
    for label, stream in _streams_of(record).items():
        if stream != sent_before.get(label):
            events.emit("stream", step=step.name, group=label, **stream)
    for name in failed:
        # What is seen on a node itself is told when it is seen.
        if name not in said["told"]:
            _tell_failed(events, step, record["nodes"][name])
    return {
        "changed": said["changed"] and not step.asks,
        "failed_nodes": failed,
        "msg": said["msg"],
    }


def _ask_services(record: Record, step: Step, host: Host, options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    said = _ask_once(record, step, step.calls(record), host, options)
    changed = said["changed"]
    for _round in range(_ROUNDS if step.repeats and not host.check else 0):
        # Who has changed nothing has nothing more to give, or does not answer.
        willing = {answer["item"]["url"] for answer in said["answers"] if answer.get("changed")}
        batches = [batch for batch in step.calls(record) if batch["url"] in willing]
        if not batches:
            break
        said = _ask_once(record, step, batches, host, options)
    return {**said, "changed": changed}


def _ask_once(
    record: Record,
    step: Step,
    batches: t.Sequence[Batch],
    host: Host,
    options: t.Mapping[str, t.Any],
) -> dict[str, t.Any]:
    by_url: dict[str, list[Batch]] = {}
    for batch in batches:
        by_url.setdefault(batch["url"], []).append(batch)

    def ask_one(calls: list[Batch]) -> list[Answer]:
        return [_ask(step, batch, record["dir"], host, options) for batch in calls]

    # One service is asked one thing after the other, and none waits for another that is silent.
    with concurrent.futures.ThreadPoolExecutor(_SERVICES) as pool:
        found = {id(answer["item"]): answer for part in pool.map(ask_one, by_url.values()) for answer in part}
    answers = [found[id(batch)] for batch in batches]
    if step.judge is not None:
        step.judge(record, step, answers, time.time())
    return {
        "answers": answers,
        "told": (),
        "changed": any(answer.get("changed") for answer in answers),
        "msg": "; ".join(str(answer["msg"]) for answer in answers if answer.get("msg")),
    }


def _ask(step: Step, batch: Batch, folder: str, host: Host, options: t.Mapping[str, t.Any]) -> Answer:
    arguments = step.arguments(batch, folder, **options)
    try:
        arguments = tokens.spend({**arguments, "token_from": batch["token_from"]}, host.hostvars)
        return t.cast(Answer, {**host.run_module(step.module, arguments), "item": batch})
    except Exception as error:
        # A host that cannot be reached, a module that cannot be run: no answer for these nodes.
        reason = " ".join(str(error).split()) or type(error).__name__
        words = f"the module {step.module} could not be run: {reason}"
        return {"item": batch, "failed": True, "msg": words}


def _watch(record: Record, step: Step, host: Host) -> dict[str, t.Any]:
    nodes = step.nodes(record)
    told: t.Container[str] = [node["name"] for node in nodes]
    try:
        reports = host.watch_nodes(step, record, nodes)
    except Exception:
        # A mistake of ours is the end of these nodes, not of the run: links and streams must go.
        evidence = traceback.format_exc().rstrip()
        reports = {node["name"]: {"cause": "interrupted", "evidence": evidence} for node in nodes}
        told = ()
    if not host.check:
        records.judge_fleet(record, step.name, reports)
    good = sum(not report.get("cause") for report in reports.values())
    return {"answers": [], "told": told, "changed": bool(nodes), "msg": f"{good} of {len(nodes)} nodes"}


# -- what is told to who listens


def _streams_of(record: Record) -> dict[str, dict[str, t.Any]]:
    """Return image and address of each group's stream, and what it has sent, as far as that is known."""
    found = {}
    for group in record["groups"]:
        streams = [s for name in group["nodes"] if (s := record["nodes"].get(name, {}).get("stream"))]
        if streams:
            told = {key: streams[0].get(key) for key in ("address", "port", *frisbee.SENT)}
            found[group["label"]] = {"image": group["image"], **told}
    return found


def _tell_failed(events: Events, step: Step, node: Node) -> None:
    events.emit(
        "node",
        step=step.name,
        node=node["name"],
        group=node["group"] or None,
        image=node["image"],
        state="failed",
        cause=node["outcome"],
        msg=records.first_line(node["evidence"]),
    )


def _cpu() -> float:
    """Return the seconds of processor time of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


# -- what the guard is told


def _tell(record: Record, step: Step, host: Host, message: dict[str, t.Any]) -> None:
    if not host.check:
        guarding.tell(record, host.hostvars, step.name, message)


def _links(answers: t.Sequence[Answer]) -> list[dict[str, t.Any]]:
    return [
        {"name": node.get("name"), "ok": bool(node.get("ok"))}
        for answer in answers
        for node in answer.get("nodes") or []
    ]


def _uses(answers: t.Sequence[Answer]) -> list[dict[str, t.Any]]:
    """Return what frisbee_server said of each stream, with the service that said it."""
    return [
        {
            **{key: answer["item"].get(key) for key in _OF_SERVICE},
            **{key: stream.get(key) for key in _OF_STREAM},
        }
        for answer in answers
        for stream in answer.get("streams") or []
    ]


_CONFIRM: dict[str, t.Callable[[t.Sequence[Answer]], list[dict[str, t.Any]]]] = {
    "pxe_link": _links,
    "frisbee_server": _uses,
}
