# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ``frisbeed`` command.

Options are those of the programs in the field, with long ones of our own. It stays in the foreground and
writes its log to stderr. Exit status: 0 stopped or idle time over; 1 usage or SIGHUP; 98 port not
available; 255 the file or the network cannot be used.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from orbit_frisbee.frisbee import pace
from orbit_frisbee.frisbee.net import MAX_SEGMENTS, NetError, PortBusyError
from orbit_frisbee.frisbee.options import EXIT_FATAL, EXIT_PORT, EXIT_USAGE, Parser, seconds, whole_number
from orbit_frisbee.frisbee.server import Server, ServerConfig, ServerError, install_signals

_FREE_PORT_TRIES = 8
_NICE = -5


def ports(text: str) -> range:
    """Parse ``7000``, ``7000-7099`` or ``0`` (any free one)."""
    low, dash, high = text.partition("-")
    try:
        first, last = int(low), int(high if dash else low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no port and no range of ports") from None
    if not 0 <= first <= last <= 65535 or (dash and not first):
        raise argparse.ArgumentTypeError(f"{text!r} is no port and no range of ports")
    return range(first, last + 1)


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="frisbeed", description="Serve one file by multicast.", allow_abbrev=False, add_help=False
    )
    add = parser.add_argument
    add("-h", "--help", action="help", help="show this")
    add("-p", dest="ports", type=ports, required=True, metavar="PORT", help="port, range lo-hi, or 0: any")
    add("-m", dest="group", required=True, metavar="ADDRESS", help="group, broadcast or peer address")
    add("-i", dest="interface", metavar="ADDRESS", help="own address, of the interface to use")
    add("-b", dest="broadcast", action="store_true", help="-m is a broadcast address")
    add("-W", dest="bandwidth", type=whole_number(10_000, 10**12), metavar="BITS/S", help="rate on the cable")
    add(
        "-B",
        dest="burst",
        type=whole_number(1, 1 << 20),
        metavar="N",
        default=pace.DEFAULT_BURST,
        help=f"blocks per gap, sent evenly ({pace.DEFAULT_BURST})",
    )
    add(
        "-G",
        dest="gap",
        type=whole_number(0, 10**9),
        metavar="US",
        default=pace.DEFAULT_GAP_US,
        help=f"gap in microseconds, 0: as fast as the clients can ({pace.DEFAULT_GAP_US})",
    )
    add("-D", dest="dynamic", action="store_true", help="go slower while clients lose blocks")
    add(
        "-R",
        dest="read_size",
        type=whole_number(1, 1024),
        metavar="N",
        default=MAX_SEGMENTS,
        help=f"most blocks read at once ({MAX_SEGMENTS})",
    )
    add(
        "-T",
        dest="idle",
        type=seconds(-1, 10**9),
        metavar="S",
        default=1800.0,
        help="end after S idle seconds (1800); 0: never; -1: when the last client has left",
    )
    add("-d", dest="debug", action="count", default=0, help="also log what is dropped")
    add("-t", dest="debug", action="count", help="the same")
    add("-k", dest="buffer", type=whole_number(1, 1 << 20), metavar="KB", help="socket buffers")
    add("-K", dest="keepalive", type=seconds(0, 86400), metavar="S", default=0.0, help="rejoin the group")
    add("-A", dest="address_file", type=Path, metavar="FILE", help="write address:port there")
    add(
        "--gather",
        type=seconds(0, 3600),
        metavar="S",
        default=0.0,
        help="start sending when nobody has joined for S seconds, after 10 times S at the latest",
    )
    add(
        "--expect",
        type=whole_number(0, 4096),
        metavar="N",
        default=0,
        help="with --gather: do not wait for more than N clients",
    )
    add("--stats", type=Path, metavar="FILE", help="keep numbers there, JSON")
    add("--ready-fd", type=whole_number(0, 1 << 20), metavar="N", help="write address:port to descriptor N")
    add("--no-offload", action="store_true", help="send one datagram per call")
    add("image", type=Path, help="the file to serve")
    return parser


def _open(candidates: range, config: ServerConfig) -> Server:
    busy: PortBusyError | None = None
    # The kernel's choice is free on the group's address; on our own it may just be taken.
    for port in candidates if candidates[-1] else [0] * _FREE_PORT_TRIES:
        try:
            return Server(config._replace(port=port))
        except PortBusyError as error:
            busy = error
    assert busy is not None
    raise busy


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``frisbeed``; returns the exit status."""
    options = build_parser().parse_args(arguments)
    rate = (
        pace.rate_of_bandwidth(options.bandwidth)
        if options.bandwidth
        else pace.rate_of_burst(options.burst, options.gap)
    )
    config = ServerConfig(
        path=options.image,
        group=options.group,
        port=0,
        interface=options.interface,
        broadcast=options.broadcast,
        rate=rate,
        dynamic=options.dynamic,
        read_size=options.read_size,
        idle_timeout=options.idle,
        gather=options.gather,
        expect=options.expect,
        buffer=options.buffer * 1024 if options.buffer else None,
        keepalive=options.keepalive,
        stats=options.stats,
        debug=options.debug,
        offload=not options.no_offload,
    )
    try:
        server = _open(options.ports, config)
    except PortBusyError as error:
        return _fail(error, EXIT_PORT)
    except (NetError, ServerError) as error:
        return _fail(error, EXIT_FATAL)
    undo = install_signals(server)
    try:
        address = f"{options.group}:{server.port}"
        if server.size % (1 << 20):
            print(
                f"frisbeed: {options.image}: {server.size} bytes are not whole chunks of 1 MiB; clients of "
                f"the 2004 generation lose the last {server.size % (1 << 20)}",
                file=sys.stderr,
            )
        if options.address_file is not None:
            options.address_file.write_text(address + "\n")
        if options.ready_fd is not None:
            with os.fdopen(options.ready_fd, "w") as ready:
                ready.write(address + "\n")
        print(f"frisbeed: serving {options.image} ({server.blocks} blocks) on {address}", file=sys.stderr)
        # All clients wait for a server that waits for a processor. Only root may say so.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        server.run()
    except (NetError, ServerError, OSError) as error:
        return _fail(error, EXIT_FATAL)
    finally:
        undo()
        print(server.report(), file=sys.stderr, flush=True)
        server.close()
    return EXIT_USAGE if server.hung_up else 0


def _fail(error: Exception, status: int) -> int:
    print(f"frisbeed: {error}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
