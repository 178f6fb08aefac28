# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The steps of a run, one row each: what is asked of whom, for which nodes, and what a failure is called.

A new step is a row here and a task that names it. What a row does not say is the same for all steps, and
stands in :mod:`walker`.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.outcome import Outcome
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import manifests, plan, record as records
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Answer, Batch, Node, Record

Answers = t.Sequence[Answer]


@dataclasses.dataclass(frozen=True)
class Module:
    """A service module: whom it asks, and which of its options come from a batch (option to key)."""

    service: t.Literal["pxe", "frisbee", "cmc"]
    takes: t.Mapping[str, str]


#: The service modules. The module of a step that is not among them works with the nodes themselves.
MODULES: dict[str, Module] = {
    "pxe_link": Module("pxe", {"nodes": "nodes", "image": "memory_image"}),
    "frisbee_server": Module("frisbee", {"images": "images", "user": "user"}),
    "frisbee_info": Module("frisbee", {"images": "images", "user": "user"}),
    "cmc_power": Module(
        "cmc",
        {
            "nodes": "nodes",
            "window": "window",
            "interval": "interval",
            "verify": "verify",
            # A node that does not follow is switched harder, where its state can be read.
            "escalate": "verify",
        },
    ),
    "cmc_info": Module("cmc", {"nodes": "nodes"}),
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One step.

    :ivar module: the module that does it, and that the task of the step names.
    :ivar options: options of the module beside those from a batch; None leaves one out.
    :ivar keeps: option that names a folder for what the module brings, and that folder in the run's own.
    :ivar nodes: the nodes that it is for.
    :ivar cause: what a node ends with for which it fails.
    :ivar intends: what the guard is told before it begins; None when that is nothing.
    :ivar confirms: whether the guard is told what came of it.
    :ivar asks: whether it only asks, so that it is the same in check mode.
    :ivar judge: what is done with the answers.
    :ivar batches: what is asked in one call each, where that is not about nodes.
    :ivar repeats: whether it is done as long as it changes something and there is something left to ask for.
    """

    name: str
    module: str
    options: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    keeps: tuple[str, str] | None = None
    nodes: t.Callable[[Record], list[Node]] = records.active
    cause: Outcome | None = None
    intends: t.Callable[[t.Sequence[Node]], dict[str, t.Any]] | None = None
    confirms: bool = False
    asks: bool = False
    judge: t.Callable[[Record, Step, Answers, float], t.Any] | None = None
    batches: t.Callable[[Record, Step], list[Batch]] | None = None
    repeats: bool = False

    @property
    def service(self) -> str:
        """The service that is asked; "" for a step that works with the nodes themselves."""
        return MODULES[self.module].service if self.module in MODULES else ""

    def calls(self, record: Record) -> list[Batch]:
        """Return what is asked in one call each."""
        if self.batches is not None:
            return self.batches(record, self)
        return plan.batches(self.nodes(record), self.service)

    def arguments(self, batch: Batch, folder: str, **more: t.Any) -> dict[str, t.Any]:
        """Return the arguments of the module for a batch of the run in ``folder``, but for the token."""
        told: t.Mapping[str, t.Any] = batch
        found = {key: told.get(key) for key in plan.SERVICE_KEYS}
        found.update({option: told.get(key) for option, key in MODULES[self.module].takes.items()})
        found.update(self.options)
        if self.keeps:
            found[self.keeps[0]] = os.path.join(folder, self.keeps[1])
        found.update(more)
        return {option: value for option, value in found.items() if value is not None}


# -- what is done with answers


def _nodes(record: Record, step: Step, answers: Answers, now: float) -> None:
    records.judge_nodes(record, step.name, t.cast(Outcome, step.cause), answers, now)


def _streams(record: Record, step: Step, answers: Answers, now: float) -> None:
    records.judge_streams(record, t.cast(Outcome, step.cause), answers, now)


def _images(record: Record, _step: Step, answers: Answers, _now: float) -> None:
    for answer in answers:
        manifests.unpack(answer, f"{record['dir']}/manifests")
    manifests.learn(record, answers)
    _refuse(record, (words for answer in answers for words in records.images_missing(answer)))
    _refuse(record, manifests.preflight_errors(record))


def _known(record: Record, step: Step, answers: Answers, _now: float) -> None:
    key, value = ("raw", None) if step.name == "known" else ("ok", True)
    for answer in answers:
        _refuse(record, records.nodes_missing(answer, step.service, key, value))


def _refuse(record: Record, errors: t.Iterable[str]) -> None:
    record["errors"] = list(dict.fromkeys([*record.get("errors", []), *errors]))


def _stopped(record: Record, _step: Step, answers: Answers, _now: float) -> None:
    for answer in answers:
        records.note_sent(record, answer)
        # The batch is the record's own entry of the stream.
        ended = [stream["image"] for stream in answer.get("streams") or [] if stream.get("ok")]
        answer["item"]["stopped"] = [*answer["item"].get("stopped", []), *ended]


def _found(record: Record, step: Step, answers: Answers, _now: float) -> None:
    """Keep the answers for the playbook's last task, which tells them."""
    record.setdefault("found", {})[step.name] = list(answers)


# States in which a stream is left by a stop of frisbee_server that has not ended it.
_GOES_ON = ("still_used", "unknown")


def _unused(record: Record, _step: Step) -> list[Batch]:
    """Return the streams that no run of this host uses, one call for each service that sends some."""
    in_use = {claims.stream_identity(o["url"], o["domain"], o["image"]) for o in record["found"]["in_use"]}
    found: list[Batch] = []
    asked: list[Answer] = record["found"]["streams"]
    for answer in asked:
        item = answer["item"]
        images = [
            stream["image"]
            for stream in answer.get("streams") or []
            if stream.get("own") is not False
            and claims.stream_identity(item["url"], item["domain"], stream["image"]) not in in_use
        ]
        done = {stream["image"] for stream in _ends_of(record, item) if stream["state"] not in _GOES_ON}
        images = [image for image in images if image not in done]
        if images:
            found.append({**item, "images": images})
    return found


def _ends_of(record: Record, item: Batch) -> list[dict[str, t.Any]]:
    """Return what became of the streams of one service so far."""
    ends: list[Answer] = record["found"].setdefault("end", [])
    for answer in ends:
        if _is_same_service(answer["item"], item):
            return answer.get("streams") or []
    return []


def _is_same_service(one: Batch, other: Batch) -> bool:
    def place(item: Batch) -> tuple[str, str, str | None, str]:
        return item["url"], item["domain"], item["user"], item["dialect"]

    return place(one) == place(other)


def _ended(record: Record, _step: Step, answers: Answers, _now: float) -> None:
    """Each stop takes back one use; a stream has ended when the service says so, or does not send it."""
    for answer in answers:
        before = {stream["image"]: stream for stream in _ends_of(record, answer["item"])}
        for stream in answer.get("streams") or []:
            uses = before.get(stream["image"], {}).get("uses", 0) + (1 if stream.get("changed") else 0)
            words = f"ended, {uses} uses taken back" if stream["state"] not in _GOES_ON else stream["msg"]
            if not stream.get("ok"):
                words = stream["msg"]
            before[stream["image"]] = {**stream, "uses": uses, "msg": words}
        ends: list[Answer] = record["found"]["end"]
        ends[:] = [one for one in ends if not _is_same_service(one["item"], answer["item"])]
        # Without streams the module as a whole has failed, and its message says why.
        streams = list(before.values()) or answer.get("streams")
        ends.append({"item": answer["item"], "msg": answer.get("msg", ""), "streams": streams})


def _owned(record: Record, _step: Step) -> list[Batch]:
    """One stop for each stream that the run was given: when others use it too, the service lets it run."""
    return list(record.get("streams", []))


# -- what the guard is told before


def _no_more(_nodes: t.Sequence[Node]) -> dict[str, t.Any]:
    return {}


def _streams_wanted(nodes: t.Sequence[Node]) -> dict[str, t.Any]:
    return {"streams": plan.batches(nodes, "frisbee")}


def _nodes_wanted(nodes: t.Sequence[Node]) -> dict[str, t.Any]:
    return {"nodes": [node["name"] for node in nodes]}


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        # What services must know before a node is touched.
        Step(
            "images",
            "frisbee_info",
            {"manifests": True},
            keeps=("manifest_dir", "manifests"),
            asks=True,
            judge=_images,
        ),
        Step("known", "cmc_info", asks=True, judge=_known),
        Step("linkable", "pxe_link", {"state": "present"}, asks=True, judge=_known),
        # A run.
        Step("link", "pxe_link", {"state": "present"}, cause="link_failed", intends=_no_more, judge=_nodes),
        Step(
            "serve",
            "frisbee_server",
            {"state": "started"},
            cause="serve_failed",
            intends=_streams_wanted,
            confirms=True,
            judge=_streams,
        ),
        Step("reset", "cmc_power", {"state": "reset"}, cause="power_failed", judge=_nodes),
        Step("client", "frisbee_client", intends=_nodes_wanted),
        # Also those that failed: a link that stays would catch one at its next boot.
        Step(
            "unlink",
            "pxe_link",
            {"state": "absent", "image": None},
            nodes=records.ours,
            cause="link_failed",
            intends=_no_more,
            confirms=True,
            judge=_nodes,
        ),
        Step(
            "stop",
            "frisbee_server",
            {"state": "stopped"},
            intends=_no_more,
            confirms=True,
            judge=_stopped,
            batches=_owned,
        ),
        Step(
            "boot",
            "cmc_power",
            {"state": "reset"},
            nodes=records.booting,
            cause="power_failed",
            judge=_nodes,
        ),
        Step("proof", "node_proof", nodes=records.booting),
        # The playbooks power, status and clean.
        Step(
            "power",
            "cmc_power",
            {"escalate": None, "verify": True},
            nodes=records.everybody,
            cause="power_failed",
            judge=_found,
        ),
        Step("states", "cmc_info", nodes=records.everybody, asks=True, judge=_found),
        Step("streams", "frisbee_info", {"images": None}, nodes=records.everybody, asks=True, judge=_found),
        Step(
            "clear",
            "pxe_link",
            {"state": "absent", "image": None},
            nodes=records.everybody,
            judge=_found,
        ),
        # Each stop takes back one use; a stream ends with the last of them.
        Step("end", "frisbee_server", {"state": "stopped"}, judge=_ended, batches=_unused, repeats=True),
    )
}
