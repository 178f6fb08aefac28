# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PXE links: real symbolic links that pxelinux finds by TFTP, and how long they live."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orbit_frisbee.whole import drafted

log = logging.getLogger(__name__)

#: Seconds until a link is tried again that could not be removed.
_TRY_AGAIN = 10.0
#: What boot loaders look for on behalf of a node: its address in hex (or the beginning of it), its hardware
#: address, both also behind GRUB's prefix; and a link in the making.
_LINK_NAME = re.compile(
    r"\..*|(grub\.cfg-)?([0-9A-F]{1,8}|[0-9a-fA-F]{2}(-[0-9a-fA-F]{2}){6})", re.ASCII | re.DOTALL
)


def is_link_name(name: str) -> bool:
    """Return whether a name in the folder of links is that of a node's link, not of a memory image."""
    return _LINK_NAME.fullmatch(name) is not None


class LifeTimes(Protocol):
    """Decides when links go. Links are named by the hex of the control IP; times are seconds of the epoch."""

    def linked(self, names: Sequence[str], now: float, strict: bool) -> None:
        """Note that a call has set these links."""

    def unlinked(self, names: Iterable[str]) -> None:
        """Note that a call has cleared these links."""

    def due(self, now: float, exists: Callable[[str], bool]) -> list[str]:
        """Return the links that have to go now, and forget them."""

    def next_time(self) -> float | None:
        """Return when to ask again, None for never."""

    def deadline(self, name: str) -> float | None:
        """Return when a link goes, as far as that is known."""


class PerLinkLife:
    """One deadline per link, renewed by every set and dropped by clear. A life of 0 is endless."""

    def __init__(self, lifetime: float, deadlines: Mapping[str, float] | None = None) -> None:
        self._lifetime = lifetime
        self._deadlines = dict(deadlines or {})

    def linked(self, names: Sequence[str], now: float, strict: bool) -> None:
        if self._lifetime:
            for name in names:
                self._deadlines[name] = now + self._lifetime

    def unlinked(self, names: Iterable[str]) -> None:
        for name in names:
            self._deadlines.pop(name, None)

    def due(self, now: float, exists: Callable[[str], bool]) -> list[str]:
        names = [name for name, deadline in self._deadlines.items() if deadline <= now]
        self.unlinked(names)
        return names

    def next_time(self) -> float | None:
        return min(self._deadlines.values(), default=None)

    def deadline(self, name: str) -> float | None:
        return self._deadlines.get(name)


class HistoricLife:
    """The counters and timers of OMF 4.4 to 5.4, with their leaks.

    Each set raises a counter per link and starts one timer for the whole call, keyed by the wall-clock
    second: a second call within that second replaces the first one's timer. A timer lowers the counters and
    removes the links that reach zero; up to 5.3 (``strict``) it stops at the first link that is already gone.
    Clearing does not touch the counters.
    """

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._counters: dict[str, int] = {}
        self._timers: dict[int, tuple[float, tuple[str, ...], bool]] = {}

    def linked(self, names: Sequence[str], now: float, strict: bool) -> None:
        self.half_linked(names)
        self._timers[int(now)] = (now + self._lifetime, tuple(names), strict)

    def half_linked(self, names: Sequence[str]) -> None:
        """Note links of a call that failed later on: counted, but without a timer."""
        for name in names:
            self._counters[name] = self._counters.get(name, 0) + 1

    def unlinked(self, names: Iterable[str]) -> None:
        pass

    def due(self, now: float, exists: Callable[[str], bool]) -> list[str]:
        gone: list[str] = []
        for second in [second for second, timer in self._timers.items() if timer[0] <= now]:
            _, names, strict = self._timers.pop(second)
            for name in names:
                count = self._counters.get(name, 0)
                if count > 1:
                    self._counters[name] = count - 1
                    continue
                if strict and not exists(name):
                    break
                self._counters.pop(name, None)
                gone.append(name)
        return gone

    def next_time(self) -> float | None:
        return min((timer[0] for timer in self._timers.values()), default=None)

    def deadline(self, name: str) -> float | None:
        return None


@dataclass(frozen=True)
class LinkFolder:
    """A folder in which one boot loader looks for what its machine boots, and how it spells the name.

    ``prefix`` stands before the hex of the control IP.
    """

    path: Path
    prefix: str = ""

    def link(self, name: str) -> Path:
        """Return where the link of that name is."""
        return self.path / f"{self.prefix}{name}"

    def point(self, name: str, image: str) -> None:
        """Point a link at an image; at no moment is there no link or a half-made one."""
        with drafted(self.link(name)) as draft:
            draft.symlink_to(f"./{image}")

    def target(self, name: str) -> str | None:
        """Return the image that a link points at."""
        try:
            return os.readlink(self.link(name)).removeprefix("./")
        except OSError:
            return None

    def remove(self, name: str) -> None:
        """Remove a link; it need not exist. Only links are removed, never files."""
        path = self.link(name)
        if path.is_symlink():
            path.unlink(missing_ok=True)


class LinkTable:
    """The links in one ``pxelinux.cfg`` folder, for the nodes of one domain.

    With ``grub``, the folder in which GRUB looks for ``grub.cfg-`` and the hex of the control IP, each link
    has a second one there for machines with UEFI. Both come and go together: which firmware a node has is no
    business of the service. A memory image that has no configuration for GRUB has the first link only.
    """

    def __init__(
        self, directory: Path, known: Iterable[str], life: LifeTimes, grub: Path | None = None
    ) -> None:
        self._directory = directory
        self._known = frozenset(known)
        self._pxelinux = LinkFolder(directory)
        self._grub = None if grub is None else LinkFolder(grub, "grub.cfg-")
        self._folders = [folder for folder in (self._pxelinux, self._grub) if folder is not None]
        self.life = life
        #: Links that could not be removed when their time was over, and when to try again.
        self._overdue: dict[str, float] = {}

    def target_exists(self, image: str) -> bool:
        """Return whether the folder holds a memory image's configuration of that name."""
        path = self._directory / image
        # Not Path.is_file, which fails on a name that is too long for a file.
        if not os.path.isfile(path) or is_link_name(image):
            return False
        # An alias of a configuration is one; a way round to a node's link is none.
        return not (os.path.islink(path) and is_link_name(os.path.basename(os.readlink(path))))

    def images(self) -> list[str]:
        """Return the names of the memory images' configurations in the folder, without that for no link."""
        names = (path.name for path in self._directory.glob("*") if path.is_file())
        return sorted(name for name in names if name not in self._known | {"default"} and name[0] != ".")

    def dangles(self, name: str) -> bool:
        """Return whether a link leads nowhere."""
        path = self._directory / name
        return path.is_symlink() and not path.exists()

    def set(self, name: str, image: str) -> None:
        """Point a link at an image; it is replaced at once, never missing in between."""
        self._overdue.pop(name, None)
        if self._grub is not None:
            if (self._grub.path / image).is_file():
                self._grub.point(name, image)
            else:
                self._grub.remove(name)
        self._pxelinux.point(name, image)

    def clear(self, name: str) -> None:
        """Remove a link; it need not exist. Only links are removed, never files."""
        for folder in self._folders:
            folder.remove(name)
        self._overdue.pop(name, None)

    def get(self, name: str) -> str | None:
        """Return the image that a link points at, also when only one kind of it is left."""
        targets = (folder.target(name) for folder in self._folders)
        return next((target for target in targets if target is not None), None)

    def all(self) -> dict[str, str]:
        """Return the links of the domain's nodes that exist on disk, with their images."""
        found = {}
        for name in sorted(self._known):
            image = self.get(name)
            if image is not None:
                found[name] = image
        return found

    def expire(self, now: float) -> list[str]:
        """Remove the links whose time is over and return their names; one that resists is tried again."""
        due = self.life.due(now, lambda name: self.get(name) is not None)
        due += [name for name, when in self._overdue.items() if when <= now and name not in due]
        gone = []
        for name in due:
            try:
                self.clear(name)
            except OSError as error:
                log.error("link %s is over and cannot be removed, trying again: %s", name, error)
                self._overdue[name] = now + _TRY_AGAIN
            else:
                log.info("link %s has reached the end of its life", name)
                gone.append(name)
        return gone

    def next_time(self) -> float | None:
        """Return when links have to go next, None for never."""
        times = [*self._overdue.values(), self.life.next_time()]
        return min((when for when in times if when is not None), default=None)

    def deadline(self, name: str) -> float | None:
        """Return when a link goes, as far as that is known."""
        return self._overdue.get(name) or self.life.deadline(name)

    def export(self) -> dict[str, Any]:
        """Return the links as they go into the state file."""
        return {name: {"image": image, "deadline": self.deadline(name)} for name, image in self.all().items()}


def restored_life(saved: Mapping[str, Any], lifetime: float) -> PerLinkLife:
    """Return the deadlines of a former run's state document."""
    deadlines = {
        name: float(link["deadline"])
        for name, link in saved.items()
        if isinstance(link, dict) and isinstance(link.get("deadline"), int | float)
    }
    return PerLinkLife(lifetime, deadlines)
