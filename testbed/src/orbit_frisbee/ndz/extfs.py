# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ext2, ext3 and ext4: which blocks are free.

The block bitmaps are taken at their word only when everything else agrees: the file system is clean,
has no feature unknown here, its checksums are right and each group has as many free blocks as its
descriptor says.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from orbit_frisbee.ndz.format import SECTOR
from orbit_frisbee.ndz.ranges import Range, scale, subtract, union
from orbit_frisbee.ndz.source import NotThisKind, NotUnderstood, Source

MAGIC = 0xEF53
_SUPER_AT, _SUPER_SIZE = 1024, 1024

_STATE_CLEAN, _STATE_ERRORS = 1, 2

_COMPAT_SPARSE_SUPER2 = 0x200

_INCOMPAT_RECOVER = 0x4
_INCOMPAT_JOURNAL_DEVICE = 0x8
_INCOMPAT_META_BG = 0x10
_INCOMPAT_64BIT = 0x80
_INCOMPAT_MMP = 0x100
_INCOMPAT_CSUM_SEED = 0x2000
# filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, dirdata, csum_seed, largedir,
# inline_data, encrypt, casefold: none of them changes the meaning of a block bitmap.
_INCOMPAT_KNOWN = 0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x4000
_INCOMPAT_KNOWN |= 0x8000 | 0x10000 | 0x20000

_RO_SPARSE_SUPER = 0x1
_RO_GDT_CSUM = 0x10
_RO_BIGALLOC = 0x200
_RO_METADATA_CSUM = 0x400
# sparse_super, large_file, btree_dir, huge_file, uninit_bg, dir_nlink, extra_isize, quota, bigalloc,
# metadata_csum, read-only, project, shared_blocks, verity. Not known: snapshots, replicas, and pending
# orphans, which mean that the file system is not clean.
_RO_KNOWN = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x4000
_RO_KNOWN |= 0x8000

_GROUP_BLOCKS_UNUSED = 0x2
_MMP_CLEAN = 0xFF4D4D50
_MMP_MAGIC = 0x004D4D50


def _tables() -> tuple[list[int], list[int]]:
    def table(polynomial: int) -> list[int]:
        result = []
        for value in range(256):
            for _ in range(8):
                value = value >> 1 ^ (polynomial if value & 1 else 0)
            result.append(value)
        return result

    return table(0x82F63B78), table(0xA001)


_CRC32C, _CRC16 = _tables()


def crc32c(data: bytes, crc: int) -> int:
    """Return the CRC-32C as ext4 uses it: started with ``crc``, not inverted at the end."""
    table = _CRC32C
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc


def _crc16(data: bytes, crc: int) -> int:
    table = _CRC16
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc


class _Super:
    """The fields of the superblock that say where blocks are."""

    def __init__(self, raw: bytes) -> None:
        def u16(at: int) -> int:
            return int.from_bytes(raw[at : at + 2], "little")

        def u32(at: int) -> int:
            return int.from_bytes(raw[at : at + 4], "little")

        if u16(0x38) != MAGIC:
            raise NotThisKind("it has no ext superblock")
        revision = u32(0x4C)
        self.compat, self.incompat, self.ro_compat = (
            (u32(0x5C), u32(0x60), u32(0x64)) if revision else (0, 0, 0)
        )
        self._refuse_features()
        self.uuid = raw[0x68:0x78]
        self.metadata_csum = bool(self.ro_compat & _RO_METADATA_CSUM)
        if self.metadata_csum and crc32c(raw[:0x3FC], 0xFFFFFFFF) != u32(0x3FC):
            raise NotUnderstood("the checksum of its superblock is wrong")
        state = u16(0x3A)
        if self.incompat & _INCOMPAT_RECOVER or not state & _STATE_CLEAN:
            raise NotUnderstood("it is dirty: mounted, or not unmounted cleanly")
        if state & _STATE_ERRORS:
            raise NotUnderstood("it is marked as having errors")

        wide = bool(self.incompat & _INCOMPAT_64BIT)
        bigalloc = bool(self.ro_compat & _RO_BIGALLOC)
        if u32(0x18) > 6 or (bigalloc and not u32(0x18) <= u32(0x1C) <= 20):
            raise NotUnderstood("its block size makes no sense")
        self.block_size = 1024 << u32(0x18)
        self.ratio = 1 << (u32(0x1C) - u32(0x18)) if bigalloc else 1
        self.blocks = u32(0x4) | (u32(0x150) << 32 if wide else 0)
        self.first_block = u32(0x14)
        self.per_group = u32(0x20)
        self.inodes_per_group = u32(0x28)
        self.inode_size = u16(0x58) if revision else 128
        self.descriptor_size = max(u16(0xFE), 32) if wide else 32
        self.reserved_descriptors = u16(0xCE)
        self.first_meta_group = u32(0x104)
        self.backups = (u32(0x24C), u32(0x250))
        self.mmp_block = u32(0x168) | u32(0x16C) << 32
        self.checksum_seed = (
            u32(0x270) if self.incompat & _INCOMPAT_CSUM_SEED else crc32c(self.uuid, 0xFFFFFFFF)
        )
        clusters = self.per_group // self.ratio
        if (
            not 8 <= clusters <= self.block_size * 8
            or self.per_group % (8 * self.ratio)
            or self.first_block > 1
            or self.blocks <= self.first_block
            or not self.inodes_per_group
            or not 128 <= self.inode_size <= self.block_size
            or self.descriptor_size > self.block_size
            or self.descriptor_size & (self.descriptor_size - 1)
        ):
            raise NotUnderstood("the numbers in its superblock make no sense")
        self.groups = -(-(self.blocks - self.first_block) // self.per_group)
        self.per_descriptor_block = self.block_size // self.descriptor_size
        self.inode_table_blocks = -(-self.inodes_per_group * self.inode_size // self.block_size)

    def _refuse_features(self) -> None:
        if self.incompat & _INCOMPAT_JOURNAL_DEVICE:
            raise NotUnderstood("it is an external journal")
        unknown = self.incompat & ~_INCOMPAT_KNOWN
        if unknown:
            raise NotUnderstood(f"it has unknown incompatible features (0x{unknown:x})")
        unknown = self.ro_compat & ~_RO_KNOWN
        if unknown:
            raise NotUnderstood(f"it has unknown features (0x{unknown:x})")

    def start(self, group: int) -> int:
        """First block of a group."""
        return self.first_block + group * self.per_group

    def end(self, group: int) -> int:
        """First block behind a group."""
        return min(self.start(group) + self.per_group, self.blocks)

    def has_super(self, group: int) -> bool:
        """Whether a group begins with a copy of the superblock."""
        if group == 0:
            return True
        if self.compat & _COMPAT_SPARSE_SUPER2:
            return group in self.backups
        if group == 1 or not self.ro_compat & _RO_SPARSE_SUPER:
            return True
        for base in (3, 5, 7):
            power = base
            while power < group:
                power *= base
            if power == group:
                return True
        return False

    def descriptor_block(self, number: int) -> int:
        """Where a block of group descriptors is."""
        if not self.incompat & _INCOMPAT_META_BG or number < self.first_meta_group:
            return _SUPER_AT // self.block_size + 1 + number
        group = number * self.per_descriptor_block
        start = self.start(group)
        if group == 0:
            start = _SUPER_AT // self.block_size
        return start + self.has_super(group)

    def copies(self, group: int) -> Range:
        """The blocks at the start of a group that hold copies of superblock and descriptors."""
        start = self.start(group)
        first_in_group = start + (_SUPER_AT // self.block_size if group == 0 else 0)
        end = first_in_group + self.has_super(group)
        meta = self.incompat & _INCOMPAT_META_BG
        if meta and group // self.per_descriptor_block >= self.first_meta_group:
            if group % self.per_descriptor_block in (0, 1, self.per_descriptor_block - 1):
                end += 1
        elif self.has_super(group):
            total = -(-self.groups // self.per_descriptor_block)
            end += min(self.first_meta_group, total) if meta else total + self.reserved_descriptors
        return start, min(end, self.blocks)


class _Group:
    """One group descriptor."""

    def __init__(self, sb: _Super, number: int, raw: bytes) -> None:
        def field(low: int, high: int, size: int) -> int:
            value = int.from_bytes(raw[low : low + size], "little")
            if len(raw) >= 64:
                value |= int.from_bytes(raw[high : high + size], "little") << 8 * size
            return value

        self.block_bitmap = field(0x0, 0x20, 4)
        self.inode_bitmap = field(0x4, 0x24, 4)
        self.inode_table = field(0x8, 0x28, 4)
        self.free = field(0xC, 0x2C, 2)
        flags = int.from_bytes(raw[0x12:0x14], "little")
        self.bitmap_checksum = field(0x18, 0x38, 2)
        self.bitmap_checksum_mask = 0xFFFFFFFF if len(raw) >= 64 else 0xFFFF
        checksummed = sb.metadata_csum or sb.ro_compat & _RO_GDT_CSUM
        self.unused = bool(checksummed and flags & _GROUP_BLOCKS_UNUSED)
        if checksummed:
            stored = int.from_bytes(raw[0x1E:0x20], "little")
            label = number.to_bytes(4, "little")
            if sb.metadata_csum:
                crc = crc32c(label + raw[:0x1E] + b"\0\0" + raw[0x20:], sb.checksum_seed) & 0xFFFF
            else:
                crc = _crc16(sb.uuid + label + raw[:0x1E] + raw[0x20:], 0xFFFF)
            if crc != stored:
                raise NotUnderstood(f"the checksum of group {number} is wrong")
        table_end = self.inode_table + sb.inode_table_blocks
        if max(self.block_bitmap, self.inode_bitmap, table_end - 1) >= sb.blocks or not self.block_bitmap:
            raise NotUnderstood(f"group {number} names blocks outside the file system")


def free_ranges(source: Source) -> list[Range]:
    """Return the free sectors of an ext2, ext3 or ext4 file system.

    Sectors behind the file system are not free: nothing says so. Raises NotUnderstood when there is no
    such file system or when it is dirty, damaged or has unknown features.
    """
    if source.sectors * SECTOR < _SUPER_AT + _SUPER_SIZE:
        raise NotThisKind("it is too small")
    sb = _Super(source.read(_SUPER_AT, _SUPER_SIZE))
    if sb.blocks * sb.block_size > source.sectors * SECTOR:
        raise NotUnderstood("it is larger than its partition")
    if sb.incompat & _INCOMPAT_MMP:
        magic, sequence = struct.unpack("<II", source.read(sb.mmp_block * sb.block_size, 8))
        if magic != _MMP_MAGIC or sequence != _MMP_CLEAN:
            raise NotUnderstood("it is in use by some host (multiple mount protection)")
    groups = list(_read_groups(source, sb))
    # Groups whose bitmap was never written may still hold copies of the superblock or other groups'
    # tables, so all of these are kept whatever the bitmaps say.
    used = [(0, sb.first_block + 1)]
    for number, group in enumerate(groups):
        used.append(sb.copies(number))
        used.append((group.block_bitmap, group.block_bitmap + 1))
        used.append((group.inode_bitmap, group.inode_bitmap + 1))
        used.append((group.inode_table, group.inode_table + sb.inode_table_blocks))
    free: list[Range] = []
    for number, group in enumerate(groups):
        if group.unused:
            free.append((sb.start(number), sb.end(number)))
        else:
            free.extend(_free_in_group(source, sb, number, group))
    return list(scale(subtract(union(free), union(used)), sb.block_size // SECTOR))


def _read_groups(source: Source, sb: _Super) -> Iterator[_Group]:
    for number in range(-(-sb.groups // sb.per_descriptor_block)):
        block = source.read(sb.descriptor_block(number) * sb.block_size, sb.block_size)
        first = number * sb.per_descriptor_block
        for group in range(first, min(first + sb.per_descriptor_block, sb.groups)):
            at = (group - first) * sb.descriptor_size
            yield _Group(sb, group, block[at : at + sb.descriptor_size])


def _free_in_group(source: Source, sb: _Super, number: int, group: _Group) -> Iterator[Range]:
    clusters = sb.per_group // sb.ratio
    bitmap = source.read(group.block_bitmap * sb.block_size, clusters // 8)
    if sb.metadata_csum:
        crc = crc32c(bitmap, sb.checksum_seed) & group.bitmap_checksum_mask
        if crc != group.bitmap_checksum & group.bitmap_checksum_mask:
            raise NotUnderstood(f"the checksum of the block bitmap of group {number} is wrong")
    start, end = sb.start(number), sb.end(number)
    here = -(-(end - start) // sb.ratio)
    bits = int.from_bytes(bitmap, "little") & ((1 << here) - 1)
    free = here - bits.bit_count()
    if free != group.free:
        raise NotUnderstood(f"group {number} has {free} free blocks but says {group.free}")
    for match in re.finditer("0+", format(bits, f"0{here}b")[::-1]):
        low, high = match.span()
        yield start + low * sb.ratio, min(start + high * sb.ratio, end)
