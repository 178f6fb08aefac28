# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Getting a manifest to the client: from a file, the standard input, or the frisbee service.

The HTTP is just what that takes, HTTP/1.0 over one socket: a memory image need not have Python's
own client, which takes longer to load than all of ours.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import Final
from urllib.parse import urlsplit

from orbit_frisbee.ndz.manifest import MAX_SIZE, Manifest, ManifestError, parse, read

SECONDS: Final = 30.0
"""How long a manifest may take to come by HTTP, connecting included."""
_HEAD_LIMIT: Final = 16 << 10
_TEXT_LIMIT: Final = 300


def from_place(place: str) -> Manifest:
    """Read the manifest in a file, or from the standard input for ``-``. Raises :class:`ManifestError`."""
    if place != "-":
        return read(place)
    return parse(sys.stdin.buffer.read(MAX_SIZE + 1), "standard input")


def from_url(url: str, seconds: float = SECONDS) -> Manifest:
    """Fetch a manifest by HTTP, within ``seconds`` in all. Raises :class:`ManifestError`."""
    return parse(_get(url, time.monotonic() + seconds), url)


def _get(url: str, until: float) -> bytearray:
    def bad(problem: str, remedy: str = "give --manifest-url as http://HOST:PORT/PATH") -> ManifestError:
        return ManifestError(problem, name=url, remedy=remedy)

    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        raise bad("is no URL") from None
    if parts.scheme != "http" or not host or parts.username is not None:
        raise bad("is no plain http URL")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not (target.isascii() and target.isprintable() and host.isascii() and " " not in target):
        raise bad("has characters that must be encoded")
    request = f"GET {target} HTTP/1.0\r\nHost: {parts.netloc}\r\nAccept: */*\r\n\r\n".encode("ascii")
    service = "ask the frisbee service yourself, or go without a manifest"
    try:
        with socket.create_connection((host, port), timeout=_left(until)) as connection:
            connection.sendall(request)
            reply = _receive(connection, until)
    except TimeoutError:
        raise bad("did not come in time", service) from None
    except OSError as error:
        raise bad(f"cannot be fetched: {(error.strerror or str(error)).lower()}", service) from None
    end = reply.find(b"\r\n\r\n", 0, _HEAD_LIMIT)
    lines = reply[: max(end, 0)].decode("latin-1").split("\r\n")
    status = lines[0].split(" ", 2)
    if end < 0 or not status[0].startswith("HTTP/1.") or len(status) < 2:
        raise bad("the answer is not HTTP", service)
    body = reply
    del body[: end + 4]  # where it is: a copy would be as large again
    if status[1] != "200":
        text = body[:_TEXT_LIMIT].decode("ascii", "replace").strip()
        raise bad(f"the service answers {' '.join(status[1:])}: {text}", service)
    fields = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
    }
    if "transfer-encoding" in fields or "content-encoding" in fields:
        raise bad("the answer is encoded", service)
    length = fields.get("content-length")
    if len(body) > MAX_SIZE or (length is not None and length != str(len(body))):
        raise bad(f"{len(body)} of {length or 'unknown'} bytes came", service)
    return body


def _receive(connection: socket.socket, until: float) -> bytearray:
    """Return all that comes until the other side closes, at most a little more than is allowed."""
    reply = bytearray()
    while len(reply) <= MAX_SIZE + _HEAD_LIMIT:
        connection.settimeout(_left(until))
        piece = connection.recv(1 << 16)
        if not piece:
            break
        reply += piece
    return reply


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
