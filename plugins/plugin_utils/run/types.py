# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run's record is made of. It is plain data: what is in it can be written as JSON.

Times are seconds since 1970 (UTC), sizes are bytes.
"""

from __future__ import annotations

import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.outcome import Outcome


class Power(t.TypedDict):
    """The power action that began a boot: a moment before it, and when it was over."""

    before: float
    after: float


class Stream(t.TypedDict, total=False):
    """Where an image is being sent: multicast group, UDP port, and the sender's address where it is told.

    After its stop also what was sent, where that is told: blocks, how many of them not for the first
    time, and the rate in Mbit/s.
    """

    address: str
    port: int
    server: str
    blocks_sent: int
    blocks_repeated: int
    bandwidth: float


class Asked(t.TypedDict):
    """A node as a service module is told of it."""

    name: str
    domain: str
    x: int | None
    y: int | None
    hrn: str
    control_ip: str


class Service(t.TypedDict):
    """A service, and how it is asked; ``timeout`` is seconds.

    ``token_from`` is the host whose variable has the token, None for no token.
    """

    url: str
    dialect: str
    domain: str
    timeout: float
    ca_path: str | None
    validate_certs: bool
    token_from: str | None


class Batch(Service, total=False):
    """What one service is asked in one call, for the ``nodes`` or the ``images`` in it.

    Besides, pxe is told the memory image (None: its own), frisbee the user, and cmc how many nodes
    (``window``) in how many seconds (``interval``) it may switch, and whether their states are read. Where a
    batch is kept for the streams that were begun with it, ``stopped`` are the images that have been stopped.
    """

    nodes: list[Asked]
    images: list[str]
    memory_image: str | None
    user: str | None
    window: int
    interval: float
    verify: bool
    stopped: list[str]


class _ToBatch(t.TypedDict):
    item: Batch


class Answer(_ToBatch, total=False):
    """What a module said to one batch, which is its ``item``.

    ``nodes``, ``images`` and ``streams`` are what it said of each; without, it has failed as a whole.
    """

    changed: bool
    failed: bool
    msg: str
    nodes: list[dict[str, t.Any]] | None
    images: list[dict[str, t.Any]] | None
    streams: list[dict[str, t.Any]] | None


class Node(t.TypedDict, total=False):
    """A node of a run.

    ``settings`` are the role's variables, resolved; ``ssh`` is the way to it; ``group`` is the label of its
    image group; ``token`` numbers the service tokens of the run (0: none). ``outcome`` is None while the node
    is under way, then one of :data:`outcome.OUTCOMES`. ``steps`` has what each step has seen of it.
    """

    name: str
    domain: str
    x: int | None
    y: int | None
    hrn: str
    control_ip: str
    image: str | None
    group: str
    settings: dict[str, t.Any]
    ssh: dict[str, t.Any]
    inventory_groups: list[str]
    token: int
    outcome: Outcome | None
    evidence: str
    steps: dict[str, dict[str, t.Any]]
    power: Power
    stream: Stream
    manifest: dict[str, t.Any]
    attempts: list[dict[str, t.Any]]


class Group(t.TypedDict, total=False):
    """An image group: the nodes of the run that receive one stream."""

    label: str
    image: str
    nodes: list[str]
    quorum: str
    needed: int
    total: int
    imaged: int
    passed: bool


class Timed(t.TypedDict, total=False):
    """When a step of the run began and ended, and what of the control host's processor it took."""

    step: str
    began_at: float
    ended_at: float
    cpu_seconds: float | None


class Record(t.TypedDict, total=False):
    """A run. ``at`` is when its last step was over; ``streams`` are the uses of streams that it was given.

    ``errors`` are reasons why the run cannot begin, found by asking the services. ``unguarded`` says since
    when and why the run has no guard, ``left_behind`` what could not be taken back.
    """

    id: str
    dir: str
    console: str
    playbooks: list[str]
    started_at: float
    at: float
    ended_at: float
    nodes: dict[str, Node]
    groups: list[Group]
    streams: list[Batch]
    timeline: list[Timed]
    errors: list[str]
    unguarded: str
    warnings: list[str]
    left_behind: list[str]
    passed: bool
    claimed: dict[str, str]
    found: dict[str, t.Any]


#: What an event tells; docs/events.md describes each.
EventName = t.Literal["run", "step", "stream", "node", "progress", "attempt", "report", "released"]

#: Where a node of a run stands, in the order in which it goes through them.
NodeState = t.Literal["booting", "ready", "imaging", "imaged", "up", "failed"]


class EventNode(t.TypedDict):
    """A node as the event ``run`` introduces it; without coordinates both are None."""

    node: str
    group: str
    x: int | None
    y: int | None


class EventGroup(t.TypedDict):
    """An image group as the event ``run`` introduces it."""

    group: str
    image: str


class Event(t.TypedDict, total=False):
    """Something that has happened in a run, as docs/events.md describes it.

    The first four are in every event; which others are depends on ``event``.
    """

    v: int
    at: float
    run: str
    event: EventName
    step: str
    node: str
    group: str
    image: str
    state: str
    percent: int
    bytes: int
    rate: float
    address: str
    port: int
    blocks_sent: int
    blocks_repeated: int
    bandwidth: float
    attempt: int
    cause: str
    msg: str
    dir: str
    check: bool
    nodes: list[EventNode]
    groups: list[EventGroup]
    lines: list[str]
    outcomes: dict[str, str | None]
    left: list[str]
