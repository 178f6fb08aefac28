# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import re

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.run import plan, quorum, sizes


def host(x, y, groups=("all",), **variables):
    values = {"orbit_domain": "sb1.orbit-lab.org", **variables}
    return plan.Host(f"node{x}-{y}", list(groups), values)


def names(made):
    return list(made["nodes"])


def test_groups_of_the_inventory_name_the_image_groups():
    hosts = [host(1, y, ("all", "senders"), orbit_image="a.ndz") for y in (1, 2)]
    hosts += [host(2, y, ("all",), orbit_image="b.ndz") for y in (1, 2)]
    made = plan.make(hosts)
    assert made["groups"] == [
        {
            "label": "senders",
            "image": "a.ndz",
            "nodes": ["node1-1", "node1-2"],
            "quorum": "100%",
            "needed": 2,
        },
        {
            "label": "b.ndz",
            "image": "b.ndz",
            "nodes": ["node2-1", "node2-2"],
            "quorum": "100%",
            "needed": 2,
        },
    ]
    assert made["nodes"]["node2-1"]["control_ip"] == "10.11.2.1"
    assert made["nodes"]["node2-1"]["hrn"] == "node2-1.sb1.orbit-lab.org"
    assert made["nodes"]["node2-1"]["settings"]["orbit_disk"] == "/dev/sda"


def test_hosts_without_an_image_of_their_own_are_not_chosen():
    made = plan.make(
        [host(1, 1), host(1, 2, orbit_image="a.ndz"), host(1, 3, orbit_chosen=True)], image="x.ndz"
    )
    assert names(made) == ["node1-2", "node1-3"]
    assert {node["image"] for node in made["nodes"].values()} == {"x.ndz"}


def test_no_choice_is_an_error_and_never_all():
    with pytest.raises(plan.PlanError, match=r"no nodes chosen.*--limit"):
        plan.make([host(1, 1), host(1, 2)], image="x.ndz")


def test_a_limit_chooses_all_hosts_of_the_play():
    assert names(plan.make([host(1, 1), host(1, 2)], image="x.ndz", limited=True)) == ["node1-1", "node1-2"]


def test_a_node_set_chooses_in_its_order():
    hosts = [host(x, y) for x in (1, 2) for y in (1, 2)]
    assert names(plan.make(hosts, image="x.ndz", nodes="[[2,2],[1,1..2]]")) == [
        "node2-2",
        "node1-1",
        "node1-2",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[9,9]]", r"unknown node \[9,9\]"),
        ("[]", "no nodes chosen"),
        ("[[1,1],", "-e nodes, column"),
        ("[[1,`reboot`]]", "-e nodes, column"),
    ],
)
def test_bad_node_sets_are_named(text, message):
    with pytest.raises(plan.PlanError, match=message):
        plan.make([host(1, 1)], image="x.ndz", nodes=text)


@pytest.mark.parametrize("image", ["../x.ndz", "a/b.ndz", "x;reboot", "$(x)", "x y", "", "-x", "x\n", ".x"])
def test_image_names_with_folders_or_shell_characters_are_refused(image):
    said = re.escape(f"image: {image!r} is no image name. Use the bare file name")
    with pytest.raises(plan.PlanError, match=said):
        plan.make([host(1, 1)], image=image, limited=True)


@pytest.mark.parametrize("disk", ["sda", "/etc/passwd", "/dev/../etc/passwd", "/dev/sda;reboot", "/dev/", ""])
def test_wrong_disk_paths_are_refused(disk):
    with pytest.raises(plan.PlanError, match="host node1-1: orbit_disk"):
        plan.make([host(1, 1, orbit_image="a.ndz", orbit_disk=disk)])


def test_all_mistakes_are_told_at_once_and_long_lists_are_folded():
    hosts = [host(1, y, orbit_disk="sda") for y in range(1, 9)]
    with pytest.raises(plan.PlanError) as caught:
        plan.make(hosts, limited=True)
    text = str(caught.value)
    assert text.count("no image. Set orbit_image") == 3
    assert text.count("orbit_disk is 'sda'") == 3
    assert text.endswith("... and the same for 10 more hosts.")


def test_two_hosts_of_one_node_are_a_duplicate():
    twin = plan.Host("other", ["all"], {"orbit_domain": "sb1.orbit-lab.org", "orbit_x": 1, "orbit_y": 1})
    with pytest.raises(plan.PlanError, match="duplicate node: hosts node1-1 and other"):
        plan.make([host(1, 1), twin], image="x.ndz", limited=True)


def test_a_node_outside_its_domain_is_refused():
    outside = plan.Host("node21-1", ["all"], {"orbit_domain": "grid.orbit-lab.org"})
    with pytest.raises(plan.PlanError, match=r"host node21-1.*outside the domain"):
        plan.make([outside], image="x.ndz", limited=True)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"orbit_domain": None}, "no domain"),
        ({"orbit_domain": "demo"}, "no control address"),
        ({"orbit_dialect": "Z"}, "orbit_dialect"),
        ({"orbit_boot_timeout": "soon"}, "orbit_boot_timeout"),
        ({"orbit_x": "one", "orbit_y": 2}, "orbit_x"),
        ({"orbit_control_ip": "10.11.1.300"}, "10.11.1.300"),
    ],
)
def test_wrong_variables_name_host_and_variable(variables, message):
    with pytest.raises(plan.PlanError, match=rf"(?s)host node1-1.*{message}"):
        plan.make([host(1, 1, **variables)], image="x.ndz", limited=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("half", "half"), "host node1-1: orbit_quorum: 'half' is neither"),
        (
            ("90%", "2"),
            "image group x.ndz: its nodes disagree on orbit_quorum: node1-1 says 90%, node1-2 says 2",
        ),
        (("3", "3"), "image group x.ndz: orbit_quorum asks for 3 nodes, but only 2 are chosen"),
    ],
)
def test_a_quorum_that_cannot_be_is_refused(given, message):
    hosts = [host(1, y, orbit_quorum=text) for y, text in enumerate(given, 1)]
    with pytest.raises(plan.PlanError, match=message):
        plan.make(hosts, image="x.ndz", limited=True)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (("100%", "100 %"), "100%"),
        (("100 %", "100 %"), quorum.ALL),
        (("90.0%", "90 %"), "90%"),
        (("02", 2), "2"),
    ],
)
def test_a_quorum_may_be_written_in_several_ways(given, shown):
    hosts = [host(1, y, orbit_quorum=text) for y, text in enumerate(given, 1)]
    (group,) = plan.make(hosts, image="x.ndz", limited=True)["groups"]
    assert (group["quorum"], group["needed"]) == (shown, 2)


def test_groups_may_have_different_quorums():
    hosts = [host(1, y, orbit_image="a.ndz", orbit_quorum="50%") for y in (1, 2, 3)]
    hosts += [host(2, y, orbit_image="b.ndz", orbit_quorum=1) for y in (1, 2)]
    assert [group["needed"] for group in plan.make(hosts)["groups"]] == [2, 1]


def test_a_quorum_is_nothing_to_those_who_do_not_image():
    nodes = plan.make([host(1, 1, orbit_image="a", orbit_quorum="9")], limited=True, need_image=False)[
        "nodes"
    ]
    assert list(nodes) == ["node1-1"]


def test_batches_share_service_dialect_and_domain():
    hosts = [host(1, 1), host(1, 2, orbit_memory_image="other"), host(1, 3)]
    made = plan.make(hosts, image="x.ndz", limited=True)
    pxe = plan.batches(made["nodes"].values(), "pxe")
    assert [[node["name"] for node in batch["nodes"]] for batch in pxe] == [
        ["node1-1", "node1-3"],
        ["node1-2"],
    ]
    (frisbee,) = plan.batches(made["nodes"].values(), "frisbee")
    assert frisbee["images"] == ["x.ndz"]
    assert frisbee["url"] == "http://frisbee:5012"


def test_what_one_service_is_told_does_not_split_the_calls_to_another():
    hosts = [host(1, 1), host(1, 2, orbit_power_window=1, orbit_memory_image="other")]
    nodes = plan.make(hosts, image="x.ndz", limited=True)["nodes"].values()
    (frisbee,) = plan.batches(nodes, "frisbee")
    assert [node["name"] for node in frisbee["nodes"]] == ["node1-1", "node1-2"]
    assert [batch["window"] for batch in plan.batches(nodes, "cmc")] == [50, 1]
    assert [batch["memory_image"] for batch in plan.batches(nodes, "pxe")] == [None, "other"]


@pytest.mark.parametrize("size", ["64M", "500G", "500GB", "1TiB", "536870912", 536870912, "64 M"])
def test_sizes_of_disks(size):
    setting = plan.make([host(1, 1, orbit_disk_min_size=size)], image="x.ndz", limited=True)["nodes"][
        "node1-1"
    ]
    assert sizes.parse(setting["settings"]["orbit_disk_min_size"]) >= 64 << 20


@pytest.mark.parametrize(
    "variables",
    [
        *({"orbit_disk_min_size": size} for size in ("", "big", "-5", "5X", "1.5G", "64M\n6", "0x10", "5 5")),
        *({"orbit_disk_serial": serial} for serial in ("", " S1", "two\nlines", "\x1b[1m")),
        {"orbit_verify": "perhaps"},
        {"orbit_resume": "perhaps"},
    ],
    ids=repr,
)
def test_nonsense_about_the_disk_is_refused(variables):
    (name,) = variables
    with pytest.raises(plan.PlanError, match=f"host node1-1.*{name}"):
        plan.make([host(1, 1, **variables)], image="x.ndz", limited=True)


@pytest.mark.parametrize(
    ("text", "size"),
    [("5", 5), ("5B", 5), ("1K", 1024), ("2KiB", 2048), ("2KB", 2000), ("3M", 3 << 20), ("1T", 1 << 40)],
)
def test_units_of_sizes(text, size):
    assert sizes.parse(text) == size


# -- one thing in several spellings, and things that look like one


def labels(made):
    return [(group["label"], group["nodes"]) for group in made["groups"]]


def test_services_that_send_one_image_are_groups_of_their_own():
    hosts = [host(1, y, orbit_image="a.ndz", orbit_frisbee_url=f"http://f{y}:5012") for y in (1, 2, 3)]
    made = plan.make(hosts)
    assert labels(made) == [
        ("a.ndz", ["node1-1"]),
        ("a.ndz (sb1.orbit-lab.org)", ["node1-2"]),
        ("a.ndz (sb1.orbit-lab.org, http://f3:5012)", ["node1-3"]),
    ]
    assert len({node["group"] for node in made["nodes"].values()}) == 3


@pytest.mark.parametrize(
    ("variable", "spellings"),
    [
        ("orbit_frisbee_url", ("http://f", "http://F:80", "HTTP://f/", " http://f ")),
        ("orbit_domain", ("sb1.orbit-lab.org", "SB1.orbit-lab.org")),
    ],
)
def test_one_service_in_several_spellings_is_asked_once(variable, spellings):
    hosts = [host(1, y, orbit_image="a.ndz", **{variable: said}) for y, said in enumerate(spellings, 1)]
    made = plan.make(hosts)
    assert len(made["groups"]) == 1
    (batch,) = plan.batches(made["nodes"].values(), "frisbee")
    assert len(batch["nodes"]) == len(spellings)
    assert {node["domain"] for node in batch["nodes"]} == {batch["domain"]}


def test_a_node_set_and_an_hrn_that_is_no_text():
    with pytest.raises(plan.PlanError, match=r"host node1-1: orbit_hrn is \['a'\]"):
        plan.make([host(1, 1, orbit_image="a.ndz", orbit_hrn=["a"])], nodes="node1-1")


@pytest.mark.parametrize("name", ["alpha", "node1-1"])
@pytest.mark.parametrize("variable", ["orbit_x", "orbit_y"])
def test_half_a_coordinate_is_refused(name, variable):
    said = {"orbit_domain": "sb1.orbit-lab.org", "orbit_image": "a.ndz", variable: 3}
    with pytest.raises(plan.PlanError, match=f"host {name}: {variable} is given alone"):
        plan.make([plan.Host(name, ["all"], {**said, "orbit_control_ip": "10.0.0.1"})])


@pytest.mark.parametrize(("x", "y"), [(3, 2), (3.0, 2.0), ("3", "2"), (" 3", "+2")])
def test_coordinates_count_as_they_are_converted(x, y):
    said = {"orbit_domain": "sb1.orbit-lab.org", "orbit_image": "a.ndz", "orbit_x": x, "orbit_y": y}
    made = plan.make([plan.Host("alpha", ["all"], said)], nodes=[[3, 2]])
    assert [(node["x"], node["y"]) for node in made["nodes"].values()] == [(3, 2)]


@pytest.mark.parametrize(
    ("image", "words"),
    [("a b", "image: 'a b' is no image name"), (20260101, "image is 20260101, which YAML reads")],
)
def test_a_bad_image_of_the_command_line_is_named(image, words):
    with pytest.raises(plan.PlanError, match=words):
        plan.make([host(1, 1, orbit_image="a.ndz")], image=image)


@pytest.mark.parametrize(
    "nodes", ["n\u00f6d\u00e9", ["n\u00f6d\u00e9"], [["n\u00f6d\u00e9"]]], ids=["text", "list", "nested"]
)
def test_a_name_beyond_ascii_is_shown_as_it_was_written(nodes):
    with pytest.raises(plan.PlanError, match=r"-e nodes, column [12]: 'n\u00f6d\u00e9' is not a node name"):
        plan.make([host(1, 1, orbit_image="a.ndz")], nodes=nodes)
