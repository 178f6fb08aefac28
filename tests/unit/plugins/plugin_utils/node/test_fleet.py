# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import os
import time

import pytest

from ...processkit import has_ended
from . import fleetkit

SHELLS = [
    pytest.param([shell] if not applet else [*shell], id=name)
    for name, shell, applet in (
        ("sh", "/bin/sh", False),
        ("bash", "/bin/bash", False),
        ("busybox", ("/bin/busybox", "sh"), True),
    )
    if os.path.exists(shell if not applet else shell[0])
]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_good_client_is_imaged_in_every_shell(tmp_path, run, said, shell):
    node = fleetkit.make_node(tmp_path, shell=" ".join(shell))
    report = run(node)["node1-1"]
    assert report["bytes_written"] == 65536
    assert report["bytes_covered"] == 1048576
    assert "cause" not in report
    arguments = (tmp_path / "node1-1" / "arguments").read_text().split()
    assert arguments == ["-i", "127.0.0.1", "-m", "239.77.0.1", "-p", "7000", node["settings"]["orbit_disk"]]
    assert any("imaged" in line for line in said)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_client_that_fails_is_client_failed_with_its_last_words(tmp_path, run, shell):
    client = "#!/bin/sh\necho 'Short write!' >&2\nexit 1\n"
    report = run(fleetkit.make_node(tmp_path, shell=" ".join(shell), client=client))["node1-1"]
    assert report["cause"] == "client_failed"
    assert "Short write! (exit status 1)" in report["evidence"]


def test_exit_status_0_without_a_word_of_a_written_disk_is_no_success(tmp_path, run):
    report = run(fleetkit.make_node(tmp_path, client="#!/bin/sh\nexit 0\n"))["node1-1"]
    assert report["cause"] == "client_failed"
    assert "no word of a written disk" in report["evidence"]


def test_a_client_that_wrote_nothing_is_no_success(tmp_path, run):
    client = "#!/bin/sh\necho 'Wrote 0 bytes (0 actual)'\n"
    report = run(fleetkit.make_node(tmp_path, client=client))["node1-1"]
    assert report["cause"] == "client_failed"


def test_a_killed_client_is_client_failed(tmp_path, run):
    client = "#!/bin/sh\necho 'Wrote 10 bytes (10 actual)'\nkill -9 $$\n"
    report = run(fleetkit.make_node(tmp_path, client=client))["node1-1"]
    assert report["cause"] == "client_failed"
    assert "137" in report["evidence"]


SILENT = {
    "sleeps": "exec sleep 600",
    "is suspended": "kill -STOP $$",
    "ignores its end": "trap '' TERM\nwhile :; do sleep 0.1; done",
}


@pytest.mark.parametrize("rest", SILENT.values(), ids=SILENT)
def test_a_silent_client_is_stalled_and_stopped(tmp_path, run, rest):
    client = f'#!/bin/sh\necho $$ >"$(dirname "$0")/pid"\n{rest}\n'
    report = run(fleetkit.make_node(tmp_path, client=client, orbit_stall_timeout=1))["node1-1"]
    assert report["cause"] == "stalled"
    pid = int((tmp_path / "node1-1" / "pid").read_text())
    assert has_ended(pid), "the client still runs"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("rest", ["sleep 600", "kill -STOP $$"], ids=["sleeps", "is suspended"])
def test_a_silent_client_that_is_a_wrapper_is_stopped_with_what_writes(tmp_path, run, rest, shell):
    program = f'echo $$ >"$(dirname "$0")/pid"; {rest}; sleep 600'
    client = f"#!/bin/sh\nsh -c '{program}' \"$0\"\nexit $?\n"
    node = fleetkit.make_node(tmp_path, client=client, orbit_stall_timeout=1, shell=" ".join(shell))
    assert run(node)["node1-1"]["cause"] == "stalled"
    pid = int((tmp_path / "node1-1" / "pid").read_text())
    assert has_ended(pid), "the client's program still runs"


def test_refused_connections_are_tried_again(tmp_path, run):
    node = fleetkit.make_node(tmp_path)
    with open(os.path.join(node["state"], "refuse"), "w") as stream:
        stream.write("2")
    assert run(node)["node1-1"]["bytes_written"] == 65536


def test_a_node_that_refuses_to_the_end_is_ssh_refused(tmp_path, run):
    node = fleetkit.make_node(tmp_path, orbit_boot_timeout=1)
    with open(os.path.join(node["state"], "refuse"), "w") as stream:
        stream.write("1000")
    report = run(node)["node1-1"]
    assert report["cause"] == "ssh_refused"
    assert "within 1 s than: ssh: connect to host 127.0.0.1 port 22: Connection refused" in report["evidence"]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"orbit_disk": "/nonexistent"}, "wrong_disk"),
        ({"orbit_disk_type": "block"}, "wrong_disk"),
        ({"orbit_client": "/nonexistent"}, "client_missing"),
        ({"orbit_memory_id": "other"}, "wrong_memory_image"),
    ],
)
def test_what_would_write_the_wrong_thing_is_refused(tmp_path, run, change, cause):
    node = fleetkit.make_node(tmp_path, **change)
    assert run(node)["node1-1"]["cause"] == cause
    assert not (tmp_path / "node1-1" / "arguments").exists()


def test_one_bad_node_does_not_stop_the_others(tmp_path, run):
    bad = fleetkit.make_node(tmp_path, "node1-1", orbit_boot_timeout=2, orbit_gather=0.1)
    with open(os.path.join(bad["state"], "refuse"), "w") as stream:
        stream.write("1000")
    good = [fleetkit.make_node(tmp_path, f"node1-{y}", orbit_gather=0.1) for y in (2, 3)]
    reports = run(bad, *good)
    assert reports["node1-1"]["cause"] == "ssh_refused"
    assert all("cause" not in reports[node["name"]] for node in good)
    assert all(reports[node["name"]]["ended_at"] for node in good)


def test_proof_wants_an_installed_system(tmp_path, run):
    node = fleetkit.make_node(tmp_path)
    assert run(node, prove=True)["node1-1"]["cause"] == "no_boot_from_disk"


def test_proof_reports_the_identity(tmp_path, run):
    node = fleetkit.make_node(tmp_path, orbit_memory_id="other")
    with open(node["settings"]["orbit_identity_files"][0], "w") as stream:
        stream.write("baseline.ndz\n")
    assert run(node, prove=True)["node1-1"]["identity"] == "baseline.ndz"
    node["settings"]["orbit_identity"] = "another.ndz"
    assert run(node, prove=True)["node1-1"]["cause"] == "no_boot_from_disk"


def test_proof_wants_another_boot_than_the_memory_images(tmp_path, run):
    node = fleetkit.make_node(tmp_path, orbit_memory_id="other", orbit_boot_timeout=1)
    with open(os.path.join(node["state"], "boot_id")) as stream:
        node["steps"]["client"] = {"boot_id": stream.read().strip()}
    report = run(node, prove=True)["node1-1"]
    assert report["cause"] == "no_boot_from_disk"
    assert "power_failed: nothing better within 1 s than: the system from before" in report["evidence"]


def test_the_system_from_before_the_reset_is_not_believed(tmp_path, run):
    node = fleetkit.make_node(tmp_path, orbit_boot_timeout=1)
    fleetkit.reboot(node["state"], age=60)
    node["power"]["before"] = time.time()
    report = run(node)["node1-1"]
    assert report["cause"] == "power_failed"
    assert "before the reset" in report["evidence"]
