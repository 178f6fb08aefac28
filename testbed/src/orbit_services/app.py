# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services as a whole: shared state behind one ASGI application per dialect."""

from __future__ import annotations

import asyncio
import logging
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from .cmc import Cmc
from .config import ServicesConfig
from .dialects import DIALECTS
from .frisbee import Frisbee
from .links import HistoricLife, LifeTimes, LinkTable, restored_life
from .manifests import Manifests
from .power.base import Bounded, Power
from .pxe import Pxe
from .state import StateError, StateFile
from .streams import StreamTable
from .web import DialectApp, Handler

log = logging.getLogger(__name__)

#: Seconds until the state is saved again that could not be.
_SAVE_AGAIN = 5.0


class Services:
    """Links, streams and power behind all dialects; ``start`` before use, ``close`` after it."""

    def __init__(self, config: ServicesConfig, power: Power) -> None:
        self.config = config
        self.power = Bounded(power, config.power_timeout)
        self._state = StateFile(config.state_file)
        life: LifeTimes = HistoricLife(config.link_lifetime)
        self.links = LinkTable(config.tftp_dir, (node.hex_ip for node in config.nodes), life, config.grub_dir)
        self.streams = StreamTable(config, self.save)
        self.manifests = Manifests(config.image_dir)
        self._started = False
        self._expiry: asyncio.TimerHandle | None = None
        self._saving: asyncio.TimerHandle | None = None
        pxe = Pxe(self.links, self._links_changed)
        frisbee = Frisbee(self.streams)
        self.handlers: dict[str, Handler] = {
            f"cmc/{name}": action for name, action in Cmc(self.power).actions().items()
        }
        self.handlers.update(
            {
                "pxe/set_named": pxe.set_named,
                "pxe/set_set": pxe.set_set,
                "pxe/set_all": pxe.set_all,
                "pxe/clear_named": pxe.clear_named,
                "pxe/clear_set": pxe.clear_set,
                "pxe/clear_all": pxe.clear_all,
                "frisbee/check": frisbee.check,
                "frisbee/get": frisbee.get,
                "frisbee/stop": frisbee.stop,
                "frisbee/status": frisbee.status,
            }
        )

    async def start(self) -> None:
        """Take up the state of a former run: links with their deadlines, streams that still run.

        Raises :class:`StateError` or :class:`OSError` when that state cannot be found out now.
        """
        self.config.tftp_dir.mkdir(parents=True, exist_ok=True)
        document = self._state.load()
        if not self.config.faithful:
            life = restored_life(document.get("links", {}), self.config.link_lifetime)
            # Links that nobody has a deadline for would stay for ever, as they did after historic restarts.
            orphans = [name for name in self.links.all() if life.deadline(name) is None]
            life.linked(orphans, time.time(), strict=False)
            self.links.life = life
        self.streams.restore(document.get("streams", {}))
        self._started = True
        self._links_changed()

    async def close(self, keep_streams: bool = False) -> None:
        """Stop working. Streams end unless ``keep_streams``; links stay and keep their deadlines."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        await self.streams.close(keep_streams)
        if self._started:
            self._save_in_any_case()
        self._started = False
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None

    def save(self) -> None:
        """Write the state file. Raises :class:`StateError`; it is tried again then until it is written."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        try:
            self._state.save({"links": self.links.export(), "streams": self.streams.export()})
        except StateError:
            self._saving = asyncio.get_running_loop().call_later(_SAVE_AGAIN, self._save_in_any_case)
            raise

    def _save_in_any_case(self) -> None:
        try:
            self.save()
        except StateError as error:
            log.error("%s", error)

    async def status(self) -> dict[str, Any]:
        """Return everything there is to know, as plain data: the reply of ``/orbit/state``."""
        power = await self.power.states([node.name for node in self.config.nodes])
        now = time.time()
        links = self.links.all()
        return {
            "version": _version(),
            "domain": self.config.domain,
            "faithful": self.config.faithful,
            "time": now,
            "memory_image": self.config.memory_image,
            "memory_images": self.links.images(),
            "nodes": [
                {
                    "name": node.name,
                    "hrn": node.hrn,
                    "x": node.x,
                    "y": node.y,
                    "control_ip": node.control_ip,
                    "disk": node.disk,
                    "power": power[node.name].value,
                    "link": links.get(node.hex_ip),
                }
                for node in self.config.nodes
            ],
            "links": [
                {
                    "hex": name,
                    "image": image,
                    "dangling": self.links.dangles(name),
                    "deadline": self.links.deadline(name),
                }
                for name, image in links.items()
            ],
            "streams": [
                {
                    "image": stream.image,
                    "group": stream.group,
                    "port": stream.port,
                    "server": self.streams.sender,
                    "pid": stream.pid,
                    "users": stream.users,
                    "time_left": max(0.0, stream.deadline - now),
                    "stats": stream.stats(),
                    "log": stream.log_file,
                }
                for stream in self.streams.running()
            ],
            "ended_streams": list(self.streams.ended),
        }

    # -- links' life ---------------------------------------------------------------------------------------

    def _links_changed(self) -> None:
        # First, as links end in their time whether that is noted or not.
        self._plan_expiry()
        self.save()

    def _plan_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        when = self.links.next_time()
        if when is not None and self._started:
            delay = max(0.0, when - time.time())
            self._expiry = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        try:
            if self.links.expire(time.time()):
                self._save_in_any_case()
        finally:
            self._plan_expiry()


def _version() -> str:
    try:
        return version("orbit-testbed")
    except PackageNotFoundError:
        return "unknown"


def create_apps(services: Services) -> dict[str, ASGIApp]:
    """Return one ASGI application per dialect name, all on the same shared state."""
    return {
        name: services.config.access.guard(
            _application(services, DialectApp(dialect, services.config, services.handlers))
        )
        for name, dialect in DIALECTS.items()
    }


def _application(services: Services, dialect: DialectApp) -> ASGIApp:
    async def state(request: Request) -> Response:
        return JSONResponse(await services.status())

    async def nothing(request: Request) -> Response:
        there = "/orbit/state, /orbit/images and /orbit/images/NAME/manifest"
        return JSONResponse({"error": f"not found; there are {there}"}, status_code=404)

    return Starlette(
        routes=[
            Route("/orbit/state", state),
            *services.manifests.routes(),
            Route("/orbit/{rest:path}", nothing),
            Mount("/", dialect),
        ]
    )
