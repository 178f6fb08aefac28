# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Client of the frisbee service: which images are being multicast, and where."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import manifest as manifests
from ansible_collections.orbit.imaging.plugins.module_utils.dialects import Method, Request, Speaker
from ansible_collections.orbit.imaging.plugins.module_utils.names import (
    IMAGE_NAME_RULE,
    is_image_name,
    is_ipv4,
    measure,
    whole_number,
)
from ansible_collections.orbit.imaging.plugins.module_utils.service import (
    Code,
    Connection,
    Reply,
    ServiceError,
    parse_json,
    shorten,
    unexpected,
)

#: Seconds to wait for another process on this host that is starting streams of the same service.
LOCK_WAIT = 120.0
#: How often a start is tried again when services of several hosts have got into each other's way, and the
#: shortest pause before. Longer ones are drawn by lot, so that two hosts do not meet again.
START_RETRIES = 2
START_PAUSE = 1.5

#: What became of a stream, as :class:`Started` and :class:`Stopped` say it.
STARTED = "started"
JOINED = "joined"
SERVED = "served"
STOPPED = "stopped"
STILL_USED = "still_used"
NOT_SENDING = "not_sending"
UNKNOWN = "unknown"

#: What a :class:`Stream` says of what was sent, where the service tells it.
SENT = ("blocks_sent", "blocks_repeated", "bandwidth")

_REMAKE = "Make it again: imagezip --manifest IMAGE"
# Blocks that a stream may be said to have sent; more is no number of blocks.
_MOST_BLOCKS = 2**48
_NOT_STOPPED = "Did not stop the frisbeed"


class Stream(t.NamedTuple):
    """A stream: one image being sent.

    :ivar image: name of the image file.
    :ivar address: multicast group; None where the service does not say.
    :ivar port: UDP port.
    :ivar time_left: seconds until the service ends the stream by itself; None when it does not say.
    :ivar own: whether it is of the domain that was asked for; None when the service does not say.
    :ivar server: address from which it is sent; None when the service does not say.
    :ivar blocks_sent: blocks sent since its start; None when the service does not say.
    :ivar blocks_repeated: how many of them were sent before; None when the service does not say.
    :ivar bandwidth: Mbit/s of its own; None when the service does not say.
    """

    image: str
    address: t.Optional[str]
    port: int
    time_left: t.Optional[float] = None
    own: t.Optional[bool] = None
    server: t.Optional[str] = None
    blocks_sent: t.Optional[int] = None
    blocks_repeated: t.Optional[int] = None
    bandwidth: t.Optional[float] = None


class Status(t.NamedTuple):
    """What the service is sending.

    :ivar streams: all streams, of all domains of the service.
    :ivar bandwidth: Mbit/s of the stream started last; None when nothing was ever started.
    """

    streams: t.Tuple[Stream, ...] = ()
    bandwidth: t.Optional[float] = None

    def serving(self, image: str) -> bool:
        """Whether a stream of this image is listed that is not known to be another domain's."""
        return any(stream.image == image and stream.own is not False for stream in self.streams)


class Sidecar(t.NamedTuple):
    """What the service says about the manifest of an image.

    :ivar manifest: what is in it; None when there is none that can be used.
    :ivar text: the manifest as it came.
    :ivar msg: why there is none.
    :ivar damaged: there is one, but it is damaged or belongs to another image.
    """

    manifest: t.Optional[manifests.Manifest] = None
    text: bytes = b""
    msg: str = ""
    damaged: bool = False


class Started(t.NamedTuple):
    """A stream as handed out.

    :ivar joined: it was running already; None when that could not be told.
    :ivar verified: the service's list was read afterwards; it has the stream, and no other image there.
    """

    stream: Stream
    joined: t.Optional[bool]
    verified: bool

    @property
    def state(self) -> str:
        """``started``, ``joined``, or ``served`` when it could not be told which of them."""
        return SERVED if self.joined is None else (JOINED if self.joined else STARTED)


class Stopped(t.NamedTuple):
    """What became of a stream of which one use was taken back.

    :ivar state: ``stopped``: it has ended; ``still_used``: it goes on for others; ``not_sending``: it was not
        there; ``unknown``: the service's list could not be read to tell.
    :ivar words: the same for a person.
    :ivar sent: those of :data:`SENT` that the service told.
    """

    state: str
    words: str
    sent: t.Dict[str, float] = {}


class _Again(Exception):
    """A start failed so that asking once more may help, and cannot count a use twice."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(str(error))
        self.error = error


def check_image_name(name: str, what: str = "image") -> str:
    """Return the name of an image or memory image if it is one.

    :raises ServiceError: naming what is wrong.
    """
    if is_image_name(name):
        return name
    shown = name if len(name) <= 60 else name[:57] + "..."
    raise ServiceError(
        f"{shown!r} is not a name of {'an' if what[0] in 'aeiou' else 'a'} {what}",
        code="bad_argument",
        remedy=f"Give {IMAGE_NAME_RULE}",
    )


class FrisbeeClient:
    """Starts, stops and lists streams.

    :param connection: to the gateway.
    :param dialect: a dialect name or ``auto``.
    :param domain: the testbed, "" to leave it to the service.
    :param user: whom the image must be readable by; 5.4 asks for it.
    """

    def __init__(
        self, connection: Connection, dialect: str = "auto", domain: str = "", user: str = ""
    ) -> None:
        self.connection = connection
        self.speaker = Speaker(connection, "frisbee", dialect)
        self.domain = domain
        self.user = user

    # Reading

    def status(self) -> Status:
        """Return all streams of the service.

        Before the first stream the services up to OMF 5.3 answer 500; that is an empty status.

        :raises ServiceError: when the service does not answer or not as it should.
        """
        return self._status() or Status()

    def streams(self) -> Status:
        """Return all streams of the service, and of each whether it is of this client's domain.

        :raises ServiceError: when the service does not answer or not as it should.
        """
        status = self.status()
        ports = {image: self._own_ports(image, status) for image in {one.image for one in status.streams}}

        def told(stream: Stream) -> Stream:
            own = ports[stream.image]
            return stream._replace(own=None if own is None else stream.port in own)

        return status._replace(streams=tuple(told(stream) for stream in status.streams))

    def serving(self, image: str) -> bool:
        """Whether this image is being sent in this client's domain, as far as the service tells these apart.

        :raises ServiceError: when the service does not answer or not as it should.
        """
        return bool(self._served(image))

    def _served(self, image: str) -> t.List[Stream]:
        """Return the streams of this image in this domain, as far as the service tells these apart."""
        status = self.status()
        ports = self._own_ports(image, status)
        return [
            stream
            for stream in status.streams
            if stream.image == image and (stream.own is not False if ports is None else stream.port in ports)
        ]

    def _own_ports(self, image: str, status: Status) -> t.Optional[t.FrozenSet[int]]:
        """Return the ports of an image's listed streams that are of this domain.

        The list is that of all domains and does not tell them apart, but asked for one image the services
        from OMF 4.4 on answer for the one domain. None for a service of 2006, which knows but one.
        """
        listed = [stream for stream in status.streams if stream.image == image]
        if all(stream.own is not None for stream in listed):
            return frozenset(stream.port for stream in listed if stream.own)
        if not is_image_name(image) or not self.speaker.can("find"):
            return None
        found = self._status(image)
        return (
            frozenset(stream.port for stream in found.streams if stream.image == image)
            if found
            else frozenset()
        )

    def _status(self, image: str = "") -> t.Optional[Status]:
        """Return all streams, or those of an image in this domain; None for a 500 that may mean "none"."""
        method, arguments = self._request("find" if image else "status", image)
        reply = self.connection.call("frisbee", method.name, arguments, question=True)
        if reply.status == 500 and self.speaker.dialect.status_fails:
            return None
        if not reply.is_error_page and reply.kind == "xml":
            if reply.root.tag == "OK":
                return Status()
            if reply.root.tag == "frisbee_status":
                streams = tuple(self._stream(daemon.attrib) for daemon in reply.root.iter("daemon"))
                said = reply.root.findtext("bandwidth")
                bandwidth = measure(said)
                if None not in streams and (bandwidth is not None or said is None):
                    return Status(t.cast(t.Tuple[Stream, ...], streams), bandwidth)
        raise unexpected(self.connection, "frisbee", method.name, arguments, reply)

    def _stream(self, said: t.Mapping[str, str]) -> t.Optional[Stream]:
        """Return a stream as listed, None when what is said of it is no stream."""
        port = whole_number(said.get("port"), 65535)
        left = measure(said["timeLeft"]) if "timeLeft" in said else None
        if not port or (left is None and "timeLeft" in said):
            return None
        # The historic `mc_address` beside the list is that of the stream started last, so it is nobody's for
        # sure; one of its own is an addition of later services, as is its domain.
        address = said.get("mc_address") or said.get("address")
        own = said["domain"].lower() == self.domain.lower() if self.domain and "domain" in said else None
        server = said.get("server")
        return Stream(
            shorten(said.get("img", ""), 255),
            address if is_ipv4(address) else None,
            port,
            left,
            own,
            server if is_ipv4(server) else None,
            **_numbers(said),
        )

    def check(self, image: str, *, may_start: bool = True) -> t.Tuple[t.Optional[bool], str]:
        """Return whether the image exists and may be read, and the service's reason when not.

        The services of 2006 have no method for this: an image that is being sent exists, any other is proven
        by starting and stopping its stream.

        :param may_start: when false and only a start could tell, the answer is None.
        :raises ServiceError: when the service could not be asked.
        """
        check_image_name(image)
        if not self.speaker.can("check"):
            return self._prove(image, may_start)
        method, arguments = self._request("check", image)
        reply = self.connection.call("frisbee", method.name, arguments, question=True)
        if reply.is_ok:
            return True, ""
        if not reply.is_error_page:
            if reply.text == "IMAGE NOT FOUND":
                return False, f"image file '{image}' not found"
            if reply.kind == "xml" and reply.root.tag == "ERROR":
                words = shorten(reply.root.text or "")
                if "missing 'user'" not in words:
                    return False, words or "the service says ERROR"
        raise unexpected(self.connection, "frisbee", method.name, arguments, reply)

    def _prove(self, image: str, may_start: bool) -> t.Tuple[t.Optional[bool], str]:
        if self.serving(image):
            return True, ""
        if not may_start:
            return None, "this service tells whether an image exists only by starting its stream"
        try:
            self._get_address(image)
        except ServiceError as error:
            # 4xx and 5xx are the service's answer; anything without a status is not.
            if error.status is None or error.status < 400:
                raise
            return False, error.message
        if self.speaker.can("stop"):
            self._send_stop(image)
        return True, ""

    def manifest(self, image: str) -> Sidecar:
        """Return the manifest of an image.

        Manifests lie below ``/orbit/``, beside what the historic services have. Those answer there as they
        do on any wrong path, with 200 and a list of services or with an error page or not at all: that
        means no manifest and is never an error.
        """
        check_image_name(image)
        try:
            reply = self.connection.call(
                f"orbit/images/{image}", "manifest", {}, question=True, limit=manifests.MAX_SIZE
            )
        except ServiceError as error:
            return Sidecar(msg=f"the service gave no manifest: {error.brief}")
        if reply.status == 200 and reply.body.startswith(b'{"manifest":'):
            try:
                return Sidecar(manifests.parse(reply.body), reply.body)
            except manifests.ManifestError as error:
                return Sidecar(
                    msg=f"the manifest of '{image}' cannot be used: {shorten(str(error))}. {_REMAKE}",
                    damaged=True,
                )
        said = _json_error(reply)
        if said:
            return Sidecar(msg=said, damaged=reply.status in (403, 409))
        return Sidecar(msg="this service has no manifests")

    # Starting

    def start(self, image: str) -> Started:
        """Start the stream of an image, or join it, and return its address.

        Two first calls at about the same time get into each other's way: different images are given one
        address, one image is started twice, or a call fails with 500. So starts are serialised on this host,
        and the service's list is read afterwards. For the other hosts a start that went wrong is made again,
        where that cannot count a use twice. What the service has counted and is refused here is given back.

        :raises ServiceError: when there is no address of its own.
        """
        check_image_name(image)
        with start_lock(f"{self.connection.url} {self.domain}"):
            attempt = 0
            while True:
                try:
                    return self._start(image)
                except _Again as again:
                    attempt += 1
                    if attempt > START_RETRIES:
                        raise again.error from again.error.__cause__
                time.sleep(START_PAUSE * attempt * random.uniform(1, 2))

    def _start(self, image: str) -> Started:
        dialect = self.speaker.dialect
        before = self._serving_if_possible(image)
        if before and dialect.counts_refused:
            self._refuse_what_would_be_refused(image)
        try:
            stream = self._get_address(image)
        except ServiceError as error:
            # Whoever holds no use before and finds no stream after it has none that was counted.
            if error.status == 500 and (
                not dialect.counts_uses or (before is False and self._serving_if_possible(image) is False)
            ):
                raise _Again(error) from error
            raise
        after = self._status_if_possible()
        if after is None:
            return Started(stream, before, False)
        there = [
            other
            for other in after.streams
            if other.port == stream.port and (other.address or stream.address) == stream.address
        ]
        here = [other.image for other in there]
        others = sorted({other for other in here if other != image})
        if others or here.count(image) > 1:
            # Where uses are not counted, a stop would also cut everybody else who receives this image.
            taken = self._error(
                f"'{image}' was given {stream.address}:{stream.port}, where '{(others or here)[0]}' is "
                "being sent already",
                "address_taken",
                "Two streams were started at the same time. Start again when one has ended",
            )
            raise _Again(self._given_back(image, taken) if dialect.counts_uses else taken)
        if not here:
            # The stream has ended, or the service has lost it for one of another host. Either way no use of
            # what is listed is ours.
            raise _Again(
                self._error(
                    f"'{image}' was given {stream.address}:{stream.port}, but the service does not list it "
                    "there afterwards",
                    "not_sending",
                    "See the log of the frisbee service: its frisbeed does not keep running",
                )
            )
        return Started(stream._replace(server=there[0].server), before, True)

    def _refuse_what_would_be_refused(self, image: str) -> None:
        """Ask before a stream is joined: a join that is refused is counted, and nobody could take it back."""
        exists, reason = self.check(image)
        if exists is False:
            raise self._error(reason, "no_such_image", "Check the image's name, and who may read it (user)")

    def _given_back(self, image: str, error: ServiceError) -> ServiceError:
        """Give back a use that is refused, and return the error to raise for that."""
        try:
            self._send_stop(image)
        except ServiceError as failure:
            error.message = shorten(f"{error.message}; and its use could not be given back: {failure.brief}")
        return error

    def give_back(self, image: str) -> None:
        """Take back the use of a stream that was started and is not wanted, where uses are counted.

        :raises ServiceError: when the service could not be asked.
        """
        if self.speaker.dialect.counts_uses:
            self._send_stop(image)

    def _error(self, message: str, code: Code, remedy: str) -> ServiceError:
        return ServiceError(
            message,
            code=code,
            service="frisbee",
            method="getAddress",
            url=f"{self.connection.url}/frisbee/getAddress",
            remedy=remedy,
        )

    def _status_if_possible(self) -> t.Optional[Status]:
        """Return the status, None when the service gives none: an image can be sent nevertheless."""
        try:
            return self._status()
        except ServiceError:
            return None

    def _serving_if_possible(self, image: str) -> t.Optional[bool]:
        """Return whether an image is being sent, None when the service does not tell."""
        served = self._served_if_possible(image)
        return None if served is None else bool(served)

    def _served_if_possible(self, image: str) -> t.Optional[t.List[Stream]]:
        """Return the streams of an image, None when the service does not tell."""
        try:
            return self._served(image)
        except ServiceError:
            return None

    def _get_address(self, image: str) -> Stream:
        method, arguments = self._request("start", image)
        reply = self.connection.call("frisbee", method.name, arguments)
        text, counted = "", False
        if not reply.is_error_page:
            if reply.kind == "text":
                text = reply.text
                # Up to OMF 5.3 a text with 200 is a stream's address; all errors have another status.
                counted = self.speaker.dialect.counts_uses and self.speaker.dialect.status_fails
            elif reply.kind == "xml" and reply.root.tag == "OK":
                text = (reply.root.text or "").strip()
                counted = self.speaker.dialect.counts_uses
        address, _colon, port_text = text[:100].partition(":")
        port = whole_number(port_text, 65535)
        if is_ipv4(address) and port:
            return Stream(image, address, port)
        error = unexpected(self.connection, "frisbee", method.name, arguments, reply)
        raise self._given_back(image, error) if counted else error

    # Stopping

    def stop(self, image: str) -> Stopped:
        """Take back one use of a stream, and tell what became of it.

        What is told was read: in the reply of OMF 5.4, and with older services, whose OK says nothing, in the
        lists before and after. A stream that others still use, or that was not there, is no error.

        :raises ServiceError: when the service could not be asked.
        """
        check_image_name(image)
        silent = self.speaker.dialect.status_fails
        before = self._serving_if_possible(image) if silent else None
        accepted, words, sent = self._send_stop(image)
        if accepted and not silent:
            return Stopped(STOPPED, words or "stopped", sent)
        after = self._served_if_possible(image)
        if after:
            return Stopped(STILL_USED, "still used by others", _sent(after[0]._asdict()))
        if after is None or (accepted and before is None):
            words = "taken back; the service's list could not be read to see whether it has ended"
            return Stopped(UNKNOWN, words, sent)
        return Stopped(STOPPED, "stopped", sent) if before else Stopped(NOT_SENDING, "was not being sent")

    def _send_stop(self, image: str) -> t.Tuple[bool, str, t.Dict[str, float]]:
        """Send a stop; return whether it was accepted, the service's words, and what it says was sent."""
        method, arguments = self._request("stop", image)
        reply = self.connection.call("frisbee", method.name, arguments)
        if reply.is_ok:
            words = shorten(reply.root.text or "") if reply.kind == "xml" else ""
            said = (part.partition("=") for part in reply.sent.split())
            return True, words, _sent(_numbers({key: value for key, _sign, value in said}))
        if not reply.is_error_page and reply.kind == "xml" and reply.root.tag == "ERROR":
            if (reply.root.text or "").strip().startswith(_NOT_STOPPED):
                return False, "", {}
        elif reply.status == 500 and "No such process" in reply.message():
            # B and C say so when the process of a first stop is on its way out.
            return True, "", {}
        raise unexpected(self.connection, "frisbee", method.name, arguments, reply)

    def _request(self, what: str, image: str) -> t.Tuple[Method, t.Dict[str, str]]:
        return self.speaker.request(what, Request((), image, self.domain, self.user))


def _numbers(said: t.Mapping[str, str]) -> t.Dict[str, t.Any]:
    """Return what attributes say of what a stream has sent; None for what they do not."""
    return {
        "blocks_sent": whole_number(said.get("blocks_sent"), _MOST_BLOCKS),
        "blocks_repeated": whole_number(said.get("blocks_repeated"), _MOST_BLOCKS),
        "bandwidth": measure(said.get("bandwidth")),
    }


def _sent(numbers: t.Mapping[str, t.Any]) -> t.Dict[str, float]:
    return {key: numbers[key] for key in SENT if numbers[key] is not None}


def _json_error(reply: Reply) -> str:
    """Return the reason that a service gives in the words of ``/orbit/``, "" when it is another answer."""
    if reply.status < 400 or reply.content_type != "application/json":
        return ""
    try:
        return shorten(str(parse_json(reply.body)["error"]))
    except (ValueError, TypeError, KeyError):
        return ""


@contextlib.contextmanager
def start_lock(key: str, wait: float = LOCK_WAIT) -> t.Iterator[None]:
    """Hold the right to start streams of one service and domain on this host.

    An abstract Unix socket is the lock: it works across users, leaves no file and ends with its holder. Where
    the system has none (only Linux does), starts are serialised inside this process alone, by their caller.

    :raises ServiceError: when another process holds it for longer than ``wait`` seconds.
    """
    name = "\0orbit.imaging/start/" + hashlib.sha256(key.encode()).hexdigest()[:32]
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                holder.bind(name)
                break
            except FileNotFoundError:
                # Not an abstract name here, so this is not Linux.
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise ServiceError(
                        f"another process on this host has been starting streams for {wait:.0f} s",
                        code="busy",
                        service="frisbee",
                        remedy="See which ansible-playbook hangs, and end it",
                    ) from error
            time.sleep(0.05)
        yield
    finally:
        holder.close()
