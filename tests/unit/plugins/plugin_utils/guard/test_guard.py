# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The guard as a process: real forks, real signals, a service on loopback."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import uuid

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims, guard

from .guardkit import FORK, LIMIT, is_running, serve, wait_until


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_death_of_the_playbook_undoes_links_and_streams(playbook, service, number):
    run = playbook()
    assert run.said == {"skipped": {}}
    assert claims.holders(run.paths)["node1-1"].pid == run.pid
    run.note("link")
    serve(run, service)
    run.kill(number)
    wait_until(run.is_over, "the guard did not end")
    assert service.sent == set()
    assert service.times("/pxe/clear") == 1
    assert service.times("/frisbee/stop") == 1
    assert "unlinked node1-1" in run.log
    assert run.log.endswith("done: nothing of the run is left\n")
    assert not (run.dir / "guard.sock").exists()


def test_nobody_ends_the_guard_but_its_work(playbook, service):
    run = playbook()
    run.note("link")
    (pid,) = run.guard_pids()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    run.note("unlink", results=[{"name": "node1-1", "ok": True}])
    assert run.tell(say="release") == {"undone": [], "left": []}
    wait_until(run.is_over, "the guard did not end")
    assert service.asked == []
    assert "released by the run: nothing of it is left" in run.log


def test_the_guard_has_a_session_of_its_own_and_nothing_of_the_playbook_open(playbook):
    run = playbook()
    (pid,) = run.guard_pids()
    assert os.getsid(pid) not in (os.getsid(0), pid)
    open_files = {os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)}
    assert open_files == {os.devnull}
    kinds = {os.readlink(entry).split(":")[0] for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir()}
    assert "pipe" not in kinds


def test_what_was_not_seen_to_be_undone_is_undone_at_the_release(playbook, service):
    run = playbook()
    run.note("link")
    serve(run, service)
    run.note("unlink", results=[{"name": "node1-1", "ok": False}])
    run.note("stop")
    run.note("stop", results=[{**run.asked, "image": "x.ndz", "ok": True}])
    assert run.tell(say="release") == {"undone": ["link of node1-1"], "left": []}
    assert service.times("/pxe/clear") == 1
    assert service.times("/frisbee/stop") == 0


def test_a_service_that_is_down_is_asked_again(playbook, service):
    run = playbook()
    run.note("link")
    run.note("serve", streams=[])
    service.down = True
    run.kill()
    wait_until(run.is_over, "the guard did not end")
    assert service.times("/pxe/clear") == 2
    assert "cannot unlink node1-1 yet, trying again" in run.log
    assert "done: nothing of the run is left" in run.log


def test_a_run_that_overlaps_is_told_who_holds_the_nodes(playbook, tmp_path):
    first = playbook()
    second = playbook(run="run-2", dir=str(tmp_path / "runs" / "run-2"))
    assert list(second.said) == ["held"]
    assert second.said["held"].startswith("node1-1: run run-1 of alice")
    assert not (tmp_path / "runs" / "run-2").exists()
    third = playbook(run="run-3", dir=str(tmp_path / "runs" / "run-3"), skip=True)
    assert list(third.said["skipped"]) == ["node1-1"]
    assert claims.holders(first.paths)["node1-1"].run == "run-1"


def start_orphan(run_id):
    """Start a process with the mark of a run and no parent, like a module of a dead playbook; its pid."""
    sleep = "import signal; signal.pause()"
    starter = (
        "import subprocess, sys; "
        f"print(subprocess.Popen([sys.executable, '-c', {sleep!r}], stdout=-3, stderr=-3).pid)"
    )
    done = subprocess.run(
        [sys.executable, "-c", starter],
        env={**os.environ, guard.MARK: run_id},
        capture_output=True,
        check=True,
        timeout=LIMIT,
    )
    return int(done.stdout)


def test_a_module_that_goes_on_is_ended_before_anything_is_undone(playbook, service):
    # Marks are seen on the whole host: the same test may be at work beside this one.
    run_id = f"run-{uuid.uuid4().hex}"
    run = playbook(run=run_id)
    run.note("link")
    module, other = start_orphan(run_id), start_orphan(f"{run_id}1")
    try:
        run.kill()
        wait_until(run.is_over, "the guard did not end")
        assert not is_running(module)
        assert is_running(other)
        assert run.log.index(f"module {module}") < run.log.index("unlinked")
        # What the module had asked may have taken effect after the first call.
        assert service.times("/pxe/clear") == 2
    finally:
        for pid in (module, other):
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_message_that_is_not_understood_does_not_end_the_guard(playbook):
    run = playbook()
    with pytest.raises(guard.GuardError, match="not understood"):
        run.tell(say="nonsense")
    with pytest.raises(guard.GuardError, match="not understood"):
        run.tell(nothing="at all")
    run.note("client", nodes=["node1-1"])


def test_a_folder_with_a_long_name_is_no_hindrance(playbook, tmp_path):
    run = playbook(dir=str(tmp_path / ("x" * 120) / "runs"))
    assert run.said == {"skipped": {}}
    assert guard.tell(run.config["dir"], {"say": "release"}) == {"undone": [], "left": []}


def test_what_cannot_be_claimed_is_an_error_and_leaves_no_guard(playbook, tmp_path):
    (tmp_path / "file").write_text("")
    run = playbook(claim_dir=str(tmp_path / "file"))
    assert isinstance(run.said, guard.GuardError)
    assert "Set orbit_claim_dir" in str(run.said)


def test_without_a_guard_the_run_is_told_where_to_look(tmp_path):
    with pytest.raises(guard.GuardError, match=r"guard\.log"):
        guard.tell(str(tmp_path), {"say": "release"})


def test_only_the_worker_of_a_playbook_can_start_a_guard(monkeypatch):
    # A fork has the command line of its parent, and some test runners fork for each test.
    monkeypatch.setattr(guard, "_command", str)
    with pytest.raises(guard.GuardError, match="not its ansible-playbook"):
        guard.start({"run": "run-1"})


def test_a_worker_ends_with_its_playbook():
    here, there = FORK.Pipe()

    def work():
        guard.end_with_parent()
        there.send(os.getpid())
        signal.pause()

    def main():
        here.close()
        FORK.Process(target=work).start()
        signal.pause()

    process = FORK.Process(target=main)
    process.start()
    there.close()
    try:
        assert here.poll(LIMIT)
        here.recv()
        process.kill()
        process.join(LIMIT)
        # The other end is held by the worker alone now: it closes when the worker ends.
        assert here.poll(LIMIT)
        with pytest.raises(EOFError):
            here.recv()
    finally:
        here.close()
