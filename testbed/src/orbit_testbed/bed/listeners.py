# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listening sockets of a testbed, opened outside its namespaces: a socket stays where it was made."""

from __future__ import annotations

import errno
import resource
import socket

from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.layout import Settings

#: An address that no testbed uses.
_NOBODYS = "127.255.255.254"


def listen(settings: Settings) -> list[socket.socket]:
    """Open everything that is reachable from outside, in the order of :meth:`Settings.listeners`."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sockets: list[socket.socket] = []
    try:
        for what, address, port in settings.listeners():
            try:
                sockets.append(socket.create_server((address, port), backlog=1024))
            except OSError as error:
                raise _explained(error, settings, f"{address}:{port} ({what})", port) from error
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _explained(error: OSError, settings: Settings, place: str, port: int) -> TestbedError:
    if error.errno == errno.EADDRINUSE:
        if _taken_everywhere(port):
            return TestbedError(
                f"{place} is in use: a program listens on port {port} of all addresses",
                f"stop that program; this shows it: ss -ltnp sport = :{port}",
            )
        return TestbedError(
            f"{place} is in use, so testbed number {settings.number} is taken",
            "take that testbed down, or choose another number: orbit-testbed up --number N",
        )
    if error.errno == errno.EMFILE:
        return TestbedError(
            f"too few file descriptors for {len(settings.nodes)} nodes", "raise the limit: ulimit -n 65536"
        )
    return TestbedError(f"cannot listen on {place}: {error.strerror}")


def _taken_everywhere(port: int) -> bool:
    try:
        socket.create_server((_NOBODYS, port)).close()
    except OSError:
        return True
    return False
