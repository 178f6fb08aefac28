# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which system each node runs just now: asked once by SSH, without waiting for a boot."""

from __future__ import annotations

import asyncio
import os
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.bounds import bound
from ansible_collections.orbit.imaging.plugins.plugin_utils.node import scripts, ssh
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.boot_wait import Logins, files_of, read_facts
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Node, Record

# Nodes that are asked at a time; seconds that a node has to answer when the connection stands.
_AT_ONCE = 24
_ANSWER = 10.0


class System(t.TypedDict):
    """The system of a node: ``kind`` is memory, disk or none (no answer), ``identity`` its own name.

    ``msg`` says why there is no answer, ``up_seconds`` for how long it has been running, where it tells.
    """

    kind: t.Literal["memory", "disk", "none"]
    identity: str
    up_seconds: float | None
    msg: str


async def ask(record: Record) -> dict[str, System]:
    """Return the system of each node of a run, by name.

    :raises OSError: when the folder of the run cannot keep host keys.
    """
    logins = Logins(os.path.join(record["dir"], "known_hosts"))
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(node: Node) -> tuple[str, System]:
        async with turn:
            return node["name"], await _ask(node, logins)

    try:
        return dict(await asyncio.gather(*(one(node) for node in record["nodes"].values())))
    finally:
        logins.close()


async def _ask(node: Node, logins: Logins) -> System:
    # Whichever system it is, its host key is not known before.
    command = ssh.command(node, logins.known_hosts(node, "now"), scripts.SYSTEM, key=logins.key(node))
    try:
        async with ssh.Session(command) as session:
            await session.send(*files_of(node), ".")
            facts = await asyncio.wait_for(read_facts(session), ssh.connect_seconds(node) + _ANSWER)
            if facts is None:
                _status, words = await session.end()
                return _silent(words.splitlines()[-1] if words else "no answer")
    except asyncio.TimeoutError:
        return _silent("no answer in time")
    except (OSError, ValueError) as error:
        return _silent(f"this host cannot run {command[0]}: {error}")
    if facts.is_memory_image(node):
        markers = (facts.files.get(name) for name in node["settings"]["orbit_memory_markers"])
        return {
            "kind": "memory",
            "identity": next(filter(None, markers), ""),
            "up_seconds": facts.age,
            "msg": "",
        }
    return {"kind": "disk", "identity": facts.identity(node), "up_seconds": facts.age, "msg": ""}


def _silent(words: str) -> System:
    return {"kind": "none", "identity": "", "up_seconds": None, "msg": bound(words.strip())}
