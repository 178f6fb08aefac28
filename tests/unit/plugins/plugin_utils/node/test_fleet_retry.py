# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import os

import pytest

from . import fleetkit

# Fails as long as the file "bad" stands beside it.
MOODY = """\
#!/bin/sh
[ ! -e "$(dirname "$0")/bad" ] || { echo "Short write!" >&2; exit 1; }
echo "Wrote 1048576 bytes (65536 actual)"
"""


def put(node, name, text="1000"):
    with open(os.path.join(node["state"], name), "w") as stream:
        stream.write(text)


def mend(*nodes, names=("refuse", "bad")):
    """Return what takes away the faults of nodes when their power is switched."""
    states = {node["name"]: node["state"] for node in nodes}

    def _mend(name):
        for fault in names:
            if os.path.exists(os.path.join(states[name], fault)):
                os.unlink(os.path.join(states[name], fault))

    return _mend


def tried(report):
    return [(attempt["power"], attempt["cause"]) for attempt in report["attempts"]]


def test_a_client_that_failed_is_tried_again_after_a_power_cycle(tmp_path, run, said):
    node = fleetkit.make_node(tmp_path, client=MOODY, orbit_retries=1)
    put(node, "bad")
    power = fleetkit.Power(node, before=mend(node))
    report = run(node, power=power)["node1-1"]
    assert report["bytes_written"] == 65536
    assert tried(report) == [("reset", "client_failed"), ("cycle", None)]
    first, second = report["attempts"]
    assert (first["number"], second["number"], first["step"]) == (1, 2, "client")
    assert "Short write!" in first["evidence"]
    assert first["ended_at"] <= second["began_at"] <= second["ended_at"]
    assert power.given == [("cycle", ["node1-1"])]
    assert power.calls[0]["verify"] is True
    assert power.calls[0]["escalate"] is True
    assert any("node1-1: try 2 of 2 after client_failed: power off and on" in line for line in said)


def test_the_others_go_on_meanwhile_and_do_not_wait(tmp_path, run):
    bad = fleetkit.make_node(tmp_path, "node1-1", orbit_retries=1, orbit_boot_timeout=1, orbit_gather=60)
    put(bad, "refuse")
    good = [fleetkit.make_node(tmp_path, f"node1-{y}", orbit_gather=60) for y in (2, 3)]
    reports = run(bad, *good, power=fleetkit.Power(bad, before=mend(bad)))
    assert tried(reports["node1-1"]) == [("reset", "ssh_refused"), ("cycle", None)]
    again = reports["node1-1"]["started_at"]
    assert all(reports[node["name"]]["started_at"] < again for node in good)
    assert all(tried(reports[node["name"]]) == [("reset", None)] for node in good)


def test_the_last_cause_is_the_outcome_and_the_evidence_names_every_try(tmp_path, run, said):
    node = fleetkit.make_node(tmp_path, client=MOODY, orbit_retries=2, orbit_boot_timeout=1)
    put(node, "refuse")
    put(node, "bad")
    power = fleetkit.Power(node, before=mend(node, names=["refuse"]))
    report = run(node, power=power)["node1-1"]
    assert report["cause"] == "client_failed"
    assert tried(report) == [("reset", "ssh_refused"), ("reset", "client_failed"), ("cycle", "client_failed")]
    lines = report["evidence"].splitlines()
    assert lines[0] == "Short write! (exit status 1)"
    assert lines[-2].startswith("try 1 (reset): ssh_refused: nothing better within 1 s than: ssh: connect")
    assert lines[-1] == "try 2 (reset): client_failed: Short write! (exit status 1)"
    assert sum("node1-1: failed" in line for line in said) == 1


@pytest.mark.parametrize(
    ("change", "cause"),
    [({"orbit_disk": "/nonexistent"}, "wrong_disk"), ({"orbit_client": "/nonexistent"}, "client_missing")],
)
def test_what_another_boot_does_not_change_is_not_tried_again(tmp_path, run, change, cause):
    node = fleetkit.make_node(tmp_path, orbit_retries=3, **change)
    report = run(node)["node1-1"]
    assert report["cause"] == cause
    assert len(report["attempts"]) == 1


def test_a_service_that_does_not_tell_states_is_asked_for_resets(tmp_path, run):
    node = fleetkit.make_node(tmp_path, client=MOODY, orbit_retries=1, orbit_power_verify=False)
    put(node, "bad")
    power = fleetkit.Power(node, before=mend(node))
    assert tried(run(node, power=power)["node1-1"]) == [("reset", "client_failed"), ("reset", None)]
    assert power.calls[0]["escalate"] is False


def test_power_that_does_not_follow_is_a_try_of_its_own_and_cycled_next(tmp_path, run):
    node = fleetkit.make_node(tmp_path, client=MOODY, orbit_retries=3)
    put(node, "bad")
    power = fleetkit.Power(node, before=mend(node))
    power.refused["node1-1"] = "the card is silent"
    report = run(node, power=power)["node1-1"]
    assert report["cause"] == "power_failed"
    assert tried(report) == [
        ("reset", "client_failed"),
        ("reset", "power_failed"),
        ("cycle", "power_failed"),
        ("cycle", "power_failed"),
    ]
    assert report["evidence"].startswith("the card is silent\n")


def test_a_module_that_cannot_be_run_is_power_failed(tmp_path, run):
    def broken(_options):
        raise RuntimeError("no such module")

    node = fleetkit.make_node(tmp_path, client=MOODY, orbit_retries=1)
    put(node, "bad")
    report = run(node, power=broken)["node1-1"]
    assert report["cause"] == "power_failed"
    assert "no such module" in report["evidence"]


def test_nodes_that_fail_together_are_switched_together(tmp_path, run):
    nodes = [
        fleetkit.make_node(tmp_path, f"node1-{y}", client=MOODY, orbit_retries=1, orbit_gather=0.1)
        for y in (1, 2, 3)
    ]
    for node in nodes:
        put(node, "refuse")
        node["settings"]["orbit_boot_timeout"] = 1
    power = fleetkit.Power(*nodes, before=mend(*nodes))
    reports = run(*nodes, power=power)
    assert all(tried(report) == [("reset", "ssh_refused"), ("cycle", None)] for report in reports.values())
    assert sorted(name for _action, names in power.given for name in names) == [n["name"] for n in nodes]
    assert len(power.given) < 3


def test_the_system_of_the_try_before_is_not_believed(tmp_path, run):
    """Power that says to have been cycled, and was not: the same system answers, however young it is."""
    node = fleetkit.make_node(tmp_path, client=MOODY, orbit_retries=1, orbit_boot_timeout=2)
    put(node, "bad")

    def lost(options):
        return {"nodes": [{"name": asked["name"], "ok": True} for asked in options["nodes"]]}

    report = run(node, power=lost)["node1-1"]
    assert tried(report) == [("reset", "client_failed"), ("cycle", "power_failed")]
    assert "the system from before the reset still answers" in report["evidence"]


def test_each_boot_may_have_another_host_key(tmp_path, run):
    node = fleetkit.make_node(tmp_path, client=MOODY, orbit_retries=1)
    put(node, "bad")
    ssh = node["ssh"]["executable"]
    with open(ssh) as stream:
        text = stream.read()
    fleetkit.executable(ssh, text.replace("#!/bin/sh\n", f'#!/bin/sh\necho "$*" >>{node["state"]}/said\n'))
    run(node, power=fleetkit.Power(node, before=mend(node)))
    with open(os.path.join(node["state"], "said")) as stream:
        files = {word for word in stream.read().split() if word.startswith("UserKnownHostsFile=")}
    assert len(files) == 2


def test_a_mistake_with_one_node_does_not_take_the_others_down(tmp_path, run):
    bad, good = (fleetkit.make_node(tmp_path, f"node1-{y}", orbit_gather=0.1) for y in (1, 2))
    del bad["stream"]
    reports = run(bad, good)
    assert reports["node1-1"]["cause"] == "interrupted"
    assert "KeyError: 'stream'" in reports["node1-1"]["evidence"]
    assert reports["node1-2"]["bytes_written"] == 65536


# The proof after the last reset


def installed(tmp_path, **settings):
    node = fleetkit.make_node(tmp_path, orbit_memory_id="other", orbit_retries=1, **settings)
    with open(node["settings"]["orbit_memory_markers"][0], "w"):
        pass
    put(node, "identity", "baseline.ndz\n")
    return node


def test_a_node_that_does_not_come_up_from_its_disk_is_cycled(tmp_path, run):
    node = installed(tmp_path, orbit_boot_timeout=1)
    put(node, "refuse")
    report = run(node, prove=True, power=fleetkit.Power(node, before=mend(node)))["node1-1"]
    assert report["identity"] == "baseline.ndz"
    assert tried(report) == [("reset", "ssh_refused"), ("cycle", None)]
    assert report["attempts"][0]["step"] == "proof"


def test_a_node_that_does_not_come_up_at_all_is_no_boot_from_disk(tmp_path, run):
    node = installed(tmp_path, orbit_boot_timeout=1)
    put(node, "refuse")
    report = run(node, prove=True, power=fleetkit.Power(node))["node1-1"]
    assert report["cause"] == "no_boot_from_disk"
    assert report["evidence"].startswith("ssh_refused: nothing better within 1 s than: ssh: connect")
    assert "\ntry 1 (reset): ssh_refused: " in report["evidence"]


def test_a_wrong_identity_is_not_tried_again(tmp_path, run):
    node = installed(tmp_path, orbit_identity="another.ndz")
    report = run(node, prove=True)["node1-1"]
    assert report["cause"] == "no_boot_from_disk"
    assert len(report["attempts"]) == 1


def test_a_proof_that_succeeds_at_once_is_no_attempt(tmp_path, run):
    assert "attempts" not in run(installed(tmp_path), prove=True)["node1-1"]
