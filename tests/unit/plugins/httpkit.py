# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stand-ins for the other side of HTTP.

:class:`ExpectedCalls` takes the place of the session for tests of clients and modules; :class:`Peer` is a
real server on loopback that sends whatever bytes it is told to.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import threading
import typing as t
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from ansible.module_utils import basic
from ansible.module_utils.common.text.converters import to_bytes

URL = f"http://gateway-{os.getpid()}.test:5054"
"""Of this process alone: what code locks on the host for a service, other runs of the tests do not hold."""


class Call(t.NamedTuple):
    """A call that is to be made, and its reply.

    :ivar path: e.g. ``/pxe/setBootImageNS``.
    :ivar arguments: all of them; None for whatever they are.
    :ivar body: of the reply; an exception is raised instead.
    :ivar sent: its header ``Orbit-Stream-Sent``.
    """

    path: str
    arguments: dict[str, str] | None = None
    body: str | Exception = "OK"
    status: int = 200
    content_type: str = "text"
    http_method: str = "GET"
    sent: str | None = None


class ExpectedCalls:
    """Answers exactly the calls it was told of, each once.

    Calls that the code makes at the same time come in any order; :attr:`seen` has the order they came in.
    """

    def __init__(self, *calls: Call) -> None:
        self.waiting = list(calls)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self._lock = threading.Lock()

    def request(self, session: t.Any, method: str, url: str, **options: t.Any) -> requests.Response:
        """Take the place of ``requests.Session.request``."""
        assert options["allow_redirects"] is False
        assert session.trust_env is False
        connect, read = options["timeout"]
        assert 0 < connect <= 10
        assert read > 0
        path = urlsplit(url).path or "/"
        query = options["data"] if method == "POST" else options["params"]
        arguments = dict(parse_qsl(query or "", keep_blank_values=True, strict_parsing=bool(query)))
        with self._lock:
            self.seen.append((path, arguments))
            for index, call in enumerate(self.waiting):
                if call.path == path and call.arguments in (None, arguments) and call.http_method == method:
                    del self.waiting[index]
                    break
            else:
                raise AssertionError(
                    f"unexpected call: {method} {path} {arguments}; expected: {self.waiting}"
                )
        if isinstance(call.body, Exception):
            raise call.body
        response = requests.Response()
        response.status_code = call.status
        response.headers["Content-Type"] = call.content_type
        if call.sent is not None:
            response.headers["Orbit-Stream-Sent"] = call.sent
        response.raw = io.BytesIO(call.body.encode())
        return response

    def paths(self) -> list[str]:
        """Return the paths in the order they were called."""
        return [path for path, _arguments in self.seen]


@contextlib.contextmanager
def expected_calls(*calls: Call) -> t.Iterator[ExpectedCalls]:
    """Expect calls inside the block, all of them."""
    expected = ExpectedCalls(*calls)

    def request(session: t.Any, method: str, url: str, **options: t.Any) -> requests.Response:
        return expected.request(session, method, url, **options)

    with mock.patch.object(requests.Session, "request", request):
        yield expected
    assert not expected.waiting, f"calls not made: {expected.waiting}"


class Peer:
    """Takes connections on loopback and treats each as ``serve`` says, in a thread of its own.

    ``serve`` gets the connected socket and the request's bytes up to the blank line (and the announced body).
    """

    def __init__(self, serve: t.Callable[[socket.socket, bytes], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.append(connection)
                thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
                self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while True:
                request = self._read(connection)
                if not request:
                    return
                with self._lock:
                    self.requests.append(request)
                self._serve(connection, request)

    @staticmethod
    def _read(connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                return b""
            data += part
        head, _blank, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        while len(body) < length:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        """Close all sockets and wait for the threads."""
        # close() alone does not wake a thread that is in accept() or recv().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(180)
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(180)


@contextlib.contextmanager
def peer(serve: t.Callable[[socket.socket, bytes], None]) -> t.Iterator[Peer]:
    """Run a :class:`Peer` for the block."""
    server = Peer(serve)
    try:
        yield server
    finally:
        server.close()


def reply(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole HTTP reply; without a Content-Type unless one is given."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def sender(data: bytes, *, close: bool = False) -> t.Callable[[socket.socket, bytes], None]:
    """Return what a peer does that sends these bytes to every request."""

    def serve(connection: socket.socket, request: bytes) -> None:
        connection.sendall(data)
        if close:
            connection.shutdown(socket.SHUT_RDWR)

    return serve


class Ended(t.NamedTuple):
    """How a module ended."""

    failed: bool
    results: dict[str, t.Any]


@contextlib.contextmanager
def _arguments(arguments: dict[str, t.Any]) -> t.Iterator[None]:
    try:
        from ansible.module_utils.testing import patch_module_args
    except ImportError:
        # ansible-core before 2.19
        with mock.patch.object(
            basic, "_ANSIBLE_ARGS", to_bytes(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        ):
            yield
    else:
        with patch_module_args(arguments):
            yield


def run_module(
    main: t.Callable[[], None], arguments: dict[str, t.Any], *, check: bool = False, diff: bool = False
) -> Ended:
    """Run the ``main`` of a module and return what it printed for Ansible."""
    output = io.StringIO()
    everything = {"_ansible_check_mode": check, "_ansible_diff": diff, **arguments}
    with _arguments(everything), contextlib.redirect_stdout(output), pytest.raises(SystemExit) as end:
        main()
    results = json.loads(output.getvalue())
    failed = bool(end.value.code)
    assert failed == bool(results.get("failed", False))
    return Ended(failed, results)
