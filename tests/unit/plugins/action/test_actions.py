# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The actions without a playbook: what they take, what they refuse, what they hand over."""

from __future__ import annotations

import importlib
import pathlib
import types

import pytest
from ansible.errors import AnsibleActionFail
from ansible.playbook.task import Task
from ansible.plugins.action.normal import ActionModule as PlainAction

from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import guard
from ansible_collections.orbit.imaging.plugins.plugin_utils.play.action import StepAction
from ansible_collections.orbit.imaging.plugins.plugin_utils.play.steps import MODULES, STEPS
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import plan, record as records

FOLDER = pathlib.Path(__file__).parents[4] / "plugins" / "action"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def make(name, check=False, **arguments):
    """An action as a task would have it."""
    module = importlib.import_module(f"ansible_collections.orbit.imaging.plugins.action.{name}")
    task = Task()
    task.action = f"orbit.imaging.{name}"
    task.args = arguments
    task.check_mode = check
    task.async_val = 0
    # What an action looks at before it does anything: a folder on the other side.
    connection = types.SimpleNamespace(_shell=types.SimpleNamespace(tmpdir="/tmp"))
    return module.ActionModule(task, connection, None, None, None, None)


@pytest.fixture
def run(tmp_path):
    """A planned run of one node."""
    host = plan.Host("node1-1", ["all"], {"orbit_domain": "sb1.orbit-lab.org", "orbit_image": "a.ndz"})
    record = {
        "id": "r1",
        "dir": str(tmp_path / "r1"),
        "console": "localhost",
        "playbooks": ["site.yml"],
        "started_at": 1.0,
        "at": 1.0,
        **plan.make([host]),
    }
    records.save(record)
    return record["dir"]


def test_every_step_has_the_action_of_its_module():
    for step in STEPS.values():
        action = make(step.module)
        assert isinstance(action, StepAction)
        assert action.module == step.module
    assert set(MODULES) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_action_documents_itself_as_a_module(name):
    assert (FOLDER.parent / "modules" / f"{name}.py").is_file()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_without_a_run_the_module_is_run_as_it_is(name, monkeypatch):
    monkeypatch.setattr(PlainAction, "run", lambda self, tmp, task_vars: {"asked": dict(self._task.args)})
    assert make(name, url="http://s").run() == {"asked": {"url": "http://s"}}


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        (
            "pxe_link",
            {"run": "/r", "step": "serve"},
            "'serve' is no step of pxe_link. Its steps are linkable",
        ),
        ("pxe_link", {"run": "/r"}, "'' is no step of pxe_link"),
        ("pxe_link", {"run": "/r", "step": "link", "timeout": 5}, "timeout: with run"),
        ("cmc_power", {"run": "/r", "step": "reset", "state": "off"}, "state: with run"),
        ("pxe_link", {"run": "", "step": "link"}, "Start the play from its beginning"),
        ("frisbee_client", {"step": "client"}, "Start the play from its beginning"),
        (
            "pxe_link",
            {"run": "/nosuch", "step": "link"},
            "the record of the run is gone: /nosuch/record.json",
        ),
        ("image_report", {"run": ""}, "Start the play from its beginning"),
        ("run_findings", {"run": ""}, "Start the play from its beginning"),
        ("ping", {"run": "/nosuch"}, "the record of the run is gone: /nosuch/record.json"),
        ("ping", {"run": "/nosuch", "nodes": ["node1-1"]}, "nodes: the run says them"),
        ("ping", {"run": "/nosuch", "state": "stopped", "windows": {"a": [1, 2]}}, "windows: the run says"),
        ("run_guard", {"run": "", "state": "started"}, "Start the play from its beginning"),
    ],
)
def test_what_is_no_step_is_refused(name, arguments, words):
    with pytest.raises(AnsibleActionFail, match=words):
        make(name, **arguments).run(task_vars={})


def test_the_guard_starts_with_the_claims_of_the_run(run, monkeypatch):
    asked = []
    monkeypatch.setattr(guard, "start", lambda config: asked.append(config) or {"skipped": {}})
    said = make("run_guard", run=run, state="started").run(task_vars={"hostvars": {}})
    assert said["claimed"] == {}
    (config,) = asked
    assert list(config["claims"].values()) == ["node1-1"]
    assert config["dir"] == run


@pytest.mark.parametrize("errors", [["image 'a.ndz': gone"], ["one", "two"]])
def test_a_run_that_is_refused_leaves_nothing(run, errors):
    record = records.load(run)
    records.save({**record, "errors": errors})
    with pytest.raises(AnsibleActionFail, match="\n".join(errors)):
        make("run_guard", run=run, state="started").run(task_vars={})
    assert not pathlib.Path(run).exists()


def test_claimed_nodes_are_refused_left_out_or_kept(run, monkeypatch):
    monkeypatch.setattr(guard, "start", lambda config: {"skipped": {"node1-1": "run x"}})
    said = make("run_guard", run=run, state="started", claimed="force").run(task_vars={})
    assert said["claimed"] == {"node1-1": "run x"}
    assert list(records.load(run)["nodes"]) == ["node1-1"]
    make("run_guard", run=run, state="started", claimed="skip").run(task_vars={})
    assert list(records.load(run)["nodes"]) == []


def test_without_a_guard_the_record_says_what_is_left(run, monkeypatch):
    def gone(*_arguments, **_options):
        raise guard.GuardError("no guard")

    monkeypatch.setattr(guard, "tell", gone)
    record = records.load(run)
    record["nodes"]["node1-1"]["steps"]["link"] = {"at": 1.0}
    records.save(record)
    said = make("run_guard", run=run, state="released").run(task_vars={})
    assert said["left"] == ["links of node1-1"]
    report = make("image_report", run=run).run(task_vars={})
    assert report["wrong"] == ["left behind: links of node1-1"]
    assert any("the run had no guard at its end: no guard" in line for line in report["report_lines"])
    assert "node1-1" in report["culprits"]
    assert pathlib.Path(report["paths"]["result"]).is_file()


def test_a_result_that_cannot_be_written_is_told_and_fails_the_run(run, monkeypatch):
    from ansible_collections.orbit.imaging.plugins.plugin_utils.report import table

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table, "write", full)
    report = make("image_report", run=run).run(task_vars={})
    assert report["wrong"] == [f"the result could not be written to {run}: No space left on device"]
    assert any("node1-1: interrupted" in line for line in report["report_lines"])


def test_check_mode_leaves_no_folder(run):
    report = make("image_report", check=True, run=run).run(task_vars={})
    assert report["culprits"] == {}
    assert any("a.ndz would be served to 1 nodes" in line for line in report["report_lines"])
    assert not pathlib.Path(run).exists()


def test_findings_are_told_and_fail_when_something_is_wrong(run):
    record = records.load(run)
    asked = {"url": "http://s", "nodes": [{"name": "node1-1"}, {"name": "node9-9"}]}
    answer = {
        "item": asked,
        "nodes": [{"name": "node1-1", "state": "on", "raw": "ON"}],
        "msg": "no node9-9 here",
    }
    records.save({**record, "found": {"states": [answer]}})
    said = make("run_findings", run=run).run(task_vars={})
    assert said["failed"]
    assert said["lines"] == ["on: 1 nodes: node1-1"]
    assert said["msg"] == "no power state of node9-9: no node9-9 here"


def test_pings_of_a_run_are_of_its_nodes_and_of_what_its_clients_took(run, monkeypatch):
    monkeypatch.setattr(PlainAction, "run", lambda self, tmp, task_vars: dict(self._task.args))
    asked = make("ping", run=run, count=3).run()
    (node,) = asked["nodes"]
    assert (node["name"], node["address"]) == ("node1-1", records.load(run)["nodes"]["node1-1"]["control_ip"])
    assert asked["count"] == 3
    # A run that ended before its report has imaged nothing.
    assert make("ping", run=run, state="stopped", folder="/f").run()["windows"] == {}
    (pathlib.Path(run) / "result.json").write_text("{")
    with pytest.raises(AnsibleActionFail, match=r"result in .* cannot be read"):
        make("ping", run=run, state="stopped", folder="/f").run()


def test_the_page_of_a_run_shows_pings_that_are_told_later(run):
    make("image_report", run=run).run(task_vars={})
    page = pathlib.Path(run, "report.html")
    assert "Round trips" not in page.read_text()
    times = dict.fromkeys(("min", "avg", "max", "mdev"), 0.2)
    pinged = [{"name": "node1-1", "msg": "", "packets": 10, "received": 9, "duplicates": 0, **times}]
    told = make("ping_report", run=run, chosen=f"{run}-chosen", interval=0.2, idle=pinged).run(task_vars={})
    assert told["paths"]["page"] == str(page)
    assert "Round trips and loss" in page.read_text()
    assert "0 of 1 nodes imaged" in page.read_text()
    assert page.stat().st_mode & 0o77 == 0
    # The record is not needed for the pings, but for the page.
    pathlib.Path(run, "record.json").unlink()
    with pytest.raises(AnsibleActionFail, match="record of the run is gone"):
        make("ping_report", run=run, chosen=f"{run}-chosen", interval=0.2, idle=pinged).run(task_vars={})
