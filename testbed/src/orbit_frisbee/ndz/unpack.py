# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing chunks of an image to a disk.

Used by the frisbee client and by imageunzip; runs in a memory image, so the standard library must do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import threading
from typing import TYPE_CHECKING, Protocol

from orbit_frisbee.ndz import gpt, relocate
from orbit_frisbee.ndz.codec import Inflater, Workspace
from orbit_frisbee.ndz.flush import Behind
from orbit_frisbee.ndz.format import (
    INDEX_SIZE,
    MAX_SECTORS,
    RELOC_SHORT_SECTOR,
    SECTOR,
    Buffer,
    ChunkIndex,
    NdzError,
    Patch,
    Relocation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from orbit_frisbee.ndz.readback import Reader

FILE_VARIABLE = "ORBIT_TESTBED_DISK"
"""Environment variable that, set to 1, lets an existing regular file stand for a disk."""

HEAD_SECTORS = 64
"""Sectors at the start of a target that are written last of all. Among them is what a machine needs to boot
from it: MBR, GPT with 128 entries (in blocks of 512 or 4096 bytes), a partition's superblock."""

_BLKZEROOUT = 0x127F
_FILL_PIECE = 1 << 20
# A chunk that inflates to no more than this is inflated and checked in full before its first byte is
# written. Larger ones (long runs of zeros) are written in pieces of the second size.
_WHOLE_LIMIT = 32 << 20
_PIECE_SECTORS = (4 << 20) // SECTOR


class Digest(Protocol):
    """What hashlib makes."""

    def update(self, data: Buffer, /) -> None:
        """Take in more data."""


class Target:
    """A disk, a partition or a file that stands for one, opened for writing.

    Made by :meth:`open`. :meth:`write_chunk` may be called from several threads for different chunks, in
    any order.

    A half-written disk must not boot, neither what was there before nor what is to be there. So the first
    :data:`HEAD_SECTORS` are zeros on the disk before anything else is written, and get their data when all
    the rest is on the disk: by :meth:`finish`, or :meth:`close` after success. What the image leaves free
    of them is then as before.

    ``size`` is the number of bytes that may be written; ``bytes_covered`` and ``bytes_written`` are the A
    and B of the originals' ``Wrote A bytes (B actual)``: free ranges included, and bytes really put
    down (those filled with ``zero_free`` or ``pattern`` count as put down).
    """

    def __init__(
        self,
        fd: int,
        name: str,
        *,
        block_device: bool,
        base_sector: int,
        sectors: int,
        zero_free: bool,
        pattern: int | None,
        fresh: bool,
        whole: bool,
        warn: Callable[[str], None] | None,
    ) -> None:
        self._fd = fd
        self._behind = Behind(fd)
        self._fresh, self._whole = fresh, whole
        self._head: bytearray | None = None
        self._head_lock = threading.Lock()
        self._remade: list[Patch] = []
        self.name = name
        self._block_device = block_device
        self._base = base_sector
        self._sectors = sectors
        self._fill: bytes | None = None
        if pattern is not None:
            self._fill = struct.pack("<I", pattern) * (_FILL_PIECE // 4)
        elif zero_free:
            self._fill = bytes(_FILL_PIECE)
        self._zeros = pattern is None
        self._warn = warn
        self.warnings: list[str] = []
        self._lock = threading.Lock()
        self._workspaces: list[Workspace] = []
        self.bytes_covered = 0
        self.bytes_written = 0

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        allow_file: bool = False,
        base_sector: int = 0,
        limit_sectors: int | None = None,
        zero_free: bool = False,
        pattern: int | None = None,
        fresh: bool = False,
        warn: Callable[[str], None] | None = None,
    ) -> Target:
        """Open ``path`` without creating, truncating or extending it.

        A block device must be neither mounted (nor any of its partitions) nor otherwise in use. A regular
        file needs ``allow_file`` or ``ORBIT_TESTBED_DISK=1`` in the environment. The image's sector 0
        goes to sector ``base_sector`` of it, and nothing is written from ``limit_sectors`` on (counted
        from there; default: to the end). With ``zero_free`` free ranges are zeroed, with ``pattern`` (32 bit)
        filled; otherwise they are left. ``fresh``: the file is new and has no other name yet, so that nobody
        boots from it. ``warn`` is called for what is odd but no error; the same texts
        are collected in ``warnings``.

        Raises :class:`NdzError` naming the path, the reason and the remedy.
        """
        name = os.fspath(path)
        try:
            found = os.stat(name)
        except OSError as error:
            raise NdzError(_reason(error), name=name, remedy="name an existing disk") from None
        block_device = stat.S_ISBLK(found.st_mode)
        flags = os.O_RDWR | os.O_CLOEXEC
        if block_device:
            _refuse_mounted(name, found.st_rdev)
            flags |= os.O_EXCL  # refused by the kernel while anything else holds the device
        elif not stat.S_ISREG(found.st_mode):
            raise NdzError("neither a disk nor a file", name=name, remedy="name a disk")
        elif not allow_file and os.environ.get(FILE_VARIABLE) != "1":
            raise NdzError(
                "a regular file, not a disk",
                name=name,
                remedy=f"name a disk, or set {FILE_VARIABLE}=1 to write into the file",
            )
        try:
            fd = os.open(name, flags)
        except OSError as error:
            busy = error.errno == errno.EBUSY
            raise NdzError(
                "in use" if busy else _reason(error),
                name=name,
                remedy="unmount it first" if busy else "run as a user who may write to it",
            ) from None
        try:
            opened = os.fstat(fd)
            if (opened.st_mode, opened.st_rdev, opened.st_ino) != (
                found.st_mode,
                found.st_rdev,
                found.st_ino,
            ):
                raise NdzError("was replaced while it was opened", name=name, remedy="try again")
            if not block_device:
                # A file has no O_EXCL of its own; a lock keeps a second writer out.
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            total = os.lseek(fd, 0, os.SEEK_END) // SECTOR
            if not 0 <= base_sector < total:
                raise NdzError(f"sector {base_sector} is not inside its {total} sectors", name=name)
            sectors = total - base_sector
            if limit_sectors is not None:
                sectors = min(sectors, limit_sectors)
            return cls(
                fd,
                name,
                block_device=block_device,
                base_sector=base_sector,
                sectors=sectors,
                zero_free=zero_free,
                pattern=pattern,
                fresh=fresh,
                whole=not base_sector and limit_sectors is None,
                warn=warn,
            )
        except BlockingIOError:
            os.close(fd)
            raise NdzError("in use by another writer", name=name, remedy="let that one end first") from None
        except BaseException:
            os.close(fd)
            raise

    @property
    def size(self) -> int:
        """Number of bytes that may be written."""
        return self._sectors * SECTOR

    @property
    def begun(self) -> bool:
        """Whether anything was written."""
        return self._head is not None

    def check(self, index: ChunkIndex) -> None:
        """Raise :class:`NdzError` when a chunk cannot be written here, as far as its index tells."""
        end = index.regions[-1].end
        if end > self._sectors:
            raise NdzError(
                f"the image has data up to sector {end}, the target ends at {self._sectors}",
                name=self.name,
                chunk=index.number,
                remedy="use a larger disk or partition",
            )
        try:
            relocate.check(index.relocations, self._base)
        except NdzError as error:
            error.name, error.chunk = self.name, index.number
            raise

    def prepare(self) -> None:
        """Get ready what :meth:`write_chunk` needs for one thread more."""
        workspace = new_workspace()
        with self._lock:
            self._workspaces.append(workspace)

    def write_chunk(self, chunk: Buffer, index: ChunkIndex, digest: Digest | None = None) -> None:
        """Inflate a chunk, relocate and write its regions, and fill its free ranges if asked to.

        ``index`` is what :func:`~orbit_frisbee.ndz.format.parse_index` gave for ``chunk``; ``digest`` takes
        in what goes to the regions, in order. Nothing is written when the index does not fit the target,
        nor (unless the chunk inflates to more than 32 MiB) when its data is damaged. Raises
        :class:`NdzError`.
        """
        self.check(index)
        for text in oddities(index):
            self._say(f"{self.name}: {text}")
        written = 0
        with self._lock:
            # As many as there are threads that write, and the one used last first.
            workspace = self._workspaces.pop() if self._workspaces else new_workspace()
        for sector, piece in contents(
            chunk, index, name=self.name, base=self._base, size=self._sectors, workspace=workspace
        ):
            if digest is not None:
                digest.update(piece)
            self._write(piece, sector)
            written += len(piece)
        self._workspaces.append(workspace)
        self._finish_chunk(index, written)

    def keep_chunk(self, index: ChunkIndex) -> None:
        """Leave a chunk's regions, which are right already, and fill its free ranges if asked to.

        Of ``index`` the ranges are used, not the data. Raises :class:`NdzError`.
        """
        self._finish_chunk(index, 0)

    def _finish_chunk(self, index: ChunkIndex, written: int) -> None:
        if self._fill is not None:
            for start, count in index.free():
                written += self._fill_range(start, min(start + count, self._sectors))
        with self._lock:
            self.bytes_written += written
            self.bytes_covered += (index.after - index.first) * SECTOR

    def write_plain(self, data: Buffer, offset: int) -> None:
        """Write bytes as they are at a byte ``offset``, a multiple of 512. Raises :class:`NdzError`."""
        if offset % SECTOR or offset + len(data) > self.size:
            raise NdzError(f"{len(data)} bytes at {offset} do not lie in its {self.size}", name=self.name)
        self._write(data, offset // SECTOR)
        with self._lock:
            self.bytes_written += len(data)
            self.bytes_covered += len(data)

    def reader(self) -> Reader:
        """Return a reader of what is on the target; of a partition table made anew it gives the image's.

        Raises :class:`NdzError`.
        """
        # Imported here: few runs need it.
        from orbit_frisbee.ndz.readback import Reader

        return Reader(self._fd, self.name, self._base, self._sectors, self._remade)

    def spoiled(self) -> int | None:
        """Return the byte where a partition table made anew is not on the disk as made; None when all is.

        Raises :class:`NdzError` when it cannot be read.
        """
        from orbit_frisbee.ndz.readback import Reader

        for offset, there, _ in self._remade:
            found = bytearray()
            with Reader(self._fd, self.name, self._base, self._sectors) as reader:
                reader.feed([(offset, len(there))], found.extend)
            if found != there:
                return offset
        return None

    def cut(self, sectors: int) -> None:
        """Let the target end after so many sectors, once it is known how many it has."""
        self._sectors = min(self._sectors, sectors)

    def finish(self, say: Callable[[int], None] = lambda percent: None, *, table: bool = True) -> None:
        """Return when everything written has reached the disk, and the first sectors after all others.

        ``say`` is called with the percentage that is on the disk. With ``table``, a whole disk that now
        begins with a GPT gets the copy of it at its end. Raises :class:`NdzError`.
        """
        try:
            if table and self._whole:
                self._remake_table()
            self._behind.flush(say)
        except OSError as error:
            raise NdzError(f"cannot flush: {_reason(error)}", name=self.name) from None
        if self._head is not None:
            # There are zeros now. Where zeros belong, a file may keep its hole.
            self._put_where(self._head, self._head)
        self.sync()

    def sync(self) -> None:
        """Return when the disk has all that was given to it. Raises :class:`NdzError`."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise NdzError(f"cannot flush: {_reason(error)}", name=self.name) from None

    def _remake_table(self) -> None:
        """Make the copy of a GPT for this disk, and let the first one know where it is."""
        try:
            remade = gpt.remake(self._now, self.size, self.name)
        except OSError as error:
            raise NdzError(f"cannot be read back: {_reason(error)}", name=self.name) from None
        if remade is None:
            return
        for at, data in ((0, remade.start), (remade.at, remade.backup)):
            before = self._now(at, len(data))
            if before != data:
                self._remade.append(Patch(at, data, before))
                self._write(data, at // SECTOR)

    def _now(self, at: int, size: int) -> bytes:
        """Return what is, or will be, at a byte of the target."""
        data = b""
        if self._head is not None:
            data = bytes(self._head[at : at + size])
            at, size = at + len(data), size - len(data)
        while size and (piece := os.pread(self._fd, size, self._base * SECTOR + at)):
            data += piece
            at, size = at + len(piece), size - len(piece)
        return data

    def close(self, sync: bool = True) -> None:
        """Close the target, by default after :meth:`finish`. Raises :class:`NdzError`."""
        if self._fd < 0:
            return
        try:
            if sync:
                self.finish()
        finally:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _write(self, data: Buffer, sector: int) -> None:
        """Write all of ``data`` at a sector of the image; what belongs to the head is kept for the end."""
        head = self._head if self._head is not None else self._begin()
        view, at = memoryview(data), sector * SECTOR
        if at < len(head):
            kept = min(len(head) - at, len(view))
            head[at : at + kept] = view[:kept]
            view, at = view[kept:], at + kept
        if view:
            self._put(view, at)

    def _begin(self) -> bytearray:
        """Before the first write: keep the head, and see to it that the disk does not boot any more."""
        with self._head_lock:
            if self._head is None:
                size = min(HEAD_SECTORS, self._sectors) * SECTOR
                try:
                    head = bytearray(os.pread(self._fd, size, self._base * SECTOR))
                    there = bytes(head)
                except OSError:
                    # A bad sector: what is written there may mend it.
                    head, there = bytearray(size), b"\1" * size
                head.extend(bytes(size - len(head)))
                if not self._fresh:
                    self._put_where(there, bytes(size))
                    try:
                        os.fdatasync(self._fd)
                    except OSError as error:
                        raise NdzError(f"cannot flush: {_reason(error)}", name=self.name) from None
                self._head = head
            return self._head

    def _put_where(self, mask: Buffer, data: Buffer) -> None:
        """Write those sectors of ``data``, which belongs to the start, in which ``mask`` is not zero."""
        mask, data = memoryview(mask), memoryview(data)
        for at in range(0, len(mask), SECTOR):
            if any(mask[at : at + SECTOR]):
                self._put(data[at : at + SECTOR], at)

    def _put(self, data: Buffer, offset: int) -> None:
        """Write all of ``data`` to the disk at a byte of the image."""
        at = self._base * SECTOR + offset
        start, view = at, memoryview(data)
        try:
            while view:
                count = os.pwrite(self._fd, view, at)
                if not count:
                    raise NdzError(f"takes no more data at byte {at}", name=self.name)
                view = view[count:]
                at += count
            self._behind.wrote(start, at - start)
        except OSError as error:
            raise NdzError(f"cannot write at byte {at}: {_reason(error)}", name=self.name) from None

    def _fill_range(self, start: int, end: int) -> int:
        """Fill sectors [start, end) with zeros or the pattern; return the number of bytes."""
        if end <= start:
            return 0
        filled = (end - start) * SECTOR
        held = min(end, HEAD_SECTORS)
        if start < held:
            self._write(memoryview(self._fill or b"")[: (held - start) * SECTOR], start)
            start = held
        elif self._head is None:
            self._begin()
        if start < end:
            self._fill_behind_head((self._base + start) * SECTOR, (self._base + end) * SECTOR)
        return filled

    def _fill_behind_head(self, at: int, stop: int) -> None:
        if self._zeros and self._block_device:
            try:
                fcntl.ioctl(self._fd, _BLKZEROOUT, struct.pack("=QQ", at, stop - at))
                return
            except OSError:
                pass  # an old kernel: write the zeros
        for low, high in self._data_extents(at, stop):
            self._write_fill(low, high)

    def _data_extents(self, at: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the byte ranges of [at, stop) that zeros must be written to: not the holes of a file."""
        if not self._zeros or self._block_device:
            yield at, stop
            return
        while at < stop:
            try:
                low = os.lseek(self._fd, at, os.SEEK_DATA)
                high = os.lseek(self._fd, low, os.SEEK_HOLE)
            except OSError as error:
                if error.errno != errno.ENXIO:  # not "nothing but a hole from here on"
                    yield at, stop
                return
            if low >= stop:
                return
            at = min(-(-high // SECTOR) * SECTOR, stop)
            yield low // SECTOR * SECTOR, at

    def _write_fill(self, at: int, stop: int) -> None:
        assert self._fill is not None
        view = memoryview(self._fill)
        while at < stop:
            count = min(len(view), stop - at)
            self._write(view[:count], at // SECTOR - self._base)
            at += count

    def _say(self, text: str) -> None:
        with self._lock:
            if text in self.warnings:
                return
            self.warnings.append(text)
        if self._warn is not None:
            self._warn(text)

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(sync=kind is None)


def new_workspace() -> Workspace:
    """Return the memory that :func:`contents` needs, to be used for one chunk after the other."""
    return Workspace(_WHOLE_LIMIT)


def contents(
    chunk: Buffer,
    index: ChunkIndex,
    *,
    name: str | None = None,
    base: int = 0,
    size: int = MAX_SECTORS,
    workspace: Workspace | None = None,
) -> Iterator[tuple[int, Buffer]]:
    """Yield (sector, data) of a chunk's regions, inflated and relocated, ascending, in handy pieces.

    ``base`` and ``size`` are the first sector and number of sectors of the partition the data is for. A
    chunk that inflates to no more than 32 MiB is checked in full before its first piece is given out.
    With a ``workspace`` (of :func:`new_workspace`) the pieces are good until it is used again. Raises
    :class:`NdzError`.
    """
    data = memoryview(chunk)[INDEX_SIZE : INDEX_SIZE + index.length]
    total = index.sectors * SECTOR
    stream: Inflater | None = None
    read: Callable[[int], Buffer]
    if total <= _WHOLE_LIMIT:
        workspace = workspace or new_workspace()
        read = _slices(workspace.inflate(data, total, name=name, chunk=index.number))
    else:
        stream = Inflater(data, name=name, chunk=index.number)
        read = stream.read
    for sector, count, relocations in _pieces(index):
        piece = read(count * SECTOR)
        if not relocations:
            yield sector, piece
            continue
        changed = bytearray(piece)
        try:
            relocate.apply(changed, sector, relocations, base, size)
        except NdzError as error:
            error.name, error.chunk = name, index.number
            raise
        for relocation in relocations:
            if relocation.type == RELOC_SHORT_SECTOR:
                del changed[relocation.length - SECTOR :]
        yield sector, changed
    if stream is not None:
        stream.finish()


def oddities(index: ChunkIndex) -> Iterator[str]:
    """Yield what is odd about a chunk but no error."""
    if index.signed:
        yield "the image is signed, which is not verified: nothing here has the key"
    for relocation in index.relocations:
        if relocation.type not in relocate.KNOWN:
            yield f"relocations of unknown type {relocation.type} are ignored"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _slices(view: memoryview) -> Callable[[int], memoryview]:
    """Return a function that reads ``view`` in slices."""
    at = 0

    def read(size: int) -> memoryview:
        nonlocal at
        at += size
        return view[at - size : at]

    return read


def _pieces(index: ChunkIndex) -> Iterator[tuple[int, int, list[Relocation]]]:
    """Yield (sector, count, relocations inside) of pieces of the regions that split no relocation."""
    for start, count in index.regions:
        at, end = start, start + count
        while at < end:
            stop = min(at + _PIECE_SECTORS, end)
            while split := [
                relocate.end_sector(relocation)
                for relocation in index.relocations
                if relocate.first_sector(relocation) < stop < min(relocate.end_sector(relocation), end)
            ]:
                stop = min(max(split), end)
            inside = [relocation for relocation in index.relocations if at <= relocation.sector < stop]
            yield at, stop - at, inside
            at = stop


def _refuse_mounted(name: str, device: int) -> None:
    """Refuse a device that, or a partition of which, is mounted."""
    devices = {f"{os.major(device)}:{os.minor(device)}"}
    folder = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if os.path.exists(f"{entry.path}/partition"):
                    with open(f"{entry.path}/dev", encoding="ascii") as file:
                        devices.add(file.read().strip())
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return  # without /sys or /proc, opening with O_EXCL still refuses a device in use
    for fields in mounts:
        if fields[2] in devices:
            raise NdzError(f"mounted on {fields[4]}", name=name, remedy="unmount it first")
