# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Client of the frisbee service: which images are being multicast, and where."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import time
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils import manifest as manifests
from ansible_collections.orbit.imaging.plugins.module_utils.dialects import Method, Request, Speaker
from ansible_collections.orbit.imaging.plugins.module_utils.service import (
    Connection,
    Reply,
    ServiceError,
    is_ipv4,
    shorten,
    unexpected,
)

#: Seconds to wait for another process on this host that is starting streams of the same service.
LOCK_WAIT = 120.0
#: How often a start is tried again when the service gave the address of another image's stream, and the pause
#: before.
START_RETRIES = 2
START_PAUSE = 1.5

_IMAGE_NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z._-]*", re.ASCII)
_ADDRESS = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3}){3}):([0-9]{1,5})", re.ASCII)
_REMAKE = "Make it again: imagezip --manifest IMAGE"
_NOT_STOPPED = re.compile(r"Did not stop the frisbeed", re.ASCII)


class Stream(t.NamedTuple):
    """A stream: one image being sent.

    :ivar image: name of the image file.
    :ivar address: multicast group; "" where the service does not say.
    :ivar port: UDP port.
    :ivar time_left: seconds until the service ends the stream by itself; None when it does not say.
    """

    image: str
    address: str
    port: int
    time_left: t.Optional[float] = None


class Status(t.NamedTuple):
    """What the service is sending.

    :ivar streams: all streams, of all domains of the service.
    :ivar bandwidth: Mbit/s of the stream started last; None when nothing was ever started.
    """

    streams: t.Tuple[Stream, ...] = ()
    bandwidth: t.Optional[float] = None

    def serving(self, image: str) -> bool:
        """Whether a stream of this image is listed."""
        return any(stream.image == image for stream in self.streams)


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

    :ivar joined: it was running already.
    :ivar verified: the service's list was read afterwards and no other image has the same port.
    """

    stream: Stream
    joined: bool
    verified: bool


def check_image_name(name: str, what: str = "image") -> str:
    """Return the name of an image or memory image if it is one.

    The rule is that of OMF 5.4, the only service that checks: letters, digits, ``.``, ``_`` and ``-``. Others
    take slashes and ``..``, and stream a folder for an empty name.

    :raises ServiceError: naming what is wrong.
    """
    if _IMAGE_NAME.fullmatch(name) and len(name) <= 255:
        return name
    shown = name if len(name) <= 60 else name[:57] + "..."
    raise ServiceError(
        f"{shown!r} is not a name of {'an' if what[0] in 'aeiou' else 'a'} {what}",
        remedy="Give the bare file name: letters, digits, '.', '_' and '-', not starting with '.' or '-'",
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

    def status(self) -> Status:
        """Return all streams of the service.

        Before the first stream the services up to OMF 5.3 answer 500; that is an empty status.

        :raises ServiceError: when the service does not answer or not as it should.
        """
        method, arguments = self._request("status", "")
        reply = self.connection.call("frisbee", method.name, arguments, question=True)
        if reply.status == 500 and self.speaker.dialect.name in ("A", "B", "C", "D"):
            return Status()
        if not reply.is_error_page and reply.kind == "xml":
            if reply.root.tag == "OK":
                return Status()
            if reply.root.tag == "frisbee_status":
                return self._status(reply, method, arguments)
        raise unexpected(self.connection, "frisbee", method.name, arguments, reply)

    def _status(self, reply: Reply, method: Method, arguments: t.Mapping[str, str]) -> Status:
        try:
            bandwidth = reply.root.findtext("bandwidth")
            streams = []
            for daemon in reply.root.iter("daemon"):
                left = daemon.get("timeLeft")
                streams.append(
                    Stream(
                        daemon.get("img", ""),
                        # The historic `mc_address` is that of the stream started last, so it is nobody's for
                        # sure.
                        daemon.get("address", ""),
                        int(daemon.get("port", "")),
                        None if left is None else float(left),
                    )
                )
            return Status(tuple(streams), None if bandwidth is None else float(bandwidth))
        except ValueError:
            raise unexpected(self.connection, "frisbee", method.name, arguments, reply) from None

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
                words = (reply.root.text or "").strip()
                if "missing 'user'" not in words:
                    return False, words or "the service says ERROR"
        raise unexpected(self.connection, "frisbee", method.name, arguments, reply)

    def _prove(self, image: str, may_start: bool) -> t.Tuple[t.Optional[bool], str]:
        if self.status().serving(image):
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
            self.stop(image)
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
                    msg=f"the manifest of '{image}' cannot be used: {error}. {_REMAKE}", damaged=True
                )
        said = _json_error(reply)
        if said:
            return Sidecar(msg=said, damaged=reply.status in (403, 409))
        return Sidecar(msg="this service has no manifests")

    def start(self, image: str) -> Started:
        """Start the stream of an image, or join it, and return its address.

        Two first calls for different images at about the same time are given one address by all historic
        services. So starts are serialised on this host, and the service's list is read afterwards; an address
        that another image has too is given back and asked for again where uses are counted.

        :raises ServiceError: when there is no address of its own.
        """
        check_image_name(image)
        with start_lock(f"{self.connection.url} {self.domain}"):
            attempt = 0
            while True:
                before = self._status_if_possible()
                stream = self._get_address(image)
                after = self._status_if_possible()
                others = sorted(
                    {
                        other.image
                        for other in (after.streams if after else ())
                        if other.image != image
                        and other.port == stream.port
                        and (not other.address or other.address == stream.address)
                    }
                )
                if not others:
                    return Started(stream, bool(before and before.serving(image)), after is not None)
                # Where uses are not counted, a stop would also cut everybody else who receives this image.
                counted = self.speaker.dialect.counts_uses
                if counted:
                    self.stop(image)
                attempt += 1
                if not counted or attempt > START_RETRIES:
                    raise ServiceError(
                        f"'{image}' was given {stream.address}:{stream.port}, where '{others[0]}' is "
                        "being sent already",
                        service="frisbee",
                        method="getAddress",
                        url=f"{self.connection.url}/frisbee/getAddress",
                        remedy="Two streams were started at the same time. Start again when one has ended",
                    )
                time.sleep(START_PAUSE * attempt)

    def _status_if_possible(self) -> t.Optional[Status]:
        """Return the status, None when the service gives none: an image can be sent nevertheless."""
        try:
            return self.status()
        except ServiceError:
            return None

    def _get_address(self, image: str) -> Stream:
        method, arguments = self._request("start", image)
        reply = self.connection.call("frisbee", method.name, arguments)
        text = ""
        if not reply.is_error_page:
            if reply.kind == "text":
                text = reply.text
            elif reply.kind == "xml" and reply.root.tag == "OK":
                text = (reply.root.text or "").strip()
        match = _ADDRESS.fullmatch(text)
        if match is None or not is_ipv4(match[1]) or not 0 < int(match[2]) < 65536:
            raise unexpected(self.connection, "frisbee", method.name, arguments, reply)
        return Stream(image, match[1], int(match[2]))

    def stop(self, image: str) -> t.Tuple[bool, str]:
        """Take back one use of a stream.

        :return: whether the stream has ended, and the service's words. A stream that others still use, or
            that was not there, is no error.
        :raises ServiceError: when the service could not be asked.
        """
        check_image_name(image)
        method, arguments = self._request("stop", image)
        reply = self.connection.call("frisbee", method.name, arguments)
        if reply.is_ok:
            return True, (reply.root.text or "").strip() if reply.kind == "xml" else ""
        if not reply.is_error_page and reply.kind == "xml" and reply.root.tag == "ERROR":
            if _NOT_STOPPED.match((reply.root.text or "").strip()):
                return False, "not running, or still used by others"
        elif reply.status == 500 and "No such process" in reply.message():
            # B and C say so when the process of a first stop is on its way out.
            return True, ""
        raise unexpected(self.connection, "frisbee", method.name, arguments, reply)

    def _request(self, what: str, image: str) -> t.Tuple[Method, t.Dict[str, str]]:
        return self.speaker.request(what, Request((), image, self.domain, self.user))


def _json_error(reply: Reply) -> str:
    """Return the reason that a service gives in the words of ``/orbit/``, "" when it is another answer."""
    if reply.status < 400 or reply.content_type != "application/json":
        return ""
    try:
        return shorten(str(json.loads(reply.body.decode("utf-8"))["error"]))
    except (ValueError, TypeError, KeyError, RecursionError):
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
                        service="frisbee",
                        remedy="See which ansible-playbook hangs, and end it",
                    ) from error
            time.sleep(0.05)
        yield
    finally:
        holder.close()
