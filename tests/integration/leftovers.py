# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is of runs on a testbed, and what the guard of the last one has said."""

from __future__ import annotations

import pathlib
import time

#: Seconds that what a run that has died may leave behind is waited for; on idle cores it goes within two.
SOON = 120.0


def claimed(testbed):
    """Files of claims that are locked."""
    from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims

    folder = testbed.folder / "claims"
    return sorted(path.name for path in folder.iterdir() if claims.holder_of(str(path), shared=True))


def guards():
    """Processes of run guards."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(b"/guard_main.py") for word in words):
            found.append((path.parent.name, words))
    return found


def guards_of(testbed):
    """Guards of the runs on this testbed; others may be at work on this host."""
    runs = {path.name.encode() for path in (testbed.folder / "runs").iterdir()}
    return [pid for pid, words in guards() if runs & set(words)]


def left(testbed):
    """Whatever there is of runs."""
    state = testbed.state()
    return [*testbed.links(), *state["links"], *state["streams"], *claimed(testbed), *guards_of(testbed)]


def left_soon(look, seconds=SOON):
    """Return what ``look`` still finds after some seconds, or as soon as it finds nothing."""
    end = time.monotonic() + seconds
    while True:
        # A look takes seconds on a busy machine: the last one must begin after the end.
        last = time.monotonic() >= end
        there = look()
        if not there or last:
            return there
        time.sleep(0.1)


def all_gone_soon(testbed, seconds=SOON):
    """Wait until nothing is left of runs."""
    there = left_soon(lambda: left(testbed), seconds)
    assert there == [], there


def newest_run(testbed):
    """The folder of the run that began last."""
    return max((testbed.folder / "runs").iterdir(), key=lambda path: path.stat().st_mtime)


def last_log(testbed):
    """What the guard of that run has said."""
    return (newest_run(testbed) / "guard.log").read_text()
