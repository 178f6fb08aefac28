# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs below tools/ as processes of a test's own, and what there is of them afterwards."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Every process below a test's command inherits this variable.
_MARK = "ORBIT_TEST_MARK"


class Marked:
    """A command that reads nothing and prints into a pipe; all it starts can be found."""

    def __init__(self, *command: str | pathlib.Path, **environment: str) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment, _MARK: self.mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""

    def wait_for(self, words: str) -> None:
        """Read until a line has these words."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if words in line:
                return
        raise AssertionError(f"nothing heard of {words!r}:\n{self.output}")

    def finish(self) -> int:
        """Read to the end; return the exit status."""
        assert self.process.stdout is not None
        self.output += self.process.stdout.read()
        return self.process.wait()

    def insist(self) -> int:
        """Interrupt it until it has ended; return the exit status."""
        while self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.3)
        return self.finish()

    def left(self) -> list[str]:
        """Return the command lines of all its processes that still run."""
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if f"{_MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                    found.append(
                        (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
            except OSError:
                continue
        return found

    def __enter__(self) -> Marked:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def supervised(*command: str, options: tuple[str, ...] = ()) -> Marked:
    """Start a command below tools/supervise.py."""
    return Marked(sys.executable, ROOT / "tools" / "supervise.py", *options, *command)
