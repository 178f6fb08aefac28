# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every step, walked without Ansible: what is asked, of whom, and what becomes of the answers."""

from __future__ import annotations

import os
import stat

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import outcome
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import guard
from ansible_collections.orbit.imaging.plugins.plugin_utils.play import walker
from ansible_collections.orbit.imaging.plugins.plugin_utils.play.steps import MODULES, STEPS
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import findings
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import plan, record as records


class Host:
    """Stands for Ansible: modules say yes to everything, unless ``say`` has another answer."""

    def __init__(self, check=False, **say):
        self.check = check
        self.say = say
        self.asked = []
        self.hostvars = {"node1-1": {"orbit_service_token": "abc"}}

    def run_module(self, name, arguments):
        self.asked.append((name, arguments))
        if name in self.say:
            return self.say[name](arguments)
        return yes(arguments)

    def watch_nodes(self, step, record, nodes):
        self.asked.append((step.module, [node["name"] for node in nodes]))
        return self.say.get(step.name, lambda names: {n: {"bytes_written": 5} for n in names})(
            [node["name"] for node in nodes]
        )


def yes(arguments):
    """The answer of a service module that has done all it was asked for."""
    return {
        "changed": True,
        "nodes": [
            {"name": n["name"], "ok": True, "raw": "ON", "state": "on"} for n in arguments.get("nodes", [])
        ],
        "images": [{"image": image, "exists": True} for image in arguments.get("images", [])],
        "streams": [
            {"image": image, "ok": True, "address": "239.1.1.1", "port": 7000, "joined": False}
            for image in arguments.get("images", [])
        ],
        "msg": "done",
    }


@pytest.fixture
def told(monkeypatch):
    """What the guard is told."""
    found = []

    def tell(folder, message, timeout=0.0):
        found.append(message)
        return {}

    monkeypatch.setattr(guard, "tell", tell)
    return found


@pytest.fixture
def run(tmp_path):
    """A run of three nodes and two images, before its first step."""
    hosts = [
        plan.Host(name, ["all"], {"orbit_domain": "sb1.orbit-lab.org", "orbit_image": image, **more})
        for name, image, more in (
            ("node1-1", "a.ndz", {"orbit_service_token": "abc"}),
            ("node1-2", "a.ndz", {}),
            ("node2-1", "b.ndz", {}),
        )
    ]
    folder = str(tmp_path / "runs" / "r1")
    record = {"id": "r1", "dir": folder, "started_at": 1.0, "at": 1.0, **plan.make(hosts)}
    records.save(record)
    return folder


def outcomes(folder):
    return {name: node["outcome"] for name, node in records.load(folder)["nodes"].items()}


def test_the_table_knows_its_modules_and_causes():
    for step in STEPS.values():
        assert step.module in MODULES or step.module in ("frisbee_client", "node_proof")
        assert not step.cause or step.cause in outcome.OUTCOMES
        assert not (step.asks and step.cause)


@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if step.service and name != "end"])
def test_a_step_asks_its_module_in_batches_and_spends_tokens(run, told, name):
    host = Host()
    if name == "stop":
        walker.walk(run, "serve", Host())
        told.clear()
    walker.walk(run, name, host, **({"state": "on"} if name == "power" else {}))
    assert {module for module, _arguments in host.asked} == {STEPS[name].module}
    tokens = [arguments.get("token") for _module, arguments in host.asked]
    assert sorted(map(str, tokens)) == ["None", "abc"]
    for _module, arguments in host.asked:
        assert None not in arguments.values()
        assert "token_from" not in arguments
        assert set(STEPS[name].options) - {k for k, v in STEPS[name].options.items() if v is None} <= set(
            arguments
        )


def test_a_whole_run_is_imaged(run, told):
    for name in (
        "images",
        "known",
        "linkable",
        "link",
        "serve",
        "reset",
        "client",
        "unlink",
        "stop",
        "boot",
        "proof",
    ):
        said = walker.walk(run, name, Host())
        assert said["failed_nodes"] == []
    record = records.load(run)
    concluded = records.conclude(record)
    assert concluded["passed"]
    assert records.not_undone(record) == []
    assert [entry["step"] for entry in record["timeline"]] == [
        "link", "serve", "reset", "client", "unlink", "boot", "proof",
    ]  # fmt: skip
    assert [(m["step"], "results" in m) for m in told] == [
        ("link", False), ("serve", False), ("serve", True), ("client", False),
        ("unlink", False), ("unlink", True), ("stop", False), ("stop", True),
    ]  # fmt: skip
    # The guard is told before, so it has the token; the record is on the disk.
    assert {batch.get("token") for batch in told[1]["streams"]} == {"abc", None}
    with open(os.path.join(run, "record.json"), encoding="utf-8") as stream:
        assert "abc" not in stream.read()


@pytest.mark.parametrize("name", ["link", "serve", "reset", "unlink", "boot"])
def test_a_module_that_cannot_be_run_is_evidence_for_its_nodes(run, told, name):
    def unreachable(arguments):
        raise OSError("no way to the console")

    host = Host(**{STEPS[name].module: unreachable})
    said = walker.walk(run, name, host)
    assert set(outcomes(run).values()) == {STEPS[name].cause}
    assert len(said["failed_nodes"]) == 3
    for node in records.load(run)["nodes"].values():
        assert "could not be run: no way to the console" in node["evidence"]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"failed": True},
        {"nodes": None},
        {"nodes": []},
        {"nodes": [{}]},
        {"nodes": [{"name": "nobody", "ok": True}]},
    ],
    ids=repr,
)
def test_what_was_not_seen_to_succeed_has_failed(run, told, answer):
    walker.walk(run, "link", Host(pxe_link=lambda _arguments: answer))
    assert set(outcomes(run).values()) == {"link_failed"}


def test_a_mistake_of_ours_with_the_nodes_ends_them_and_not_the_run(run, told):
    def broken(names):
        raise ZeroDivisionError

    walker.walk(run, "client", Host(client=broken))
    assert set(outcomes(run).values()) == {"interrupted"}
    host = Host()
    walker.walk(run, "unlink", host)
    assert sum(len(arguments["nodes"]) for _module, arguments in host.asked) == 3


def test_failed_nodes_are_not_asked_about_but_unlinked(run, told):
    def half(arguments):
        nodes = [{"name": n["name"], "ok": n["name"] != "node1-2", "msg": "no"} for n in arguments["nodes"]]
        return {"nodes": nodes}

    walker.walk(run, "link", Host(pxe_link=half))
    host = Host()
    walker.walk(run, "reset", host)
    assert [n["name"] for _module, a in host.asked for n in a["nodes"]] == ["node1-1", "node2-1"]
    host = Host()
    walker.walk(run, "unlink", host)
    assert len([n for _module, a in host.asked for n in a["nodes"]]) == 3


def test_refusals_are_kept_until_the_nodes_would_be_claimed(run, told):
    missing = Host(
        frisbee_info=lambda a: {"images": [{"image": a["images"][0], "exists": False, "msg": "gone"}]}
    )
    walker.walk(run, "images", missing)
    walker.walk(run, "known", Host(cmc_info=lambda a: {"msg": "no cmc here"}))
    errors = records.load(run)["errors"]
    assert any("image 'b.ndz'" in words for words in errors)
    assert "no cmc here" in errors


def test_a_run_whose_guard_is_gone_goes_on_and_says_so(run, monkeypatch):
    asked = []

    def gone(folder, message, timeout=0.0):
        asked.append(message["step"])
        raise guard.GuardError("the run guard does not answer")

    monkeypatch.setattr(guard, "tell", gone)
    for name in ("link", "serve", "reset", "client"):
        assert walker.walk(run, name, Host())["failed_nodes"] == []
    record = records.load(run)
    assert record["unguarded"].startswith("since the step link: the run guard does not answer")
    # It is not waited for again.
    assert asked == ["link"]
    left = records.not_undone(record)
    assert any("links of node1-1" in words for words in left)
    assert sum(words.startswith("a use of") for words in left) == 3
    walker.walk(run, "unlink", Host())
    walker.walk(run, "stop", Host())
    assert records.not_undone(records.load(run)) == []


def test_claims_that_were_removed_are_told(run, monkeypatch):
    monkeypatch.setattr(guard, "tell", lambda *a, **k: {"lost": ["node1-1"]})
    walker.walk(run, "link", Host())
    assert records.load(run)["warnings"] == ["the claims of node1-1 were removed by somebody"]


def test_a_node_that_another_run_has_by_now_is_left_to_it(run, monkeypatch):
    def tell(folder, message, timeout=0.0):
        taken = message["step"] == "unlink"
        return {"lost": ["node1-1"], "taken": {"node1-1": "run r2 of eve"}} if taken else {}

    monkeypatch.setattr(guard, "tell", tell)
    for name in ("link", "serve", "reset", "client"):
        walker.walk(run, name, Host())
    host = Host()
    said = walker.walk(run, "unlink", host)
    assert said["failed_nodes"] == ["node1-1"]
    assert sorted(n["name"] for _module, a in host.asked for n in a["nodes"]) == ["node1-2", "node2-1"]
    record = records.load(run)
    assert outcomes(run)["node1-1"] == "claimed_elsewhere"
    assert record["nodes"]["node1-1"]["evidence"].endswith("claimed since by run r2 of eve")
    assert not any("links" in words for words in records.not_undone(record))


@pytest.mark.parametrize(
    "error", [KeyError("orbit_service_token"), OSError(11, "no process"), RuntimeError()]
)
def test_whatever_keeps_the_guard_from_being_told_the_run_goes_on(run, monkeypatch, error):
    def broken(*_args, **_more):
        raise error

    monkeypatch.setattr(guard, "tell", broken)
    assert walker.walk(run, "serve", Host())["failed_nodes"] == []
    assert records.load(run)["unguarded"].startswith("since the step serve: ")


def test_a_token_that_cannot_be_worked_out_is_evidence(run, told):
    host = Host()
    host.hostvars = {}
    assert walker.walk(run, "serve", host)["failed_nodes"] == ["node1-1"]
    assert records.load(run)["unguarded"].startswith("since the step serve: ")


@pytest.fixture
def a_stream(run, told):
    """One stream is being sent, which no run of this host uses."""
    record = records.load(run)
    record["found"] = {"in_use": []}
    records.save(record)
    walker.walk(run, "streams", Host(frisbee_info=lambda _a: {"streams": [{"image": "a.ndz"}]}))


@pytest.mark.parametrize("answer", [{"failed": True, "msg": "frisbee is down"}, {"streams": None}])
def test_a_service_that_is_down_when_streams_are_ended_is_told(run, a_stream, answer):
    walker.walk(run, "end", Host(frisbee_server=lambda _a: answer))
    _lines, wrong = findings.tell(records.load(run), False)
    assert wrong
    # A second try is asked for the same, and what it says is what counts.
    ended = [{"image": "a.ndz", "ok": True, "changed": True, "state": "stopped", "msg": "stopped"}]
    walker.walk(run, "end", Host(frisbee_server=lambda _a: {"streams": ended}))
    assert findings.tell(records.load(run), False)[1] == []


@pytest.mark.parametrize("uses", [1, 2, 200])
def test_a_stream_is_stopped_until_its_last_use_is_taken_back(run, a_stream, uses):
    left = [uses]

    def stop(_arguments):
        changed = left[0] > 0
        left[0] = max(0, left[0] - 1)
        state = "still_used" if left[0] else "stopped"
        stream = {"image": "a.ndz", "ok": True, "changed": changed, "state": state, "msg": state}
        return {"changed": changed, "streams": [stream]}

    said = walker.walk(run, "end", Host(frisbee_server=stop))
    assert (left, said["changed"]) == ([0], True)
    lines, wrong = findings.tell(records.load(run), False)
    assert wrong == []
    assert any(f"ended, {uses} uses taken back" in line for line in lines)


def test_a_stream_whose_use_is_not_given_back_is_not_asked_for_for_ever(run, a_stream):
    stream = {"image": "a.ndz", "ok": True, "changed": False, "state": "still_used", "msg": "still used"}
    host = Host(frisbee_server=lambda _a: {"changed": False, "streams": [stream]})
    assert walker.walk(run, "end", host)["changed"] is False
    # Once with each of the tokens that the nodes have for the service.
    assert len(host.asked) == 2


def test_a_service_that_does_not_answer_is_not_asked_as_often_as_another_gives_uses_back(run, told):
    record = records.load(run)
    record["found"] = {"in_use": []}
    record["nodes"]["node1-2"]["settings"]["orbit_frisbee_url"] = "http://silent:5012"
    records.save(record)
    walker.walk(run, "streams", Host(frisbee_info=lambda _a: {"streams": [{"image": "a.ndz"}]}))
    asked = []

    def stop(arguments):
        asked.append(arguments["url"])
        if "silent" in arguments["url"]:
            return {"failed": True, "msg": "no complete answer in time"}
        state = "stopped" if len(asked) > 20 else "still_used"
        stream = {"image": "a.ndz", "ok": True, "changed": True, "state": state, "msg": state}
        return {"changed": True, "streams": [stream]}

    assert walker.walk(run, "end", Host(frisbee_server=stop))["changed"] is True
    assert asked.count("http://silent:5012") == 1
    assert len(asked) > 20
    _lines, wrong = findings.tell(records.load(run), False)
    assert any("no complete answer in time" in words for words in wrong)


def test_check_mode_asks_and_tells_nobody(run, told):
    host = Host(check=True)
    for name in ("link", "serve", "reset", "client", "unlink", "stop", "boot", "proof"):
        walker.walk(run, name, host)
    assert told == []
    assert set(outcomes(run).values()) == {None}


def test_streams_of_one_image_in_two_domains_are_two(tmp_path, told):
    hosts = [
        plan.Host(name, ["all"], {"orbit_domain": domain, "orbit_image": "a.ndz"})
        for name, domain in (("node1-1.one", "sb1.orbit-lab.org"), ("node1-1.two", "sb2.orbit-lab.org"))
    ]
    folder = str(tmp_path / "r1")
    records.save({"id": "r1", "dir": folder, "started_at": 1.0, "at": 1.0, **plan.make(hosts)})
    ports = iter((7000, 7001))

    def served(arguments):
        port = next(ports)
        if port == 7001:
            return {"streams": [{"image": "a.ndz", "ok": False, "msg": "full"}]}
        return {"streams": [{"image": "a.ndz", "ok": True, "address": "239.1.1.1", "port": port}]}

    walker.walk(folder, "serve", Host(frisbee_server=served))
    record = records.load(folder)
    assert [node["outcome"] for node in record["nodes"].values()] == [None, "serve_failed"]
    assert len(record["groups"]) == 2
    assert len({group["label"] for group in record["groups"]}) == 2


# -- the file


def test_the_record_is_for_its_owner_alone_whatever_the_umask(run):
    old = os.umask(0)
    try:
        records.save(records.load(run))
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(run).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(os.path.join(run, "record.json")).st_mode) == 0o600
    assert os.listdir(run) == ["record.json"]


def test_a_step_without_a_run_says_so():
    with pytest.raises(records.RecordError, match="Start the play from its beginning"):
        walker.walk("", "link", Host())


def test_a_record_whose_folder_takes_nothing_is_kept_in_memory(run, told, monkeypatch):
    put = records._put

    def full(folder, data):
        if folder == run:
            raise OSError(28, "No space left on device")
        put(folder, data)

    monkeypatch.setattr(records, "_put", full)
    try:
        assert walker.walk(run, "link", Host())["failed_nodes"] == []
        assert all("link" in node["steps"] for node in records.load(run)["nodes"].values())
        monkeypatch.setattr(records, "_put", put)
        walker.walk(run, "serve", Host())
        record = records.load(run)
        assert all({"link", "serve"} <= set(node["steps"]) for node in record["nodes"].values())
        assert not os.path.exists(records._spare(run))
    finally:
        records.forget(run)
    assert not os.path.exists(run)
