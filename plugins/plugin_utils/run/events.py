# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What happens in a run, as a stream of small JSON objects: into its folder, and to whoever listens.

``docs/events.md`` describes them. Telling is never an error and never a wait: a run must not end, or be held
up, because a disk is full or nobody reads.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import json
import os
import re
import socket
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils import private
from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import printable
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import (
    Event,
    EventGroup,
    EventName,
    EventNode,
    Record,
)

#: Version of the format; it changes when a reader of the former one could misunderstand the new one.
VERSION = 1
#: Environment variable with the address of a datagram socket: a path, or @name in the abstract namespace.
ADDRESS = "ORBIT_IMAGING_EVENTS"
#: The file in the folder of the run.
FILE = "events.jsonl"

#: What shows a run at the end of its output: the report, or besides that all that happens meanwhile.
Shows = t.Literal["report", "live"]

# The address of a callback of this collection says what it shows, and which ansible-playbook it is part of:
# others that listen show nothing to the person who waits for the table.
_CALLBACK = re.compile(r"@orbit-imaging-(report|live)-([0-9]+)-")
# Nodes that one event introduces: an event must fit into a datagram.
_NODES = 500
# Events that wait for a listener that does not keep up; then the oldest are lost for it, not for the file.
_WAITING = 2000
# Characters of a message.
_WORDS = 500


def callback_address(shows: Shows, secret: str) -> str:
    """Return the address at which a callback of this process listens."""
    return f"@orbit-imaging-{shows}-{os.getpid()}-{secret}"


def shown_by(address: str, process: int) -> Shows | None:
    """Return what a callback of ``process`` shows that listens at ``address``; None when that is none."""
    match = _CALLBACK.match(address)
    if match is None or int(match[2]) != process:
        return None
    return t.cast(Shows, match[1])


def kernel_address(address: str) -> str:
    """Return an address as the kernel wants it."""
    return "\0" + address[1:] if address.startswith("@") else address


class Outlet:
    """Sends lines to a datagram socket, without waiting: it keeps those for which there is no room yet.

    :param address: that of the socket; an empty one sends nothing.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        #: Whether nobody was found there; somebody may come later.
        self.deserted = not address
        self._socket: socket.socket | None = None
        self._waiting: collections.deque[bytes] = collections.deque(maxlen=_WAITING)

    def put(self, line: bytes) -> None:
        """Send a line, now or with a later one."""
        if self._address:
            self._waiting.append(line)
            self.flush()

    def deliver(self, line: bytes) -> bool:
        """Send a line now or not at all; return whether it was sent. Those that wait come first."""
        self.flush()
        return not self._waiting and self._send(line) == "sent"

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        while self._waiting and self._send(self._waiting[0]) != "full":
            self._waiting.popleft()

    def close(self) -> None:
        """Give back the socket."""
        self.flush()
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _send(self, line: bytes) -> t.Literal["sent", "full", "lost"]:
        """Send one datagram; ``full`` is one that may be taken later."""
        if not self._address:
            return "lost"
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
                # As large as the system allows, for reports of hundreds of failed nodes.
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            self._socket.sendto(line, kernel_address(self._address))
        except BlockingIOError:
            return "full"
        except OSError as error:
            self.deserted = self.deserted or error.errno != errno.EMSGSIZE
            return "lost"
        except ValueError:
            # No address at all, such as one with a NUL in it.
            self._address, self.deserted = "", True
            return "lost"
        return "sent"


class Events:
    """Tells what happens in one run; a process of ansible-playbook has one for each task.

    :param run: name of the run.
    :param folder: its folder; None keeps no file.
    """

    def __init__(self, run: str, folder: str | None) -> None:
        self._run = run
        self._path = os.path.join(folder, FILE) if folder else ""
        self._file: int | None = None
        address = os.environ.get(ADDRESS, "")
        self._outlet = Outlet(address)
        # Those who tell are children of ansible-playbook.
        self._shows = shown_by(address, os.getppid())

    @property
    def live(self) -> bool:
        """Whether somebody shows to the user what is told here, as long as that is heard."""
        return self._shows == "live" and not self._outlet.deserted

    def emit(self, event: EventName, **fields: t.Any) -> Event:
        """Tell that something has happened; what is None is left out. Return what was told."""
        told = self._make(event, fields)
        line = _line(told)
        self._keep(line)
        self._outlet.put(line)
        return told

    def report(self, lines: t.Sequence[str], outcomes: t.Mapping[str, str | None]) -> bool:
        """Tell the report of the run; return whether a callback has it, which shows it in the end."""
        line = _line(self._make("report", {"lines": list(lines), "outcomes": dict(outcomes)}))
        self._keep(line)
        # What waits here might never arrive, and a report must be seen.
        return self._outlet.deliver(line) and self._shows is not None

    def flush(self) -> None:
        """Send what the listener had no room for before."""
        self._outlet.flush()

    def close(self) -> None:
        """Give back what is open."""
        self._outlet.close()
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _make(self, event: EventName, fields: t.Mapping[str, t.Any]) -> Event:
        told = {"v": VERSION, "at": round(time.time(), 3), "run": self._run, "event": event}
        told.update({key: value for key, value in fields.items() if value is not None})
        if "msg" in told:
            # What nodes and services say may hold anything, and is shown on terminals.
            told["msg"] = printable(str(told["msg"])[:_WORDS])
        return t.cast(Event, told)

    def _keep(self, line: bytes) -> None:
        """Add a line to the file, whole or not at all."""
        if not self._path:
            return
        # A full disk, or a folder that somebody has removed: the record says what becomes of the run.
        with contextlib.suppress(OSError):
            if self._file is None:
                self._file = private.open_to_append(self._path)
            before = os.fstat(self._file).st_size
            try:
                whole = os.write(self._file, line) == len(line)
            except OSError:
                whole = False
            if not whole:
                os.ftruncate(self._file, before)


def _line(event: Event) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def introduce(events: Events, record: Record, *, check: bool) -> None:
    """Tell of a run that begins: its groups and its nodes, of many nodes in several events."""
    groups: list[EventGroup] = [
        {"group": group["label"], "image": group["image"]} for group in record["groups"]
    ]
    nodes: list[EventNode] = [
        {"node": name, "group": node.get("group", ""), "x": node["x"], "y": node["y"]}
        for name, node in record["nodes"].items()
    ]
    for first in range(0, max(1, len(nodes)), _NODES):
        part = nodes[first : first + _NODES]
        events.emit("run", dir=record["dir"], check=check, groups=groups, nodes=part)
