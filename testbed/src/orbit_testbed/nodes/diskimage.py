# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the disk images of all kinds of nodes have in common: size, identity, tools, and their manifest."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orbit_frisbee.ndz import manifest
from orbit_frisbee.whole import drafted, replace_file
from orbit_testbed.nodes.errors import TestbedError

SECTOR = 512
#: Sectors of every disk that an image is made from: 64 MiB.
DISK_SECTORS = 64 * 2048
#: Time stamp of everything inside an image (seconds): the same input makes the same bytes.
EPOCH = 1_136_073_600
#: Name space of the images' identifiers.
IDENTITIES = uuid.UUID("6f726269-742e-696d-6167-696e67000000")


@dataclass(frozen=True)
class Recipe:
    """An image: its file name, and how much incompressible data (bytes) it carries besides the system."""

    name: str
    ballast: int


def run_tool(what: str, command: Sequence[str], text: str | None = None, **variables: str) -> None:
    """Run a program that makes part of an image, at the images' time; ``variables`` join its environment."""
    environment = {
        **os.environ,
        "E2FSPROGS_FAKE_TIME": str(EPOCH),
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "LC_ALL": "C",
        **variables,
    }
    result = subprocess.run(
        command, input=text or "", capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    if result.returncode != 0:
        raise TestbedError(f"{what} failed: {(result.stderr or result.stdout).strip()}")


def copy_unless_same(source: Path, target: Path, identity: str) -> None:
    """Bring ``target`` to the content of ``source`` unless size and time say that it has it.

    Its manifest, with the identity of the system in it, is brought up to date likewise.
    """
    wanted = source.stat()
    there = target.stat() if target.is_file() else None
    if there is None or (there.st_size, there.st_mtime_ns) != (wanted.st_size, wanted.st_mtime_ns):
        with drafted(target) as draft:
            shutil.copy2(source, draft)
    if not _has_manifest(target, identity):
        replace_file(manifest.path_of(target), manifest.of_image(target, identity).encode())


def _has_manifest(image: Path, identity: str) -> bool:
    try:
        known = manifest.read(manifest.path_of(image))
    except manifest.ManifestError:
        return False
    there = image.stat()
    return (known.size, known.mtime_ns, known.identity) == (there.st_size, there.st_mtime_ns, identity)
