# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a disk goes into an image.

Only sectors known to be free are left out. Whatever is not understood (a partition of an unknown type, a
file system that is dirty, damaged or has unknown features) is stored whole, and said so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from orbit_frisbee.ndz import extfs, fat, swap
from orbit_frisbee.ndz.disk import Partition, read_table
from orbit_frisbee.ndz.format import MAX_SECTORS, NdzError
from orbit_frisbee.ndz.ranges import Range, complement, shift, subtract, total, union
from orbit_frisbee.ndz.source import NotThisKind, NotUnderstood, Source

MIN_FREE = 64
"""Shortest run of free sectors that is left out, as the originals have it."""

_READERS: dict[str, Callable[[Source], list[Range]]] = {
    "ext": extfs.free_ranges,
    "fat": fat.free_ranges,
    "swap": swap.free_ranges,
}


class Plan:
    """The sectors of a source that an image holds.

    ``data`` are ranges relative to the source, which has ``end`` sectors; ``notes`` say what was found, one
    line each, ``warnings`` what is stored whole because it was not understood.
    """

    def __init__(self, source: Source) -> None:
        # The first sector behind a chunk must fit its index as well.
        if source.sectors >= MAX_SECTORS:
            raise NdzError(
                f"{source.sectors} sectors, one image holds {MAX_SECTORS - 1} (2 TiB less 512 bytes)",
                name=source.name,
                remedy="store its partitions one by one (-s)",
            )
        if not source.sectors:
            raise NdzError("is empty", name=source.name)
        self.source = source
        self.end = source.sectors
        self.data: list[Range] = [(0, self.end)]
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def leave_out(self, free: list[Range], min_free: int, *, behind: int | None = None) -> None:
        """Make all but ``free`` the data; runs shorter than ``min_free`` sectors stay in.

        What is left out anyhow is all from sector ``behind`` on: an image shall fit a disk that ends there.
        """
        # Sector 0 stays in so that an image always has data.
        self.data = union([(0, 1), *complement(free, self.end)], gap=min_free)
        end = self.end if behind is None else behind
        if 0 < end - self.data[-1][1] < min_free:
            self.data[-1] = (self.data[-1][0], end)


def plan_raw(source: Source) -> Plan:
    """Store everything."""
    plan = Plan(source)
    plan.notes.append(f"{source.name}: {plan.end} sectors, stored whole")
    return plan


def plan_disk(
    source: Source, *, ignore: Collection[int] = (), raw: Collection[int] = (), min_free: int = MIN_FREE
) -> Plan:
    """Store what is in use on a partitioned disk.

    The contents of partitions in ``ignore`` are left out, those in ``raw`` stored whole. Raises NdzError for
    a partition number that does not exist.
    """
    plan = Plan(source)
    try:
        table = read_table(source)
    except NotUnderstood as reason:
        if ignore or raw:
            raise NdzError(str(reason), name=source.name, remedy="store it whole (-r)") from None
        hint = ", but is one file system or swap area: see -l" if _is_filesystem(source) else ""
        plan.warnings.append(f"{source.name}: stored whole: {reason}{hint}")
        return plan
    for number in (*ignore, *raw):
        _partition(source, number)
    plan.warnings += [f"{source.name}: {text}" for text in table.warnings]
    plan.notes.append(f"{source.name}: {plan.end} sectors, {table.scheme}")
    free: list[Range] = complement(
        [(partition.start, partition.end) for partition in table.partitions], plan.end
    )
    for partition in table.partitions:
        if partition.number in ignore:
            unused = [(0, partition.sectors)]
            plan.notes.append(f"{_title(partition)}: ignored")
        elif partition.number in raw:
            unused = []
            plan.notes.append(f"{_title(partition)}: stored whole")
        else:
            unused = _unused(plan, source, partition)
        free += shift(unused, partition.start)
    behind = None
    if table.scheme == "GPT":
        # There is but the backup of the table, which is made anew where the image is written.
        behind = max(table.keep[-1][1], *(partition.end for partition in table.partitions))
    plan.leave_out(list(subtract(union(free), table.keep)), min_free, behind=behind)
    return plan


def plan_partition(source: Source, number: int, *, raw: bool = False, min_free: int = MIN_FREE) -> Plan:
    """Store one partition of a disk, addressed from its own start."""
    partition = _partition(source, number)
    plan = Plan(source.part(partition.start, partition.sectors))
    if not raw:
        plan.leave_out(_unused(plan, source, partition), min_free)
    return plan


def plan_filesystem(source: Source, *, min_free: int = MIN_FREE) -> Plan:
    """Store a source that is, as a whole, one file system or swap area of a known kind.

    Raises NdzError when it is none or cannot be relied on. The first kind it seems to be is what it is: what
    looks like another kind besides may be remains of something older.
    """
    plan = Plan(source)
    reasons = []
    for kind, reader in _READERS.items():
        try:
            free = reader(source)
        except NotUnderstood as reason:
            reasons.append(f"{kind}: {reason}")
            if isinstance(reason, NotThisKind):
                continue
            break
        plan.notes.append(f"{source.name}: {plan.end} sectors, {kind}, {total(free)} free")
        plan.leave_out(free, min_free)
        return plan
    raise NdzError(
        f"no file system that can be read ({'; '.join(reasons)})",
        name=source.name,
        remedy="store it whole (-r)",
    )


def _is_filesystem(source: Source) -> bool:
    try:
        plan_filesystem(source)
    except NdzError:
        return False
    return True


def _partition(source: Source, number: int) -> Partition:
    try:
        return read_table(source).partition(number)
    except NotUnderstood as reason:
        raise NdzError(str(reason), name=source.name, remedy="name a partition that is there") from None


def _title(partition: Partition) -> str:
    return (
        f"partition {partition.number}: sectors {partition.start} to {partition.end - 1}, "
        f"type {partition.type}"
    )


def _unused(plan: Plan, source: Source, partition: Partition) -> list[Range]:
    """Return the free ranges of a partition, relative to it; none when it is not understood."""
    reader = _READERS.get(partition.kind or "")
    if reader is None:
        plan.notes.append(f"{_title(partition)}: unknown, stored whole")
        return []
    try:
        free = reader(source.part(partition.start, partition.sectors))
    except NotUnderstood as reason:
        plan.warnings.append(f"{source.name}: partition {partition.number}: stored whole: {reason}")
        return []
    plan.notes.append(f"{_title(partition)}: {partition.kind}, {total(free)} of {partition.sectors} free")
    return free
