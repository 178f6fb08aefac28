# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs called ``ping``, one for each node: run to their end, or started and stopped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.ping import (
    PingError,
    Statistics,
    parse,
    within,
)

# Seconds for the last answers, and for a ping to end when it is told to.
_PATIENCE = 30.0
_STOP_PATIENCE = 5.0
_STARTED = "started.json"

Entry = t.Dict[str, t.Any]


def _entry(name: str, found: Statistics, msg: str = "") -> Entry:
    return {"name": name, **found.as_dict(), "msg": msg}


def measure(
    command: t.Sequence[str], nodes: t.Sequence[t.Mapping[str, str]], interval: float, count: int
) -> t.List[Entry]:
    """Ping all nodes at the same time.

    :param command: the program ``ping``, and what stands before its options.
    :param nodes: ``name`` and ``address`` of each.
    :param interval: seconds from packet to packet.
    :param count: packets for each node.
    :return: an entry for each node, in their order.
    :raises OSError: when the program cannot be run.
    """
    options = ["-n", "-q", "-c", str(count), "-i", f"{interval:g}"]
    environment = dict(os.environ, LC_ALL="C")
    end = time.monotonic() + count * interval + _PATIENCE
    running = [
        (
            node["name"],
            subprocess.Popen(
                [*command, *options, node["address"]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                universal_newlines=True,
            ),
        )
        for node in nodes
    ]
    entries = []
    for name, process in running:
        try:
            text, _none = process.communicate(timeout=max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            try:
                text, _none = process.communicate(timeout=_STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                text, _none = process.communicate()
        try:
            entries.append(_entry(name, parse(text)))
        except PingError as error:
            entries.append(_entry(name, Statistics(), str(error)))
    return entries


def start(
    command: t.Sequence[str], nodes: t.Sequence[t.Mapping[str, str]], interval: float, limit: int
) -> str:
    """Begin to ping all nodes, as :func:`measure` does; after ``limit`` seconds the pings end by themselves.

    :return: the folder in which they are looked after, for :func:`stop`.
    :raises OSError: when the program cannot be run; no ping goes on then.
    """
    # Not -w: with it, ping ends when it hears that a node cannot be reached, which a booting one cannot.
    most = str(max(1, int(limit / interval)))
    options = ["-D", "-O", "-n", "-i", f"{interval:g}", "-c", most]
    folder = tempfile.mkdtemp(prefix="orbit-ping-")
    # Every ping holds this lock, so that it tells whether any of them is left.
    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    pids = {}
    try:
        for number, node in enumerate(nodes):
            with open(os.path.join(folder, str(number)), "wb") as output:
                process = subprocess.Popen(
                    [*command, *options, node["address"]],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(os.environ, LC_ALL="C"),
                    start_new_session=True,
                    pass_fds=(lock,),
                )
            pids[node["name"]] = process.pid
        with open(os.path.join(folder, _STARTED), "w", encoding="utf-8") as file:
            json.dump({"pids": pids, "interval": interval}, file)
    except BaseException:
        for pid in pids.values():
            os.killpg(pid, signal.SIGKILL)
        shutil.rmtree(folder)
        raise
    finally:
        os.close(lock)
    return folder


def stop(folder: str, windows: t.Mapping[str, t.Sequence[t.Any]]) -> t.List[Entry]:
    """End the pings of a folder and remove it.

    :param windows: of each node, the first and the last moment that count, in seconds since 1970.
    :return: an entry for each node, in their order.
    :raises PingError: when no pings were started in this folder.
    """
    try:
        with open(os.path.join(folder, _STARTED), encoding="utf-8") as file:
            started = json.load(file)
        lock = os.open(os.path.join(folder, "lock"), os.O_RDWR)
    except (OSError, ValueError) as error:
        raise PingError(f"folder: {folder} is none that state=started has returned: {error}") from None
    try:
        _end(lock, started["pids"].values())
    finally:
        os.close(lock)
    entries = []
    for number, name in enumerate(started["pids"]):
        with open(os.path.join(folder, str(number)), encoding="utf-8", errors="replace") as file:
            text = file.read()
        try:
            parse(text)
            problem = ""
        except PingError as error:
            problem = str(error)
        found = Statistics()
        if not problem and name in windows:
            began, ended = windows[name]
            found = within(text, float(began), float(ended), started["interval"])
        entries.append(_entry(name, found, problem or ("" if name in windows else "no window to sample")))
    shutil.rmtree(folder)
    return entries


def _end(lock: int, pids: t.Iterable[int]) -> None:
    """Let pings end, so that they print their summaries; those that do not are killed."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if _is_free(lock):
            return
        for pid in pids:
            # The group: what stands before ping (nsenter, ssh) does not hand signals on.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
        end = time.monotonic() + _STOP_PATIENCE
        while not _is_free(lock) and time.monotonic() < end:
            time.sleep(0.02)


def _is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
