# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Agree with a node on what its client checks, and hand it the manifest of its image through the session."""

from __future__ import annotations

import asyncio
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import ssh
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.boot_wait import Facts, Failed, Node, said
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import manifests

_ABSENT: t.Mapping[str, t.Any] = {"state": "absent", "msg": "the service was not asked"}
# Bytes that are sent before it is looked whether the node takes them.
_PIECE = 256 << 10


class Agreed(t.NamedTuple):
    """What the client of a node is told to check.

    :ivar manifest: the manifest that it has, in short; None without one.
    :ivar verify: it reads back what it has written.
    :ivar resume: it keeps what is on the disk already.
    :ivar reason: why it does not read back; "" when it does.
    """

    manifest: t.Mapping[str, t.Any] | None = None
    verify: bool = False
    resume: bool = False
    reason: str = ""

    @property
    def go(self) -> str:
        """The word by which the program on the node starts the client so."""
        return " ".join(["go", *["verify"] * self.verify, *["resume"] * self.resume])


def question(node: Node, again: bool = False) -> str:
    """Return ``yes`` when the client must be asked what it can, else ``no``: that takes its time."""
    present = node.get("manifest", _ABSENT)["state"] == "present"
    return "yes" if present and (again or manifests.wanted(node)) else "no"


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
        return Agreed(reason=reason)
    await _hand(session, manifest["path"], setting["orbit_stall_timeout"])
    return Agreed(manifest, verify=not reason, resume=resume, reason=reason)


async def _hand(session: ssh.Session, path: str, patience: float) -> None:
    try:
        text = await asyncio.to_thread(manifests.read, path)
    except manifests.ManifestError as error:
        raise Failed("client_failed", f"the manifest cannot be given to the node: {error}") from error
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
