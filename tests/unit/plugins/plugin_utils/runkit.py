# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run that has ended, as the steps of the role leave its record."""

from __future__ import annotations

from ansible_collections.orbit.imaging.plugins.plugin_utils.run import plan, record as records

BEGAN = 1_700_000_000.0


def ended_run(folder, *, left=(), causes=None, quorum=None, image_b="b.ndz", evidence="it is so\nlast line"):
    """Return the concluded record of four nodes in two image groups; ``causes`` (name to cause) failed."""
    causes = causes or {}
    hosts = []
    for x, image, group in ((1, "a.ndz", "senders"), (2, image_b, "rest")):
        for y in (1, 2):
            variables = {
                "orbit_domain": "sb1.orbit-lab.org",
                "orbit_image": image,
                "orbit_disk": "/dev/vda",
                "ansible_port": 2222,
                "ansible_ssh_private_key_file": "/keys/id",
                **({"orbit_quorum": quorum} if quorum else {}),
            }
            hosts.append(plan.Host(f"node{x}-{y}", ["all", group], variables))
    record = {"id": "r1", "dir": str(folder), "started_at": BEGAN, "at": BEGAN, **plan.make(hosts)}
    nodes = list(record["nodes"].values())
    (asked,) = plan.batches(nodes, "frisbee")
    linked = {"item": {"nodes": nodes}, "nodes": [{"name": node["name"], "ok": True} for node in nodes]}
    record = records.judge_nodes(record, "link", "link_failed", [linked], BEGAN + 1)
    records.close(record, "link", BEGAN + 1)
    images = ["a.ndz", image_b]
    streams = [
        {"image": image, "ok": True, "address": "239.1.1.1", "port": 7000 + i}
        for i, image in enumerate(images)
    ]
    served = {"item": asked, "streams": streams}
    record = records.judge_streams(record, "serve_failed", [served], BEGAN + 2)
    records.close(record, "serve", BEGAN + 2)
    reports = {
        node["name"]: {
            "booted_at": BEGAN + 3,
            "started_at": BEGAN + 4,
            "ended_at": BEGAN + 6,
            "bytes_written": 5_000_000,
            "bytes_covered": 8_000_000,
            "boot_id": "x",
        }
        for node in nodes
    }
    for name, cause in causes.items():
        reports[name] = {"cause": cause, "evidence": evidence}
    record = records.close(records.judge_fleet(record, "client", reports), "client", BEGAN + 7)
    proofs = {
        node["name"]: {"up_at": BEGAN + 9, "identity": node["image"]} for node in records.active(record)
    }
    record = records.close(records.judge_fleet(record, "proof", proofs), "proof", BEGAN + 10)
    return records.conclude(record, left, BEGAN + 11)
