# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Anything over raw sockets against the services' HTTP interface: they survive, and say nothing wrong.

``python -m tests.services.fuzz_http [-n COUNT] [-s SEED]``, in the folder ``testbed``. What is sent follows
from the seed alone, so a finding is repeated by the same two numbers; the last line names the bytes.

Sent are calls of all methods, with request lines, headers, encodings and bodies that are malformed, huge,
cut off, repeated, pipelined or slow. Findings are:

* an error that is logged (an exception of ours or of the HTTP server is), or a traceback in a reply;
* a reply that is no HTTP, or whose status is none that the services have; a reply to a request never sent;
* status 500 with another text than the dialects prescribe;
* no reply to a connection that asked for one, or one that is never closed;
* afterwards: a call that is answered otherwise than before, a link to a name that is no memory image, a file
  that was not there.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import re
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from orbit_services.config import ServicesConfig, grid
from orbit_services.dialects import DIALECTS

from .stand import DOMAIN, NULL_FRISBEED, Stand, World, free_ports

#: What the services answer with; 408 and 413 are bounds, 100 (go on) and 400 also come from the HTTP server.
STATUSES = frozenset({100, 200, 400, 401, 403, 404, 405, 408, 413, 414, 500})
#: What may come with status 500: no more than the dialects prescribe.
PRESCRIBED_500 = re.compile(
    rb"internal error|Inventory has no|Missing 'testbed' config|Missing &#?\w+;testbed|"
    rb"is not registered for|Starting daemon"
)
#: Seconds for the services to answer and close.
_PATIENCE = 10.0

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n")
_MEMORY_IMAGES = ("memory", "default")
_IMAGES = ("baseline.ndz", "other.ndz")
_TOKENS = (
    "(",
    "\x7f",
    "\x00",
    "\r",
    "\n",
    "\r\n",
    " ",
    "\t",
    ":",
    "%",
    "%0",
    "%zz",
    "%00",
    "%ff",
    "../",
    "é",
    "\ud7ff",
)
_VALUES = (
    DOMAIN, "default", "", f"node1-1.{DOMAIN}", "node1-1", "1", "2", "-1", "99999999999", "[1,1]",
    "[[1,1],[1..3,2]]", "[1..9999,1..9999]", "[1..3", "baseline.ndz", "other.ndz", "memory", "../x",
    "..%2f..%2fetc%2fpasswd", "%252e", "$(reboot)", "'; drop", "`id`", "%00", "%", "&", "=", ";",
    "10.10.1.1", "me", "<x/>", "&#60;", "a" * 300,
)  # fmt: skip

#: What the arguments should be.
_HRN = f"node1-1.{DOMAIN}"
_FITTING = {
    "domain": (DOMAIN,),
    "ns": ("[1,1]", "[[1,1],[2..3,2]]", _HRN),
    "nodes": ("[1,1]", "[[1,1],[2..3,2]]", _HRN),
    "node": ("node1-1",),
    "hrn": (_HRN,),
    "name": (_HRN,),
    "x": ("1", "2"),
    "y": ("1", "2"),
    "ip": ("10.10.1.1",),
    "img": ("baseline.ndz", "memory"),
    "imgName": ("memory",),
    "user": ("me",),
}


class Finding(Exception):
    """The services did what they must not do."""


class _Errors(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


class Fuzzer:
    """Sends bytes to the services of one stand; :meth:`run` raises :class:`Finding`."""

    def __init__(self, stand: Stand, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.seen: Counter[int] = Counter()
        self.last = b""
        self.sent = 0
        self.closed_at_once = 0
        self._folder = folder
        self._errors = _Errors()
        images, links = folder / "images", folder / "pxelinux.cfg"
        for place, names in ((images, _IMAGES), (links, _MEMORY_IMAGES)):
            place.mkdir()
            for name in names:
                (place / name).write_text(name)
        (folder / "x").write_text("outside")
        self.world = World(
            stand,
            ServicesConfig(
                domain=DOMAIN,
                nodes=grid(DOMAIN, 3, 2, network=10),
                image_dir=images,
                tftp_dir=links,
                state_file=folder / "state.json",
                log_dir=folder / "log",
                frisbeed=NULL_FRISBEED,
                port_base=free_ports(8),
                memory_image="memory",
                max_daemons=1,
            ),
        )
        self._calls = [
            (dialect.name, f"/{service.name}/{method.name}", [arg.name for arg in method.args])
            for dialect in DIALECTS.values()
            for service in dialect.services.values()
            for method in service.methods
        ]

    def __enter__(self) -> Fuzzer:
        logging.getLogger().addHandler(self._errors)
        self.world.start()
        # A stream that runs is found by every call for one; starting processes is not what is tested here.
        self.world.send("A", "/frisbee/getAddress?img=baseline.ndz")
        self._known = self._answers()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.world.close()
        logging.getLogger().removeHandler(self._errors)

    def run(self, count: int) -> None:
        """Make ``count`` connections, then see that the services are as they were."""
        for _ in range(count):
            self._connection()
            if self._errors.found:
                raise Finding(f"an error was logged: {self._errors.found[0]}")
            self._check_links()
        self._check_after()

    # -- what is sent

    def _connection(self) -> None:
        source = self.random
        dialect, data = self._requests()
        cut = source.random() < 0.15
        if cut:
            data = data[: source.randrange(len(data) + 1)]
        self.last = data
        self.sent += 1
        with socket.socket() as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(("127.0.0.1", self.world.stand.ports[dialect]))
            kind = source.random()
            try:
                if kind < 0.08:
                    # A few bytes at a time. That it may not take for ever has tests of its own.
                    for at in range(0, min(len(data), 60), 3):
                        sock.sendall(data[at : at + 3])
                    sock.sendall(data[60:])
                else:
                    sock.sendall(data)
                if kind > 0.96:
                    # Gone without a word: a reset connection.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                sock.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError, OSError) as error:
                if isinstance(error, TimeoutError):
                    raise Finding("the services take no more bytes") from error
                self.closed_at_once += 1
            self._judge(self._read(sock))

    def _read(self, sock: socket.socket) -> bytes:
        parts = []
        try:
            while part := sock.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            # The rest of what was sent was not wanted any more; a reply may have been lost with it.
            pass
        except TimeoutError as error:
            raise Finding("the connection is neither answered nor closed") from error
        return b"".join(parts)

    def _requests(self) -> tuple[str, bytes]:
        source = self.random
        dialect, first = self._request()
        rest = [self._request(dialect)[1] for _ in range(source.choice((0, 0, 0, 0, 1, 2, 5)))]
        return dialect, b"".join([first, *rest])

    def _request(self, of: str | None = None) -> tuple[str, bytes]:
        source = self.random
        calls = [call for call in self._calls if of in (None, call[0])]
        dialect, path, names = source.choice(calls)
        if source.random() < 0.1:
            path = source.choice(
                ("/", "/orbit/state", "/orbit/images", "/orbit/images/baseline.ndz/manifest", "*")
            )
        parameters = source.choice("&&&;").join(
            f"{name}={source.choice(_FITTING.get(name, _VALUES) if source.random() < 0.7 else _VALUES)}"
            for name in names
            if source.random() < 0.9
        )
        method = source.choice(("GET", "GET", "GET", "POST", "PUT", "HEAD"))
        body = b""
        headers = ["Host: localhost"]
        if method in ("POST", "PUT"):
            body = parameters.encode()
            headers.append("Content-Type: application/x-www-form-urlencoded")
            if source.random() < 0.3:
                headers.append("Transfer-Encoding: chunked")
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
            else:
                headers.append(f"Content-Length: {len(body)}")
            target = path
        else:
            # Some values are escapes already; what must not stand in a request line at all comes below.
            target = f"{path}?{quote(parameters, safe='%&;=[],.')}"
        line = f"{method} {target} HTTP/1.1"
        for _ in range(source.choice((0, 0, 0, 1, 1, 2))):
            line, headers, body = self._spoiled(line, headers, body)
        head = "\r\n".join([line, *headers]) + source.choice(("\r\n\r\n",) * 12 + ("\n\n", "\r\r", "\r\n"))
        return dialect, head.encode("utf-8", "surrogatepass") + body

    def _spoiled(self, line: str, headers: list[str], body: bytes) -> tuple[str, list[str], bytes]:
        source = self.random
        kind = source.randrange(16)
        at = source.randrange(len(line) + 1)
        if kind < 3:
            line = line[:at] + source.choice(_TOKENS) + line[at:]
        elif kind == 3:
            line = line[:at] + line[at + source.randrange(1, 5) :]
        elif kind == 4:
            line = line.replace(
                "HTTP/1.1", source.choice(("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9999", "ICY", ""))
            )
        elif kind == 5:
            words = ("TRACE", "OPTIONS", "CONNECT", "DELETE", "get", "", "G E T", "PRI", "\x16\x03\x01")
            line = source.choice(words) + line[line.find(" ") :]
        elif kind == 6:
            line = line.replace(
                " /", source.choice((" //", " http://other.host/", " /../../", " /%2e%2e/", " \\")), 1
            )
        elif kind == 7:
            line = line.replace(" HTTP", "a" * source.choice((900, 9_000, 70_000)) + " HTTP")
        elif kind == 8:
            headers = [*headers, source.choice((
                "Expect: 100-continue", "Upgrade: websocket", "Connection: upgrade", "Connection: close",
                "X: \x00", "Content-Encoding: gzip", "Transfer-Encoding: gzip, chunked",
                "X-Forwarded-For: 192.0.2.1", ": x", "no colon", " folded", "Host: y",
                "Authorization: Bearer x", "Range: bytes=0-", "X: é", "Content-Type: text/plain",
            ))]  # fmt: skip
        elif kind == 9:
            numbers = ("-1", "abc", "0", "5", "99999999999999999999", "1, 2", "+1", "0x10", "", "4194305")
            headers = [*headers, f"Content-Length: {source.choice(numbers)}"]
        elif kind == 10:
            headers = [*headers, *(f"X-{n}: {n}" for n in range(source.choice((50, 500))))]
        elif kind == 11:
            headers = [*headers, "X: " + "y" * source.choice((8_000, 70_000))]
        elif kind == 12:
            body = bytes(source.randbytes(source.randrange(200)))
        elif kind == 13:
            sizes = (
                b"ffffffffffffffffff\r\n",
                b"-1\r\n",
                b"g\r\n",
                b"5;x=y\r\nab",
                b"0\r\nTrailer: x\r\n\r\n",
            )
            headers, body = [*headers, "Transfer-Encoding: chunked"], source.choice(sizes)
        elif kind == 14:
            headers = source.sample(headers, len(headers))
        else:
            headers = headers[1:]
        return line, headers, body

    # -- what comes back

    def _judge(self, data: bytes) -> None:
        if b"Traceback" in data or b"outside" in data:
            raise Finding(f"a reply says too much: {data[:500]!r}")
        if data and not _STATUS.match(data):
            raise Finding(f"a reply that is no HTTP: {data[:200]!r}")
        for match in _STATUS.finditer(data):
            status = int(match[1])
            self.seen[status] += 1
            if status not in STATUSES:
                raise Finding(f"status {status}")
            if status == 500 and b" " in data and not PRESCRIBED_500.search(data, match.end()):
                body = data[match.end() :].partition(b"\r\n\r\n")[2]
                # HEAD has no body to judge by; what went wrong by our fault is in the log.
                if body:
                    raise Finding(f"status 500: {body[:300]!r}")

    def _answers(self) -> list[tuple[int, bytes]]:
        """Ask every service what it is and how it is."""
        found = []
        for dialect in DIALECTS:
            for target in ("/", "/pxe", "/frisbee", "/cmc", "/frisbee/checkImage?img=baseline.ndz"):
                reply = self.world.send(dialect, target)
                found.append((reply.status, reply.body))
        return found

    def _check_links(self) -> None:
        wrong = {name: image for name, image in self.world.links().items() if image not in _MEMORY_IMAGES}
        if wrong:
            raise Finding(f"links to what is no memory image: {wrong}")

    def _check_after(self) -> None:
        if self._answers() != self._known:
            raise Finding("the services answer otherwise than before")
        self._check_links()
        for place, names in (("images", _IMAGES), ("pxelinux.cfg", _MEMORY_IMAGES)):
            files = {path.name for path in (self._folder / place).iterdir() if not path.is_symlink()}
            if files != set(names):
                raise Finding(f"files in {place}: {sorted(files)}")
        if {entry.name for entry in os.scandir(self._folder)} - {
            "images",
            "pxelinux.cfg",
            "state.json",
            "log",
            "x",
        }:
            raise Finding(f"files beside: {sorted(os.listdir(self._folder))}")
        # Links, power and streams must still do what they are told.
        for target in ("/pxe/setBootImage?node=node1-1", "/cmc/on?x=1&y=1", "/cmc/allOffHard"):
            reply = self.world.send("A", target)
            if (reply.status, reply.text) != (200, "OK"):
                raise Finding(f"{target} is answered by {reply}")
        if self._errors.found:
            raise Finding(f"an error was logged: {self._errors.found[0]}")


def fuzz(count: int, seed: int, stand: Stand | None = None) -> Fuzzer:
    """Make ``count`` connections; returns the fuzzer for its numbers."""
    own = stand or Stand()
    try:
        with tempfile.TemporaryDirectory() as folder, Fuzzer(own, Path(folder), seed) as fuzzer:
            try:
                fuzzer.run(count)
            except BaseException:
                print(f"seed {seed}, connection {fuzzer.sent}: {fuzzer.last[:3000]!r}", file=sys.stderr)
                raise
            return fuzzer
    finally:
        if stand is None:
            own.close()


def main() -> None:
    """Fuzz as the command line says and print what came back."""
    parser = argparse.ArgumentParser(description="Send anything to the services' HTTP interface.")
    parser.add_argument("-n", dest="count", type=int, default=100_000, help="connections (%(default)s)")
    parser.add_argument("-s", dest="seed", type=int, default=1, help="the seed (%(default)s)")
    options = parser.parse_args()
    start = time.perf_counter()
    done = fuzz(options.count, options.seed)
    answers = ", ".join(f"{count} x {status}" for status, count in sorted(done.seen.items()))
    seconds = time.perf_counter() - start
    print(f"{options.count} connections in {seconds:.1f} s, seed {options.seed}; answers: {answers}")


if __name__ == "__main__":
    main()
