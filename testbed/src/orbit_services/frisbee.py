# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The frisbee service: is there such an image, and where is it multicast?"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orbit_frisbee.frisbee.wire import BLOCK_ON_WIRE

from .call import Call, Fault, Outcome, Xml
from .config import is_safe_name
from .dialects import Problem
from .streams import Stream, StreamError, StreamTable, TooManyStreams
from .xml import element, escape

#: Header of the reply to a stop, with what the stream has sent.
_SENT = "Orbit-Stream-Sent"


class Frisbee:
    """Answers for the streams of one domain."""

    def __init__(self, streams: StreamTable) -> None:
        self._streams = streams
        self._ever_served = False

    # -- actions -------------------------------------------------------------------------------------------

    async def check(self, call: Call) -> Outcome:
        """Tell whether an image can be served."""
        call.need_domain(missing_is_ours=True)
        self._need_user(call)
        name = self._image(call)
        if not _readable(self._path(call, name)):
            text = self._not_found(call, name) if call.dialect.xml_ok else "IMAGE NOT FOUND"
            raise Fault(Problem.IMAGE_CHECKED, text)
        if not call.dialect.xml_ok:
            return None
        return call.say("Image found and readable" if call.dialect.needs_user else "Image found")

    async def get(self, call: Call) -> Outcome:
        """Start or join the stream of an image and tell its address; counted for who hears of it only."""
        call.need_domain(missing_is_ours=True)
        self._need_user(call)
        name = self._image(call)
        path = self._path(call, name)
        if not _readable(path):
            running = self._streams.find(name)
            if running is not None and call.faithful and call.dialect.needs_user:
                # Refused, but counted: one of the leaks of 5.4.
                self._streams.count(running)
            problem = Problem.IMAGE_SERVED
            if running is not None and call.dialect.needs_user:
                problem = Problem.IMAGE_CHECKED
            raise Fault(problem, self._not_found(call, name))
        try:
            stream = await self._streams.use(name, path)
        except TooManyStreams as error:
            raise Fault(Problem.TOO_MANY_STREAMS, str(error)) from error
        except StreamError as error:
            raise Fault(Problem.STREAM_FAILED, str(error)) from error
        self._ever_served = True

        async def give_back() -> None:
            await self._streams.release(name)

        call.when_unheard.append(give_back)
        return call.say(stream.address)

    async def stop(self, call: Call) -> Outcome:
        """Give up one use of a stream."""
        name = call.get("img")
        if name is None and not call.dialect.xml_ok:
            name = call.config.default_image
        everybody = call.faithful and not call.dialect.counts_users
        stream = None
        if name is not None and call.knows_domain(missing_is_ours=True):
            try:
                stream = await self._streams.release(name, everybody)
            except StreamError as error:
                raise Fault(Problem.STREAM_FAILED, str(error)) from error
        if stream is not None and not call.faithful:
            # The reply itself is as it always was.
            numbers = _numbers(self._streams.last_stats(stream))
            call.headers.append((_SENT, " ".join(f"{key}={value}" for key, value in numbers.items())))
        if not call.dialect.xml_ok:
            return None
        if stream is None:
            raise Fault(
                Problem.NOT_SERVED,
                f"Did not stop the frisbeed serving '{name or ''}'.Either it is not running or some clients "
                "are still receiving data from it.",
            )
        return call.say(escape(f"Stopped serving '{name}' at {stream.address}"))

    async def status(self, call: Call) -> Outcome:
        """List the streams, or the one of an image."""
        name = call.get("img")
        known = call.knows_domain(missing_is_ours=True)
        found = [stream for stream in self._streams.running() if known and name in (None, stream.image)]
        if not found and call.dialect.xml_ok:
            if name is None:
                return call.say("No frisbee daemons are running")
            return call.say(escape(f"No frisbee daemons are currently serving '{name}'"))
        if not found and call.faithful and (name is not None or not self._ever_served):
            raise Fault(Problem.NOT_SERVED, "no such daemon")
        return Xml(
            element(
                "frisbee_status",
                self._summary(call)
                + "".join(
                    element("daemon", attributes=_row(call, stream, self._streams.sender)) for stream in found
                ),
            )
        )

    # -- parts ---------------------------------------------------------------------------------------------

    def _summary(self, call: Call) -> str:
        return element("bandwidth", str(call.config.bandwidth / 1e6)) + element(
            "mc_address", self._streams.last_group
        )

    def _need_user(self, call: Call) -> None:
        """5.4 (since 2013) wants to know for whom; an unsafe name is refused.

        Which of the users may read an image is not looked up: the testbed has no accounts, its own right to
        read decides.
        """
        if not call.dialect.needs_user:
            return
        user = call.get("user")
        if user is None:
            raise Fault(Problem.NO_USER, "frisbee getAddress: missing 'user' parameter in service call.")
        if user and not is_safe_name(user):
            raise Fault(Problem.UNSAFE_NAME, f"Found unsafe characters in parameter '{user}'")

    def _image(self, call: Call) -> str:
        name = call.get("img")
        if name is None:
            return call.config.default_image
        lenient = call.faithful and not call.dialect.needs_user
        if name and not lenient and not is_safe_name(name):
            raise Fault(Problem.UNSAFE_NAME, f"Found unsafe characters in parameter '{name}'")
        return name

    def _path(self, call: Call, name: str) -> Path:
        """The image's file; whatever the name, it lies below the image folder."""
        folder = os.path.normpath(call.config.image_dir)
        path = os.path.normpath(os.path.join(folder, name)) if "\0" not in name else folder
        return Path(path if path.startswith(folder + os.sep) else folder)

    def _not_found(self, call: Call, name: str) -> str:
        text = f"Image file '{call.config.image_dir}/{name}' not found"
        if call.dialect.needs_user:
            text += f" or not readable by user '{call.get('user') or ''}'"
        return text


def _readable(path: Path) -> bool:
    # Not Path.is_file, which fails on a name that is too long for a file.
    return os.path.isfile(path) and os.access(path, os.R_OK)


def _row(call: Call, stream: Stream, sender: str) -> dict[str, str | None]:
    """A stream in the status. Its own address, its sender's and its numbers are our additions.

    The historic services had one address for all; who knows the sender need not believe anybody else.
    """
    return {
        "img": stream.image,
        "mc_address": None if call.faithful else stream.group,
        "port": str(stream.port),
        "server": None if call.faithful else sender,
        "timeLeft": f"{max(0.0, stream.deadline - time.time()):.6f}",
        **({} if call.faithful else _numbers(stream.stats())),
    }


def _numbers(stats: Mapping[str, Any] | None) -> dict[str, str]:
    """What the server of a stream last wrote: blocks since its start, and its pace in Mbit/s on the cable."""
    stats = stats or {}
    told = {key: str(stats[key]) for key in ("blocks_sent", "blocks_repeated") if key in stats}
    if stats.get("rate_blocks_per_second"):
        told["bandwidth"] = f"{stats['rate_blocks_per_second'] * BLOCK_ON_WIRE * 8 / 1e6:.3f}"
    return told
