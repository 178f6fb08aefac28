# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What images are made from: a disk, a partition or a file, read by position."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from typing import TYPE_CHECKING

from orbit_frisbee.ndz.format import SECTOR, NdzError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_BLKSSZGET = 0x1268


class NotUnderstood(Exception):
    """A table or file system is damaged, in use or of an unknown kind; the text is the reason."""


class NotThisKind(NotUnderstood):
    """Nothing there looks like the kind of file system that was looked for."""


class Source:
    """A readable run of sectors.

    ``sectors`` counts the last one also when the file ends inside it; ``tail`` is the number of bytes in
    that incomplete sector, else 0. ``unit`` is the size of the device's logical blocks, in which its
    partition table counts.
    """

    def __init__(self, fd: int, name: str, base: int, size: int, *, owner: bool = False) -> None:
        self._fd, self.name, self._base, self._owner = fd, name, base, owner
        self._size = size
        self.unit = SECTOR
        self.sectors = -(-size // SECTOR)
        self.tail = size % SECTOR

    @classmethod
    def open(cls, path: str | Path) -> Source:
        """Open a block device or regular file; raises :class:`NdzError`."""
        name = os.fspath(path)
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NdzError(
                (error.strerror or str(error)).lower(), name=name, remedy="name a readable disk or file"
            ) from None
        try:
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise NdzError("cannot be read by position", name=name, remedy="name a disk or file")
            source = cls(fd, name, 0, os.lseek(fd, 0, os.SEEK_END), owner=True)
            if stat.S_ISBLK(mode):
                (source.unit,) = struct.unpack("i", fcntl.ioctl(fd, _BLKSSZGET, bytes(4)))
            return source
        except BaseException:
            os.close(fd)
            raise

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from a byte offset; what lies behind the end of a last incomplete
        sector reads as zeros.

        Raises :class:`NotUnderstood` for a place that is not inside the source, as what is read there was
        pointed to by a table, and :class:`NdzError` on a read error or when the source ends before.
        """
        if offset < 0 or size < 0 or offset + size > self.sectors * SECTOR:
            raise NotUnderstood(
                f"it points to {size} bytes at byte {offset}, outside its {self.sectors * SECTOR}"
            )
        pieces, at, rest = [], offset, size
        while rest:
            try:
                piece = os.pread(self._fd, min(rest, max(0, self._size - at)), self._base + at)
            except OSError as error:
                raise NdzError(
                    f"cannot read sector {(self._base + at) // SECTOR}: {error.strerror}", name=self.name
                ) from None
            if not piece:
                if self.tail and at == self._size and at + rest <= self.sectors * SECTOR:
                    pieces.append(bytes(rest))
                    break
                raise NdzError(f"ends before byte {self._base + at + rest}", name=self.name)
            pieces.append(piece)
            at += len(piece)
            rest -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def part(self, start: int, sectors: int) -> Source:
        """Return the view of a run of sectors; it reads through this source and must not outlive it."""
        if start + sectors > self.sectors:
            raise NotUnderstood(f"it ends at sector {start + sectors}, the disk at {self.sectors}")
        size = min(sectors * SECTOR, self._size - start * SECTOR)
        return Source(self._fd, self.name, self._base + start * SECTOR, size)

    def close(self) -> None:
        """Close the file."""
        if self._owner:
            self._owner = False
            os.close(self._fd)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
