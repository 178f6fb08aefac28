# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a callback hears of what happens in the runs of its ansible-playbook."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import select
import signal
import socket
import struct
import threading
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.run import events
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Event

# Bytes of the largest event that is taken.
_LARGEST = 1 << 20
# Process, user and group of who has sent a datagram.
_SENDER = struct.Struct("3i")
# Seconds until an ansible-playbook that did not hear an interrupt is interrupted again.
_AGAIN = 3.0


class Listener:
    """Listens for the events of this process's children, in a thread of its own.

    The address is in the environment while it listens, and what comes is handed on to the address that was
    there before. It also notices when nobody reads the output of ansible-playbook any more, and ends it then:
    Ansible itself may hang there, with its links set. What the run had done is undone by its guard.

    :param shows: what the user is shown of it.
    :param hear: is called with each event.
    :param tick: is called after that, and about every ``pause`` seconds.
    """

    def __init__(
        self,
        shows: events.Shows,
        hear: t.Callable[[Event], None],
        tick: t.Callable[[], None] = lambda: None,
        pause: float = 0.5,
    ) -> None:
        self._hear = hear
        self._tick = tick
        self._pause = pause
        self._process = os.getpid()
        self._former = os.environ.get(events.ADDRESS)
        self._outlet = events.Outlet(self._former or "")
        self._address = events.callback_address(shows, secrets.token_hex(8))
        self._over = threading.Event()
        self._reading = threading.RLock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="orbit-events", daemon=True)

    def start(self) -> None:
        """Begin to listen.

        :raises OSError: when that is impossible.
        """
        self._socket.setblocking(False)
        # Everybody on this host may send to an abstract address; only this user is heard.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LARGEST)
        self._socket.bind(events.kernel_address(self._address))
        os.environ[events.ADDRESS] = self._address
        self._thread.start()
        atexit.register(self.close)

    def drain(self) -> None:
        """Hear all that has been sent so far."""
        with self._reading:
            while (event := self._receive()) is not False:
                if event:
                    # One that says something else than ours do must not end the listening.
                    with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError):
                        self._hear(t.cast(Event, event))
            self._outlet.flush()

    def close(self) -> None:
        """Stop listening; the environment is as it was before."""
        if self._over.is_set() or os.getpid() != self._process:
            return
        self._over.set()
        atexit.unregister(self.close)
        if self._former is None:
            os.environ.pop(events.ADDRESS, None)
        else:
            os.environ[events.ADDRESS] = self._former
        with contextlib.suppress(OSError):
            # What the thread waits for.
            self._socket.sendto(b"", events.kernel_address(self._address))
        self._thread.join(5.0)
        self._socket.close()
        self._outlet.close()

    def _receive(self) -> dict[str, t.Any] | t.Literal[False] | None:
        """Return the next event, None for what is none of ours, False when there is nothing now."""
        try:
            line, told, _flags, _from = self._socket.recvmsg(_LARGEST, socket.CMSG_SPACE(_SENDER.size))
        except OSError:
            return False
        if not any(
            kind == socket.SCM_CREDENTIALS and _SENDER.unpack(data[: _SENDER.size])[1] in (0, os.geteuid())
            for _level, kind, data in told
        ):
            return None
        # The empty one is that by which close() wakes the thread.
        if line:
            self._outlet.put(line)
        try:
            event = json.loads(line)
        except ValueError:
            return None
        known = isinstance(event, dict) and event.get("v") == events.VERSION
        return event if known else None

    def _run(self) -> None:
        waits = select.poll()
        waits.register(self._socket, select.POLLIN)
        output = None
        with contextlib.suppress(OSError):
            output = os.dup(1)
            # Only errors are heard: that the other end is closed.
            waits.register(output, 0)
        try:
            while not self._over.is_set():
                ready = dict(waits.poll(self._pause * 1000))
                if output is not None and ready.get(output, 0) & (select.POLLERR | select.POLLHUP):
                    waits.unregister(output)
                    self._end_playbook()
                self.drain()
                # What cannot be shown because the reader has just gone is no reason to stop looking for that.
                with contextlib.suppress(OSError):
                    self._tick()
        finally:
            if output is not None:
                os.close(output)

    def _end_playbook(self) -> None:
        """Nobody reads any more: let all that is still said go nowhere, and interrupt ansible-playbook."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        hears = signal.getsignal(signal.SIGINT) != signal.SIG_IGN
        # An interrupt in the middle of a callback may get lost.
        for number in (signal.SIGINT,) * 3 if hears else ():
            os.kill(self._process, number)
            if self._over.wait(_AGAIN):
                return
        os.kill(self._process, signal.SIGTERM)
