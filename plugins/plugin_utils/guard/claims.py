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

# A look at a claim locks it for an instant; claims that are refused are tried again for so many seconds.
_INSTANT = 0.3
_PAUSE = 0.02
# Descriptors left to the process beside its claims.
_SPARE_FILES = 64
_LARGEST = 4096
_LONGEST_NAME = 200
# Failures of open() that are not those of the one file: they would meet all claims.
_OF_ALL = (
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.ENOTDIR,
)
# What comes of reading a file into which anybody may have written anything.
_NONSENSE = (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError)


class ClaimError(Exception):
    """Claims cannot be made here; the text names the place and the remedy."""


class _Unreadable(Exception):
    """One file cannot be used as a claim; the text says why and what helps."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a claim, as the file says.

    :ivar run: identity of the run.
    :ivar user: login name.
    :ivar pid: process of ``ansible-playbook`` on this host.
    :ivar since: seconds since 1970.
    :ivar unreadable: why the claim cannot be read, when what is in its place is no file of a claim.
    """

    run: str = ""
    user: str = ""
    pid: int = 0
    since: float = 0.0
    unreadable: str = ""

    def __str__(self) -> str:
        if self.unreadable:
            return f"an unreadable claim: {self.unreadable}"
        if not self.run:
            return "a run that does not say who it is"
        try:
            moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        except (ValueError, OverflowError, OSError):
            # Anybody may have written it.
            moment = "an unknown time"
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


def stream_identity(url: str, domain: str, image: str) -> tuple[str, str, str]:
    """Return what makes a stream that stream: service, domain and image, each in one spelling.

    Two services may send images of one name, and one service may do so for two domains.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.lower()
        usual = {"http": ":80", "https": ":443"}.get(parts.scheme.lower(), ":")
        url = parts._replace(scheme=parts.scheme.lower(), netloc=host.removesuffix(usual)).geturl()
    except ValueError:
        # No URL at all is refused where it is used.
        pass
    return url.rstrip("/"), domain.lower(), image


def stream_path(folder: str, url: str, domain: str, image: str) -> str:
    """Return the file that the runs which use a stream share."""
    return os.path.join(folder, _file_name("stream", *stream_identity(url, domain, image)))


def streams_in(folder: str) -> list[dict[str, str]]:
    """Return the streams that runs of this host use: ``url``, ``domain`` and ``image`` of each.

    What cannot be read counts as used: to take a stream for unused would let it be cut.

    :raises ClaimError: when the folder cannot be read.
    """
    try:
        names = [name for name in os.listdir(folder) if name.startswith("stream,")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _no_use(folder, error) from error
    used = _holders([os.path.join(folder, name) for name in names], shared=True)
    found = []
    for path in used:
        parts = [urllib.parse.unquote(part) for part in os.path.basename(path).split(",")]
        if len(parts) == 4:
            found.append(dict(zip(("url", "domain", "image"), parts[1:], strict=True)))
        elif about := _about(path):
            found.append(about)
    return found


def _about(path: str) -> dict[str, str]:
    """Return which stream a file is of whose name is only a digest, when it says so rightly."""
    with contextlib.suppress(
        _Unreadable, ClaimError, OSError, ValueError, TypeError, KeyError, RecursionError
    ):
        descriptor = _open(path, create=False)
        if descriptor is not None:
            try:
                said = json.loads(os.pread(descriptor, _LARGEST, 0))["stream"]
            finally:
                os.close(descriptor)
            about = {key: str(said[key]) for key in ("url", "domain", "image")}
            if stream_path(os.path.dirname(path), **about) == path:
                return about
    return {}


def _file_name(*parts: str) -> str:
    # A comma is never left by the quoting, so different parts make different names.
    name = ",".join(urllib.parse.quote(part, safe="") for part in parts)
    if len(name) > _LONGEST_NAME:
        name = f"{parts[0]},{hashlib.sha256(name.encode()).hexdigest()}"
    return name


def make_folder(folder: str) -> None:
    """Make the folder of the claims for all users, if it is not there, and see that claims are safe in it.

    :raises ClaimError: when it cannot be made, written or trusted.
    """
    folder = folder.rstrip("/") or "/"
    try:
        os.mkdir(folder)
        os.chmod(folder, 0o1777)
    except FileExistsError:
        pass
    except OSError as error:
        raise _no_use(folder, error) from error
    try:
        status = os.lstat(folder)
    except OSError as error:
        raise _no_use(folder, error) from error
    if stat.S_ISLNK(status.st_mode):
        raise ClaimError(
            f"{folder} is a symbolic link, and who turns it elsewhere would free all claims. "
            f"Set orbit_claim_dir to the folder itself ({os.path.realpath(folder)})."
        )
    if not stat.S_ISDIR(status.st_mode):
        raise ClaimError(f"{folder} is no folder, so no node can be claimed there. Set orbit_claim_dir.")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise ClaimError(
            f"{folder} can be written by other users who could remove claims there. "
            f"Say chmod +t {folder}, or set orbit_claim_dir to another folder."
        )
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=effective):
        raise ClaimError(
            f"{folder} cannot be written, so no node can be claimed there. "
            f"Have its owner say chmod 1777 {folder}, or set orbit_claim_dir to a folder that all who image "
            "nodes share."
        )


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
    :raises ClaimError: when the folder cannot be used, or its file system cannot lock.
    """
    return _holders([path], shared=shared).get(path)


def holders(nodes: t.Mapping[str, str]) -> dict[str, Holder]:
    """Return those of ``nodes`` (path to name) that are claimed, by name, with their holders.

    :raises ClaimError: when the folder cannot be used, or its file system cannot lock.
    """
    return {nodes[path]: holder for path, holder in _holders(nodes).items()}


def _holders(paths: t.Iterable[str], *, shared: bool = False) -> dict[str, Holder]:
    """Return who holds which of ``paths``.

    A holder that has just locked a file may not have written yet who it is. All such files are waited for
    together, or many with nonsense in them would add up to minutes.
    """
    found: dict[str, Holder] = {}
    open_questions = list(paths)
    deadline = time.monotonic() + _INSTANT
    while True:
        silent = []
        for path in open_questions:
            holder = _look(path, shared)
            if holder is None:
                found.pop(path, None)
                continue
            found[path] = holder
            if holder == Holder():
                silent.append(path)
        if not silent or time.monotonic() >= deadline:
            return found
        open_questions = silent
        time.sleep(_PAUSE)


def _look(path: str, shared: bool) -> Holder | None:
    try:
        descriptor = _open(path, create=False)
        if descriptor is None:
            return None
        try:
            if _flock(descriptor, fcntl.LOCK_EX if shared else fcntl.LOCK_SH, path):
                return None
            return _read(descriptor)
        finally:
            os.close(descriptor)
    except _Unreadable as reason:
        return Holder(unreadable=str(reason))


class Claims:
    """The claims of this process; they end with :meth:`release` or with the process."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._held: dict[str, int] = {}
        # Names of the claimed nodes by path; the other paths that are held are streams.
        self._names: dict[str, str] = {}
        self._lost: dict[str, None] = {}
        self._about: dict[str, dict[str, str]] = {}
        # Shared claims whose file was gone for a time: who else uses the stream is not known any more.
        self._unsure: set[str] = set()

    def take(self, nodes: t.Mapping[str, str]) -> None:
        """Claim all nodes (path to name) or none.

        Files are locked in the order of their paths, without waiting, and the first that is refused ends the
        attempt. So two runs never wait for each other, and of two that overlap one gets all it wants.

        :raises Overlap: naming all nodes that are claimed by others.
        :raises ClaimError: when no file can be used there.
        """
        allow_files(len(nodes))
        for path in sorted(nodes):
            try:
                refused = self._refusal(path, time.monotonic() + _INSTANT)
            except ClaimError:
                self.release()
                raise
            if refused is not None:
                mine = set(self._held)
                self.release()
                others = {p: name for p, name in nodes.items() if p not in mine and p != path}
                raise Overlap({nodes[path]: refused, **holders(others)})
            self._names[path] = nodes[path]

    def take_free(self, nodes: t.Mapping[str, str]) -> dict[str, Holder]:
        """Claim those of ``nodes`` that are free; return the others, by name, with their holders.

        :raises ClaimError: when no file can be used there.
        """
        allow_files(len(nodes))
        refused: dict[str, Holder] = {}
        # All that are refused are tried again together: each may only have been looked at.
        end = time.monotonic() + _INSTANT
        waiting = sorted(nodes)
        while waiting:
            for path in waiting:
                holder = self._refusal(path, 0.0)
                if holder is None:
                    self._names[path] = nodes[path]
                    refused.pop(path, None)
                else:
                    refused[path] = holder
            waiting = [path for path, holder in refused.items() if not holder.unreadable]
            if not waiting or time.monotonic() >= end:
                break
            time.sleep(_PAUSE)
        return {nodes[path]: holder for path, holder in refused.items()}

    def share(self, path: str, **about: str) -> None:
        """Say that this run uses a stream; others may say so too.

        :param about: ``url``, ``domain`` and ``image`` of the stream; a long name is not in that of the file.
        :raises ClaimError: when that cannot be said.
        """
        if path in self._held:
            return
        self._about[path] = about
        try:
            shared = self._lock(path, fcntl.LOCK_SH, time.monotonic() + _INSTANT)
        except _Unreadable as reason:
            raise ClaimError(f"the use of a stream cannot be claimed: {reason}") from reason
        if not shared:
            raise ClaimError(
                f"{path} is locked by a process that does not share it. Ask who does so: lslocks."
            )

    def alone(self, path: str) -> bool:
        """Whether no other run of this host uses the shared claim ``path``; false when that is not known."""
        descriptor = self._held.get(path)
        if descriptor is None or path in self._unsure or not _is_at(descriptor, path):
            return False
        alone = _flock(descriptor, fcntl.LOCK_EX, path)
        # To change a lock is to give it up first, also when the change is refused. Not to wait for ever
        # for somebody who locked the file in between, it is asked for a moment.
        deadline = time.monotonic() + _INSTANT
        while not _flock(descriptor, fcntl.LOCK_SH, path):
            if time.monotonic() >= deadline:
                self._unsure.add(path)
                return False
            time.sleep(_PAUSE)
        return alone

    def look_after(self) -> list[str]:
        """See that the claims are still in the folder, where others look for them; mend what is not.

        A file that was removed leaves its lock without effect: another run may have locked a new file. It is
        claimed anew if it is free, but the node stays among the lost.

        :return: names of the nodes whose claim was lost at some time.
        """
        for path in [*self._names, *(held for held in self._held if held not in self._names)]:
            descriptor = self._held.get(path)
            if descriptor is not None and _is_at(descriptor, path):
                continue
            name = self._names.get(path)
            if name is None:
                self._unsure.add(path)
            else:
                self._lost[name] = None
            kind = fcntl.LOCK_SH if name is None else fcntl.LOCK_EX
            if descriptor is not None:
                os.close(self._held.pop(path))
            with contextlib.suppress(_Unreadable, ClaimError):
                make_folder(os.path.dirname(path))
                self._lock(path, kind, 0.0)
        return list(self._lost)

    def taken_by_others(self) -> dict[str, Holder]:
        """Return the nodes, by name, whose claim was lost and is not ours again, with who has it now."""
        gone = {path: name for path, name in self._names.items() if path not in self._held}
        try:
            now = holders(gone)
        except ClaimError as error:
            now = dict.fromkeys(gone.values(), Holder(unreadable=str(error)))
        return {name: now.get(name, Holder()) for name in gone.values()}

    def release(self) -> None:
        """Give all claims back."""
        for path, descriptor in self._held.items():
            # Only so that a person who looks into the file is not misled; the lock is what counts.
            if path in self._names:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, 0)
            os.close(descriptor)
        self._held.clear()
        self._names.clear()

    def _refusal(self, path: str, deadline: float) -> Holder | None:
        """Claim a node's file, or return who has it."""
        try:
            if self._lock(path, fcntl.LOCK_EX, deadline):
                return None
        except _Unreadable as reason:
            return Holder(unreadable=str(reason))
        # Who has let go of it since then was no run, but somebody who looked.
        return _look(path, False) or Holder()

    def _lock(self, path: str, kind: int, deadline: float) -> bool:
        """Lock a file, trying until ``deadline`` (monotonic seconds), once at least."""
        while True:
            descriptor = t.cast(int, _open(path, create=True))
            try:
                locked = _flock(descriptor, kind, path) and _is_at(descriptor, path)
            except BaseException:
                os.close(descriptor)
                raise
            if locked:
                break
            # Somebody has it, or tidied the folder up between opening and locking.
            os.close(descriptor)
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE)
        self._held[path] = descriptor
        said = {key: getattr(self._holder, key) for key in ("run", "user", "pid", "since")}
        text = json.dumps({**said, "stream": self._about.get(path)}).encode()
        with contextlib.suppress(OSError):
            os.pwrite(descriptor, text, 0)
            os.ftruncate(descriptor, len(text))
        return True


def _open(path: str, *, create: bool) -> int | None:
    """Open the file of a claim, which any user of the host may have made.

    Without O_CREAT where it is there: kernels with ``fs.protected_regular`` refuse that flag for another
    user's file in a folder for all. It is opened for writing, as NFS locks nothing else exclusively.

    :return: None when it is not there and is not to be made.
    :raises _Unreadable: when this file cannot be used.
    :raises ClaimError: when no file can be used there.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    deadline = time.monotonic() + _INSTANT
    while time.monotonic() < deadline:
        try:
            # To open a device may set it to work, so this is asked before.
            _check_kind(path, os.lstat(path))
        except FileNotFoundError:
            if not create:
                return None
            try:
                return _make(path, flags)
            except FileExistsError:
                continue
            except OSError as error:
                raise _no_use(path, error) from error
        except OSError as error:
            raise _no_use(path, error) from error
        try:
            descriptor = _open_there(path, flags, create)
        except FileNotFoundError:
            continue
        try:
            _check_kind(path, os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
    raise _Unreadable(f"{path} comes and goes. Find out who removes it.")


def _make(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        # For all users, whatever the umask.
        os.fchmod(descriptor, 0o666)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_there(path: str, flags: int, for_writing: bool) -> int:
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        if not for_writing and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            # Who only looks can do with less, where the file system lets him.
            with contextlib.suppress(OSError):
                return os.open(path, flags & ~os.O_RDWR | os.O_RDONLY)
        if error.errno in _OF_ALL:
            raise _no_use(path, error) from error
        raise _Unreadable(f"{path}: {_reason(error)}. Have its owner or root remove it.") from error


def _check_kind(path: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _Unreadable(f"{path} is a symbolic link. Have its owner or root remove it.")
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise _Unreadable(f"{path} is not a file of its own. Have its owner or root remove it.")


def _flock(descriptor: int, kind: int, path: str) -> bool:
    """Lock without waiting; return whether that was possible.

    :raises _Unreadable: when this file cannot be locked.
    :raises ClaimError: when the file system cannot lock.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.EBADF:
            # NFS, for a file that may only be read.
            raise _Unreadable(f"{path} may only be read. Have its owner or root remove it.") from error
        raise ClaimError(
            f"{path} cannot be locked: {_reason(error)}. Claims are locks: set orbit_claim_dir to a folder "
            "on a file system that has them, at best on a disk of this host."
        ) from error
    return True


def _is_at(descriptor: int, path: str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _read(descriptor: int) -> Holder:
    """Read who holds a claim. Anybody may have written into the file, and the holder may be about to."""
    try:
        said = json.loads(os.pread(descriptor, _LARGEST, 0))
        return Holder(_clean(said["run"]), _clean(said["user"]), int(said["pid"]), float(said["since"]))
    except _NONSENSE:
        return Holder()


def _clean(text: t.Any) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(text))[:80]


def _reason(error: OSError) -> str:
    return "it is a symbolic link" if error.errno == errno.ELOOP else (error.strerror or str(error))


def _no_use(path: str, error: OSError) -> ClaimError:
    return ClaimError(
        f"{path} cannot be used to claim nodes: {_reason(error)}. "
        "Correct its permissions, or set orbit_claim_dir to a folder that all who image nodes share."
    )
