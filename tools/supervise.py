# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command and leave nothing of it: ``python tools/supervise.py [OPTION...] COMMAND [ARGUMENT...]``.

A test starts processes that leave its process group on purpose: testbeds, guards of runs, nodes in
namespaces of their own. The kernel gives each of them to this program when its parent has ended (it is their
*subreaper*), so all of them are found as its descendants, whatever session or namespace they are in.

SIGINT, SIGTERM and SIGHUP end the command as Ctrl-C would; what is left some seconds later is asked to end by
SIGTERM, parents before their children so that a testbed goes down by itself, and then killed. A second signal
goes on to the next of these steps at once. The death of who started this counts as a signal.

A command is given up when it makes no progress: no output, and next to no processor time of all its
processes. How long it takes is no matter.

Exit status: the command's (128 and the signal's number when a signal ended it); 130 when interrupted;
``GIVEN_UP``; ``LEFT_BEHIND`` when it ended well but processes of it ran on, which were then ended.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import pathlib
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator

#: Exit statuses that no program here uses.
GIVEN_UP = 241
LEFT_BEHIND = 242

#: Seconds for each way to end a command before the next one: together well below the 20 that a user waits.
INTERRUPT, TERMINATE, KILL = 7.0, 6.0, 3.0
#: Seconds in which what a command has started may end after it.
LEAVE = 5.0
#: Seconds between two looks at processes and at progress.
LOOK, TICK = 0.1, 2.0
#: The share of one processor that is no progress: an idle testbed takes less, anything that works takes more.
IDLE_SHARE = 0.01

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_TICKS = os.sysconf("SC_CLK_TCK")


class Progress:
    """Says when a command has made none for ``patience`` seconds."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._since = clock()
        self._spent = 0.0

    def output(self) -> None:
        """Take note of output."""
        self._since = self._clock()

    def over(self, spent: float) -> bool:
        """Tell whether patience is over; ``spent`` is the processor time so far, in seconds."""
        now = self._clock()
        # Less than before is progress too: a process whose time nobody has counted has ended.
        if abs(spent - self._spent) > IDLE_SHARE * self._patience:
            self._spent, self._since = spent, now
        return now - self._since >= self._patience


class Supervisor:
    """The command, what it has started, and what they print."""

    def __init__(self, command: list[str], sinks: Iterable[int], patience: float | None) -> None:
        self._sinks = list(sinks)
        self._progress = None if patience is None else Progress(patience)
        self._signals = 0
        self._status: int | None = None
        self._wake, wake = os.pipe()
        for end in (self._wake, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._take)
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert child.stdout is not None
        self._child = child
        self._pipe: int | None = child.stdout.fileno()
        os.set_blocking(self._pipe, False)

    def run(self) -> int:
        """Follow the command to its end; return the exit status."""
        while not self._pump(lambda: self._status is not None or self._signals > 0, TICK):
            if self._progress is not None and self._progress.over(spent()):
                self._say("no output and no processor time used any more: given up; what there is of it:")
                self._list()
                self._end()
                return GIVEN_UP
        if self._status is None:
            self._end()
            return 128 + signal.SIGINT
        if not self._pump(self._alone, LEAVE):
            self._say("it has ended but left this running:")
            self._list()
            self._end()
            return self._status or LEFT_BEHIND
        return 128 + signal.SIGINT if self._signals else self._status

    def _end(self) -> None:
        """End all there is, in steps."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGINT)
            # Once the command has ended, nobody who got the signal is left to clean up.
            self._step(INTERRUPT, lambda: self._status is not None)
        asked: set[int] = set()
        self._step(TERMINATE, self._alone, lambda: send(signal.SIGTERM, children(), asked))
        self._step(KILL, self._alone, lambda: send(signal.SIGKILL, descendants()), last=True)
        if not self._alone():
            self._say("cannot be killed:")
            self._list()

    def _step(
        self,
        seconds: float,
        done: Callable[[], bool],
        act: Callable[[], None] = lambda: None,
        *,
        last: bool = False,
    ) -> None:
        """Repeat ``act`` until ``done``, some seconds are over, or the next signal asks for the next step."""
        signals, until = self._signals, time.monotonic() + seconds
        while not done() and time.monotonic() < until and (last or self._signals == signals):
            act()
            self._pump(done, LOOK)

    def _pump(self, done: Callable[[], bool], seconds: float) -> bool:
        """Pass output on and take in what has ended, until ``done`` (true) or some seconds are over."""
        until = time.monotonic() + seconds
        while True:
            self._reap()
            if done():
                self._drain()
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            waited = [self._wake] if self._pipe is None else [self._wake, self._pipe]
            ready = select.select(waited, [], [], min(left, TICK))[0]
            if self._wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
            self._drain()

    def _drain(self) -> None:
        """Pass on what has been printed so far; daemons may keep the pipe open for longer than that."""
        while self._pipe is not None:
            try:
                data = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                self._pipe = None
                return
            if self._progress is not None:
                self._progress.output()
            self._write(data)

    def _write(self, data: bytes) -> None:
        for sink in list(self._sinks):
            rest = data
            try:
                while rest:
                    rest = rest[os.write(sink, rest) :]
            except BrokenPipeError:
                # Who looked on has gone; the command need not end for that.
                self._sinks.remove(sink)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._child.pid:
                    code = os.waitstatus_to_exitcode(status)
                    self._status = self._child.returncode = code if code >= 0 else 128 - code

    def _alone(self) -> bool:
        return not children()

    def _take(self, _number: int, _frame: object) -> None:
        self._signals += 1

    def _say(self, text: str) -> None:
        self._write(f"supervise: {text}\n".encode())

    def _list(self) -> None:
        for pid in descendants():
            with contextlib.suppress(OSError):
                line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                self._write(b"    %d %s\n" % (pid, line[:200]))


def _processes() -> Iterator[tuple[int, int, float]]:
    """Yield process, parent and processor seconds (with those of ended children) of all that there are."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = pathlib.Path(entry.path, "stat").read_text(errors="replace")
                # The name in brackets may hold anything, also brackets and blanks.
                fields = stat[stat.rindex(")") + 2 :].split()
                yield int(entry.name), int(fields[1]), sum(map(int, fields[11:15])) / _TICKS


def _below(found: list[tuple[int, int, float]]) -> dict[int, float]:
    """Return our descendants among these processes, parents before their children, with their time."""
    seconds = {pid: used for pid, _parent, used in found}
    offspring: dict[int, list[int]] = {}
    for pid, parent, _used in found:
        offspring.setdefault(parent, []).append(pid)
    below: dict[int, float] = {}
    next_ones = offspring.get(os.getpid(), [])
    while next_ones:
        below.update((pid, seconds[pid]) for pid in next_ones)
        next_ones = [pid for parent in next_ones for pid in offspring.get(parent, []) if pid not in below]
    return below


def descendants() -> list[int]:
    """Return all processes below this one, parents before their children."""
    return list(_below(list(_processes())))


def children() -> list[int]:
    """Return the processes whose parent this one is, by birth or because theirs has ended."""
    return [pid for pid, parent, _used in _processes() if parent == os.getpid()]


def spent() -> float:
    """Return the processor seconds of all descendants, those that have ended included."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(_below(list(_processes())).values()) + ended.ru_utime + ended.ru_stime


def send(number: signal.Signals, processes: Iterable[int], asked: set[int] | None = None) -> None:
    """Send a signal to processes, but to those in ``asked``, which it adds to."""
    for pid in processes:
        if asked is None or pid not in asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            if asked is not None:
                asked.add(pid)


def adopt(parent: int) -> None:
    """Become the parent of orphans below, and end with the process that started this."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for option, value in ((_PR_SET_CHILD_SUBREAPER, 1), (_PR_SET_PDEATHSIG, signal.SIGTERM)):
        if prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")
    if parent and os.getppid() != parent:
        # It has ended before the kernel knew that we want to be told.
        sys.exit(128 + signal.SIGTERM)


def main(arguments: list[str]) -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(description="Run a command and leave nothing of it.")
    parser.add_argument("--log", type=pathlib.Path, help="append its output to this file")
    parser.add_argument("--quiet", action="store_true", help="do not show its output")
    parser.add_argument(
        "--patience", type=float, metavar="SECONDS", help="give it up after so long without progress"
    )
    parser.add_argument(
        "--parent", type=int, default=0, metavar="PID", help="end when this process has ended"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    if not options.command:
        parser.error("which command?")
    adopt(options.parent)
    sinks = [] if options.quiet else [1]
    if options.log is not None:
        sinks.append(os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))
    try:
        return Supervisor(options.command, sinks, options.patience).run()
    except OSError as error:
        print(f"supervise: {options.command[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
