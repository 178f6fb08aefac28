# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A service on loopback, and a process that stands for ansible-playbook and has a guard."""

from __future__ import annotations

import contextlib
import http.server
import multiprocessing
import os
import pathlib
import signal
import threading
import time
import urllib.parse

from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims, guard

FORK = multiprocessing.get_context("fork")
LIMIT = 30.0


class Service:
    """pxe and frisbee of one gateway, dialect E2, as far as a guard asks them; keeps what was asked."""

    def __init__(self):
        self.asked = []
        self.sent = set()
        self.down = False
        #: Cleared, the service takes requests and says nothing.
        self.speaks = threading.Event()
        self.speaks.set()
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path, _mark, query = self.path.partition("?")
                service.asked.append((path, dict(urllib.parse.parse_qsl(query))))
                service.speaks.wait()
                status, body = service.answer(path, dict(urllib.parse.parse_qsl(query)))
                # Who asked may be gone.
                with contextlib.suppress(OSError):
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
        self.speaks.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def wait_until(true, what):
    deadline = time.monotonic() + LIMIT
    while not (value := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return value


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Playbook:
    """A process that stands for ansible-playbook; a fork of it, as a worker, starts the guard."""

    def __init__(self, tmp_path, service, before=lambda: None, **config):
        self._before = before
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
        self._line = here
        self.said = self._heard()

    def _heard(self):
        assert self._line.poll(LIMIT)
        return self._line.recv()

    def start_again(self, **config):
        """Have another worker start a guard; return what that says."""
        self._line.send({**self.config, **config})
        return self._heard()

    def _main(self, here, there):
        here.close()
        self._before()
        # A shell has its background jobs ignore SIGINT, nohup SIGHUP.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

        def work(config):
            try:
                there.send(guard.start(config))
            except Exception as error:
                there.send(error)

        config = self.config
        while True:
            worker = FORK.Process(target=work, args=(config,))
            worker.start()
            worker.join()
            config = there.recv()

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)
        self._process.join(LIMIT)

    def close(self):
        if self._process.is_alive():
            self.kill()
        self._line.close()

    def kill_guard(self):
        """End the guard as nothing but SIGKILL can, and see it gone."""
        (pid,) = self.guard_pids()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_running(pid), "the guard was killed but did not end")

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


def serve(playbook, service, images=("x.ndz",), ok=True):
    playbook.note("serve", streams=[{**playbook.asked, "images": list(images)}])
    service.sent.update(images)
    playbook.note(
        "serve",
        results=[{**playbook.asked, "image": i, "ok": ok, "port": 7000, "joined": False} for i in images],
    )
