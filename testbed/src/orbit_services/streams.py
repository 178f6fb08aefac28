# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams: one multicast server per image, shared by all who ask for it.

A stream is started once however many ask at the same moment, counts its users, has a group address and a
port of its own, and survives a restart of the services: its process is found again by number and start time.

A stream belongs to one content of its image. Who asks after the file was replaced gets a stream of its own;
the one before goes on with the file that its server has open. To stop is said of an image's name, so nobody
can tell which of them is meant: uses are counted for the name, and with the last one all its streams end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import os
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import ServicesConfig
from .identity import Identity
from .process import is_running, start_time, terminate, wait_gone
from .state import StateError

#: Step between group addresses: odd, so that all of a /16 are used before one comes again.
_STRIDE = 4099
#: How many ports above the base are tried.
_PORTS = 500
#: How many ports a stream tries when other programs take them under its hands.
_TRIES = 8
#: How many ended streams are remembered.
_REMEMBERED = 64
#: How often the server of a stream that dies is started again.
_RESTARTS = 3
#: Prolongation of a stream that still sends when its time is over, in seconds.
_GRACE = 60.0

log = logging.getLogger(__name__)


class StreamError(Exception):
    """The stream's server could not be started; the text says what its process did or said."""


class TooManyStreams(StreamError):
    """As many servers as are allowed run already."""


@dataclass
class _Start:
    """A stream on its way up, and how many wait for it: they are its first users."""

    task: asyncio.Task[Stream] | None = None
    askers: int = 0
    inherited: int = 0
    """Uses of the image's streams that had to end before."""


@dataclass(eq=False)
class Stream:
    """A multicast server that runs. ``identity`` is None when nobody knows what it serves."""

    image: str
    group: str
    port: int
    pid: int
    started: int
    users: int
    deadline: float
    stats_file: str
    log_file: str
    restarts: int = 0
    identity: Identity | None = None

    @property
    def address(self) -> str:
        """Group and port as clients are told."""
        return f"{self.group}:{self.port}"

    def running(self) -> bool:
        """Return whether the process is still there."""
        return is_running(self.pid, self.started)

    def stats(self) -> dict[str, Any] | None:
        """Return what the server last wrote about itself, None when there is nothing (to be read)."""
        try:
            return self.read_stats()
        except OSError:
            return None

    def read_stats(self) -> dict[str, Any] | None:
        """The same; raises :class:`OSError` when there may be something that cannot be read now."""
        try:
            found = json.loads(Path(self.stats_file).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def export(self) -> dict[str, Any]:
        """Return the stream as it goes into the state file."""
        identity = None if self.identity is None else self.identity.export()
        return {**vars(self), "identity": identity}


class StreamTable:
    """All streams. ``changed`` is called after every change, to save the table; raises :class:`StateError`.

    Runs in one event loop; every decision about addresses and counts is made between two awaits.
    """

    def __init__(self, config: ServicesConfig, changed: Callable[[], None]) -> None:
        self._config = config
        self._changed = changed
        self._streams: list[Stream] = []
        self._starting: dict[tuple[str, Identity | None], _Start] = {}
        self._reserved: set[int] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._decided = asyncio.Event()
        self._counter = 0
        self._closing = False
        #: the streams that ended last, with their last numbers and the reason, as plain data
        self.ended: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED)
        #: IPv4 address from which all streams are sent
        self.sender = config.interface
        #: group address of the stream started last, which the historic status calls the address of all
        self.last_group = config.group_base

    @property
    def log_dir(self) -> Path:
        """Folder in which the servers keep their logs and write about themselves."""
        return self._config.log_dir

    # -- asking --------------------------------------------------------------------------------------------

    def running(self) -> list[Stream]:
        """Return the streams whose server is alive, in the order of their start."""
        return [stream for stream in self._streams if stream.running()]

    def find(self, image: str) -> Stream | None:
        """Return the stream of an image that was started last."""
        found = [stream for stream in self.running() if stream.image == image]
        return found[-1] if found else None

    # -- using ---------------------------------------------------------------------------------------------

    async def use(self, image: str, path: Path) -> Stream:
        """Return the stream of an image as it is now, started when there is none, with one more user.

        Raises :class:`TooManyStreams`, :class:`StreamError` or :class:`StateError`; nothing is counted then.
        """
        try:
            identity = self._identify(path)
        except OSError as error:
            raise StreamError(f"{path}: {error.strerror}") from error
        inherited = await self._end_overwritten(image, identity)
        stream = await self._steady(image, identity)
        if stream is not None:
            stream.users += inherited
            self.count(stream)
            return stream
        key = (image, identity)
        start = self._starting.get(key)
        if start is None:
            start = self._starting[key] = _Start()
            start.task = self._spawn(self._start(image, path, identity, start))
        assert start.task is not None
        start.askers += 1
        start.inherited += inherited
        try:
            # One asker may give up (its connection dies); the others still wait for the stream.
            return await asyncio.shield(start.task)
        except asyncio.CancelledError:
            if start.task.done() and not start.task.cancelled() and start.task.exception() is None:
                # It has been counted already.
                self._spawn(self.release(image))
            else:
                start.askers -= 1
            raise

    def count(self, stream: Stream) -> None:
        """Add a user and renew the stream's time. Raises :class:`StateError`; nothing is changed then."""
        before = stream.deadline
        stream.users += 1
        stream.deadline = time.time() + self._config.stream_timeout
        try:
            self._changed()
        except StateError:
            stream.users -= 1
            stream.deadline = before
            raise

    async def release(self, image: str, everybody: bool = False) -> Stream | None:
        """Take one use off an image (or all) and end its streams with the last; return one that was ended.

        Raises :class:`StateError` or :class:`StreamError`; the use is not given up then.
        """
        streams = await self._all_steady(image)
        if not streams:
            return None
        if not everybody and sum(stream.users for stream in streams) > 1:
            oldest = next(stream for stream in streams if stream.users > 0)
            oldest.users -= 1
            try:
                self._changed()
            except StateError:
                oldest.users += 1
                raise
            return None
        for stream in streams:
            # At once, so that nobody is given one of them from now on.
            self._take_out(stream)
        for ended in await asyncio.gather(
            *(self._end(stream, "stopped") for stream in streams), return_exceptions=True
        ):
            if isinstance(ended, BaseException):
                raise ended
        return streams[-1]

    def last_stats(self, stream: Stream) -> dict[str, Any] | None:
        """Return what the server of a stream that has ended wrote last."""
        for ended in reversed(self.ended):
            if (ended["group"], ended["port"]) == (stream.group, stream.port):
                return ended["stats"]  # type: ignore[no-any-return]
        return None

    # -- which file ----------------------------------------------------------------------------------------

    def _identify(self, path: Path) -> Identity | None:
        """Return what the image is now; the historic services went by its name alone."""
        return None if self._config.faithful else Identity.of(path)

    def _serves(self, stream: Stream, identity: Identity | None) -> bool:
        if identity is None:
            return True
        return stream.identity is not None and stream.identity.same_content(identity)

    async def _end_overwritten(self, image: str, identity: Identity | None) -> int:
        """End the streams whose server would now read another content; return the uses they had.

        Half of their clients' data is from before, so what comes would be no image at all.
        """
        overwritten = [
            stream
            for stream in self._streams
            if stream.image == image
            and identity is not None
            and stream.identity is not None
            and stream.identity.changed_into(identity)
        ]
        users = sum(stream.users for stream in overwritten)
        for stream in overwritten:
            self._take_out(stream)
            stream.users = 0
        for stream in overwritten:
            await self._end(stream, "its image was overwritten")
        return users

    # -- life of the table ---------------------------------------------------------------------------------

    def restore(self, document: Mapping[str, Any]) -> None:
        """Take over the streams of a former run that still run. Raises :class:`OSError`."""
        counter, running = document.get("counter"), document.get("running")
        self._counter = counter if isinstance(counter, int) else 0
        for saved in running if isinstance(running, list) else ():
            stream = _saved_stream(saved)
            if stream is None:
                log.error("a stream in the state file is not understood: %r", saved)
            elif stream.running() and _is_server_of(stream):
                log.info("stream of %s at %s goes on (pid %d)", stream.image, stream.address, stream.pid)
                self._adopt(stream)
            else:
                log.warning("stream of %s at %s is gone (pid %d)", stream.image, stream.address, stream.pid)

    def export(self) -> dict[str, Any]:
        """Return the table as it goes into the state file."""
        return {
            "counter": self._counter,
            "running": [stream.export() for stream in self._streams],
        }

    async def close(self, keep_streams: bool) -> None:
        """Stop supervising, and end all servers unless they are to go on for the next run."""
        self._closing = True
        starts = [start.task for start in self._starting.values() if start.task is not None]
        await asyncio.gather(*starts, return_exceptions=True)
        if not keep_streams:
            ends = [self._end(stream, "service closed") for stream in self._streams]
            for ended in await asyncio.gather(*ends, return_exceptions=True):
                if isinstance(ended, BaseException):
                    log.error("%s", ended)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- starting and ending -------------------------------------------------------------------------------

    async def _start(self, image: str, path: Path, identity: Identity | None, start: _Start) -> Stream:
        try:
            stream = await self._serve(image, path, identity)
        except OSError as error:
            raise StreamError(f"stream of {image}: {error}") from error
        finally:
            del self._starting[image, identity]
        stream.users = start.askers + start.inherited
        self._adopt(stream)
        try:
            self._changed()
        except StateError:
            # Nobody has been told of it, and a later run of the services would not know of it.
            await self._end(stream, "could not be noted")
            raise
        log.info("stream of %s at %s (pid %d)", image, stream.address, stream.pid)
        if not start.askers:
            await self._end(stream, "nobody waited for it")
        return stream

    async def _serve(self, image: str, path: Path, identity: Identity | None) -> Stream:
        if self._closing:
            raise StreamError("the service is going down")
        if len(self.running()) + len(self._starting) > self._config.max_daemons:
            raise TooManyStreams("Max. number of daemons reached. Shutdown others and try again")
        group = self._next_group()
        for _ in range(_TRIES):
            port = self._free_port()
            if not self._config.faithful:
                self._reserved.add(port)
            try:
                return await self._launch(image, path, identity, group, port)
            except StreamError:
                # Somebody else may have taken the port since it was looked at; then the next one will do.
                if self._config.faithful or _bindable(port):
                    raise
                log.info("port %d was taken by another program", port)
            finally:
                # The caller puts the stream into the table before anything else runs.
                self._reserved.discard(port)
        raise StreamError(f"{_TRIES} ports from {self._config.port_base} on were taken during the start")

    async def _launch(
        self, image: str, path: Path, identity: Identity | None, group: str, port: int
    ) -> Stream:
        """Start a server, and see that it has opened the image that is meant. Raises :class:`StreamError`."""
        try:
            return await self._run(image, path, identity, group, port)
        except OSError as error:
            place = error.filename or self._config.frisbeed[0]
            raise StreamError(f"{place}: {error.strerror or error}") from error

    async def _run(self, image: str, path: Path, identity: Identity | None, group: str, port: int) -> Stream:
        config = self._config
        config.log_dir.mkdir(parents=True, exist_ok=True)
        stem = f"frisbeed-{group}-{port}"
        stats, output = config.log_dir / f"{stem}.json", config.log_dir / f"{stem}.log"
        stats.unlink(missing_ok=True)
        reading, writing = os.pipe()
        command = [
            *config.frisbeed,
            "-i",
            config.interface,
            "-m",
            group,
            "-p",
            str(port),
            *(("-W", str(config.bandwidth)) if config.bandwidth else ("-G", "0")),
            *(() if config.gather is None else ("--gather", str(config.gather))),
            "--stats",
            str(stats),
            *(() if config.faithful else ("--ready-fd", str(writing))),
            str(path),
        ]
        try:
            with output.open("wb") as sink:
                # Not asyncio's subprocess: that kills its children when the loop goes, and these may stay.
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    pass_fds=(writing,),
                    start_new_session=True,
                )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        try:
            started = start_time(process.pid) or 0
        except OSError:
            os.close(reading)
            process.kill()
            process.wait()
            raise
        self._children[process.pid] = process
        self._spawn(self._reap(process, started))
        try:
            if config.faithful:
                os.close(reading)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(wait_gone(process.pid, started), config.faithful_wait)
                ready = True
            else:
                ready = await _ready(reading, f"{group}:{port}", config.start_timeout)
        except BaseException:
            await terminate(process.pid, started, config.stop_timeout)
            raise
        if not ready or not is_running(process.pid, started):
            await terminate(process.pid, started, config.stop_timeout)
            raise StreamError(f"Starting daemon '{image}' with '{' '.join(command)}' failed: {_tail(output)}")
        # Between the first look and its opening the file the name may have come to stand for another one.
        if identity is not None and not identity.same_content(Identity.of(path)):
            await terminate(process.pid, started, config.stop_timeout)
            raise StreamError(f"{path} was changed while its server started; ask again when it is complete")
        return Stream(
            image,
            group,
            port,
            process.pid,
            started,
            users=0,
            deadline=time.time() + config.stream_timeout,
            stats_file=str(stats),
            log_file=str(output),
            identity=identity,
        )

    def _holds(self, stream: Stream) -> bool:
        return any(held is stream for held in self._streams)

    def _take_out(self, stream: Stream) -> None:
        """Give a stream to nobody any more."""
        self._streams = [held for held in self._streams if held is not stream]

    async def _end(self, stream: Stream, reason: str) -> None:
        """End a stream. Raises :class:`StreamError` when its server is still there; then it stays, too."""
        self._take_out(stream)
        self._reserved.add(stream.port)
        try:
            gone = await terminate(stream.pid, stream.started, self._config.stop_timeout)
        finally:
            self._reserved.discard(stream.port)
        if not gone:
            self._streams.append(stream)
            raise StreamError(f"the server of {stream.image} (process {stream.pid}) does not end")
        log.info("stream of %s at %s ended: %s", stream.image, stream.address, reason)
        self._remember(stream, reason)

    # -- supervision ---------------------------------------------------------------------------------------

    def _adopt(self, stream: Stream) -> None:
        self._streams.append(stream)
        self.last_group = stream.group
        self._spawn(self._watch(stream))
        self._spawn(self._limit(stream))

    async def _watch(self, stream: Stream) -> None:
        while True:
            await wait_gone(stream.pid, stream.started)
            if not self._holds(stream):
                return
            words = _tail(Path(stream.log_file))
            log.warning("server of %s at %s has ended by itself: %s", stream.image, stream.address, words)
            given_up: str | None = "this program failed"
            try:
                given_up = await self._again(stream)
            finally:
                # Whatever went wrong: nobody may wait for this stream for ever.
                if given_up is not None and self._holds(stream):
                    self._take_out(stream)
                    self._bequeath(stream)
                    self._remember(stream, f"ended by itself: {words}; not started again: {given_up}")
                self._decide()
            if given_up is not None:
                return

    def _bequeath(self, stream: Stream) -> None:
        """Count the uses of a stream that is over for what is left of its image's streams."""
        heirs = [other for other in self._streams if other.image == stream.image]
        if heirs:
            heirs[-1].users += stream.users

    def _decide(self) -> None:
        """Let those go on who wait for what becomes of a stream whose server has died."""
        self._decided.set()
        self._decided.clear()

    async def _steady(self, image: str, identity: Identity | None) -> Stream | None:
        """Return the stream of an image as it is now; while its server is started again, wait."""
        while True:
            found = [s for s in self._streams if s.image == image and self._serves(s, identity)]
            if not found or found[-1].running():
                return found[-1] if found else None
            if self._closing:
                return None
            await self._decided.wait()

    async def _all_steady(self, image: str) -> list[Stream]:
        """Return all streams of an image; while a server is started again, wait."""
        while True:
            found = [stream for stream in self._streams if stream.image == image]
            if all(stream.running() for stream in found):
                return found
            if self._closing:
                return []
            await self._decided.wait()

    async def _again(self, stream: Stream) -> str | None:
        """Start the server of a stream again where it was, so that its clients go on; why not, else.

        A server that ended well (status 0: nobody has asked it for long) is not wanted any more. Nor may
        clients that have half of one image get the rest of another. Historically none was ever started again.
        """
        child = self._children.pop(stream.pid, None)
        if child is not None and child.poll() == 0:
            return "nobody has asked it for long"
        if self._config.faithful or self._closing:
            return "not wanted"
        if stream.restarts >= _RESTARTS:
            return f"it was {_RESTARTS} times"
        path = self._config.image_dir / stream.image
        try:
            if stream.identity is None or not stream.identity.same_content(Identity.of(path)):
                return f"{path} is not the file it served"
            again = await self._launch(stream.image, path, stream.identity, stream.group, stream.port)
        except OSError as error:
            return f"{path}: {error.strerror}"
        except StreamError as error:
            log.error("server of %s cannot be started again: %s", stream.image, error)
            return str(error)
        if not self._holds(stream):
            # Its last user has stopped it meanwhile.
            await terminate(again.pid, again.started, self._config.stop_timeout)
            return "stopped"
        stream.pid, stream.started = again.pid, again.started
        stream.restarts += 1
        log.info("stream of %s at %s again (pid %d)", stream.image, stream.address, stream.pid)
        self._note()
        return None

    def _note(self) -> None:
        """Have the table saved after something that has happened in any case; ``changed`` tries again."""
        try:
            self._changed()
        except StateError as error:
            log.error("%s", error)

    async def _reap(self, process: subprocess.Popen[bytes], started: int) -> None:
        """Take a child's exit status when it ends. (Supervision goes by number, as for adopted ones.)"""
        try:
            await wait_gone(process.pid, started)
        finally:
            process.poll()

    def _remember(self, stream: Stream, reason: str) -> None:
        self._children.pop(stream.pid, None)
        self.ended.append(
            {
                "image": stream.image,
                "group": stream.group,
                "port": stream.port,
                "reason": reason,
                "ended": time.time(),
                "stats": stream.stats(),
            }
        )
        with contextlib.suppress(OSError):
            Path(stream.stats_file).unlink(missing_ok=True)
        self._note()

    async def _limit(self, stream: Stream) -> None:
        """End the stream when nobody has asked for it in its time, but not while it still sends."""
        before = _sent(stream.stats())
        while self._holds(stream):
            if await self._end_when_overwritten(stream):
                return
            left = stream.deadline - time.time()
            if left > 0:
                await asyncio.sleep(min(left, _GRACE))
                continue
            try:
                now = _sent(stream.read_stats())
            except OSError as error:
                log.warning("stream of %s: cannot tell whether it still sends: %s", stream.image, error)
                now = before + 1
            if not self._config.faithful and now > before:
                before = now
                stream.deadline = time.time() + min(_GRACE, self._config.stream_timeout)
                continue
            log.warning("stream of %s at %s has reached its time limit", stream.image, stream.address)
            try:
                await self._end(stream, "time limit")
            except StreamError as error:
                log.error("%s", error)
                stream.deadline = time.time() + _GRACE
            else:
                self._bequeath(stream)

    async def _end_when_overwritten(self, stream: Stream) -> bool:
        try:
            identity = self._identify(self._config.image_dir / stream.image)
        except OSError:
            # Gone by name only: the server has it open.
            return False
        if identity is None or stream.identity is None or not stream.identity.changed_into(identity):
            return False
        log.warning("the image of %s at %s was overwritten", stream.image, stream.address)
        await self._end(stream, "its image was overwritten")
        self._bequeath(stream)
        return True

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # A start that failed tells its askers; anything else is a fault of this program.
        if not task.cancelled() and not isinstance(task.exception(), StreamError | StateError | None):
            log.error("supervision of a stream failed", exc_info=task.exception())

    # -- addresses -----------------------------------------------------------------------------------------

    def _next_group(self) -> str:
        """Return an address of the group range that no stream uses and that was not used lately.

        All lie in one /16, so they differ in the low 23 bits, which is what Ethernet filters see.
        """
        base = int(ipaddress.IPv4Address(self._config.group_base))
        if self._config.faithful:
            return str(ipaddress.IPv4Address(base + 1))
        used = {stream.group for stream in self._streams}
        while True:
            self._counter += 1
            low = self._counter * _STRIDE % 0x10000
            group = str(ipaddress.IPv4Address(base + low))
            if low and group not in used:
                return group

    def _free_port(self) -> int:
        taken = {stream.port for stream in self._streams} | self._reserved
        for port in range(self._config.port_base, self._config.port_base + _PORTS):
            if port not in taken and _bindable(port):
                return port
        raise StreamError(f"no free UDP port in {_PORTS} ports from {self._config.port_base} on")


def _bindable(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True


async def _ready(reading: int, expected: str, patience: float) -> bool:
    """Wait for the server's line ``address:port``; end of file means that it died, silence that it hangs."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
    )
    try:
        line = await asyncio.wait_for(reader.readline(), patience)
    except TimeoutError:
        return False
    finally:
        transport.close()
    return line.decode("ascii", "replace").strip() == expected


def _saved_stream(saved: object) -> Stream | None:
    """Return a stream of the state document, None when it is not one."""
    kinds = {
        "image": str,
        "group": str,
        "port": int,
        "pid": int,
        "started": int,
        "users": int,
        "deadline": int | float,
        "stats_file": str,
        "log_file": str,
        "restarts": int,
    }
    # What nobody noted (versions before this one) nobody knows: such a stream goes on, but never again.
    if not isinstance(saved, dict) or saved.keys() - {"identity"} != kinds.keys():
        return None
    if not all(isinstance(saved[name], kind) for name, kind in kinds.items()):
        return None
    return Stream(**{**saved, "identity": Identity.load(saved.get("identity"))})


def _is_server_of(stream: Stream) -> bool:
    """Return whether the process has the stream's address on its command line.

    Raises :class:`OSError` when that cannot be told now.
    """
    try:
        words = Path(f"/proc/{stream.pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stream.group.encode() in words and str(stream.port).encode() in words


def _sent(stats: Mapping[str, Any] | None) -> int:
    """Return how much a server has sent, in whatever it counts."""
    found = (stats or {}).get("blocks_sent", 0)
    return found if isinstance(found, int) else 0


def _tail(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "no output"
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "no output"
