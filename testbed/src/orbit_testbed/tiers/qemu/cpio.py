# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Initramfs archives (cpio, "newc"), written without root and always the same for the same input."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from orbit_testbed.nodes import host
from orbit_testbed.nodes.errors import TestbedError

_TRAILER = "TRAILER!!!"


def _entry(
    number: int, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0), links: int = 1
) -> bytes:
    """Return one entry: owner root, no time (Linux, Documentation/driver-api/early-userspace)."""
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def archive(root: Path, devices: Mapping[str, tuple[int, int]] | None = None) -> bytes:
    """Return an archive of all that is below ``root``, by name.

    ``devices`` are character devices (path -> major, minor) that need not exist anywhere. Files keep their
    permissions, not their owners and times.
    """
    entries: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode):
                mode, data = stat.S_IFLNK | 0o777, os.readlink(path).encode()
            elif stat.S_ISREG(found.st_mode):
                mode, data = found.st_mode, path.read_bytes()
            elif stat.S_ISDIR(found.st_mode):
                mode, data = found.st_mode, b""
            else:
                raise TestbedError(f"{path}: neither file, folder nor symbolic link")
            entries[path.relative_to(root).as_posix()] = (mode, data, (0, 0))
    for name, device in (devices or {}).items():
        entries[name] = (stat.S_IFCHR | 0o600, b"", device)
    parts = [
        _entry(number, name, mode, data, device, 2 if stat.S_ISDIR(mode) else 1)
        for number, (name, (mode, data, device)) in enumerate(sorted(entries.items()), 1)
    ]
    return b"".join(parts) + _entry(0, _TRAILER, 0)


def compress(data: bytes) -> bytes:
    """Return the archive packed with zstd where there is one (a tenth smaller), else with gzip."""
    zstd = shutil.which("zstd", path=host.search_path())
    if zstd is None:
        return gzip.compress(data, 9, mtime=0)
    result = subprocess.run(
        [zstd, "-q", "-12", "--single-thread", "-c"],
        input=data,
        capture_output=True,
        timeout=300,
        check=False,
    )
    if result.returncode != 0:
        raise TestbedError(f"zstd: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout
