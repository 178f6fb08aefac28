# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Agree with a node on what its client checks, and hand it the manifest of its image through the session."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import manifest as texts
from ansible_collections.orbit.imaging.plugins.plugin_utils.node import ssh
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.boot_wait import Facts, Failed, said
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import manifests
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Node

_ABSENT: t.Mapping[str, t.Any] = {"state": "absent", "msg": "the service was not asked"}
# Bytes that are sent before it is looked whether the node takes them.
_PIECE = 256 << 10

_What = t.TypeVar("_What")


class Amounts(t.NamedTuple):
    """How much an image is, as its manifest says.

    :ivar data: bytes of data on the disk.
    :ivar covered: bytes of the disk from the first to the last range of each chunk, free ones included; 0 for
        images whose chunks do not say it.
    :ivar chunks: number of chunks.
    """

    data: int
    covered: int
    chunks: int


class Agreed(t.NamedTuple):
    """What the client of a node is told to check.

    :ivar manifest: the manifest that it has, in short; None without one.
    :ivar verify: it reads back what it has written.
    :ivar resume: it keeps what is on the disk already.
    :ivar reason: why it does not read back; "" when it does.
    :ivar amounts: how much the image is, where it has a manifest, whatever the client is told.
    """

    manifest: t.Mapping[str, t.Any] | None = None
    verify: bool = False
    resume: bool = False
    reason: str = ""
    amounts: Amounts | None = None

    @property
    def go(self) -> str:
        """The word by which the program on the node starts the client so."""
        return " ".join(["go", *["verify"] * self.verify, *["resume"] * self.resume])


def question(node: Node, again: bool = False) -> str:
    """Return ``yes`` when the client must be asked what it can, else ``no``: that takes its time."""
    present = node.get("manifest", _ABSENT)["state"] == "present"
    checks = present and (again or manifests.wanted(node))
    return "yes" if checks or node["stream"].get("server") else "no"


@functools.lru_cache(maxsize=16)
def amounts(path: str) -> Amounts:
    """Return how much the image of a stored manifest is. Raises :class:`manifests.ManifestError`."""
    head, *lines = manifests.read(path).splitlines()
    data = covered = 0
    try:
        # Chunks of the first version of images do not say which range of the disk they are for.
        ranged = json.loads(head).get("image_version", 0) >= 2
        for line in lines[:-1]:
            chunk = json.loads(line)
            data += int(chunk["bytes"])
            if ranged:
                covered += (int(chunk.get("after", 0)) - int(chunk.get("first", 0))) * texts.SECTOR
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise manifests.ManifestError(f"{path}: a line of it says no amount: {error!r}") from error
    return Amounts(data, covered, len(lines) - 1)


async def agree(session: ssh.Session, node: Node, facts: Facts, again: bool = False) -> Agreed:
    """Decide what the client of ``node`` checks, and give the node what it needs for that.

    ``again`` says that the node has been tried before in this run: part of the image may be on its disk.

    :raises Failed: before a byte is written, when the client cannot do what is demanded, or when the node
        does not take the manifest.
    """
    setting, manifest = node["settings"], node.get("manifest", _ABSENT)
    present = manifest["state"] == "present"
    reason = ""
    if setting["orbit_verify"] == "never":
        reason = "orbit_verify is never"
    elif not present:
        reason = f"the image has no manifest: {manifest['msg']}"
    elif not {"manifest", "verify"} <= facts.can:
        reason = f"{setting['orbit_client']} of this memory image knows neither --manifest nor --verify"
    if reason and setting["orbit_verify"] == "always":
        raise Failed("client_missing", f"orbit_verify is always, but {reason}")
    resume = bool(setting["orbit_resume"] or again) and present and {"manifest", "resume"} <= facts.can
    if reason and not resume:
        known = None
        if present:
            # Nothing of it is needed; what the client says is compared with it where it is there.
            with contextlib.suppress(manifests.ManifestError):
                known = await asyncio.to_thread(amounts, manifest["path"])
        return Agreed(reason=reason, amounts=known)
    await _hand(session, manifest["path"], setting["orbit_stall_timeout"])
    known = await _read(amounts, manifest["path"])
    return Agreed(manifest, verify=not reason, resume=resume, reason=reason, amounts=known)


async def _read(read: t.Callable[[str], _What], path: str) -> _What:
    try:
        return await asyncio.to_thread(read, path)
    except manifests.ManifestError as error:
        raise Failed("client_failed", f"the manifest cannot be given to the node: {error}") from error


async def _hand(session: ssh.Session, path: str, patience: float) -> None:
    text = await _read(manifests.read, path)
    try:
        await session.send(f"manifest {len(text)}")
        await asyncio.wait_for(_expect(session, "send"), patience)
        for at in range(0, len(text), _PIECE):
            await asyncio.wait_for(session.pour(text[at : at + _PIECE]), patience)
        await asyncio.wait_for(_expect(session, "taken"), patience)
    except asyncio.TimeoutError:
        raise Failed("stalled", f"the node did not take the manifest for {patience} s") from None


async def _expect(session: ssh.Session, wanted: str) -> None:
    while (line := await session.line()) is not None:
        word, rest = said(line)
        if word == wanted:
            return
        if word == "refused":
            raise Failed("client_failed", rest)
    raise Failed("stalled", "contact lost while the node was given the manifest")
