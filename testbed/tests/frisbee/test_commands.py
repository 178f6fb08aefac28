# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``frisbeed`` and ``frisbee`` as programs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orbit_frisbee.frisbee import client_cli, server_cli, wire
from orbit_frisbee.ndz import manifest
from orbit_frisbee.ndz.format import Region, encode_chunk

from .stand import DEADLINE, HOME, Party, Stand, assert_one_pass, make_image, new_group, wait_until

SERVER = [sys.executable, "-m", "orbit_frisbee.frisbee.server_cli"]
CLIENT = [sys.executable, "-m", "orbit_frisbee.frisbee.client_cli"]


class Programs:
    """Starts programs and ends them all."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *command: str, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[str]:
        program = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=pass_fds
        )
        self._running.append(program)
        return program

    def server(self, image: Path, *options: str, group: str | None = None) -> tuple[Server, list[str]]:
        """Start a server and wait until it is ready; returns it and a client's options for it."""
        group = group or new_group()
        end, ready = os.pipe()
        try:
            program = self.start(
                *SERVER,
                "-i",
                HOME,
                "-m",
                group,
                "-p",
                "0",
                *options,
                "--ready-fd",
                str(ready),
                str(image),
                pass_fds=(ready,),
            )
        finally:
            os.close(ready)
        with os.fdopen(end) as pipe:
            line = pipe.readline()
        assert line, program.communicate()[1]
        address, port = line.strip().split(":")
        assert address == group
        return program, ["-i", HOME, "-m", group, "-p", port]

    def client(self, *arguments: str) -> Program:
        return self.start(*CLIENT, *arguments)

    def close(self) -> None:
        for program in self._running:
            if program.poll() is None:
                program.kill()
            program.communicate()


Program = subprocess.Popen[str]
Server = Program


@pytest.fixture
def programs() -> Iterator[Programs]:
    programs = Programs()
    try:
        yield programs
    finally:
        programs.close()


def finish(program: Program) -> tuple[int, str, str]:
    out, err = program.communicate(timeout=DEADLINE)
    return program.returncode, out, err


def called(
    main: Callable[[list[str]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Call a command's function as the program does; returns status, stdout and stderr."""
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else -1
    return status, *capsys.readouterr()


def test_a_whole_session(stand: Stand, programs: Programs) -> None:
    path, disk = stand.image(12)
    stats = stand.folder / "stats.json"
    target = stand.disk(len(disk))
    server, where = programs.server(path, "-W", "800000000", "--stats", str(stats))
    status, out, err = finish(programs.client(*where, str(target)))
    assert (status, target.read_bytes() == disk) == (0, True), err
    lines = out.splitlines()
    for number, line in enumerate(lines[:-1]):
        match = re.fullmatch(r"Progress: (\d+)% (\d{6}) (\d{6})", line)
        assert match, line
        assert int(match[1]) == (number + 1) * 10
    assert len(lines) == 11
    assert re.fullmatch(r"Left the team after \d+ seconds on the field!", lines[-1])
    wrote = re.findall(r"^Wrote (\d+) bytes \((\d+) actual\)$", err, re.MULTILINE)
    assert wrote == [(str(len(disk)), str(12 * 40 * 512))]
    server.send_signal(signal.SIGTERM)
    status, out, err = finish(server)
    assert (status, out) == (0, "")
    assert f"{HOME} (id " in err
    assert re.search(r"joins/leaves: +1/1", err)
    numbers = json.loads(stats.read_text())
    sent, repeated = numbers["blocks_sent"], numbers["blocks_repeated"]
    assert numbers["state"] == "ended"
    assert_one_pass(numbers, 12)
    assert re.search(rf"1k blocks sent: +{sent} \({repeated} repeated\)", err)


def test_gathered_clients_share_one_pass(stand: Stand, programs: Programs) -> None:
    path, disk = stand.image(8)
    stats = stand.folder / "stats.json"
    server, where = programs.server(
        path, "-W", "400000000", "--gather", "60", "--expect", "4", "--stats", str(stats)
    )
    targets = [stand.disk(len(disk)) for _ in range(4)]
    clients = [programs.client(*where, str(target)) for target in targets]
    for client, target in zip(clients, targets, strict=True):
        status, _, err = finish(client)
        assert (status, target.read_bytes() == disk) == (0, True), err
    server.send_signal(signal.SIGINT)
    assert finish(server)[0] == 0
    numbers = json.loads(stats.read_text())
    assert (numbers["joins"], numbers["leaves"]) == (4, 4)
    assert_one_pass(numbers, 8)


def test_the_server_is_killed(stand: Stand, programs: Programs) -> None:
    path, disk = stand.image(20)
    server, where = programs.server(path, "-W", "100000000")
    client = programs.client(*where, "-T", "1", str(stand.disk(len(disk))))
    assert client.stdout is not None
    assert client.stdout.readline().startswith("Progress: 10%")
    server.kill()
    status, out, err = finish(client)
    assert status == 110
    assert "has been silent for 1 seconds" in err
    assert "Wrote" not in err
    assert "Left the team" not in out


def test_the_server_finishes_its_item(stand: Stand, programs: Programs) -> None:
    image, _ = make_image(3)
    server, where = programs.server(stand.file(image), "-W", "20000000")
    party = stand.keep(Party(where[3], int(where[5])))
    party.send(bytes.fromhex("01000000 04000000 0c000000 7f000001 01000000 00000000 00040000"))
    party.send(bytes.fromhex("01000000 04000000 0c000000 7f000001 02000000 00000000 00040000"))
    party.blocks(1)
    server.send_signal(signal.SIGTERM)
    status, _, err = finish(server)
    assert status == 0
    # All of the chunk in progress, nothing of the next.
    sent = re.search(r"1k blocks sent: +(\d+) ", err)
    assert sent
    assert int(sent[1]) == 1024


def test_hang_up(stand: Stand, programs: Programs) -> None:
    server, _ = programs.server(stand.image(1)[0])
    server.send_signal(signal.SIGHUP)
    assert finish(server)[0] == 1


def test_an_interrupted_client(stand: Stand, programs: Programs) -> None:
    path, disk = stand.image(20)
    _, where = programs.server(path, "-W", "5000000")
    client = programs.client(*where, str(stand.disk(len(disk))))
    assert client.stdout is not None
    client.stdout.readline()
    client.send_signal(signal.SIGINT)
    status, _, err = finish(client)
    assert status == 130
    assert err.splitlines()[-1] == "frisbee: interrupted; the disk is incomplete"


def test_address_file_and_port_range(stand: Stand, programs: Programs) -> None:
    path, _ = stand.image(1)
    group = new_group()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((group, 0))
        port = taken.getsockname()[1]
        where = stand.folder / "where"
        command = [*SERVER, "-i", HOME, "-m", group, "-A", str(where), str(path), "-p"]
        status, _, err = finish(programs.start(*command, str(port)))
        assert (status, f"port {port} is in use" in err) == (98, True)
        last = min(port + 20, 65535)
        server = programs.start(*command, f"{port}-{last}")
        wait_until(lambda: where.exists() and where.read_text().endswith("\n"), "the address file")
        address, found = where.read_text().strip().split(":")
        assert address == group
        assert port < int(found) <= last
        server.terminate()
        assert finish(server)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 1, "-p"),
        (["-p", "7000", "-m", "239.1.2.3"], 1, "image"),
        (["-p", "70000", "-m", "239.1.2.3", "x"], 1, "no port"),
        (["-p", "9-5", "-m", "239.1.2.3", "x"], 1, "no port"),
        (["-p", "0-5", "-m", "239.1.2.3", "x"], 1, "no port"),
        (["-p", "0", "-m", "239.1.2.3", "-W", "5", "x"], 1, "not between"),
        (["-p", "0", "-m", "239.1.2.3", "-W", "fast", "x"], 1, "no whole number"),
        (["-p", "0", "-m", "239.1.2.3", "--gather", "nan", "x"], 1, "not between"),
        (["-p", "0", "-m", "239.1.2.3", "--what", "x"], 1, "unrecognized"),
        (["-p", "0", "-m", "group", "-i", HOME, "/dev/null/x"], 255, "/dev/null/x"),
        (["-p", "0", "-m", "group", "-i", HOME, sys.executable], 255, "'group' is no IPv4 address"),
        (["-p", "0", "-m", "239.1.2.3", "-i", "192.0.2.7", sys.executable], 255, "no address of this host"),
    ],
)
def test_server_refusals(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, says: str
) -> None:
    found, out, err = called(server_cli.main, arguments, capsys)
    assert (found, out) == (status, "")
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 1, "-p"),
        (["-p", "PORT", "-m", "239.1.2.3"], 1, "target"),
        (["-p", "0", "-m", "239.1.2.3", "x"], 1, "not between"),
        (["-p", "PORT", "-m", "239.1.2.3", "-D", "131", "x"], 1, "-D needs -s"),
        (["-p", "PORT", "-m", "239.1.2.3", "-N", "-z", "x"], 1, "neither -s nor -z"),
        (["-p", "PORT", "-m", "239.1.2.3", "-i", HOME, "/missing/disk"], 1, "/missing/disk: no such file"),
        (["-p", "PORT", "-m", "239.1.2.3", "-i", HOME, "/dev/null"], 1, "neither a disk nor a file"),
        (["-p", "PORT", "-m", "239.1.2.3", "-i", HOME, "-s", "9", "DISK"], 1, "DISK"),
        (["-p", "PORT", "-m", "group", "-i", HOME, "DISK"], 255, "'group' is no IPv4 address"),
        (["-p", "PORT", "-m", "239.1.2.3", "-i", "192.0.2.7", "DISK"], 255, "no address of this host"),
        (["-p", "PORT", "-m", "239.1.2.3", "-i", HOME, "-S", "there", "DISK"], 255, "'there' is no IPv4"),
        (["-p", "PORT", "-m", "239.1.2.4", "-i", HOME, "-T", "0.2", "DISK"], 110, "no server answered"),
    ],
)
def test_client_refusals(
    stand: Stand, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, says: str
) -> None:
    disk = stand.disk(4096)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("0.0.0.0", 0))
        port = str(free.getsockname()[1])
    command = [{"DISK": str(disk), "PORT": port}.get(a, a) for a in arguments]
    found, out, err = called(client_cli.main, command, capsys)
    assert (found, out) == (status, "")
    assert says.replace("DISK", str(disk)) in err
    assert "Traceback" not in err
    assert disk.read_bytes() == bytes(4096)


def test_a_taken_port_of_the_client(stand: Stand, programs: Programs) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        found, _, err = finish(
            programs.client("-p", str(port), "-m", new_group(), "-i", HOME, str(stand.disk(512)))
        )
    assert found == 98
    assert f"port {port} is in use" in err


def mbr(entries: list[tuple[int, int, int]]) -> bytes:
    table = bytearray(512)
    for i, (kind, start, count) in enumerate(entries):
        at = 446 + 16 * i
        table[at + 4] = kind
        table[at + 8 : at + 16] = start.to_bytes(4, "little") + count.to_bytes(4, "little")
    table[510:] = b"\x55\xaa"
    return bytes(table)


def test_into_a_partition(stand: Stand, programs: Programs) -> None:
    path, disk = stand.image(2)
    sectors = len(disk) // 512
    _, where = programs.server(path, "-G", "0")
    before = mbr([(0x83, 64, 32), (0x82, 96, sectors)]).ljust((96 + sectors + 8) * 512, b"x")
    target = stand.file(before)
    status, _, err = finish(programs.client(*where, "-z", "-s", "2", "-D", "131", str(target)))
    assert status == 0, err
    after = target.read_bytes()
    assert after[96 * 512 : (96 + sectors) * 512] == disk
    assert after[:512] == mbr([(0x83, 64, 32), (0x83, 96, sectors)])
    assert after[512 : 96 * 512] == before[512 : 96 * 512]
    assert after[(96 + sectors) * 512 :] == before[(96 + sectors) * 512 :]
    # Partition 1 is too small for the image, partition 3 is not there; nothing is written either way.
    for number, says in (("1", "the target ends at 32"), ("3", "no partition 3")):
        status, _, err = finish(programs.client(*where, "-s", number, str(target)))
        assert (status, says in err) == (1, True), err
    assert target.read_bytes() == after


def most_memory(status: str) -> int:
    """Return the most bytes that a process had, by its /proc/PID/status."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def test_the_server_does_not_hold_the_image(stand: Stand, programs: Programs) -> None:
    """From all over a file of 2 GiB, four times what it may hold goes out."""
    image, stats = stand.disk(2 << 30), stand.folder / "stats.json"
    server, where = programs.server(image, "-G", "0", "--stats", str(stats))
    party = stand.keep(Party(where[3], int(where[5])))
    for chunk in range(0, 2048, 8):
        party.send(wire.encode_request(party.own, chunk))

    def sent() -> bool:
        return stats.exists() and json.loads(stats.read_text())["blocks_sent"] >= 256 * 1024

    wait_until(sent, "the blocks asked for")
    assert most_memory(Path(f"/proc/{server.pid}/status").read_text()) < 60_000_000


#: Runs the client's main, whose disk takes nothing until every buffer is full, and forgets what it takes.
SLOWLY = """
import sys, threading
from orbit_frisbee.frisbee import assembly, client_cli
from orbit_frisbee.ndz import codec, unpack
full, begin = threading.Event(), assembly.Assembly._begin
def begin_and_tell(self, chunk):
    begin(self, chunk)
    if not self.free:
        full.set()
assembly.Assembly._begin = begin_and_tell
def pwrite(descriptor, data, at):
    assert full.wait(60)
    return len(data)
unpack.os.pwrite = pwrite
if sys.argv.pop(1) == "without":
    codec.libdeflate = lambda: None
status = client_cli.main()
print(open("/proc/self/status").read())
sys.exit(status)
"""


@pytest.mark.parametrize("library", ["libdeflate", "without"])
def test_memory_at_its_worst(stand: Stand, programs: Programs, library: str) -> None:
    """Every buffer full, every writer with a chunk of the largest kind that is inflated whole.

    That leaves 20 MB of 200 for what grows with the image.
    """
    sectors, chunks = 65536, 90
    packed = zlib.compress(bytes(sectors * 512), 1)
    image = b"".join(
        encode_chunk(
            [packed],
            version=2,
            number=n,
            regions=[Region(n * sectors, sectors)],
            first=n * sectors,
            after=(n + 1) * sectors,
        )
        for n in range(chunks)
    )
    path = stand.file(image)
    known = manifest.of_image(path)
    _, where = programs.server(path, "-G", "0")
    options = ["--verify", "--manifest", str(stand.file(known.encode()))]
    target = stand.disk(chunks * sectors * 512)
    status, out, err = finish(
        programs.start(sys.executable, "-c", SLOWLY, library, *where, "-q", *options, str(target))
    )
    assert status == 0, err
    assert most_memory(out) < 180_000_000


def test_memory_stays_bounded(stand: Stand, programs: Programs) -> None:
    """An image larger than all buffers, faster than it can be written."""
    chunk, _ = make_image(1, sectors=1)
    image = b"".join(
        chunk[:8]
        + number.to_bytes(4, "little")
        + chunk[12:24]
        + (number * 2).to_bytes(4, "little")
        + (number * 2 + 2).to_bytes(4, "little")
        + chunk[32:36]
        + (number * 2).to_bytes(4, "little")
        + chunk[40:]
        for number in range(150)
    )
    _, where = programs.server(stand.file(image), "-G", "0")
    # Measured by a small process of its own: a child's peak includes that of who started it.
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, *CLIENT, *where, "-n", str(stand.disk(150 * 2 * 512))]
    status, out, err = finish(programs.start(*command))
    assert status == 0, err
    assert int(out) < 120_000, "kilobytes"


def test_the_client_imports_little() -> None:
    """It starts inside a memory image, on a slow machine."""
    code = "import sys, orbit_frisbee.frisbee.client_cli; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(modules.stdout.split())
    heavy = {"asyncio", "dataclasses", "email", "hashlib", "http", "inspect", "json", "logging", "random",
             "resource", "ssl", "subprocess", "tempfile", "unittest", "uvicorn", "starlette"}  # fmt: skip
    assert not loaded & heavy
    assert "orbit_frisbee.frisbee.server" not in loaded
