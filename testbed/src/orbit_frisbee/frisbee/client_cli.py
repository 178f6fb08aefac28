# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ``frisbee`` command.

Options are those of the programs in the field. Exit status: 0 the image is on the disk, all of it; 1 usage,
or target or image cannot be used; 3 a chunk is not the manifest's; 4 the disk gives back other bytes than
were written; 5 the manifest cannot be had or belongs to another image; 98 port not available; 110 no
server, or silent for too long; 130 interrupted; 255 the network cannot be used, or two servers send.

stdout gets ``Progress: P% SSSSSS NNNNNN`` (percent, seconds, chunks left) for every ten percent and
``Left the team after N seconds on the field!``; stderr the rest, ``Wrote A bytes (B actual)`` among it: A
with free ranges, B really written, and before it ``Flushing: P%``, which of what was not on the disk yet is
now. ``--resume`` adds ``Comparing: P%`` and ``Kept K of N chunks`` before
joining, ``--verify`` adds ``Verifying: P%`` and ``Verified N bytes`` before ``Wrote``, all on stderr.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from orbit_frisbee.frisbee import asking, client
from orbit_frisbee.frisbee.integrity import CheckError
from orbit_frisbee.frisbee.net import NetError, PortBusyError
from orbit_frisbee.frisbee.options import (
    EXIT_FATAL,
    EXIT_MANIFEST,
    EXIT_PORT,
    EXIT_USAGE,
    Parser,
    seconds,
    whole_number,
)
from orbit_frisbee.ndz.format import NdzError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orbit_frisbee.ndz.manifest import Manifest

EXIT_INTERRUPTED = 130


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="frisbee",
        description="Fetch an image and write it to a disk.",
        allow_abbrev=False,
        add_help=False,
    )
    add = parser.add_argument
    add("-h", "--help", action="help", help="show this")
    add(
        "-p",
        dest="port",
        type=whole_number(1, 65535),
        required=True,
        metavar="PORT",
        help="the stream's port",
    )
    add("-m", dest="group", required=True, metavar="ADDRESS", help="group, broadcast or server address")
    add("-i", dest="interface", metavar="ADDRESS", help="own address, of the interface to use")
    add("-b", dest="broadcast", action="store_true", help="-m is a broadcast address")
    add(
        "-S",
        "--server",
        dest="server",
        metavar="ADDRESS[,ADDRESS...]",
        help="listen to this server (one of these) only",
    )
    add("-s", dest="partition", type=whole_number(1, 128), metavar="N", help="write into this partition")
    add("-D", dest="kind", type=whole_number(0, 255), metavar="TYPE", help="then set its type (MBR)")
    add("-z", dest="zero", action="store_true", help="zero free ranges (default: leave them)")
    add("-N", dest="plain", action="store_true", help="store the file as it is")
    add("-O", dest="ascending", action="store_true", help="ask for chunks from the first on")
    add("-n", dest="single", action="store_true", help="inflate and write in one thread")
    add(
        "-r", dest="delay", type=seconds(0, 3600), metavar="S", default=0.0, help="wait up to S seconds first"
    )
    add(
        "-T",
        dest="silence",
        type=seconds(0, 10**6),
        metavar="S",
        default=client.SILENCE_SECONDS,
        help=f"give up when the server is silent for S seconds ({client.SILENCE_SECONDS:g}); 0: never",
    )
    add(
        "-I",
        dest="again",
        type=whole_number(1, 10**6),
        metavar="MS",
        default=1000,
        help="re-request delay (1000)",
    )
    add(
        "-R",
        dest="ahead",
        type=whole_number(1, 1024),
        metavar="N",
        default=asking.READ_AHEAD,
        help=f"chunks asked for ahead ({asking.READ_AHEAD})",
    )
    add(
        "-C",
        dest="buffers",
        type=whole_number(1, 4096),
        metavar="MB",
        help=f"chunk buffers ({client.BUFFERS})",
    )
    add("-W", dest="write", type=whole_number(1, 4096), metavar="MB", help="accepted; chunk buffers serve")
    add("-M", dest="memory", type=whole_number(2, 8192), metavar="MB", help="both; half of it chunk buffers")
    add("-k", dest="socket", type=whole_number(1, 1 << 20), metavar="KB", help="socket buffer")
    add("-K", dest="keepalive", type=seconds(0, 86400), metavar="S", default=0.0, help="rejoin the group")
    add(
        "--manifest", metavar="FILE", help="check every chunk against this manifest; - for the standard input"
    )
    add("--manifest-url", metavar="URL", help="the same, fetched by http")
    add("--resume", action="store_true", help="keep chunks that are on the disk already; needs a manifest")
    add("--verify", action="store_true", help="read back what was written")
    add("-q", dest="quiet", action="store_true", help="no progress")
    add("-d", dest="debug", action="count", default=0, help="also log what is dropped")
    add("-t", dest="debug", action="count", help="the same")
    add("target", help="the disk")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``frisbee``; returns the exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.kind is not None and options.partition is None:
        parser.error("-D needs -s")
    if options.plain and (options.partition is not None or options.zero):
        parser.error("-N goes with neither -s nor -z")
    if options.memory is not None and options.buffers is not None:
        parser.error("-M goes without -C")
    if options.manifest is not None and options.manifest_url is not None:
        parser.error("--manifest goes without --manifest-url")
    if options.resume and options.manifest is None and options.manifest_url is None:
        parser.error("--resume needs --manifest or --manifest-url")
    try:
        return _run(options)
    except KeyboardInterrupt:
        return _fail("interrupted; the disk is incomplete", EXIT_INTERRUPTED)


def _run(options: argparse.Namespace) -> int:
    manifest = None
    if options.manifest is not None or options.manifest_url is not None:
        # Imported here: a client without a manifest starts the sooner.
        from orbit_frisbee.ndz.manifest import ManifestError

        try:
            manifest = _manifest(options)
        except ManifestError as error:
            return _fail(error, EXIT_MANIFEST)
    buffers = options.buffers or (options.memory // 2 if options.memory else client.BUFFERS)
    config = client.ClientConfig(
        target=options.target,
        group=options.group,
        port=options.port,
        interface=options.interface,
        broadcast=options.broadcast,
        server=options.server,
        partition=options.partition,
        partition_type=options.kind,
        zero_free=options.zero,
        plain=options.plain,
        ascending=options.ascending,
        start_delay=options.delay,
        silence=options.silence,
        again=options.again / 1000,
        read_ahead=options.ahead,
        buffers=buffers,
        workers=1 if options.single else client.WORKERS,
        socket_buffer=options.socket * 1024 if options.socket else None,
        keepalive=options.keepalive,
        quiet=options.quiet,
        debug=options.debug or 0,
        manifest=manifest,
        resume=options.resume,
        verify=options.verify,
    )
    try:
        client.Client(config).run()
    except (client.ClientError, CheckError) as error:
        return _fail(error, error.status)
    except NdzError as error:
        return _fail(error, EXIT_USAGE)
    except PortBusyError as error:
        return _fail(error, EXIT_PORT)
    except NetError as error:
        return _fail(error, EXIT_FATAL)
    return 0


def _manifest(options: argparse.Namespace) -> Manifest:
    from orbit_frisbee.frisbee import fetch

    if options.manifest is not None:
        return fetch.from_place(options.manifest)
    return fetch.from_url(options.manifest_url)


def _fail(error: Exception | str, status: int) -> int:
    print(f"frisbee: {error}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
