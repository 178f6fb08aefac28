# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m orbit_services``: the services without the embedded testbed's nodes."""

from __future__ import annotations

import argparse
import asyncio
import logging
import shlex
import signal
import sys
import tempfile
from pathlib import Path

from .access import AccessError, access_of, add_access_options
from .app import Services, create_apps
from .config import ConfigError, ServicesConfig, grid
from .dialects import DIALECTS
from .power.base import Power
from .power.drivers import DriverError, driver
from .serve import HttpServers, listen
from .state import StateError

_NULL_FRISBEED = (sys.executable, str(Path(__file__).with_name("null_frisbeed.py")))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orbit_services",
        description="Serve pxe, frisbee and cmc in historic dialects on loopback, without nodes.",
    )
    parser.add_argument(
        "--listen",
        action="append",
        metavar="DIALECT=HOST:PORT",
        help=f"repeat per dialect ({', '.join(DIALECTS)}); port 0 takes any free one "
        "(default: all on 127.0.0.1, any port)",
    )
    parser.add_argument("--domain", default="demo")
    parser.add_argument("--nodes", default="4x2", metavar="COLUMNSxROWS")
    parser.add_argument("--number", type=int, default=77, help="second octet of control IPs and groups")
    parser.add_argument("--port-base", type=int, default=7000, help="first UDP port of streams")
    parser.add_argument(
        "--dir",
        type=Path,
        metavar="FOLDER",
        help="keep links, state and logs here (default: a temporary folder)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="folder of images (default: FOLDER/images with three small files)",
    )
    parser.add_argument(
        "--memory-image",
        action="append",
        metavar="NAME",
        help="names of memory images to provide (default: memory, omf-5.4, orbit-2.0.0)",
    )
    parser.add_argument(
        "--frisbeed",
        type=shlex.split,
        default=list(_NULL_FRISBEED),
        help="command of the stream server (default: one that sends nothing)",
    )
    parser.add_argument("--link-lifetime", type=float, default=1800.0, metavar="SECONDS")
    parser.add_argument("--stream-timeout", type=float, default=3600.0, metavar="SECONDS")
    parser.add_argument("--max-daemons", type=int, default=10)
    parser.add_argument(
        "--power",
        default="memory",
        metavar="DRIVER",
        help="name of the power driver that switches the nodes (memory: it only remembers)",
    )
    access = parser.add_argument_group("who may use the services")
    add_access_options(access)
    parser.add_argument("--faithful", action="store_true", help="with the traps of the historic services")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser.parse_args(argv)


def _places(texts: list[str] | None) -> dict[str, tuple[str, int]]:
    places = {}
    for text in texts or [f"{name}=127.0.0.1:0" for name in DIALECTS]:
        name, _, place = text.partition("=")
        host, _, port = place.rpartition(":")
        if name not in DIALECTS or not host or not port.isascii() or not port.isdigit():
            raise ConfigError(f"--listen {text}: not DIALECT=HOST:PORT with one of {', '.join(DIALECTS)}")
        places[name] = (host, int(port))
    return places


def _config(options: argparse.Namespace, folder: Path) -> ServicesConfig:
    columns, _, rows = options.nodes.partition("x")
    if not (columns.isdigit() and rows.isdigit() and 0 < int(columns) < 255 and 0 < int(rows) < 255):
        raise ConfigError(f"--nodes {options.nodes}: not COLUMNSxROWS, such as 4x2")
    images = options.images
    if images is None:
        images = folder / "images"
        images.mkdir(parents=True, exist_ok=True)
        for name in ("baseline.ndz", "sender.ndz", "receiver.ndz"):
            (images / name).touch()
    links = folder / "pxelinux.cfg"
    links.mkdir(parents=True, exist_ok=True)
    memory_images = options.memory_image or ["memory", "omf-5.4", "orbit-2.0.0"]
    for name in memory_images:
        (links / name).touch()
    return ServicesConfig(
        domain=options.domain,
        nodes=grid(options.domain, int(columns), int(rows), options.number),
        image_dir=images,
        tftp_dir=links,
        state_file=folder / "services.json",
        log_dir=folder / "log",
        frisbeed=tuple(options.frisbeed),
        group_base=f"239.{options.number}.0.0",
        port_base=options.port_base,
        memory_image=memory_images[0],
        link_lifetime=options.link_lifetime,
        stream_timeout=options.stream_timeout,
        max_daemons=options.max_daemons,
        faithful=options.faithful,
        access=access_of(options),
    )


async def _serve(config: ServicesConfig, power: Power, places: dict[str, tuple[str, int]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sockets = {}
    for name, (host, port) in places.items():
        try:
            sockets[name] = listen(host, port)
        except OSError as error:
            raise ConfigError(f"--listen {name}={host}:{port}: {error.strerror}") from error
    services = Services(config, power)
    servers = HttpServers(create_apps(services), sockets, config.access.tls)
    scheme = "http" if config.access.tls is None else "https"
    await services.start()
    await servers.start()
    for name, sock in sockets.items():
        host, port = sock.getsockname()[:2]
        print(f"{name} {scheme}://{host}:{port}", flush=True)
    print("ready", flush=True)
    await stop.wait()
    await servers.close()
    await services.close()


def _run(options: argparse.Namespace, folder: Path, places: dict[str, tuple[str, int]]) -> None:
    config = _config(options, folder)
    power = driver(options.power)({node.name: node for node in config.nodes})
    asyncio.run(_serve(config, power, places))


def main(argv: list[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM. Prints one line ``DIALECT URL`` per dialect, then ``ready``."""
    options = _arguments(argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.WARNING,
        stream=sys.stderr,
        format="%(levelname)s %(name)s: %(message)s",
    )
    try:
        places = _places(options.listen)
        if options.dir is not None:
            options.dir.mkdir(parents=True, exist_ok=True)
            _run(options, options.dir.resolve(), places)
        else:
            with tempfile.TemporaryDirectory(prefix="orbit-services-") as folder:
                _run(options, Path(folder), places)
    except (AccessError, ConfigError, DriverError, StateError, OSError, ValueError) as error:
        print(f"orbit_services: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
