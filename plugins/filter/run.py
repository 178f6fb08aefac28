# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that carry the record of a run from one step of the role to the next."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import plain
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import manifests, plan, record as records


def batches(
    record: t.Any, service: str, everybody: bool = False, booting: bool = False
) -> list[dict[str, t.Any]]:
    """Return what to ask ``service`` for the nodes that are still active.

    Or for ``everybody``, or only for those of them that are ``booting`` in the end.
    """
    run = plain(record)
    if everybody:
        return plan.batches(run["nodes"].values(), service)
    return plan.batches(records.booting(run) if booting else records.active(run), service)


def judge(record: t.Any, step: str, result: t.Any) -> dict[str, t.Any]:
    """Return the record after ``step``; ``result`` is what the step's task registered."""
    run, said = plain(record), plain(result)
    if step == "serve":
        return records.judge_streams(run, said["results"], time.time())
    if "reports" in said:
        changed = records.judge_fleet(run, step, said["reports"], time.time())
        changed["timeline"][-1]["cpu_seconds"] = said.get("cpu_seconds")
        return changed
    return records.judge_nodes(run, step, said["results"], time.time())


def know_manifests(record: t.Any, images: t.Any) -> dict[str, t.Any]:
    """Return the record with what the question for the images told of their manifests."""
    return manifests.learn(plain(record), plain(images)["results"])


def preflight_errors(images: t.Any, power: t.Any, links: t.Any, record: t.Any) -> list[str]:
    """Return why the services cannot do what is planned, from what the questions of the plan registered."""
    found = records.preflight_errors(*(plain(asked)["results"] for asked in (images, power, links)))
    return [*found, *manifests.preflight_errors(plain(record))]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        return {
            "batches": batches,
            "judge": judge,
            "know_manifests": know_manifests,
            "mistakes": preflight_errors,
        }
