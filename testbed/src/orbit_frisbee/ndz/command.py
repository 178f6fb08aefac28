# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the command line programs share: exit codes, messages, output files."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import stat
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn

from orbit_frisbee.ndz.format import NdzError


class Parser(argparse.ArgumentParser):
    """An argument parser that ends with status 1, as the originals do, instead of 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.format_usage()}{self.prog}: {message}\n")


def number(text: str) -> int:
    """Read a number that is not negative, decimal or 0x hexadecimal."""
    value = int(text, 0)
    if value < 0:
        raise ValueError
    return value


def run(program: str, work: Callable[[], int]) -> int:
    """Do the work of a program and return its exit status.

    Every failure ends as one line on the standard error and status 1; SIGTERM and SIGINT unwind, so that
    nothing half-done is left under its final name.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        return work()
    except NdzError as error:
        say(program, str(error))
    except KeyboardInterrupt:
        say(program, "interrupted")
    except BrokenPipeError:
        say(program, "nobody reads the output")
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        say(program, f"{name}{(error.strerror or str(error)).lower()}")
    finally:
        signal.signal(signal.SIGTERM, before)
    return 1


def say(program: str, text: str) -> None:
    """Print a message on the standard error."""
    print(f"{program}: {text}", file=sys.stderr, flush=True)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of ``data``, however little a call takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class NewFile:
    """A file that gets its name only when it is complete.

    Until then it has a name of its own next to it, ``<name>.<random>.partial``, that nobody can know before:
    two writers of one name do not meet, and the last to end gives the file. It is renamed on success
    (replacing what was there) and removed on failure. A device, pipe or socket of that name is written in
    place. ``fd`` is open for reading and writing (a pipe for writing alone).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._wanted = True
        try:
            mode = os.stat(name).st_mode
        except FileNotFoundError:
            mode = stat.S_IFREG
        if stat.S_ISDIR(mode):
            raise NdzError("a folder", name=name, remedy="name a file")
        self.in_place = not stat.S_ISREG(mode)
        if self.in_place:
            self.path = name
            self.fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC)
            return
        # A link stays a link: what it points to is replaced.
        folder, base = os.path.split(os.path.realpath(name))
        # A name has 255 bytes at most.
        start = os.fsdecode(os.fsencode(base)[:200])
        self.path = os.path.join(folder, f"{start}.{os.urandom(8).hex()}.partial")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.fd = os.open(self.path, flags, 0o666)
        except OSError as error:
            # The name that was asked for says more.
            raise NdzError((error.strerror or str(error)).lower(), name=name) from None

    def __enter__(self) -> NewFile:
        return self

    def drop(self) -> None:
        """Leave no file of that name in the end, nor the one that was there."""
        self._wanted = False

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.in_place:
                return
            if kind is None and not self._wanted:
                os.unlink(self.path)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.realpath(self.name))
            elif kind is None:
                os.fsync(self.fd)
                os.rename(self.path, os.path.realpath(self.name))
            else:
                os.unlink(self.path)
        finally:
            os.close(self.fd)
