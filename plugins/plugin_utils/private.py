# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders and files for their owner alone, whatever the umask: what nodes and services said is in them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile

_FOLDER = 0o700
_FILE = 0o600


def make_folder(path: str) -> None:
    """Make a folder for this user alone, and the folders above it that are missing.

    One that is there already is closed to others; those above it are left as they are.

    :raises OSError: when it cannot be made, is no folder or a link to one, or belongs to another user.
    """
    path = os.path.abspath(path)
    missing = []
    above = path
    while not os.path.lexists(above):
        missing.append(above)
        above = os.path.dirname(above)
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, _FOLDER)
            # A umask may have taken rights from the owner himself.
            os.chmod(folder, _FOLDER)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NotADirectoryError as error:
        # Also said of a symbolic link, which somebody else could turn elsewhere.
        raise NotADirectoryError(errno.ENOTDIR, "it is no folder, or a link to one", path) from error
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, f"it belongs to another user ({status.st_uid})", path)
        if stat.S_IMODE(status.st_mode) != _FOLDER:
            os.fchmod(descriptor, _FOLDER)
    finally:
        os.close(descriptor)


def open_to_append(path: str) -> int:
    """Open a file for this user alone, to write at its end; return the descriptor.

    :raises OSError: when it cannot be opened, or is a symbolic link.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, _FILE)
    try:
        os.fchmod(descriptor, _FILE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write(path: str, data: bytes) -> None:
    """Write a file for this user alone, whole or not at all; its folder must be there.

    :raises OSError: when it cannot be written; what was there before is then still there.
    """
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, _FILE)
            stream.write(data)
        os.replace(temporary, path)
    except BaseException:
        # Not to fill a full disk further.
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
