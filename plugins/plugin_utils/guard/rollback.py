# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run has linked and what it has served, and how that is taken back.

Links are simple: the nodes are claimed, so to clear a link twice, or one that never was, harms nobody.
Streams are not: they are shared, and a stop too many ends the use of somebody else. So a use of a stream
is *intended* before the service is asked for it, *owned* when it has answered, *stopping* before the use
is taken back, and gone when the service has confirmed that. For what is known to be owned one stop is due.
For what was interrupted between intention and answer the service's list decides: an image that is not sent
needs no stop; one that is sent gets one only when nobody else can be meant, because nobody sent it before
the run and no other run of this host uses it. Otherwise the use is left, and said to be: a stream that
nobody receives ends by itself when the service's time for it is over, but a stream that is cut spoils the
disks of others.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import nodes as nodeutil
from ansible_collections.orbit.imaging.plugins.module_utils.frisbee import FrisbeeClient
from ansible_collections.orbit.imaging.plugins.module_utils.login import login_name
from ansible_collections.orbit.imaging.plugins.module_utils.pxe import PxeClient
from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection, ServiceError
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import messages
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard.claims import (
    ClaimError,
    Claims,
    Holder,
    stream_identity,
    stream_path,
)
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard.messages import (
    Asked,
    Links,
    Note,
    Result,
    State,
)

# Seconds for one call; a run may allow its services more, but what is left behind cannot wait so long.
_CALL = 20.0
# Pauses between attempts while a service is down, in seconds.
_PAUSE = 0.5
_LONGEST_PAUSE = 5.0
# A request whose sender was killed may still take effect for so many seconds: a busy host is slow to start a
# stream.
SETTLE = 5.0
_LOOK = 0.25
# Seconds for all services together to say what they are sending: the run waits for that.
ASK = 6.0
#: Seconds that undoing may take beyond the patience: the last attempt has begun before that is over.
GRACE = _CALL + 2 * SETTLE
# Requests at one service at a time; other services are not waited for.
_PARALLEL = 8

_T = t.TypeVar("_T")


@dataclasses.dataclass
class StreamLease:
    """One use of a stream.

    :ivar asked: which service, in which words: url, dialect, domain, user, timeout, ca_path, validate_certs,
        token.
    :ivar state: what is known of it.
    :ivar foreign: whether somebody else may have sent the image already; None when that is not known.
    """

    asked: Asked
    image: str
    state: State = "intended"
    foreign: bool | None = None

    def __str__(self) -> str:
        return f"{self.image} (frisbee at {self.asked['url']}, domain {self.asked['domain']})"

    @property
    def identity(self) -> tuple[str, str, str]:
        """The stream that is used."""
        return stream_identity(self.asked["url"], self.asked["domain"], self.image)

    def is_of(self, said: Result) -> bool:
        """Whether ``said`` (a result) is about a use of this stream."""
        return self.identity == stream_identity(
            str(said.get("url")), str(said.get("domain")), str(said.get("image"))
        )


class _GivenUp(Exception):
    """It makes no sense to try again."""


class Work:
    """What the run has done that must not outlive it.

    :param links: batches of nodes that the run will link (url, dialect, domain, timeout, nodes).
    :param claim_dir: folder in which the uses of streams are claimed.
    :param log: takes one line.
    """

    def __init__(
        self,
        links: t.Sequence[Links],
        claims: Claims,
        claim_dir: str,
        log: t.Callable[[str], None],
        settle: float = SETTLE,
    ) -> None:
        self._all_links = {node["name"]: (batch, node) for batch in links for node in batch["nodes"]}
        self._linked: dict[str, tuple[Links, dict[str, t.Any]]] = {}
        self._others: dict[str, Holder] = {}
        self._uses: list[StreamLease] = []
        self._clients: list[str] = []
        self._claims = claims
        self._claim_dir = claim_dir
        self._log = log
        self._settle = settle
        #: The step the run was last heard to begin; undoing begins with what that may be doing.
        self.step = ""

    # -- what the run says

    def note(self, step: str, said: Note) -> messages.Answer:
        """Take down what the run is about to do, or what has come of it (``said`` then has ``results``).

        :return: for ``serve``, what the services were sending already.
        """
        if "results" in said:
            take = _RESULTS.get(step)
            if take is None:
                raise ValueError(f"the step {step!r} has no results")
            take(self, said["results"])
            return {}
        if not isinstance(step, str):
            raise ValueError(f"the step is {type(step).__name__}, no name")
        self.step = step
        if step == "link":
            self._linked = dict(self._all_links)
        elif step == "serve":
            return {"foreign": self._intend(said)}
        elif step == "client":
            self._clients = list(said.get("nodes") or ())
        elif step == "stop":
            for use in self._uses:
                if use.state == "owned":
                    use.state = "stopping"
        return {}

    def replay(self, notes: t.Iterable[Note], streams: t.Sequence[messages.Streams]) -> None:
        """Take down again what another guard had heard.

        :param streams: services with their tokens, which are not in the notes that are kept.
        """
        known = {(batch["url"], batch["domain"], batch.get("user")): batch for batch in streams}
        for note in notes:
            for batch in note.get("streams", []):
                now = known.get((batch["url"], batch["domain"], batch.get("user")))
                if now is not None:
                    batch["token"] = now.get("token")
            try:
                self.note(note["step"], note)
            except (ValueError, KeyError, TypeError) as error:
                self._log(f"a note that was kept is not understood: {error!r}")

    def leave_to(self, others: t.Mapping[str, Holder]) -> None:
        """Leave the links of nodes, by name, to those who have claimed them since."""
        self._others.update(others)

    def _intend(self, said: Note) -> list[bool | None]:
        """Take down uses that are asked for next; return for each whether others had the stream before."""
        batches = said.get("streams") or []
        # A caller that got no answer may say it again: what is intended already is no second use.
        before = {(use.identity, use.asked.get("user")) for use in self._uses if use.state == "intended"}
        fresh = [
            StreamLease(t.cast(Asked, {key: batch.get(key) for key in _ASKED}), image)
            for batch in batches
            for image in batch["images"]
        ]
        foreign = said.get("foreign")
        if foreign is None or len(foreign) != len(fresh):
            sent = together([(batch["url"], lambda batch=batch: _sent(batch)) for batch in batches], ASK)  # type: ignore[misc]
            foreign = [
                image in images if isinstance(images, set) else None
                for batch, images in zip(batches, sent, strict=True)
                for image in batch["images"]
            ]
        for use, is_foreign in zip(fresh, foreign, strict=True):
            if (use.identity, use.asked.get("user")) in before:
                continue
            use.foreign = is_foreign
            self._uses.append(use)
            url, domain, image = use.identity
            try:
                self._claims.share(self._stream_path(use), url=url, domain=domain, image=image)
            except ClaimError as error:
                # Then nobody is taken to be alone with it, and that is all.
                self._log(f"whether other runs of this host use {use} cannot be known: {error}")
        return foreign

    def _use(self, state: State, said: Result) -> StreamLease | None:
        """Return the use in a state that a result is about; of several the one of the same user."""
        found = [use for use in self._uses if use.state == state and use.is_of(said)]
        return min(found, key=lambda use: use.asked.get("user") != said.get("user"), default=None)

    def _served(self, results: t.Sequence[Result]) -> None:
        for said in results:
            use = self._use("intended", said)
            # A stream that was given but refused by us (two images at one address) is ours to stop, too.
            if use is not None and (said.get("ok") or said.get("port")):
                use.state = "owned"
                use.foreign = bool(said.get("joined"))

    def _unlinked(self, results: t.Sequence[Result]) -> None:
        for said in results:
            if said.get("ok"):
                self._linked.pop(str(said.get("name")), None)

    def _stopped(self, results: t.Sequence[Result]) -> None:
        for said in results:
            use = self._use("stopping", said)
            if use is not None and said.get("ok"):
                use.state = "gone"

    # -- what is to be undone

    @property
    def links(self) -> list[str]:
        """Names of the nodes that may be linked."""
        return list(self._linked)

    @property
    def uses(self) -> list[StreamLease]:
        """Uses of streams that may not have been taken back."""
        return [use for use in self._uses if use.state != "gone"]

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to undo."""
        return not self.links and not self.uses

    @property
    def clients(self) -> list[str]:
        """Nodes on which clients may have been started."""
        return self._clients

    def undo(self, patience: float, *, killed: bool = False) -> list[str]:
        """Take back what is left; log each part, and return what could not be taken back, in words.

        :param patience: seconds for which a service that fails is asked again.
        :param killed: the run ended in the middle of a request, which may take effect a little later.
        """
        deadline = time.monotonic() + patience
        again = killed and self.step == "link"
        left = self._left_to_others()
        by_batch: dict[int, tuple[Links, list[dict[str, t.Any]]]] = {}
        for name, (batch, node) in self._linked.items():
            if name not in self._others:
                by_batch.setdefault(id(batch), (batch, []))[1].append(node)
        jobs: list[tuple[str, str, t.Callable[[], str]]] = []
        for batch, nodes in by_batch.values():
            what = f"links of {_names(nodes)} (pxe at {batch['url']}, domain {batch['domain']})"
            jobs.append((what, batch["url"], _bind(self._unlink, batch, nodes, deadline, again)))
        for use in self.uses:
            jobs.append((f"a use of {use}", use.asked["url"], _bind(self._take_back, use, deadline, killed)))
        results = together([(lane, job) for _what, lane, job in jobs], patience + GRACE)
        for (what, _lane, _job), result in zip(jobs, results, strict=True):
            if result is None or isinstance(result, BaseException):
                why = "no answer in time" if result is None else f"a failure of the guard: {result!r}"
                self._log(f"NOT undone: {what}: {why}")
                left.append(f"{what}: {why}")
            elif result:
                left.append(result)
        return left

    def _left_to_others(self) -> list[str]:
        """See which nodes others have claimed: their links are not ours to clear any more."""
        self._claims.look_after()
        for name, holder in self._claims.taken_by_others().items():
            # What nobody can claim, nobody else has.
            if not holder.unreadable:
                self._others.setdefault(name, holder)
        words = [
            f"the link of {name}: its claim was lost, and now it is held by {holder}, to whom it is left"
            for name, holder in self._others.items()
            if name in self._linked
        ]
        for line in words:
            self._log(f"NOT unlinked: {line}")
        return words

    def _unlink(self, batch: Links, nodes: t.Sequence[dict[str, t.Any]], deadline: float, again: bool) -> str:
        names = _names(nodes)
        where = f"pxe at {batch['url']}, domain {batch['domain']}"

        def clear() -> str:
            with _connect(batch) as connection:
                client = PxeClient(connection, batch["dialect"], batch["domain"])
                if not client.speaker.can("clear"):
                    raise _GivenUp("this service cannot clear links; they go when their time is over")
                links = client.unlink(nodeutil.make_nodes(nodes, batch["domain"]))
            return "; ".join(sorted({link.message for link in links if not link.ok}))

        failure = self._insist(clear, deadline, f"unlink {names}")
        if not failure and again:
            time.sleep(self._settle)
            failure = self._insist(clear, deadline, f"unlink {names} again")
        if failure:
            self._log(f"NOT unlinked: {names} ({where}): {failure}")
            return f"links of {names} ({where}): {failure}"
        for node in nodes:
            self._linked.pop(node["name"], None)
        self._log(f"unlinked {names} ({where})")
        return ""

    def _take_back(self, use: StreamLease, deadline: float, killed: bool) -> str:
        if use.state == "intended" and killed:
            self._wait_for(use)
        failure = self._insist(lambda: self._stop(use), deadline, f"stop {use}")
        if failure:
            self._log(f"NOT stopped: {use}: {failure}")
            return f"a use of {use}: {failure}"
        use.state = "gone"
        return ""

    def _wait_for(self, use: StreamLease) -> None:
        """Give a request that was interrupted the time to take effect."""
        end = time.monotonic() + self._settle
        while time.monotonic() < end:
            try:
                with _connect(use.asked) as connection:
                    if _frisbee(connection, use.asked).serving(use.image):
                        return
            except ServiceError:
                pass
            time.sleep(_LOOK)

    def _stop(self, use: StreamLease) -> str:
        with _connect(use.asked) as connection:
            client = _frisbee(connection, use.asked)
            if use.state != "owned":
                if not client.serving(use.image):
                    self._log(f"no use of {use} is left: it is not being sent")
                    return ""
                if use.foreign is not False or not self._claims.alone(self._stream_path(use)):
                    raise _GivenUp(
                        "it is not known whether the run still has it, and others may be receiving the "
                        "image. The stream ends when the service's time for it is over, or by the playbook "
                        "clean with -e stop_streams=true"
                    )
            try:
                stopped = client.stop(use.image)
            except ServiceError as error:
                if error.code != "not_sent":
                    # It may have been taken back although the answer was lost.
                    use.state = "stopping"
                raise
        self._log(f"took back a use of {use}: {stopped.words}")
        return ""

    def _insist(self, attempt: t.Callable[[], str], deadline: float, what: str) -> str:
        """Repeat ``attempt`` until it returns nothing; return its reason when the time is over."""
        pause = _PAUSE
        said = ""
        while True:
            try:
                reason = attempt()
            except _GivenUp as error:
                return str(error)
            except (ServiceError, nodeutil.NodeSetError, ClaimError) as error:
                reason = str(error)
            if not reason or time.monotonic() + pause > deadline:
                return reason
            if reason != said:
                self._log(f"cannot {what} yet, trying again: {reason}")
                said = reason
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _stream_path(self, use: StreamLease) -> str:
        return stream_path(self._claim_dir, use.asked["url"], use.asked["domain"], use.image)


#: What to do with the results of a step.
_RESULTS: dict[str, t.Callable[[Work, t.Sequence[Result]], None]] = {
    "serve": Work._served,
    "unlink": Work._unlinked,
    "stop": Work._stopped,
}
_ASKED = tuple(Asked.__annotations__)


def together(
    jobs: t.Sequence[tuple[str, t.Callable[[], _T]]], seconds: float
) -> list[_T | BaseException | None]:
    """Do jobs at the same time, and wait for them for so long.

    :param jobs: each with its lane; of one lane some are done at a time, and no lane waits for another.
    :return: for each job what it returned or raised, or None when it was not done in time. It is left behind
        then, and ends with the process.
    """
    results: list[_T | BaseException | None] = [None] * len(jobs)
    lanes: dict[str, collections.deque[tuple[int, t.Callable[[], _T]]]] = {}
    for number, (lane, job) in enumerate(jobs):
        lanes.setdefault(lane, collections.deque()).append((number, job))
    done = threading.Semaphore(0)

    def work(lane: collections.deque[tuple[int, t.Callable[[], _T]]]) -> None:
        # Several threads take from it, so that it is empty is known only when nothing comes.
        with contextlib.suppress(IndexError):
            while True:
                number, job = lane.popleft()
                try:
                    results[number] = job()
                except Exception as error:
                    results[number] = error
                done.release()

    deadline = time.monotonic() + seconds
    for queue in lanes.values():
        for _number in range(min(_PARALLEL, len(queue))):
            # Where no more threads are to be had, those there are do it.
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=work, args=(queue,), daemon=True).start()
    for _job in jobs:
        if not done.acquire(timeout=max(0.0, deadline - time.monotonic())):
            break
    return list(results)


def _bind(work: t.Callable[..., str], *arguments: t.Any) -> t.Callable[[], str]:
    return lambda: work(*arguments)


def _names(nodes: t.Iterable[t.Mapping[str, t.Any]]) -> str:
    return ", ".join(node["name"] for node in nodes)


def _sent(asked: messages.Streams) -> set[str] | None:
    """Return which of the images asked for a service is sending; None when it does not say."""
    try:
        with _connect(asked) as connection:
            client = _frisbee(connection, asked)
            # Of its own domain: a service may list the streams of others.
            return {image for image in asked["images"] if client.serving(image)}
    except ServiceError:
        return None


def _connect(asked: Asked) -> Connection:
    return Connection(
        asked["url"],
        timeout=min(float(asked["timeout"]), _CALL),
        validate_certs=asked.get("validate_certs") is not False,
        ca_path=asked.get("ca_path"),
        token=asked.get("token"),
    )


def _frisbee(connection: Connection, asked: Asked) -> FrisbeeClient:
    return FrisbeeClient(connection, asked["dialect"], asked["domain"], asked["user"] or login_name())
