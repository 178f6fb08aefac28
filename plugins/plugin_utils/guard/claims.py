# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who uses which node: locks on the control host that end with their holder.

A claim is an advisory lock (flock) on a file. The kernel drops it when its holder ends, however that happens;
what is written in the file only says who holds it. Files stay when they are not locked: to remove a file that
another process is about to lock would let two processes hold one claim.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import stat
import time
import typing as t
import urllib.parse

from ansible_collections.orbit.imaging.plugins.plugin_utils import limits

# A look at a claim locks it for an instant; a claim that is refused is tried again for so many seconds.
_INSTANT = 0.3
_PAUSE = 0.02
# Descriptors left to the process beside its claims.
_SPARE_FILES = 64
_LARGEST = 4096
_LONGEST_NAME = 200


class ClaimError(Exception):
    """Claims cannot be made here; the text names the place and the remedy."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a claim, as the file says.

    :ivar run: identity of the run.
    :ivar user: login name.
    :ivar pid: process of ``ansible-playbook`` on this host.
    :ivar since: seconds since 1970.
    """

    run: str = ""
    user: str = ""
    pid: int = 0
    since: float = 0.0

    def __str__(self) -> str:
        if not self.run:
            return "a run that does not say who it is"
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"run {self.run} of {self.user} (ansible-playbook, process {self.pid}) since {moment}"


class Overlap(Exception):
    """Nodes are claimed by others. ``held`` tells by whom, for each node."""

    def __init__(self, held: t.Mapping[str, Holder]) -> None:
        super().__init__(describe(held))
        self.held = dict(held)


def describe(held: t.Mapping[str, Holder]) -> str:
    """Return one sentence that names claimed nodes, their holders and since when."""
    by_holder: dict[Holder, list[str]] = {}
    for node, holder in held.items():
        by_holder.setdefault(holder, []).append(node)
    parts = []
    for holder, names in by_holder.items():
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        parts.append(f"{shown}: {holder}")
    return "; ".join(parts)


def node_path(folder: str, node: t.Mapping[str, t.Any]) -> str:
    """Return the file of a node (a record): the same whatever an inventory calls the host."""
    known = node.get("x") is not None and node.get("y") is not None
    name = f"{node['x']}-{node['y']}" if known else str(node["hrn"])
    return os.path.join(folder, _file_name("node", str(node["domain"]).lower(), name.lower()))


def stream_path(folder: str, url: str, domain: str, image: str) -> str:
    """Return the file that the runs which use a stream share."""
    return os.path.join(folder, _file_name("stream", url.rstrip("/"), domain.lower(), image))


def streams_in(folder: str) -> list[dict[str, str]]:
    """Return the streams that runs of this host use: ``url``, ``domain`` and ``image`` of each."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            parts = [urllib.parse.unquote(part) for part in name.split(",")]
            if len(parts) != 4 or parts[0] != "stream":
                continue
            if holder_of(os.path.join(folder, name), shared=True):
                found.append({"url": parts[1], "domain": parts[2], "image": parts[3]})
    return found


def _file_name(*parts: str) -> str:
    # A comma is never left by the quoting, so different parts make different names.
    name = ",".join(urllib.parse.quote(part, safe="") for part in parts)
    if len(name) > _LONGEST_NAME:
        name = f"{parts[0]},{hashlib.sha256(name.encode()).hexdigest()}"
    return name


def make_folder(folder: str) -> None:
    """Make the folder of the claims for all users, if it is not there.

    :raises ClaimError: when it is not there and cannot be made.
    """
    try:
        os.mkdir(folder)
        os.chmod(folder, 0o1777)
    except FileExistsError:
        pass
    except OSError as error:
        raise _no_use(folder, error) from error
    if os.path.islink(folder) or not os.path.isdir(folder):
        raise ClaimError(f"{folder} is no folder, so no node can be claimed there. Set orbit_claim_dir.")


def allow_files(number: int) -> None:
    """See that this process may hold ``number`` claims.

    :raises ClaimError: when the host's limit is too low.
    """
    try:
        limits.allow(number + _SPARE_FILES, f"{number} claims")
    except limits.LimitError as error:
        raise ClaimError(str(error)) from error


def holder_of(path: str, *, shared: bool = False) -> Holder | None:
    """Return who holds a claim, or None; nothing is claimed by asking.

    :param shared: whether the claim is one that several runs hold (a stream's).
    :raises ClaimError: when the file cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _no_use(path, error) from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if shared else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def holders(nodes: t.Mapping[str, str]) -> dict[str, Holder]:
    """Return those of ``nodes`` (path to name) that are claimed, by name, with their holders."""
    found = {name: holder_of(path) for path, name in nodes.items()}
    return {name: holder for name, holder in found.items() if holder is not None}


class Claims:
    """The claims of this process; they end with :meth:`release` or with the process."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._held: dict[str, int] = {}

    def take(self, nodes: t.Mapping[str, str]) -> None:
        """Claim all nodes (path to name) or none.

        Files are locked in the order of their paths, without waiting, and the first that is refused ends the
        attempt. So two runs never wait for each other, and of two that overlap one gets all it wants.

        :raises Overlap: naming all nodes that are claimed by others.
        :raises ClaimError: when a file cannot be used.
        """
        allow_files(len(nodes))
        for path in sorted(nodes):
            try:
                taken = self._lock(path, fcntl.LOCK_EX)
            except ClaimError:
                self.release()
                raise
            if not taken:
                first = {nodes[path]: holder_of(path) or Holder()}
                mine = {held: nodes[held] for held in self._held}
                self.release()
                others = {p: name for p, name in nodes.items() if p not in mine and p != path}
                raise Overlap({**first, **holders(others)})

    def take_free(self, nodes: t.Mapping[str, str]) -> dict[str, Holder]:
        """Claim those of ``nodes`` that are free; return the others, by name, with their holders."""
        allow_files(len(nodes))
        return {
            nodes[path]: holder_of(path) or Holder()
            for path in sorted(nodes)
            if not self._lock(path, fcntl.LOCK_EX)
        }

    def share(self, path: str) -> None:
        """Say that this run uses a stream; others may say so too."""
        if path not in self._held and not self._lock(path, fcntl.LOCK_SH):
            raise ClaimError(
                f"{path} is locked by a process that does not share it. Ask who does so: lslocks."
            )

    def alone(self, path: str) -> bool:
        """Whether no other run of this host uses the shared claim ``path``, which this process holds."""
        descriptor = self._held[path]
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return True

    def release(self) -> None:
        """Give all claims back."""
        for descriptor in self._held.values():
            # Only so that a person who looks into the file is not misled; the lock is what counts.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)
        self._held.clear()

    def _lock(self, path: str, kind: int) -> bool:
        deadline = time.monotonic() + _INSTANT
        while True:
            descriptor = _open(path)
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_PAUSE)
                continue
            if _is_at(descriptor, path):
                break
            # Somebody tidied the folder up between opening and locking.
            os.close(descriptor)
        self._held[path] = descriptor
        text = json.dumps(dataclasses.asdict(self._holder)).encode()
        with contextlib.suppress(OSError):
            os.pwrite(descriptor, text, 0)
            os.ftruncate(descriptor, len(text))
        return True


def _open(path: str) -> int:
    """Open the file of a claim, which any user of the host may have made.

    First without O_CREAT: kernels with ``fs.protected_regular`` refuse that flag for another user's file in a
    folder for all.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            try:
                descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
                os.fchmod(descriptor, 0o666)
            except FileExistsError:
                continue
            except OSError as error:
                raise _no_use(path, error) from error
        except OSError as error:
            raise _no_use(path, error) from error
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
            return descriptor
        os.close(descriptor)
        raise ClaimError(f"{path} is not a file of its own, so no node can be claimed there. Remove it.")


def _is_at(descriptor: int, path: str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _read(descriptor: int) -> Holder:
    """Read who holds a claim. Anybody may have written into the file, and the holder may be about to."""
    deadline = time.monotonic() + _INSTANT
    while True:
        try:
            said = json.loads(os.pread(descriptor, _LARGEST, 0))
            return Holder(_clean(said["run"]), _clean(said["user"]), int(said["pid"]), float(said["since"]))
        except (ValueError, TypeError, KeyError, OverflowError, OSError):
            if time.monotonic() >= deadline:
                return Holder()
        time.sleep(_PAUSE)


def _clean(text: t.Any) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(text))[:80]


def _no_use(path: str, error: OSError) -> ClaimError:
    reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
    return ClaimError(
        f"{path} cannot be used to claim nodes: {reason}. "
        "Correct its permissions, or set orbit_claim_dir to a folder that all who image nodes share."
    )
