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

import concurrent.futures
import dataclasses
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import nodes as nodeutil
from ansible_collections.orbit.imaging.plugins.module_utils.frisbee import FrisbeeClient
from ansible_collections.orbit.imaging.plugins.module_utils.login import login_name
from ansible_collections.orbit.imaging.plugins.module_utils.pxe import PxeClient
from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection, ServiceError
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard.claims import (
    ClaimError,
    Claims,
    stream_path,
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
_PARALLEL = 8

Asked = t.Mapping[str, t.Any]

_ASKED = ("url", "dialect", "domain", "user", "timeout", "ca_path", "validate_certs", "token")


@dataclasses.dataclass
class StreamLease:
    """One use of a stream.

    :ivar asked: which service, in which words: url, dialect, domain, user, timeout, ca_path, validate_certs,
        token.
    :ivar state: ``intended``, ``owned``, ``stopping`` or ``gone``.
    :ivar foreign: whether somebody else may have sent the image already; None when that is not known.
    """

    asked: Asked
    image: str
    state: str = "intended"
    foreign: bool | None = None

    def __str__(self) -> str:
        return f"{self.image} (frisbee at {self.asked['url']}, domain {self.asked['domain']})"

    def is_of(self, said: Asked) -> bool:
        """Whether ``said`` (a result) is about such a use."""
        return self.image == said["image"] and all(
            self.asked[key] == said[key] for key in ("url", "dialect", "domain", "user")
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
        links: t.Sequence[Asked],
        claims: Claims,
        claim_dir: str,
        log: t.Callable[[str], None],
        settle: float = SETTLE,
    ) -> None:
        self._all_links = {node["name"]: (batch, node) for batch in links for node in batch["nodes"]}
        self._linked: dict[str, tuple[Asked, Asked]] = {}
        self._uses: list[StreamLease] = []
        self._clients: list[str] = []
        self._claims = claims
        self._claim_dir = claim_dir
        self._log = log
        self._settle = settle
        #: The step the run was last heard to begin; undoing begins with what that may be doing.
        self.step = ""

    # -- what the run says

    def note(self, step: str, said: Asked) -> None:
        """Take down what the run is about to do, or what has come of it (``said`` then has ``results``)."""
        if "results" in said:
            _RESULTS[step](self, said["results"])
            return
        self.step = step
        if step == "link":
            self._linked = dict(self._all_links)
        elif step == "serve":
            self._intend(said["streams"])
        elif step == "client":
            self._clients = list(said["nodes"])
        elif step == "stop":
            for use in self._uses:
                if use.state == "owned":
                    use.state = "stopping"

    def _intend(self, batches: t.Sequence[Asked]) -> None:
        for batch in batches:
            asked = {key: batch.get(key) for key in _ASKED}
            try:
                with _connect(asked) as connection:
                    client = _frisbee(connection, asked)
                    sent = {image for image in batch["images"] if client.serving(image)}
            except ServiceError:
                sent = None
            for image in batch["images"]:
                use = StreamLease(asked, image, foreign=None if sent is None else image in sent)
                self._claims.share(self._stream_path(use))
                self._uses.append(use)

    def _served(self, results: t.Sequence[Asked]) -> None:
        for said in results:
            use = next((u for u in self._uses if u.state == "intended" and u.is_of(said)), None)
            # A stream that was given but refused by us (two images at one address) is ours to stop, too.
            if use is not None and (said["ok"] or said["port"]):
                use.state = "owned"
                use.foreign = bool(said["joined"])

    def _unlinked(self, results: t.Sequence[Asked]) -> None:
        for said in results:
            if said["ok"]:
                self._linked.pop(said["name"], None)

    def _stopped(self, results: t.Sequence[Asked]) -> None:
        for said in results:
            use = next((u for u in self._uses if u.state == "stopping" and u.is_of(said)), None)
            if use is not None and said["ok"]:
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
        by_batch: dict[int, tuple[Asked, list[Asked]]] = {}
        for batch, node in self._linked.values():
            by_batch.setdefault(id(batch), (batch, []))[1].append(node)
        with concurrent.futures.ThreadPoolExecutor(_PARALLEL) as pool:
            jobs = [pool.submit(self._unlink, *links, deadline, again) for links in by_batch.values()]
            jobs += [pool.submit(self._take_back, use, deadline, killed) for use in self.uses]
        left = [job.result() for job in jobs]
        return [words for words in left if words]

    def _unlink(self, batch: Asked, nodes: t.Sequence[Asked], deadline: float, again: bool) -> str:
        names = ", ".join(node["name"] for node in nodes)
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
_RESULTS: dict[str, t.Callable[[Work, t.Sequence[Asked]], None]] = {
    "serve": Work._served,
    "unlink": Work._unlinked,
    "stop": Work._stopped,
}


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
