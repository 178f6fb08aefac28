# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job: groups get their images, all at once."""

from __future__ import annotations

import pytest

from .kit import IMAGE, TWO_GROUPS, Testbed, finish, play, start

SENDERS = [f"node{x}-1" for x in (1, 2, 3)]
RECEIVERS = [f"node{x}-2" for x in (1, 2, 3)]


@pytest.fixture
def two_groups(testbed):
    return testbed.inventory(TWO_GROUPS)


def all_imaged(played, expected):
    assert played.status == 0, played.output
    assert played.identities == expected
    assert set(played.outcomes.values()) == {"imaged"}


def test_two_groups_get_two_images_in_one_run_and_again(testbed, two_groups):
    expected = {**dict.fromkeys(SENDERS, "sender.ndz"), **dict.fromkeys(RECEIVERS, "receiver.ndz")}
    for _time in ("first", "second"):
        played = play("-i", two_groups, IMAGE)
        all_imaged(played, expected)
        assert "6 of 6 nodes imaged" in played.output
        groups = {group["label"]: group for group in played.result["groups"]}
        assert groups["senders"]["imaged"] == groups["receivers"]["imaged"] == 3
        # Both streams at the same time: each group started before the other had ended.
        times = {
            label: [played.result["nodes"][name]["steps"]["client"] for name in group["nodes"]]
            for label, group in groups.items()
        }
        for one, other in (("senders", "receivers"), ("receivers", "senders")):
            assert min(c["started_at"] for c in times[one]) < max(c["ended_at"] for c in times[other])


def test_one_image_for_all_chosen_nodes(two_groups):
    played = play("-i", two_groups, IMAGE, "-e", "image=receiver.ndz")
    all_imaged(played, dict.fromkeys(SENDERS + RECEIVERS, "receiver.ndz"))


def test_limit_touches_only_its_nodes(testbed, two_groups):
    before = testbed.boots()
    played = play("-i", two_groups, IMAGE, "--limit", "receivers,!node3-2", "-e", "image=sender.ndz")
    all_imaged(played, dict.fromkeys(["node1-2", "node2-2"], "sender.ndz"))
    after = testbed.boots()
    assert {name for name in after if after[name] != before[name]} == {"node1-2", "node2-2"}


def test_a_node_set_chooses_the_nodes(testbed):
    played = play("-i", testbed.inventory(), IMAGE, "-e", "image=sender.ndz", "-e", "nodes=[[1,1],[2..3,2]]")
    all_imaged(played, dict.fromkeys(["node1-1", "node2-2", "node3-2"], "sender.ndz"))


def test_a_nodes_file_with_an_image_is_the_old_command(testbed, tmp_path, monkeypatch):
    nodes = tmp_path / "my.nodes"
    nodes.write_text("# nodes of today\n[1..2,1]\n-[2,1]\n")
    monkeypatch.setenv("ORBIT_DOMAIN", testbed.name)
    monkeypatch.setenv("ORBIT_CONTROL_IP", f"10.{testbed.number}.{{x}}.{{y}}")
    monkeypatch.setenv("ORBIT_ANSIBLE_HOST", f"127.{testbed.number}.{{x}}.{{y}}")
    played = play("-i", testbed.inventory(), "-i", str(nodes), IMAGE, "-e", "image=sender.ndz")
    all_imaged(played, {"node1-1": "sender.ndz"})


def test_check_mode_says_all_and_touches_nothing(testbed, two_groups):
    before = testbed.state(), testbed.boots()
    played = play("-i", two_groups, IMAGE, "--check")
    assert played.status == 0, played.output
    for x in (1, 2, 3):
        line = (
            f"node{x}-1 (10.{testbed.number}.{x}.1): linked to memory, reset, "
            "/dev/sda overwritten, unlinked, reset again"
        )
        assert line in played.output
    assert "senders: sender.ndz would be served to 3 nodes" in played.output
    after = testbed.state(), testbed.boots()
    before[0].pop("time"), after[0].pop("time")
    assert before == after


@pytest.mark.parametrize("images", [("sender.ndz", "receiver.ndz"), ("sender.ndz", "sender.ndz")])
def test_two_playbooks_at_once_on_disjoint_groups(two_groups, images):
    runs = [
        start("-i", two_groups, IMAGE, "--limit", group, "-e", f"image={image}")
        for group, image in zip(("senders", "receivers"), images, strict=True)
    ]
    for names, image, played in zip((SENDERS, RECEIVERS), images, [finish(run) for run in runs], strict=True):
        all_imaged(played, dict.fromkeys(names, image))


@pytest.mark.parametrize(
    ("dialect", "port"), [("A", 5012), ("B", 5022), ("C", 5052), ("D", 5053), ("E1", 5055), ("E2", 5054)]
)
def test_every_dialect_does_the_whole_job(testbed, dialect, port):
    inventory = testbed.inventory(TWO_GROUPS, port=port)
    played = play("-i", inventory, IMAGE, "--limit", "node1-1,node1-2")
    all_imaged(played, {"node1-1": "sender.ndz", "node1-2": "receiver.ndz"})


def test_the_disk_is_not_booted_when_told_so(testbed, two_groups):
    before = testbed.boots()
    played = play("-i", two_groups, IMAGE, "--limit", "node1-1", "-e", '{"orbit_boot": false}')
    assert played.status == 0, played.output
    assert played.outcomes == {"node1-1": "imaged"}
    assert testbed.boots()["node1-1"] == before["node1-1"] + 1


def test_one_group_is_booted_and_the_other_is_not(testbed):
    groups = TWO_GROUPS.replace("image: sender.ndz", "image: sender.ndz\n    vars:\n      orbit_boot: false")
    before = testbed.boots()
    played = play("-i", testbed.inventory(groups), IMAGE, "--limit", "node1-1,node1-2")
    assert played.status == 0, played.output
    assert played.identities == {"node1-1": None, "node1-2": "receiver.ndz"}
    assert set(played.outcomes.values()) == {"imaged"}
    after = testbed.boots()
    assert [after[name] - before[name] for name in ("node1-1", "node1-2")] == [1, 2]


def test_forty_nodes_with_five_forks_share_one_pass_of_the_stream(tmp_path):
    with Testbed(tmp_path, "8x5") as testbed:
        inventory = testbed.inventory(
            'groups:\n  all_nodes:\n    nodes: "[1..8,1..5]"\n    image: sender.ndz\n'
        )
        played = play("-i", inventory, IMAGE, "-f", "5")
        assert played.status == 0, played.output
        assert list(played.outcomes.values()) == ["imaged"] * 40
        (stream,) = testbed.state()["ended_streams"]
        sent, whole = stream["stats"]["blocks_sent"], stream["stats"]["blocks_in_file"]
        assert whole <= sent < 2 * whole, f"{sent} blocks sent for an image of {whole}"
        assert testbed.links() == []
