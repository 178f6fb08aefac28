# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What may be done to a guard: killed, stopped, cut off from its folder, its disk full, others talking."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import stat
import threading

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims, guard, messages

from .guardkit import LIMIT, Service, serve, wait_until

IMAGE = "x.ndz"


def streams(run):
    return [{**run.asked, "images": [IMAGE]}]


def served(run, **more):
    return [{**run.asked, "image": IMAGE, "ok": True, "port": 7000, "joined": False, **more}]


#: What a run says, in order, with what it has done at the service before it says so.
SCRIPT = [
    ("link", lambda run: {}, None),
    ("serve", lambda run: {"streams": streams(run)}, None),
    ("serve", lambda run: {"results": served(run)}, lambda service: service.sent.add(IMAGE)),
    ("client", lambda run: {"nodes": ["node1-1"]}, None),
    ("unlink", lambda run: {}, None),
    ("unlink", lambda run: {"results": [{"name": "node1-1", "ok": True}]}, None),
    ("stop", lambda run: {}, None),
    ("stop", lambda run: {"results": served(run)}, lambda service: service.sent.discard(IMAGE)),
]


@pytest.mark.parametrize("heard", range(len(SCRIPT) + 1))
def test_wherever_the_guard_is_killed_the_run_undoes_what_it_did_itself(playbook, service, heard):
    run = playbook()
    for step, message, effect in SCRIPT[:heard]:
        if effect:
            effect(service)
        run.note(step, **message(run))
    run.kill_guard()
    assert not guard.is_alive(str(run.dir))
    assert claims.holders(run.paths) == {}
    if heard < len(SCRIPT):
        step, message, effect = SCRIPT[heard]
        # What has come of a step has come, although nobody hears it.
        if effect:
            effect(service)
        with pytest.raises(guard.GuardGone, match=r"with it the claims.*guard\.log"):
            run.note(step, **message(run))
    before = len(service.asked)
    answer = guard.release_without_guard(run.config, streams(run))
    assert answer["left"] == []
    assert "lost" not in answer
    assert service.sent == set()
    asked = [path.split("/")[1:] for path, _arguments in service.asked[before:]]
    assert sum(path[0] == "pxe" for path in asked) == (1 if heard <= 4 else 0)
    # The run itself has stopped it in the last step.
    assert asked.count(["frisbee", "stop"]) == (1 if 2 <= heard < 7 else 0)
    assert bool(answer["undone"]) == (heard < 7)
    assert claims.holders(run.paths) == {}
    assert "undoes by itself" in run.log


def test_a_guard_that_is_killed_while_it_listens_is_known_to_be_gone_at_once(playbook, service):
    run = playbook()
    service.speaks.clear()
    said = []

    def say():
        try:
            run.note("serve", streams=streams(run))
        except guard.GuardError as error:
            said.append(error)

    thread = threading.Thread(target=say)
    thread.start()
    wait_until(lambda: service.times("/frisbee/status"), "the guard did not ask")
    run.kill_guard()
    thread.join(LIMIT)
    assert [type(error) for error in said] == [guard.GuardGone]
    service.speaks.set()
    answer = guard.release_without_guard(run.config, streams(run))
    assert answer == {"undone": [], "left": []}
    assert service.times("/frisbee/stop") == 0


def test_what_another_run_has_claimed_since_the_guard_was_killed_is_left_to_it(playbook, service):
    run = playbook()
    run.note("link")
    run.kill_guard()
    other = claims.Claims(claims.Holder("run-2", "bob", 1, 1.0))
    other.take(run.paths)
    try:
        answer = guard.release_without_guard(run.config)
    finally:
        other.release()
    assert answer["lost"] == ["node1-1"]
    assert "run run-2 of bob" in answer["left"][0]
    assert service.times("/pxe/clear") == 0


def test_another_guard_takes_up_where_the_killed_one_was(playbook, service):
    run = playbook()
    run.note("link")
    serve(run, service)
    run.kill_guard()
    assert run.start_again(resume=True, streams=streams(run)) == {"skipped": {}}
    assert guard.is_alive(str(run.dir))
    assert claims.holders(run.paths)["node1-1"].run == "run-1"
    answer = run.tell(say="release")
    assert len(answer["undone"]) == 2
    assert answer["left"] == []
    assert service.sent == set()


def test_tokens_are_not_in_the_notes_that_are_kept_and_come_from_the_run_again(playbook, service):
    run = playbook()
    secret = [{**batch, "token": "s3cret"} for batch in streams(run)]
    run.note("serve", streams=secret)
    service.sent.add(IMAGE)
    run.note("serve", results=served(run))
    run.kill_guard()
    kept = run.dir / "notes.jsonl"
    assert "s3cret" not in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert guard.release_without_guard(run.config, secret)["left"] == []


@pytest.mark.parametrize("size", [900_000, 3000])
def test_no_record_is_too_large_for_a_note(playbook, size):
    run = playbook()
    record = {
        "nodes": {f"n{number}": {"evidence": "x" * size} for number in range(25 if size > 3000 else 3000)}
    }
    assert run.note("link", record=record, playbooks=[]) == {}


def test_a_note_that_is_refused_is_no_error_and_the_guard_stays(playbook):
    run = playbook()
    for bad in ({"step": "nonsense", "results": []}, {"step": "serve", "streams": 1}, {"step": ["x"]}):
        assert "not understood" in run.tell(say="note", **bad)["refused"]
    assert "longer than" in run.note("unlink", results=[{"name": "x" * 4000}] * 5000)["refused"]
    # Who does not use our words is not listened to for ever.
    with socket.socket(socket.AF_UNIX) as line, contextlib.suppress(OSError):
        line.connect(str(run.dir / "guard.sock"))
        line.settimeout(LIMIT)
        line.sendall(b"x" * (messages.LARGEST + 65536))
    wait_until(lambda: "the message is longer" in run.log, "the guard did not say that it was too much")
    run.note("client", nodes=["node1-1"])


def narrow():
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))


def test_a_log_that_cannot_be_written_ends_no_guard(playbook, service):
    run = playbook(before=narrow)
    run.note("link")
    serve(run, service)
    run.note("client", nodes=["node1-1"])
    for _number in range(20):
        run.note("unlink", results=[{"name": "node1-1", "ok": False}])
    assert (run.dir / "guard.log").stat().st_size <= 400
    answer = run.tell(say="release")
    assert answer["left"] == []
    assert len(answer["undone"]) == 2
    assert "lines of" in answer["warnings"][0]
    assert "File too large" in answer["warnings"][0]
    assert service.sent == set()


def test_notes_that_cannot_be_kept_are_said_and_taken_nevertheless(playbook):
    run = playbook()
    (run.dir / "notes.jsonl").mkdir()
    answer = run.note("link")
    assert "cannot be kept" in answer["warnings"][0]


def test_the_folder_of_the_run_is_its_owners_alone(tmp_path, playbook):
    old = os.umask(0o022)
    try:
        run = playbook(dir=str(tmp_path / "state" / "deep" / "run-1"))
    finally:
        os.umask(old)
    for folder in ("state", "state/deep", "state/deep/run-1"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state/deep/run-1/guard.sock").stat().st_mode) == 0o600
    guard.tell(run.config["dir"], {"say": "release"})


def test_a_claim_whose_file_is_removed_is_told_at_the_next_note_and_at_the_end(playbook):
    run = playbook()
    assert run.note("link") == {}
    os.unlink(next(iter(run.paths)))
    assert run.note("client", nodes=[]) == {"lost": ["node1-1"]}
    assert claims.holders(run.paths)["node1-1"].run == "run-1"
    answer = run.tell(say="release")
    assert answer["lost"] == ["node1-1"]
    assert answer["left"] == []


def test_the_link_of_a_node_that_another_run_has_by_now_is_left_to_it(playbook, service):
    run = playbook()
    run.note("link")
    other = claims.Claims(claims.Holder("run-2", "bob", 1, 1.0))
    (path,) = run.paths
    # Not given to the guard between the two.
    (pid,) = run.guard_pids()
    os.kill(pid, signal.SIGSTOP)
    os.unlink(path)
    other.take(run.paths)
    os.kill(pid, signal.SIGCONT)
    try:
        told = run.note("unlink")
        answer = run.tell(say="release")
    finally:
        other.release()
    assert told["lost"] == ["node1-1"]
    assert "run run-2 of bob" in told["taken"]["node1-1"]
    assert answer["lost"] == ["node1-1"]
    assert "run run-2 of bob" in answer["left"][0]
    assert service.times("/pxe/clear") == 0


def test_services_that_say_nothing_are_asked_side_by_side_and_only_not_known(playbook, service):
    run = playbook()
    silent = [Service() for _number in range(4)]
    try:
        for one in silent:
            one.speaks.clear()
        batches = [{**run.asked, "url": one.url, "images": [IMAGE], "timeout": 60} for one in silent]
        # The time that a caller waits who does not say how long.
        answer = run.note("serve", streams=[*batches, *streams(run)])
        assert answer == {"foreign": [None, None, None, None, False]}
        assert all(one.times("/frisbee/status") == 1 for one in silent)
        run.kill_guard()
    finally:
        for one in silent:
            one.close()


def test_a_guard_that_is_stopped_is_silent_but_there_and_hears_late(playbook):
    run = playbook()
    (pid,) = run.guard_pids()
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(guard.GuardSilent, match="SIGCONT"):
            guard.tell(str(run.dir), {"say": "note", "step": "link"}, timeout=0.2)
        assert guard.is_alive(str(run.dir))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert run.note("client", nodes=[]) == {}
    assert run.log.index("link: begins") < run.log.index("client: begins")


@pytest.mark.parametrize("what", ["folder", "socket", "replaced"])
def test_a_guard_that_is_cut_off_from_its_folder_makes_it_anew(playbook, service, what):
    run = playbook()
    run.note("link")
    place = run.dir / "guard.sock"
    stranger = socket.socket(socket.AF_UNIX)
    with stranger:
        if what == "folder":
            shutil.rmtree(run.dir)
        else:
            place.unlink()
        if what == "replaced":
            stranger.bind(str(place))
        # The guard is there, so nobody else undoes its work: it does so itself when it can be reached again.
        answer = guard.release_without_guard(run.config)
    assert answer["undone"] == ["link of node1-1"]
    assert answer["left"] == []
    assert service.times("/pxe/clear") == 1
    assert "made anew" in run.log


def test_a_run_has_one_guard(playbook):
    run = playbook()
    for config in ({"skip": True}, {"claims": {}}, {"resume": True, "claims": {}}):
        said = run.start_again(**config)
        assert isinstance(said, guard.GuardError)
        assert "has a guard already" in str(said)
    assert run.note("link") == {}
    run.note("unlink", results=[{"name": "node1-1", "ok": True}])
    assert run.tell(say="release") == {"undone": [], "left": []}


def test_the_socket_of_a_killed_guard_is_no_hindrance(playbook):
    run = playbook()
    run.kill_guard()
    assert (run.dir / "guard.sock").exists()
    assert run.start_again() == {"skipped": {}}
    assert run.note("link") == {}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_message_of_another_user_is_not_heard(playbook, tmp_path, monkeypatch):
    run = playbook()
    # As if the other end were another user's: the folder's mode keeps real ones out already.
    monkeypatch.setattr(guard.os, "getuid", lambda: 12345)
    monkeypatch.setattr(guard.struct, "unpack", lambda _format, _said: (1, 999, 999))
    with pytest.raises(guard.GuardError, match="another user"):
        run.note("link")
    assert not guard.is_alive(str(run.dir))


def test_a_thousand_nodes(playbook, tmp_path, service):
    nodes = [
        {
            "name": f"n{x}-{y}",
            "domain": "d",
            "x": x,
            "y": y,
            "hrn": f"n{x}-{y}.d",
            "control_ip": f"10.0.{x}.{y}",
        }
        for x in range(1, 26)
        for y in range(1, 41)
    ]
    paths = {claims.node_path(str(tmp_path / "claims"), node): node["name"] for node in nodes}
    asked = {"url": service.url, "dialect": "E2", "domain": "d", "user": "alice", "timeout": 5}
    run = playbook(claims=paths, links=[{**asked, "nodes": nodes}])
    assert run.said == {"skipped": {}}
    assert run.note("link") == {}
    done = [{"name": node["name"], "ok": True} for node in nodes[1:]]
    assert run.note("unlink", results=done) == {}
    assert run.tell(say="release") == {"undone": ["link of n1-1"], "left": []}


def test_the_result_of_a_dead_run_is_made_from_its_record_file(playbook, service, tmp_path):
    from ...plugin_utils.runkit import ended_run

    run = playbook()
    record = ended_run(str(tmp_path / "elsewhere"))
    (run.dir / guard.RECORD).write_text(json.dumps(record))
    run.note("link")
    run.kill()
    wait_until(run.is_over, "the guard did not end")
    assert json.loads((run.dir / "result.json").read_text())["passed"] is not None
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"nodes": 1}'])
def test_a_record_file_with_nonsense_in_it_costs_the_result_alone(playbook, service, text):
    run = playbook()
    (run.dir / guard.RECORD).write_text(text)
    run.note("link")
    run.kill()
    wait_until(run.is_over, "the guard did not end")
    assert "done: nothing of the run is left" in run.log
    assert "the result was not written" in run.log or "the guard itself failed" in run.log


def test_where_no_process_can_be_watched_a_zombie_and_a_stranger_are_not_the_run(monkeypatch):
    process = os.fork()
    if process == 0:
        os._exit(0)
    wait_until(lambda: guard._state_and_birth(process)[0] == "Z", "it did not end")
    assert not guard._lives(process, "")
    os.waitpid(process, 0)
    assert not guard._lives(process, "")
    assert guard._lives(os.getpid(), guard._born(os.getpid()))
    assert not guard._lives(os.getpid(), "1")
    monkeypatch.setattr(guard, "_stat", lambda _pid: [])
    assert guard._lives(os.getpid(), "1")
