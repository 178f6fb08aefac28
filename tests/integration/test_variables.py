# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables count wherever Ansible lets people set them, and so does what a play says of its hosts."""

from __future__ import annotations

import datetime
import json
import re

import pytest
import yaml

from .kit import play

#: One variable of each kind, with a value that is not its default.
VALUES = {
    "orbit_disk": "/dev/sdb",
    "orbit_boot": False,
    "orbit_retries": 4,
    "orbit_gather": 2.5,
    "orbit_memory_markers": ["/.one", "/.two"],
    "orbit_cmc_url": "http://127.0.0.1:9",
    "orbit_verify": "never",
    "orbit_run_dir": "/nowhere/in/particular",
    "orbit_quorum": "50%",
    "orbit_image": "said.ndz",
}
#: The plan of the role, and what it has come to, without any service.
ROLE = """\
- name: Plan
  orbit.imaging.image_plan:
  register: planned
  run_once: true
- name: Tell
  ansible.builtin.debug:
    msg: "RECORD {{ lookup('ansible.builtin.file', planned.dir ~ '/record.json') | from_json | to_json }}"
  run_once: true
"""
ROLE_ITSELF = "orbit.imaging.image"
INVENTORY = {
    "all": {
        "vars": {"orbit_domain": "sb1.orbit-lab.org"},
        "children": {
            "senders": {"hosts": {"node1-1": {}, "node2-1": {}}},
            "receivers": {"hosts": {"node1-2": {}, "node2-2": {}}},
        },
    }
}


class Place:
    """A folder with an inventory and the role, in which plays are tried."""

    def __init__(self, folder):
        self.folder = folder
        self.values = {**VALUES, "orbit_run_dir": str(folder / "said")}
        (folder / "roles" / "plan" / "tasks").mkdir(parents=True)
        (folder / "roles" / "plan" / "tasks" / "main.yml").write_text(ROLE)
        self.inventory = json.loads(json.dumps(INVENTORY))

    def run(self, *plays, arguments=()):
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(self.inventory, sort_keys=False))
        (self.folder / "play.yml").write_text(
            yaml.safe_dump([{"gather_facts": False, **one} for one in plays], sort_keys=False)
        )
        return play("-i", str(self.folder / "hosts.yml"), str(self.folder / "play.yml"), *arguments)

    def records(self, *plays, arguments=()):
        played = self.run(*plays, arguments=arguments)
        assert played.status == 0, played.output
        found = [line.split("RECORD ", 1)[1] for line in played.output.splitlines() if '"RECORD ' in line]
        return [json.loads(json.loads('"' + text.rstrip().removesuffix('"') + '"')) for text in found]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return Place(tmp_path)


def _inventory_all(place):
    place.inventory["all"]["vars"].update(place.values)
    return ()


def _inventory_group(place):
    place.inventory["all"]["children"]["senders"]["vars"] = place.values
    return ()


def _inventory_host(place):
    for host in place.inventory["all"]["children"]["senders"]["hosts"].values():
        host.update(place.values)
    return ()


def _group_vars(place):
    (place.folder / "group_vars").mkdir()
    (place.folder / "group_vars" / "senders.yml").write_text(yaml.safe_dump(place.values))
    return ()


def _extra(place):
    return ("-e", json.dumps(place.values))


#: Places outside of plays; each returns arguments of the command line.
PLACES = [_inventory_all, _inventory_group, _inventory_host, _group_vars, _extra]


def _says(record, values):
    assert list(record["nodes"]) == ["node1-1", "node2-1"]
    for node in record["nodes"].values():
        assert {key: node["settings"][key] for key in values} == values
        assert node["image"] == values["orbit_image"]
    assert record["dir"].startswith(values["orbit_run_dir"])


@pytest.mark.parametrize("where", PLACES, ids=[where.__name__.strip("_") for where in PLACES])
def test_a_variable_counts_wherever_it_is_said(place, where):
    (record,) = place.records({"hosts": "senders", "roles": ["plan"]}, arguments=where(place))
    _says(record, place.values)


def _file(place, values):
    name = f"more{values['orbit_retries']}.yml"
    (place.folder / name).write_text(yaml.safe_dump(values))
    return name


def _templates(place, values):
    place.inventory["all"]["vars"]["said"] = values
    return {"vars": {key: "{{ said." + key + " }}" for key in values}, "roles": ["plan"]}


#: Places in a play.
PLAYS = {
    "play": lambda _, said: {"vars": said, "roles": ["plan"]},
    "vars_files": lambda place, said: {"vars_files": [_file(place, said)], "roles": ["plan"]},
    "role": lambda _, said: {"roles": [{"role": "plan", "vars": said}]},
    "role parameters": lambda _, said: {"roles": [{"role": "plan", **said}]},
    "import_role": lambda _, said: {"tasks": [{"import_role": {"name": "plan"}, "vars": said}]},
    "include_role": lambda _, said: {"tasks": [{"include_role": {"name": "plan"}, "vars": said}]},
    "block": lambda _, said: {"tasks": [{"block": [{"import_role": {"name": "plan"}}], "vars": said}]},
    "block around include_role": lambda _, said: {
        "tasks": [{"block": [{"include_role": {"name": "plan"}}], "vars": said}]
    },
    "templates": _templates,
    # These two stay with the hosts, the latter above the former.
    "include_vars": lambda place, said: {
        "tasks": [{"include_vars": _file(place, said)}, {"import_role": {"name": "plan"}}]
    },
    "set_fact": lambda _, said: {"tasks": [{"set_fact": said}, {"include_role": {"name": "plan"}}]},
}


def test_a_variable_counts_wherever_a_play_says_it(place):
    """In one run; each play has values of its own, so that none counts for another."""
    values = [
        {**place.values, "orbit_retries": number, "orbit_image": f"said{number}.ndz"}
        for number in range(len(PLAYS))
    ]
    records = place.records(
        *(
            {"name": name, "hosts": "senders", **make(place, said)}
            for (name, make), said in zip(PLAYS.items(), values, strict=True)
        )
    )
    for record, said in zip(records, values, strict=True):
        _says(record, said)


def test_hosts_may_differ_wherever_that_is_said(place):
    place.inventory["all"]["children"]["senders"]["hosts"]["node2-1"]["orbit_disk"] = "/dev/sdc"
    place.inventory["all"]["vars"]["orbit_disk"] = "/dev/sdb"
    (record,) = place.records(
        {
            "hosts": "senders",
            "vars": {
                "orbit_image": "x.ndz",
                "orbit_memory_id": "{{ 'pxe-' ~ inventory_hostname }}",
                "orbit_client": "{{ '/bin/a' if inventory_hostname == 'node1-1' else '/bin/b' }}",
            },
            "roles": ["plan"],
        }
    )
    said = [
        [node["settings"][key] for key in ("orbit_disk", "orbit_memory_id", "orbit_client")]
        for node in record["nodes"].values()
    ]
    assert said == [["/dev/sdb", "pxe-node1-1", "/bin/a"], ["/dev/sdc", "pxe-node2-1", "/bin/b"]]


@pytest.mark.parametrize("how", ["set_fact", "include_vars"])
def test_what_a_task_before_says_counts_by_its_short_name_too(place, how):
    said = {"image": "task.ndz", "nodes": "[2,1]"}
    place.inventory["all"]["vars"].update(orbit_image="inventory.ndz", nodes="[1,1]", image="other/role:1")
    (place.folder / "more.yml").write_text(yaml.safe_dump(said))
    first = {"set_fact": said} if how == "set_fact" else {"include_vars": "more.yml"}
    (record,) = place.records({"hosts": "all", "tasks": [first, {"import_role": {"name": "plan"}}]})
    assert {name: node["image"] for name, node in record["nodes"].items()} == {"node2-1": "task.ndz"}


def test_a_node_set_that_differs_between_hosts_is_refused(place):
    said = {"set_fact": {"nodes": "{{ '[1,1]' if inventory_hostname == 'node1-1' else '[2,1]' }}"}}
    tasks = [said, {"import_role": {"name": "plan"}}]
    played = place.run({"hosts": "senders", "vars": {"image": "x"}, "tasks": tasks})
    assert played.status == 2, played.output
    assert "differs between hosts: '[1,1]', '[2,1]'" in played.output


@pytest.mark.parametrize(
    "play",
    [
        {"roles": [{"role": ROLE_ITSELF, "ignore_errors": True}]},
        {"roles": [ROLE_ITSELF], "ignore_errors": "{{ 1 == 1 }}"},
        {"tasks": [{"block": [{"include_role": {"name": ROLE_ITSELF}}], "ignore_errors": True}]},
        {"tasks": [{"include_role": {"name": ROLE_ITSELF, "apply": {"ignore_errors": True}}}]},
    ],
    ids=["role", "play", "block", "apply"],
)
def test_errors_of_a_run_cannot_be_ignored(place, play):
    played = place.run({"hosts": "senders", "vars": {"image": "x.ndz"}, **play})
    assert played.status == 2, played.output
    assert "ignore_errors is set for the steps of a run" in played.output
    assert played.output.count("fatal:") == 1
    assert "Ask whether" not in played.output


@pytest.mark.parametrize("name", ["orbit_run", "orbit_report"])
@pytest.mark.parametrize("where", ["command line", "include", "block"])
def test_what_the_role_keeps_for_itself_cannot_be_said(place, name, where):
    include = {"include_role": {"name": ROLE_ITSELF}}
    tasks = {
        "command line": [include],
        "include": [{**include, "vars": {name: "x"}}],
        "block": [{"block": [{"import_role": {"name": ROLE_ITSELF}}], "vars": {name: "x"}}],
    }[where]
    arguments = ("-e", f"{name}=x") if where == "command line" else ()
    played = place.run({"hosts": "senders", "vars": {"image": "x"}, "tasks": tasks}, arguments=arguments)
    assert played.status == 2, played.output
    assert f"{name} is given a value by" in played.output
    assert "Ask whether" not in played.output


def test_the_control_host_is_no_node(place):
    include = {"include_role": {"name": "plan"}, "vars": {"image": "x"}, "loop": ["node1-1", "node2-1"]}
    played = place.run({"hosts": "localhost", "tasks": [include]})
    assert played.status == 2, played.output
    assert "the play runs on localhost, which is no node of the inventory" in played.output
    assert played.output.count("fatal:") == 1


@pytest.mark.parametrize("folder", ["/dev/null/runs", "/proc/runs"])
def test_a_folder_of_runs_that_cannot_be_made_is_refused_at_once(place, folder):
    said = {"image": "x.ndz", "orbit_run_dir": folder}
    played = place.run({"hosts": "senders", "vars": said, "roles": ["plan"]})
    assert played.status == 2, played.output
    text = " ".join(played.output.split())
    assert f"the record of the run cannot be kept in {folder}/" in text
    assert "TASK [plan : Tell]" not in played.output
    (line,) = [line for line in played.output.splitlines() if line.startswith("fatal:")]
    assert line.count("cannot be kept") == 1


def test_the_nearest_place_wins_as_ansible_has_it(place):
    place.inventory["all"]["vars"]["orbit_disk"] = "/dev/inventory"
    roles = [{"role": "plan", "vars": {"orbit_disk": "/dev/role", "orbit_image": "x"}}]
    plays = [{"hosts": "senders", "vars": {"orbit_disk": "/dev/play"}, "roles": roles}]
    (record,) = place.records(*plays)
    assert {node["settings"]["orbit_disk"] for node in record["nodes"].values()} == {"/dev/role"}
    (record,) = place.records(*plays, arguments=("-e", "orbit_disk=/dev/extra"))
    assert {node["settings"]["orbit_disk"] for node in record["nodes"].values()} == {"/dev/extra"}


def test_one_play_for_each_image_group(place):
    records = place.records(
        {"hosts": "senders", "vars": {"image": "a.ndz"}, "roles": ["plan"]},
        {"hosts": "receivers", "roles": [{"role": "plan", "vars": {"orbit_image": "b.ndz"}}]},
    )
    said = [(group["label"], group["image"], group["nodes"]) for r in records for group in r["groups"]]
    assert said == [
        ("senders", "a.ndz", ["node1-1", "node2-1"]),
        ("receivers", "b.ndz", ["node1-2", "node2-2"]),
    ]


@pytest.mark.parametrize(
    ("arguments", "images"),
    [
        ((), [({"image": "play.ndz"}, "play.ndz"), ({}, "inventory.ndz")]),
        (("-e", "orbit_image=extra.ndz"), [({"image": "play.ndz"}, "extra.ndz")]),
        (
            ("-e", "image=extra.ndz"),
            [(said, "extra.ndz") for said in ({"image": "play.ndz"}, {"orbit_image": "play.ndz"}, {})],
        ),
    ],
    ids=["inventory and play", "orbit_image", "image"],
)
def test_image_and_orbit_image(place, arguments, images):
    place.inventory["all"]["vars"]["orbit_image"] = "inventory.ndz"
    plays = [{"hosts": "senders", "vars": said, "roles": ["plan"]} for said, _image in images]
    records = place.records(*plays, arguments=arguments)
    for record, (_said, image) in zip(records, images, strict=True):
        assert {node["image"] for node in record["nodes"].values()} == {image}


def test_an_image_of_another_role_in_the_inventory_is_not_ours(place):
    place.inventory["all"]["vars"].update(image="registry/debian:12", orbit_image="ours.ndz")
    (record,) = place.records({"hosts": "senders", "roles": ["plan"]})
    assert {node["image"] for node in record["nodes"].values()} == {"ours.ndz"}


@pytest.mark.parametrize(
    "said",
    [
        {"vars": {"image": "x.ndz"}},
        {"vars": {"orbit_image": "x.ndz"}},
        {"roles": [{"role": "plan", "vars": {"orbit_image": "x.ndz"}}]},
        {"tasks": [{"set_fact": {"orbit_image": "x.ndz"}}, {"include_role": {"name": "plan"}}]},
    ],
    ids=repr,
)
@pytest.mark.parametrize("arguments", [(), ("-e", "orbit_image=y.ndz"), ("-e", "image=y.ndz")])
def test_an_image_for_all_is_no_choice_of_nodes(place, said, arguments):
    one = {"hosts": "all", **said}
    if "tasks" not in one:
        one.setdefault("roles", ["plan"])
    played = place.run(one, arguments=arguments)
    assert played.status == 2, played.output
    assert "no nodes chosen" in played.output
    assert "hosts: in the play" in played.output


def test_an_image_on_the_command_line_goes_to_the_nodes_that_the_inventory_chooses(place):
    place.inventory["all"]["children"]["senders"]["vars"] = {"orbit_image": "x.ndz"}
    for name in ("image", "orbit_image"):
        (record,) = place.records({"hosts": "all", "roles": ["plan"]}, arguments=("-e", f"{name}=y.ndz"))
        assert {name: node["image"] for name, node in record["nodes"].items()} == {
            "node1-1": "y.ndz",
            "node2-1": "y.ndz",
        }


def test_a_batch_is_the_hosts_of_that_batch(place):
    one = {"hosts": "senders:receivers", "serial": 1, "vars": {"image": "x.ndz"}, "roles": ["plan"]}
    records = place.records(one)
    assert [list(record["nodes"]) for record in records] == [
        ["node1-1"], ["node2-1"], ["node1-2"], ["node2-2"],
    ]  # fmt: skip
    assert len({record["id"] for record in records}) == 4


def test_a_batch_without_chosen_nodes_is_left_alone(place):
    place.inventory["all"]["children"]["receivers"]["vars"] = {"orbit_image": "x.ndz"}
    records = place.records({"hosts": "all", "serial": 2, "roles": ["plan"]})
    assert [list(record["nodes"]) for record in records] == [[], ["node1-2", "node2-2"]]
    records = place.records(
        {"hosts": "all", "serial": 1, "vars": {"image": "x"}, "roles": ["plan"]},
        arguments=("-e", "nodes=[[2,1],[1,2]]"),
    )
    assert [list(record["nodes"]) for record in records] == [[], ["node2-1"], ["node1-2"], []]


CONDITIONS = {
    "role": {"roles": [{"role": "plan", "when": "'senders' in group_names"}]},
    "import_role": {"tasks": [{"import_role": {"name": "plan"}, "when": "'senders' in group_names"}]},
    "block": {"tasks": [{"block": [{"import_role": {"name": "plan"}}], "when": "'senders' in group_names"}]},
    "include_role": {"tasks": [{"include_role": {"name": "plan"}, "when": "'senders' in group_names"}]},
    "block around include_role": {
        "tasks": [{"block": [{"include_role": {"name": "plan"}}], "when": "'senders' in group_names"}]
    },
    "registered": {
        "tasks": [
            {"command": "true", "delegate_to": "localhost", "register": "asked"},
            {
                "include_role": {"name": "plan"},
                "when": ["asked is success", "'senders' in group_names"],
            },
        ]
    },
}


def test_a_condition_leaves_out_whom_it_leaves_out(place):
    plays = [
        {"name": name, "hosts": "all", "vars": {"image": "x.ndz"}, **play}
        for name, play in CONDITIONS.items()
    ]
    records = place.records(*plays)
    assert [list(record["nodes"]) for record in records] == [["node1-1", "node2-1"]] * len(CONDITIONS)


def test_an_include_in_a_loop_images_one_group_after_the_other(place):
    include = {
        "include_role": {"name": "plan"},
        "vars": {"orbit_image": "{{ item.image }}"},
        "when": "item.group in group_names",
        "loop": [{"group": "senders", "image": "a.ndz"}, {"group": "receivers", "image": "b.ndz"}],
    }
    records = place.records({"hosts": "all", "tasks": [include]})
    assert [{n: node["image"] for n, node in record["nodes"].items()} for record in records] == [
        {"node1-1": "a.ndz", "node2-1": "a.ndz"},
        {"node1-2": "b.ndz", "node2-2": "b.ndz"},
    ]


@pytest.mark.parametrize("strategy", ["free", "host_pinned", "ansible.builtin.free"])
def test_a_strategy_without_order_is_refused(place, strategy, monkeypatch):
    monkeypatch.setenv("ANSIBLE_STRATEGY", strategy)
    played = place.run({"hosts": "senders", "vars": {"image": "x.ndz"}, "roles": ["plan"]})
    assert played.status == 2, played.output
    assert f"the strategy of the play is {strategy}" in played.output
    assert "Write 'strategy: linear' in the play" in played.output
    records = place.records(
        {"hosts": "senders", "vars": {"image": "x.ndz"}, "roles": ["plan"], "strategy": "linear"}
    )
    assert len(records) == 1


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        (["node1-1", "node2-2"], ["node1-1", "node2-2"]),
        ([[1, 1], [2, 2]], ["node1-1", "node2-2"]),
        ([1, 1], ["node1-1"]),
        (["[1,1..2]", "node2-1"], ["node1-1", "node1-2", "node2-1"]),
        ("[[1,1],[2,2]]", ["node1-1", "node2-2"]),
    ],
    ids=repr,
)
def test_node_sets_as_texts_and_lists(place, nodes, names):
    for arguments in (("-e", json.dumps({"nodes": nodes})), ("-e", json.dumps({"orbit_nodes": str(nodes)}))):
        if "orbit_nodes" in arguments[1] and not isinstance(nodes, str):
            continue
        (record,) = place.records(
            {"hosts": "all", "vars": {"image": "x"}, "roles": ["plan"]}, arguments=arguments
        )
        assert list(record["nodes"]) == names


NONSENSE = {
    "negative": ({"orbit_stall_timeout": -1}, "orbit_stall_timeout is -1"),
    "zero": ({"orbit_power_window": 0}, "orbit_power_window is 0"),
    "not a number": ({"orbit_gather": ".nan"}, "orbit_gather is"),
    "infinite": ({"orbit_power_interval": "inf"}, "orbit_power_interval is 'inf'"),
    "truth for a number": ({"orbit_retries": True}, "orbit_retries is True"),
    "octal": ({"orbit_disk_serial": 42798}, "orbit_disk_serial is 42798"),
    "number for a name": ({"orbit_memory_image": 1.20}, "orbit_memory_image is 1.2"),
    "truth for a name": ({"orbit_user": False}, "orbit_user is False"),
    "url with a path": ({"orbit_pxe_url": "http://127.0.0.1:5012/lab"}, "the path /lab"),
    "url of a service": ({"orbit_pxe_url": "http://127.0.0.1:5012/pxe"}, "service in its path, 'pxe'"),
    "url without a scheme": ({"orbit_cmc_url": "127.0.0.1:5012"}, "orbit_cmc_url"),
    "empty disk": ({"orbit_disk": None}, "orbit_disk is empty"),
    "misspelt": ({"orbit_dsk": "/dev/sdb"}, "orbit_dsk is no variable of this role. Write orbit_disk"),
    "undefined": ({"orbit_disk": "{{ nosuch }}"}, "host node1-1: orbit_disk cannot be worked out"),
    "list of what is no text": ({"orbit_memory_markers": ["/a", 5]}, "orbit_memory_markers"),
    "folder of nobody": ({"orbit_claim_dir": "~nosuchuser/x"}, "orbit_claim_dir is '~nosuchuser/x'"),
    "date for a text": (
        {"orbit_user": datetime.date(2026, 1, 2)},
        "orbit_user is 2026-01-02, which YAML reads as a date, not as text",
    ),
    "date for a number": ({"orbit_gather": datetime.date(2026, 1, 2)}, "which is a date, not a number"),
    "list for a truth": ({"orbit_boot": [1]}, "orbit_boot is [1], which is a list, not a yes or no"),
    "result for a text": (
        {"orbit_disk": {"changed": True, "stdout": "x"}},
        "which is the result of a task, not a text. Give what is meant of it, such as its stdout",
    ),
    "key that is not there": ({"ansible_ssh_private_key_file": "/no/key"}, "the key file /no/key is not"),
    "console": ({"orbit_console": "{{ inventory_hostname }}"}, "orbit_console differs"),
    "password": ({"ansible_password": "secret5"}, "password"),
    "connection": ({"ansible_connection": "local"}, "ansible_connection is local"),
}


def _refused(text, output, words):
    assert words in " ".join(text.split()), output
    assert "host node1-1" in text or "node1-1 says" in " ".join(text.split()), output
    assert text.count("fatal:") == 1, output


def test_what_cannot_be_meant_is_refused(place):
    """In one run: each play is refused, and rescued so that the next one has its turn."""
    rescue = [{"meta": "clear_host_errors"}]
    plays = [
        {
            "name": f"case {name}",
            "hosts": "senders",
            "vars": {"image": "x.ndz", **values},
            "tasks": [{"block": [{"import_role": {"name": "plan"}}], "rescue": rescue}],
        }
        for name, (values, _words) in NONSENSE.items()
    ]
    played = place.run(*plays)
    assert "secret5" not in played.output
    recap = played.output.partition("PLAY RECAP")
    texts = re.split(r"^PLAY \[case (.*)\].*$", recap[0], flags=re.MULTILINE)[1:]
    assert texts[::2] == list(NONSENSE), played.output
    for text, (_values, words) in zip(texts[1::2], NONSENSE.values(), strict=True):
        _refused(text, played.output, words)
        # The step after it has not been reached.
        assert "RECORD" not in text
    assert "RECORD" not in played.output
    # Each of them has failed, and nothing else has.
    assert re.findall(r"rescued=(\d+)", recap[2])[:1] == [str(len(NONSENSE))], played.output


@pytest.mark.parametrize("case", ["negative", "password", "undefined"])
def test_who_is_refused_has_failed(place, case):
    values, words = NONSENSE[case]
    played = place.run({"hosts": "senders", "vars": {"image": "x.ndz", **values}, "roles": ["plan"]})
    assert played.status == 2, played.output
    assert "secret5" not in played.output
    _refused(played.output, played.output, words)
