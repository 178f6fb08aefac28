# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of a run: result.json, junit.xml and rerun.yml."""

from __future__ import annotations

import json
import os
import pathlib
import xml.etree.ElementTree as ET

import jsonschema
import pytest
import yaml
from hypothesis import given, strategies as st

from ansible_collections.orbit.imaging.plugins.module_utils import outcome
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import junit, rerun, result, table
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import plan, record as records

from ..runkit import BEGAN, ended_run

DOCS = pathlib.Path(table.__file__).parents[3] / "docs"
SCHEMA = json.loads((DOCS / "result.schema.json").read_text(encoding="utf-8"))
FAILED = {"node1-1": "no_boot", "node2-2": "client_failed"}


def checked(document):
    """Return the document when the published schema allows it."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)
    return document


def test_the_result_is_what_the_schema_says(tmp_path):
    for causes in ({}, FAILED):
        document = checked(result.make(ended_run(tmp_path, causes=causes, left=["link of node1-1"])))
    node = document["nodes"]["node1-2"]
    assert node["rates"] == {"written": 2.5, "covered": 4.0}
    assert node["steps"]["client"] == {
        "booted_at": BEGAN + 3,
        "started_at": BEGAN + 4,
        "ended_at": BEGAN + 6,
    }
    assert (node["group"], node["identity"], node["outcome"]) == ("senders", "a.ndz", "imaged")
    assert document["nodes"]["node1-1"]["rates"] == {"written": None, "covered": None}
    assert [stream["port"] for stream in document["streams"]] == [7000, 7001]


def test_the_result_of_a_run_that_failed_early_is_what_the_schema_says(tmp_path):
    hosts = [plan.Host("n", ["all"], {"orbit_domain": "d", "orbit_control_ip": "10.0.0.1"})]
    made = plan.make(hosts, image="x.ndz", limited=True)
    record = {"id": "r", "dir": str(tmp_path), "started_at": BEGAN, "at": BEGAN, **made}
    document = checked(result.make(records.conclude(record)))
    assert document["nodes"]["n"]["outcome"] == "interrupted"
    assert not document["passed"]


def test_attempts_and_verification_are_in_the_result(tmp_path):
    record = ended_run(tmp_path)
    record["nodes"]["node1-1"]["attempts"] = [
        {
            "number": 1,
            "power": "reset",
            "began_at": 1.0,
            "ended_at": 2.0,
            "cause": "no_boot",
            "evidence": "x",
        },
        {"number": 2, "power": "cycle", "began_at": 2.0, "ended_at": 3.0, "cause": None, "evidence": ""},
    ]
    record["nodes"]["node1-1"]["steps"]["client"].update(digest="ab", verified_bytes=12, verified=True)
    node = checked(result.make(record))["nodes"]["node1-1"]
    assert [attempt["cause"] for attempt in node["attempts"]] == ["no_boot", None]
    assert (node["digest"], node["verified_bytes"], node["verified"]) == ("ab", 12, True)


def test_schema_and_documentation_know_every_outcome():
    assert set(outcome.OUTCOMES) == set(SCHEMA["$defs"]["outcome"]["enum"])
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    assert [name for name in outcome.OUTCOMES if f"`{name}`" not in text] == []


def test_what_is_new_in_the_record_stays_out_of_the_file(tmp_path):
    record = ended_run(tmp_path)
    record["nodes"]["node1-1"]["ssh"]["ssh_common_args"] = ["-o", "ProxyCommand=sshpass -p hunter2 ssh x"]
    record["secret"] = record["nodes"]["node1-1"]["secret"] = "hunter2"
    assert "hunter2" not in json.dumps(checked(result.make(record)))


@pytest.mark.parametrize(
    ("quorum", "passed"),
    [(None, [False, False]), ("50%", [True, True]), ("1", [True, True]), ("51%", [False] * 2)],
)
def test_a_group_passes_with_its_quorum(tmp_path, quorum, passed):
    record = ended_run(tmp_path, causes=FAILED, quorum=quorum)
    assert [group["passed"] for group in record["groups"]] == passed
    assert record["passed"] == all(passed)
    failing = {} if all(passed) else {name: f"{cause}: it is so" for name, cause in FAILED.items()}
    assert records.culprits(record) == failing
    # Failed nodes stay failed, whatever the quorum says of their group.
    assert [node["name"] for node in records.failed(record)] == list(FAILED)
    assert "node1-1: no_boot: it is so" in "\n".join(table.lines(record))


def test_what_is_left_behind_fails_a_run_whose_groups_pass(tmp_path):
    record = ended_run(tmp_path, left=["links of node1-1"])
    assert [group["passed"] for group in record["groups"]] == [True, True]
    assert not record["passed"]
    assert "  left behind: links of node1-1" in table.lines(record)


def test_the_files_of_a_run(tmp_path):
    good = table.write(ended_run(tmp_path / "good"), ["playbooks/image.yml"])
    assert sorted(os.listdir(tmp_path / "good")) == ["junit.xml", "result.json"]
    bad = table.write(ended_run(tmp_path / "bad", causes=FAILED), [])
    assert sorted(os.listdir(tmp_path / "bad")) == ["junit.xml", "rerun.yml", "result.json"]
    assert set(good) == {"result", "junit"}
    for path in bad.values():
        assert os.stat(path).st_mode & 0o77 == 0


# -- junit.xml

#: Attributes of the JUnit XML schema that CI systems share; those in capitals must be there.
_SHAPE = {
    "testsuites": ({"name", "tests", "failures", "errors", "time"}, {"testsuite"}),
    "testsuite": (
        {"NAME", "TESTS", "FAILURES", "ERRORS", "TIME", "TIMESTAMP", "HOSTNAME", "id", "skipped"},
        {"properties", "testcase"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"NAME", "VALUE"}, set()),
    "testcase": ({"NAME", "CLASSNAME", "TIME"}, {"failure", "system-out"}),
    "failure": ({"TYPE", "message"}, set()),
    "system-out": (set(), set()),
}
#: The order in which the schema wants the children of a suite.
_ORDER = ("properties", "testcase")


def well_shaped(element):
    attributes, children = _SHAPE[element.tag]
    must = {name.lower() for name in attributes if name.isupper()}
    assert must <= set(element.attrib) <= {name.lower() for name in attributes}
    assert {child.tag for child in element} <= children
    if element.tag == "testsuite":
        order = [_ORDER.index(child.tag) for child in element]
        assert order == sorted(order)
        cases = element.findall("testcase")
        assert int(element.get("tests")) == len(cases)
        assert int(element.get("failures")) == len(element.findall("testcase/failure"))
    for child in element:
        well_shaped(child)


def test_junit_has_a_suite_per_group_and_a_case_per_node(tmp_path):
    root = ET.fromstring(junit.make(ended_run(tmp_path, causes=FAILED)))
    well_shaped(root)
    assert [(suite.get("name"), suite.get("failures")) for suite in root] == [("senders", "1"), ("rest", "1")]
    assert root[0].find("properties/property[@name='run']").get("value") == "r1"
    bad, good = root[0].findall("testcase")
    assert (bad.get("name"), bad[0].get("type"), bad[0].get("message")) == ("node1-1", "no_boot", "it is so")
    assert bad[0].text == "it is so\nlast line"
    assert (good.get("name"), good.get("time"), len(good)) == ("node1-2", "9.000", 0)


@given(st.text(st.characters()))
def test_junit_is_xml_whatever_nodes_and_services_say(text):
    evidence = text + "\x00\x1b[31m\ud800\uffff]]>&<"
    data = junit.make(ended_run("/nowhere", causes=FAILED, evidence=evidence))
    root = ET.fromstring(data)
    well_shaped(root)
    said = root.find("testsuite/testcase/failure").text
    assert said.endswith("[31m\ufffd\ufffd]]>&<")


# -- rerun.yml


class _Loader(yaml.SafeLoader):
    """Reads ``!unsafe`` as Ansible does: a plain text."""


_Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def inventory(record):
    return yaml.load(rerun.make(record, "ansible-playbook -i x y"), _Loader)["all"]["children"]


def test_rerun_has_the_failed_nodes_with_all_that_is_needed(tmp_path):
    groups = inventory(ended_run(tmp_path, causes=FAILED, quorum="1"))
    assert {name: list(group["hosts"]) for name, group in groups.items()} == {
        "senders": ["node1-1"],
        "rest": ["node2-2"],
    }
    assert groups["senders"]["vars"] == {"orbit_image": "a.ndz"}
    assert groups["senders"]["hosts"]["node1-1"] == {
        "ansible_port": 2222,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": "/keys/id",
        "orbit_domain": "sb1.orbit-lab.org",
        "orbit_hrn": "node1-1.sb1.orbit-lab.org",
        "orbit_x": 1,
        "orbit_y": 1,
        "orbit_control_ip": "10.11.1.1",
        "orbit_disk": "/dev/vda",
    }


def test_a_plan_made_from_rerun_is_the_plan_of_those_nodes(tmp_path):
    record = ended_run(tmp_path, causes=FAILED, quorum="50%")
    hosts = [
        plan.Host(name, ["all", label], {**group["vars"], **variables})
        for label, group in inventory(record).items()
        for name, variables in group["hosts"].items()
    ]
    made = plan.make(hosts)
    for name, node in made["nodes"].items():
        before = record["nodes"][name]
        for key in ("image", "domain", "hrn", "control_ip", "x", "y"):
            assert node[key] == before[key]
        settings = {**before["settings"], "orbit_quorum": "100%"}
        known = ("orbit_hrn", "orbit_x", "orbit_y", "orbit_control_ip")
        assert {k: v for k, v in node["settings"].items() if k not in known} == {
            k: v for k, v in settings.items() if k not in known
        }


def test_rerun_holds_no_secret_and_no_template(tmp_path):
    record = ended_run(tmp_path, causes=FAILED)
    ssh = record["nodes"]["node1-1"]["ssh"]
    ssh["ssh_common_args"] = ["-o", "ProxyCommand=sshpass -p hunter2 ssh x"]
    ssh["ssh_extra_args"] = ["-o", "PasswordAuthentication=no", "-o", "User={{ lookup('pipe', 'id') }}"]
    text = rerun.make(record, "ansible-playbook -i x\ny: z")
    assert "hunter2" not in text
    assert "# ansible_ssh_common_args may hold a secret" in text
    assert '!unsafe "-o PasswordAuthentication=no' in text
    assert "\ny: z" not in text


def test_groups_of_rerun_have_names_that_ansible_takes(tmp_path):
    groups = inventory(ended_run(tmp_path, causes=FAILED, image_b="2-b.ndz"))
    assert set(groups) == {"senders", "rest"}
    record = ended_run(tmp_path, causes=FAILED)
    for group in record["groups"]:
        group["label"] = group["image"] = "1.ndz"
    record["groups"][1]["image"] = "b.ndz"
    record["groups"][0]["image"] = "a.ndz"
    assert set(inventory(record)) == {"image_1_ndz", "image_1_ndz_"}
