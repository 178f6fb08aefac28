# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventories are what they say."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from .kit import ROOT, play, program


def inventory(name):
    done = subprocess.run(
        [program("ansible-inventory"), "-i", f"inventories/{name}", "--list"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # ansible-core 2.19 marks what is no template by an object around it.
    return json.loads(done.stdout, object_hook=lambda item: item.get("__ansible_unsafe", item))


@pytest.mark.parametrize(
    ("name", "count", "host", "control_ip"),
    [
        ("demo", 8, "node4-2", "10.77.4.2"),
        ("sb1", 2, "node2-1", "10.11.2.1"),
        ("grid", 400, "node20-20", "10.10.20.20"),
    ],
)
def test_nodes_and_control_addresses(name, count, host, control_ip):
    variables = inventory(name)["_meta"]["hostvars"]
    assert len(variables) == count
    assert variables[host]["orbit_control_ip"] == control_ip


def test_groups_carry_their_images():
    listed = inventory("demo")
    hosts = listed["_meta"]["hostvars"]
    assert sorted(listed["senders"]["hosts"]) == [f"node{x}-1" for x in range(1, 5)]
    assert {hosts[name]["orbit_image"] for name in listed["receivers"]["hosts"]} == {"receiver.ndz"}


def test_an_image_for_a_sandbox_without_a_choice_of_nodes_is_refused():
    played = play("-i", "inventories/sb1", "playbooks/image.yml", "-e", "image=baseline.ndz")
    assert played.status == 2
    assert "no nodes chosen: none of the 2 hosts of the inventory has an image of its own" in played.output
