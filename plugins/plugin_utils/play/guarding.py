# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run has to do with its guard: start one, tell it of each step, go on when it is gone, let it go."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.login import login_name
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims, guard
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import plan, record as records, tokens
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Record

HostVars = t.Mapping[str, t.Mapping[str, t.Any]]

# The guard asks services what they are sending before it answers to the intention to serve.
_TELL = 60.0


def paths(record: Record) -> dict[str, str]:
    """Return the name of each node of the run by the path of its claim."""
    nodes = record["nodes"].items()
    return {claims.node_path(node["settings"]["orbit_claim_dir"], node): name for name, node in nodes}


def folders(record: Record) -> list[str]:
    """Return the folders in which the nodes of the run are claimed."""
    return list(dict.fromkeys(node["settings"]["orbit_claim_dir"] for node in record["nodes"].values()))


def config(record: Record, hostvars: HostVars, *, skip: bool) -> t.Any:
    """Return what a guard must know of the run.

    :param skip: whether nodes that others have claimed are left out; else nothing is claimed then.
    """
    nodes = record["nodes"].values()
    return {
        "run": record["id"],
        "dir": record["dir"],
        "user": login_name() or str(os.getuid()),
        "since": record["started_at"],
        "claims": paths(record),
        "skip": skip,
        "links": [tokens.spend(batch, hostvars) for batch in plan.batches(nodes, "pxe")],
        "claim_dir": folders(record)[0],
        "playbooks": record["playbooks"],
    }


def tell(record: Record, hostvars: HostVars, step: str, message: dict[str, t.Any]) -> None:
    """Tell the guard of a step.

    One that is gone is replaced by another, which claims the nodes again. When that is impossible the run
    goes on without, and says so in the end: a run that ends and cleans up is worth more than half of one.
    """
    if record.get("unguarded"):
        return
    try:
        if "streams" in message:
            message["streams"] = [tokens.spend(batch, hostvars) for batch in message["streams"]]
        note = {"say": "note", "step": step, **message}
        try:
            answer = guard.tell(record["dir"], note, timeout=_TELL)
        except guard.GuardGone:
            _start_again(record, hostvars, step)
            answer = guard.tell(record["dir"], note, timeout=_TELL)
    except Exception as error:
        # No process can be made, a token cannot be worked out: whatever it is, the run must come to its end.
        record["unguarded"] = f"since the step {step}: {error}"
        records.save(record)
        return
    _warn(record, answer)


def _start_again(record: Record, hostvars: HostVars, step: str) -> None:
    again = config(record, hostvars, skip=True)
    again.update(resume=True, streams=_services(record, hostvars))
    said = guard.start(again)
    _leave_to_others(record, said.get("skipped") or {}, "the run guard was gone")
    record.setdefault("warnings", []).append(
        f"the run guard was gone at the step {step}; another was started"
    )
    records.save(record)


def _leave_to_others(record: Record, holders: t.Mapping[str, str], why: str) -> None:
    for name, holder in holders.items():
        words = f"{why}, and the node has been claimed since by {holder}"
        if name in record["nodes"]:
            records.fail(record["nodes"][name], "claimed_elsewhere", words)


def _services(record: Record, hostvars: HostVars) -> list[t.Any]:
    """Return the services that send to the nodes of the run, with their tokens."""
    batches = plan.batches(record["nodes"].values(), "frisbee")
    return [tokens.spend(batch, hostvars) for batch in batches]


def _warn(record: Record, answer: t.Mapping[str, t.Any]) -> None:
    found = [str(words) for words in answer.get("warnings") or []]
    if answer.get("refused"):
        found.append(f"the run guard did not take a note: {answer['refused']}")
    if answer.get("lost"):
        found.append(f"the claims of {', '.join(answer['lost'])} were removed by somebody")
    _leave_to_others(record, answer.get("taken") or {}, "its claim was removed")
    if found:
        record["warnings"] = list(dict.fromkeys([*record.get("warnings", []), *found]))


def release(record: Record, hostvars: HostVars) -> dict[str, t.Any]:
    """Let the guard go; what it was not told to be gone is undone first, without a guard by this process.

    :return: ``undone`` and ``left``, in words.
    """
    try:
        try:
            said = guard.tell(record["dir"], {"say": "release"}, timeout=guard.release_timeout())
            # It was only silent for a while.
            record.pop("unguarded", None)
        except guard.GuardGone as error:
            record.setdefault("unguarded", f"at its end: {error}")
            said = guard.release_without_guard(
                t.cast("t.Any", config(record, hostvars, skip=True)),
                t.cast("t.Any", _services(record, hostvars)),
            )
    except (guard.GuardError, claims.ClaimError, OSError) as error:
        record.setdefault("unguarded", f"at its end: {error}")
        said = {"undone": [], "left": records.not_undone(record)}
    _warn(record, said)
    return {"undone": list(said.get("undone") or []), "left": list(said.get("left") or [])}
