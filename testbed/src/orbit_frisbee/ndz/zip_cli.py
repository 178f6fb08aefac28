# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""imagezip: make an image of a disk, a partition or a file."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import stat
import sys
from collections.abc import Sequence

from orbit_frisbee.ndz import command, manifest
from orbit_frisbee.ndz.format import CHUNK_SIZE, NdzError
from orbit_frisbee.ndz.plan import MIN_FREE, Plan, plan_disk, plan_filesystem, plan_partition, plan_raw
from orbit_frisbee.ndz.ranges import total
from orbit_frisbee.ndz.source import Source
from orbit_frisbee.ndz.write import WRITABLE, Options, tell_total, write_image

PROGRAM = "imagezip"


def _uuid(text: str) -> bytes:
    digits = text.replace("-", "")
    value = bytes.fromhex(digits)
    if len(value) != 16:
        raise ValueError
    return value


def _identity(text: str) -> str:
    try:
        return manifest.check_identity(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> command.Parser:
    parser = command.Parser(
        prog=PROGRAM,
        description="Make an image of a disk, a partition or a file. Free space of ext2/3/4 and FAT file "
        "systems, swapped-out pages and unpartitioned space are left out.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-r", action="store_true", dest="raw", help="store all of the input")
    what.add_argument(
        "-l", action="store_true", dest="filesystem", help="the whole input is one file system or swap area"
    )
    what.add_argument("-s", type=command.number, metavar="N", dest="slice", help="only partition N")
    parser.add_argument(
        "-I",
        type=command.number,
        metavar="N",
        action="append",
        default=[],
        dest="ignore",
        help="leave out the contents of partition N",
    )
    parser.add_argument(
        "-R",
        type=command.number,
        metavar="N",
        action="append",
        default=[],
        dest="raw_partitions",
        help="store all of partition N",
    )
    parser.add_argument(
        "-F",
        type=command.number,
        metavar="SECTORS",
        default=MIN_FREE,
        dest="min_free",
        help="shortest run of free sectors that is left out (default %(default)s)",
    )
    parser.add_argument(
        "-z",
        type=int,
        choices=range(10),
        metavar="LEVEL",
        default=Options().level,
        dest="level",
        help="compression, 0 (none) to 9 (default %(default)s)",
    )
    parser.add_argument(
        "-V",
        type=int,
        choices=WRITABLE,
        dest="version",
        help="version of the image (default 2; 3 with -s; 4 with -u or -a)",
    )
    parser.add_argument("-u", type=_uuid, metavar="UUID", dest="uuid", help="identify the image (version 4)")
    parser.add_argument(
        "-a", action="store_true", dest="checksum", help="protect each chunk by a SHA-1 (version 4)"
    )
    parser.add_argument(
        "-j",
        type=command.number,
        metavar="N",
        default=0,
        dest="threads",
        help="threads that compress (default: one per CPU); the image does not depend on it",
    )
    parser.add_argument(
        "--no-manifest",
        action="store_false",
        dest="manifest",
        help=f"write no OUTPUT{manifest.SUFFIX}, the digests by which the image is checked",
    )
    parser.add_argument(
        "--manifest",
        action="store_true",
        dest="manifest_only",
        help="the input is an image: check it and write its manifest (default: next to it)",
    )
    parser.add_argument(
        "--identity",
        type=_identity,
        metavar="NAME",
        help="the name by which the installed system calls itself, for the manifest",
    )
    parser.add_argument("-i", action="store_true", dest="info", help="say what would be stored and stop")
    parser.add_argument("-o", action="store_true", dest="dots", help="print a dot for each chunk")
    parser.add_argument("-d", action="store_true", dest="debug", help="say what was found and is stored")
    parser.add_argument("input", help="disk, partition or file")
    parser.add_argument("output", nargs="?", help="image to write; - for the standard output")
    return parser


def _plan(source: Source, args: argparse.Namespace) -> Plan:
    if args.raw:
        return plan_raw(source)
    if args.filesystem:
        return plan_filesystem(source, min_free=args.min_free)
    if args.slice is not None:
        return plan_partition(
            source, args.slice, raw=args.slice in args.raw_partitions, min_free=args.min_free
        )
    return plan_disk(source, ignore=args.ignore, raw=args.raw_partitions, min_free=args.min_free)


def _options(args: argparse.Namespace) -> Options:
    version = args.version
    if version is None:
        version = 4 if args.uuid is not None or args.checksum else 2 if args.slice is None else 3
    return Options(
        version=version,
        level=args.level,
        uuid=args.uuid or bytes(16),
        checksum=args.checksum,
        threads=args.threads,
    )


def _work(args: argparse.Namespace) -> int:
    options = _options(args)
    with Source.open(args.input) as source:
        plan = _plan(source, args)
        for text in plan.warnings:
            command.say(PROGRAM, f"warning: {text}")
        if args.info or args.debug:
            stream = sys.stdout if args.info else sys.stderr
            for text in plan.notes:
                print(text, file=stream)
            if args.debug:
                for start, end in plan.data:
                    print(f"data: sectors {start} to {end - 1}", file=stream)
            print(f"{total(plan.data)} of {plan.end} sectors are stored", file=stream)
        if args.info:
            return 0
        if args.output == "-":
            _write(plan, sys.stdout.fileno(), options, args)
            return 0
        if os.path.exists(args.output) and os.path.samefile(args.input, args.output):
            raise NdzError("is the input", name=args.output, remedy="name another output")
        _write_files(plan, options, args)
    return 0


def _write_files(plan: Plan, options: Options, args: argparse.Namespace) -> None:
    """Write the image and, unless it goes to a device or pipe, its manifest: both or neither."""
    wanted = _wants_manifest(args)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(command.NewFile(args.output))
        if not wanted:
            _write(plan, file.fd, options, args)
            return
        sidecar = _sidecar(args.output)
        # The image gets its name first. Should the machine die before the manifest has its own, an older one
        # may be there: it does not fit the image and is refused.
        ending = stack.pop_all()
        stack.push(sidecar)
        stack.push(ending)
        recorder = manifest.Recorder()
        stack.callback(recorder.close)
        _write(plan, file.fd, options, args, recorder)
        made = recorder.finish(file.fd, args.identity or "")
        try:
            text = made.encode()
        except manifest.ManifestError as error:
            if args.identity:
                raise
            # Hours of work are in the image, which is good without.
            command.say(PROGRAM, f"warning: {args.output}: without manifest: {error}")
            sidecar.drop()
            return
        command.write_all(sidecar.fd, text)


def _wants_manifest(args: argparse.Namespace) -> bool:
    return bool(args.manifest) and (os.path.isfile(args.output) or not os.path.exists(args.output))


def _sidecar(image: str) -> command.NewFile:
    file = command.NewFile(os.fspath(manifest.path_of(image)))
    if file.in_place:
        os.close(file.fd)
        raise NdzError("is no regular file", name=file.name, remedy="remove it, or give --no-manifest")
    return file


def _write_manifest(args: argparse.Namespace) -> int:
    made = manifest.of_image(args.input, args.identity or "")
    text = made.encode()
    if args.output == "-":
        command.write_all(sys.stdout.fileno(), text)
    else:
        with _sidecar(args.input) if args.output is None else command.NewFile(args.output) as file:
            command.write_all(file.fd, text)
    command.say(PROGRAM, f"{args.input}: {len(made.entries)} chunks are sound, SHA-256 {made.digest.hex()}")
    return 0


def _write(
    plan: Plan, fd: int, options: Options, args: argparse.Namespace, record: manifest.Recorder | None = None
) -> None:
    start = _start(fd)

    def emit(chunk: bytes) -> None:
        command.write_all(fd, chunk)
        if args.dots:
            print(".", end="", file=sys.stderr, flush=True)

    written = write_image(plan, emit, options, record=record)
    if start is not None:
        try:
            tell_total(fd, start, written.chunks, checksum=options.checksum)
        except NdzError as error:
            error.name = args.output
            raise
    if args.dots:
        print(file=sys.stderr)
    command.say(
        PROGRAM,
        f"{plan.source.name}: {written.data_bytes} of {plan.end * 512} bytes stored "
        f"in {written.chunks} chunks ({written.chunks * CHUNK_SIZE} bytes)",
    )


def _start(fd: int) -> int | None:
    """Return where an image begins in the file it goes to, None where that cannot be changed afterwards."""
    appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
    if appends or not stat.S_ISREG(os.fstat(fd).st_mode):
        return None
    return os.lseek(fd, 0, os.SEEK_CUR)


def main(argv: Sequence[str] | None = None) -> int:
    """Run imagezip; returns 0, or 1 after one line on the standard error."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.manifest_only:
        if args.output is not None and os.path.realpath(args.output) == os.path.realpath(args.input):
            parser.error("the manifest would replace the image")
        return command.run(PROGRAM, lambda: _write_manifest(args))
    if args.output is None and not args.info:
        parser.error("say where to write the image, or give -i")
    if args.identity and (args.info or args.output == "-" or not _wants_manifest(args)):
        parser.error("--identity is for the manifest, which would not be written")
    if (args.raw or args.filesystem) and (args.ignore or args.raw_partitions):
        parser.error("-I and -R are about partitions, which -r and -l do not look for")
    if args.slice is not None and (args.ignore or set(args.raw_partitions) - {args.slice}):
        parser.error("-I and -R name partitions other than that of -s")
    return command.run(PROGRAM, lambda: _work(args))


if __name__ == "__main__":
    sys.exit(main())
