# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file an image is: a name may stand for another one tomorrow."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orbit_frisbee.ndz.manifest import path_of

#: Bytes of a manifest's first line; it has a handful of numbers.
_HEAD = 65536


@dataclass(frozen=True)
class Identity:
    """One content of an image file.

    ``device`` and ``inode`` tell the file, ``size`` (bytes) and ``mtime_ns`` (nanoseconds of the epoch) its
    state, ``digest`` the content (SHA-256, hex) where a manifest made for this state says it.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    digest: str | None = None

    @classmethod
    def of(cls, path: Path) -> Identity:
        """Look at a file. Raises :class:`OSError`."""
        state = os.stat(path)
        return cls(
            state.st_dev,
            state.st_ino,
            state.st_size,
            state.st_mtime_ns,
            _digest(path_of(path), state.st_size, state.st_mtime_ns),
        )

    @classmethod
    def load(cls, saved: object) -> Identity | None:
        """Return what :meth:`export` gave, None when this is nothing of the kind."""
        if not isinstance(saved, dict):
            return None
        numbers = [saved.get(name) for name in ("device", "inode", "size", "mtime_ns")]
        digest = saved.get("digest")
        if not all(type(number) is int for number in numbers) or not isinstance(digest, str | None):
            return None
        return cls(saved["device"], saved["inode"], saved["size"], saved["mtime_ns"], digest)

    def export(self) -> dict[str, Any]:
        """Return plain data for :meth:`load`."""
        return asdict(self)

    def same_content(self, other: Identity) -> bool:
        """Return whether both are surely the same bytes: of equal digest, or the very file, unchanged."""
        if self.digest is not None and other.digest is not None:
            return (self.digest, self.size) == (other.digest, other.size)
        return self._state == other._state

    def changed_into(self, other: Identity) -> bool:
        """Return whether the very file was written again, so that who has it open reads other bytes."""
        return self._state[:2] == other._state[:2] and not self.same_content(other)

    @property
    def _state(self) -> tuple[int, int, int, int]:
        return self.device, self.inode, self.size, self.mtime_ns


def _digest(manifest: Path, size: int, mtime_ns: int) -> str | None:
    """Return the digest that a manifest has for an image of that size and time."""
    try:
        with manifest.open("rb") as file:
            head = json.loads(file.readline(_HEAD))
    except (OSError, ValueError):
        return None
    if not isinstance(head, dict) or (head.get("size"), head.get("mtime_ns")) != (size, mtime_ns):
        return None
    digest = head.get("digest")
    return digest if isinstance(digest, str) else None
