# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The guard as a process: real forks, real signals, a service on loopback."""

from __future__ import annotations

import contextlib
import http.server
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims, guard

FORK = multiprocessing.get_context("fork")
LIMIT = 180.0


class Service:
    """pxe and frisbee of one gateway, dialect E2, as far as a guard asks them; keeps what was asked."""

    def __init__(self):
        self.asked = []
        self.sent = set()
        self.down = False
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path, _mark, query = self.path.partition("?")
                status, body = service.answer(path, dict(urllib.parse.parse_qsl(query)))
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def answer(self, path, arguments):
        self.asked.append((path, arguments))
        if self.down:
            self.down = False
            return 503, b""
        if path == "/frisbee/status":
            rows = "".join(f'<daemon img="{image}" port="7000"/>' for image in sorted(self.sent))
            return 200, f"<frisbee_status>{rows}</frisbee_status>".encode()
        if path == "/frisbee/stop":
            self.sent.discard(arguments["img"])
            return 200, b"<OK>Stopped</OK>"
        if path.startswith("/pxe/clear"):
            return 200, b'<response status="OK"/>'
        return 500, b""

    def times(self, path):
        return sum(asked.startswith(path) for asked, _arguments in self.asked)

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def service():
    service = Service()
    yield service
    service.close()


def wait_until(true, what):
    deadline = time.monotonic() + LIMIT
    while not (value := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return value


class Playbook:
    """A process that stands for ansible-playbook; a fork of it, as a worker, starts the guard."""

    def __init__(self, tmp_path, service, **config):
        self.asked = {"url": service.url, "dialect": "E2", "domain": "d", "user": "alice", "timeout": 5}
        node = {"name": "node1-1", "domain": "d", "x": 1, "y": 1, "hrn": "node1-1.d"}
        node["control_ip"] = "10.0.1.1"
        self._mark = config.get("run", "run-1").encode()
        self.dir = tmp_path / "runs" / "run-1"
        self.claims = tmp_path / "claims"
        self.paths = {claims.node_path(str(self.claims), node): "node1-1"}
        self.config = {
            "run": "run-1",
            "dir": str(self.dir),
            "user": "alice",
            "since": 1.0,
            "claims": self.paths,
            "skip": False,
            "links": [{**self.asked, "nodes": [node]}],
            "claim_dir": str(self.claims),
            **config,
        }
        here, there = FORK.Pipe()
        self._process = FORK.Process(target=self._main, args=(here, there))
        self._process.start()
        there.close()
        self.pid = self._process.pid
        try:
            assert here.poll(LIMIT)
            self.said = here.recv()
        finally:
            here.close()

    def _main(self, here, there):
        here.close()
        # A shell has its background jobs ignore SIGINT, nohup SIGHUP.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

        def work():
            try:
                there.send(guard.start(self.config))
            except Exception as error:
                there.send(error)

        worker = FORK.Process(target=work)
        worker.start()
        worker.join()
        signal.pause()

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)
        self._process.join(LIMIT)

    def close(self):
        if self._process.is_alive():
            self.kill()

    def tell(self, **message):
        return guard.tell(str(self.dir), message)

    def note(self, step, **more):
        return self.tell(say="note", step=step, **more)

    @property
    def log(self):
        return (self.dir / "guard.log").read_text()

    def guard_pids(self):
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if any(w.endswith(b"guard_main.py") for w in words) and self._mark in words:
                    found.append(int(path.parent.name))
        return [pid for pid in found if _has_open(pid, self.claims)]

    def is_over(self):
        return not claims.holders(self.paths) and not self.guard_pids()


def _has_open(pid, folder):
    with contextlib.suppress(OSError):
        return any(
            os.readlink(entry).startswith(str(folder)) for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir()
        )
    return False


@pytest.fixture
def playbook(tmp_path, service):
    made = []

    def make(**config):
        made.append(Playbook(tmp_path, service, **config))
        return made[-1]

    yield make
    for one in made:
        one.close()
        wait_until(one.is_over, "the guard did not end")


def serve(playbook, service, images=("x.ndz",), ok=True):
    playbook.note("serve", streams=[{**playbook.asked, "images": list(images)}])
    service.sent.update(images)
    playbook.note(
        "serve",
        results=[{**playbook.asked, "image": i, "ok": ok, "port": 7000, "joined": False} for i in images],
    )


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


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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
