# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong ends with the node it goes wrong on, under its own name."""

from __future__ import annotations

import pytest

from .kit import IMAGE, ROOT, TWO_GROUPS, Testbed, play

QUICK = "  orbit_boot_timeout: 6\n  orbit_gather: 1\n  orbit_retries: 0\n"


@pytest.fixture
def quick(testbed):
    return testbed.inventory(TWO_GROUPS, variables=QUICK)


def never_unreachable(played):
    assert all(counts["unreachable"] == 0 for counts in played.recap.values()), played.output


@pytest.mark.parametrize(
    ("fault", "cause"),
    [("never-boot", "no_boot"), ("boot-disk", "booted_disk"), ("ssh-refuse", "ssh_refused")],
)
def test_one_bad_node_ends_by_name_and_the_others_are_imaged(quick, order, fault, cause):
    if fault == "boot-disk":
        assert play("-i", quick, IMAGE, "--limit", "node1-1").status == 0
    order("node1-1", fault)
    # Who refuses must have come up, also on a busy machine.
    patience = ["-e", "orbit_boot_timeout=15"] if fault == "ssh-refuse" else []
    played = play("-i", quick, IMAGE, *patience)
    assert played.status == 2, played.output
    outcomes = played.outcomes
    assert outcomes.pop("node1-1") == cause
    assert set(outcomes.values()) == {"imaged"}
    assert f"node1-1: {cause}: " in played.output
    assert "5 of 6 nodes imaged" in played.output
    never_unreachable(played)
    assert played.recap["node1-1"]["failed"] == 1
    assert all(counts["failed"] == 0 for name, counts in played.recap.items() if name != "node1-1")


def test_all_nodes_dead_is_a_failed_run_with_everything_cleaned_up(quick, order):
    for x in (1, 2, 3):
        order(f"node{x}-1", "never-boot")
    played = play("-i", quick, IMAGE, "--limit", "senders")
    assert played.status == 2, played.output
    assert set(played.outcomes.values()) == {"no_boot"}, played.output
    never_unreachable(played)
    assert [counts["failed"] for counts in played.recap.values()] == [1, 1, 1]
    assert "0 of 3 nodes imaged" in played.output


def test_a_node_that_boots_late_is_imaged_too(testbed, order):
    order("node1-1", "slow-boot=4")
    inventory = testbed.inventory(TWO_GROUPS, variables="  orbit_boot_timeout: 30\n  orbit_gather: 1\n")
    played = play("-i", inventory, IMAGE, "--limit", "senders")
    assert played.status == 0, played.output
    assert set(played.outcomes.values()) == {"imaged"}


ONE = ("--limit", "node1-1")
BAD_INPUT = {
    "unknown image": (("-e", "image=nosuch.ndz", *ONE), "image 'nosuch.ndz'"),
    "image in a folder": (("-e", "image=../secret.ndz", *ONE), "'../secret.ndz' is no image name"),
    "image with shell characters": (("-e", "image=x;reboot", *ONE), "'x;reboot' is no image name"),
    "unknown node": (("-e", "image=sender.ndz", "-e", "nodes=[[7,7]]"), "unknown node [7,7]"),
    "malformed node set": (("-e", "image=sender.ndz", "-e", "nodes=[[1,1],"), "-e nodes, column"),
    "empty node set": (("-e", "image=sender.ndz", "-e", "nodes=[]"), "no nodes chosen"),
    "no nodes chosen": (("-e", "image=sender.ndz"), "no nodes chosen"),
    "no image for a host": (("--limit", "node1-1"), "host node1-1: no image"),
    "wrong disk path": (
        ("-e", "image=sender.ndz", "--limit", "node1-1", "-e", "orbit_disk=sda"),
        "orbit_disk is 'sda'",
    ),
    "service not reachable": (
        ("-e", "image=sender.ndz", "--limit", "node1-1", "-e", "orbit_cmc_url=http://127.0.0.1:9"),
        "http://127.0.0.1:9",
    ),
    "pxe service not reachable": (
        ("-e", "image=sender.ndz", "--limit", "node1-1", "-e", "orbit_pxe_url=http://127.0.0.1:9"),
        "http://127.0.0.1:9",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_error_before_any_node_is_touched(testbed, case):
    arguments, words = BAD_INPUT[case]
    before = testbed.boots(), testbed.state()["ended_streams"]
    played = play("-i", testbed.inventory(), IMAGE, *arguments)
    assert played.status == 2, played.output
    assert words in played.output
    assert played.output.count("fatal:") + played.output.count("failed: [") == 1, played.output
    assert "TASK [orbit.imaging.image : Link" not in played.output
    assert (testbed.boots(), testbed.state()["ended_streams"]) == before


INVENTORY_MISTAKES = {
    "malformed node set": ('groups:\n  a:\n    nodes: "[[1,1]"\n    image: x.ndz\n', "groups"),
    "node outside the domain": ('groups:\n  a:\n    nodes: "[9,9]"\n    image: x.ndz\n', "outside"),
    "node in two groups": (
        'groups:\n  a:\n    nodes: "[1,1]"\n    image: x.ndz\n  b:\n    nodes: "[1,1]"\n    image: y.ndz\n',
        "node1-1",
    ),
}


@pytest.mark.parametrize("case", INVENTORY_MISTAKES)
def test_a_mistake_in_the_inventory_names_file_and_place(testbed, case):
    groups, words = INVENTORY_MISTAKES[case]
    inventory = testbed.inventory(groups)
    before = testbed.boots()
    played = play("-i", inventory, IMAGE, "-e", "image=sender.ndz", "--limit", "all")
    assert played.status != 0, played.output
    assert inventory in played.output
    assert words in played.output
    assert testbed.boots() == before


@pytest.mark.parametrize(
    ("playbook", "service", "words"),
    [
        ("status", "cmc", "no power state of node1-1"),
        ("status", "frisbee", "http://127.0.0.1:9"),
        ("clean", "pxe", "node1-1"),
        ("power", "cmc", "node1-1"),
    ],
)
def test_a_service_that_is_down_is_named(testbed, playbook, service, words):
    said = ("-e", f"orbit_{service}_url=http://127.0.0.1:9", "-e", "power=on", *ONE)
    played = play("-i", testbed.inventory(TWO_GROUPS), f"playbooks/{playbook}.yml", *said)
    assert played.status == 2, played.output
    assert words in played.output
    assert "http://127.0.0.1:9" in played.output
    assert "serializable" not in played.output
    assert all(counts["unreachable"] == 0 for counts in played.recap.values())


def test_a_service_that_answers_with_another_page_is_named(testbed, tmp_path):
    import http.server
    import threading

    class Portal(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"<html><title>Welcome to the library</title></html>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Portal)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        before = testbed.boots()
        arguments = ("-i", testbed.inventory(), IMAGE, "--limit", "node1-1", "-e", "image=sender.ndz")
        played = play(*arguments, "-e", f"orbit_frisbee_url={url}")
        assert played.status == 2, played.output
        assert url in played.output
        assert "not a testbed service" in played.output
        assert testbed.boots() == before
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_power_and_status_playbooks(testbed):
    inventory = testbed.inventory()
    played = play("-i", inventory, "playbooks/power.yml", "--limit", "node1-1", "-e", "power=off")
    assert played.status == 0, played.output
    power = {node["name"]: node["power"] for node in testbed.state()["nodes"]}
    assert power["node1-1"] == "off"
    played = play("-i", inventory, "playbooks/status.yml")
    assert played.status == 0, played.output
    assert "node1-1" in played.output
    played = play("-i", inventory, "playbooks/power.yml", "--limit", "node1-1", "-e", "power=on")
    assert played.status == 0, played.output
    assert {n["name"]: n["power"] for n in testbed.state()["nodes"]}["node1-1"] == "on"
    played = play("-i", inventory, "playbooks/power.yml", "--limit", "node1-1")
    assert played.status == 2
    assert "-e power=on" in played.output


def test_the_testbed_playbook_brings_one_up_and_down(tmp_path, monkeypatch):
    # The playbook knows no folder for the state: it would stay in the home of who runs the tests.
    monkeypatch.setenv("ORBIT_TESTBED_HOME", str(tmp_path / "home"))
    # Shorter than it takes: a testbed that is half up serves nobody.
    monkeypatch.setenv("ANSIBLE_TASK_TIMEOUT", "1")
    bed = Testbed(tmp_path, "1x1")
    variables = (
        "-e", f"testbed_name={bed.name}", "-e", f"testbed_number={bed.number}", "-e", "testbed_nodes=1x1"
    )  # fmt: skip
    from .kit import program

    command = ("-e", f"testbed_command={program('orbit-testbed')}")
    try:
        played = play("playbooks/testbed.yml", *variables, *command)
        assert played.status == 0, played.output
        assert bed.state()["domain"] == bed.name
    finally:
        played = play("playbooks/testbed.yml", *variables, *command, "-e", "state=absent")
    assert played.status == 0, played.output
    assert ROOT.exists()
