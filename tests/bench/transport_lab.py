# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where ``transport.py`` measures: network namespaces on a bridge, disks in memory, programs and their CPU.

All of it lives in namespaces of its own (user, network, mount and process), made by :func:`enter`: nothing of
the machine's network is touched, no root is needed, and everything ends with the first process.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

DISK_SIZE = 512 << 20
DATA_SIZE = 200 << 20
SECTOR = 512
ROOT_START = 2048
GROUP = "239.77.1.1"
PORT = 7000
SERVER = "10.77.0.1"
DEADLINE = 240.0
_PIECE = 4 << 20
_WARM = 2 << 30
_ROW = 80_000

ETHERNET_BYTES = 24
"""Preamble, checksum and gap: on the cable, not in the kernel's counters."""

PYTHON = sys.executable
# Without looking for packages, as in a memory image: prepare() says where they are.
MODULE = (PYTHON, "-S", "-m")
FRISBEED = (*MODULE, "orbit_frisbee.frisbee.server_cli")
FRISBEE = (*MODULE, "orbit_frisbee.frisbee.client_cli")
LOSSY = (*MODULE, "orbit_testbed.tiers.light.lossy")
ZIP = (*MODULE, "orbit_frisbee.ndz.zip_cli")
UNZIP = (*MODULE, "orbit_frisbee.ndz.unzip_cli")


class LabError(Exception):
    """A measurement could not be made; the text says which program failed and how."""


def enter(arguments: Sequence[str]) -> int:
    """Run this program again inside new namespaces, with a folder that is removed afterwards."""
    # So that the folder is removed then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="orbit-bench-") as folder:
        spaces = ["unshare", "-nmpf", "--kill-child", "--mount-proc"]
        # Real root, as on a node, may have the socket buffers it asks for.
        if (
            os.geteuid() != 0
            or subprocess.run([*spaces, "true"], capture_output=True, check=False).returncode
        ):
            spaces.insert(1, "-Ur")
        command = [*spaces, PYTHON, *arguments, "--inside", folder]
        child = subprocess.Popen(command)
        try:
            return child.wait()
        finally:
            child.kill()  # and with it all that is inside
            child.wait()


def prepare(folder: Path) -> None:
    """Mount memory over the folder and over iproute2's names of network namespaces; once, inside."""
    run("mount", "-t", "tmpfs", "-o", "size=80%", "orbit-bench", str(folder))
    run("mount", "-t", "tmpfs", "orbit-names", "/run")
    os.environ["TMPDIR"] = str(folder)
    # Ours write into an existing file only when told that it stands for a disk.
    os.environ["ORBIT_TESTBED_DISK"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    # Compiled once, as an installed program is, whatever the surroundings say.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "pycache")
    for program in (FRISBEED, FRISBEE, ZIP, UNZIP):
        run(*program, "--help")


def run(*command: str, text: str | None = None) -> str:
    """Run a program to its end; returns its output."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


# -- the image ----------------------------------------------------------------------------------------------


def _gather(folder: Path, kind: str, roots: Sequence[str], pattern: str, size: int) -> None:
    """Copy files below ``roots`` whose name matches until ``size`` bytes are there."""
    target = folder / kind
    target.mkdir()
    wanted, number = re.compile(pattern), 0
    for root in roots:
        for place, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(place, name)
                if not wanted.search(name) or path.is_symlink() or not path.is_file():
                    continue
                # Nothing so large that the mix depends on what this machine happens to have.
                if path.stat().st_size <= min(size, 8 << 20):
                    shutil.copyfile(path, target / f"{number}-{name}")
                    size -= path.stat().st_size
                    number += 1


def make_disk(folder: Path) -> Path:
    """Make a disk of 512 MiB: an MBR and an ext4 file system with 200 MiB of programs, text and noise."""
    disk, tree = folder / "disk.raw", folder / "tree"
    tree.mkdir()
    _gather(tree, "programs", ["/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/bin", sys.base_prefix],
            r"\.so(\.|$)|\.a$|^[a-z0-9-]+$", DATA_SIZE * 55 // 100)  # fmt: skip
    _gather(tree, "text", [sys.base_prefix, "/usr/lib/python3", "/usr/share"],
            r"\.(py|h|txt|html|json|pm|xml|md)$", DATA_SIZE * 30 // 100)  # fmt: skip
    import random

    noise = random.Random(77)
    (tree / "noise").mkdir()
    for i in range(15):
        (tree / "noise" / str(i)).write_bytes(noise.randbytes(DATA_SIZE // 100))
    with disk.open("wb") as file:
        file.truncate(DISK_SIZE)
        entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff",
                            ROOT_START, DISK_SIZE // SECTOR - ROOT_START)  # fmt: skip
        file.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")
    run("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-E", f"offset={ROOT_START * SECTOR}",
        "-d", str(tree), str(disk), f"{(DISK_SIZE // SECTOR - ROOT_START) // 2}k")  # fmt: skip
    shutil.rmtree(tree)
    return disk


# -- the network --------------------------------------------------------------------------------------------


def space(name: str) -> str:
    """Return the network namespace of a party: ``s``, ``s2`` ... or the number of a client."""
    return f"orbit-{name}"


def make_network(clients: int, *, snooping: bool = False) -> None:
    """Make a bridge with a server (10.77.0.1) and ``clients`` clients (10.77.1.N) on it.

    With ``snooping`` a group goes only to those who joined it, as behind a managed switch.
    """
    parties = [("s1", SERVER)]
    parties += [(f"c{i + 1}", f"10.77.1.{i + 1}") for i in range(clients)]
    switch = "mcast_snooping 1 mcast_query_response_interval 10" if snooping else "mcast_snooping 0"
    lines = ["link set lo up", f"link add orbit-br type bridge {switch}", "link set orbit-br up"]
    if snooping:
        # Last: a bridge floods for as long as it gives the first answers, which would be 10 s.
        lines.append("link set orbit-br type bridge mcast_querier 1")
    for name, _ in parties:
        lines += [
            f"netns add {space(name)}",
            f"link add orbit-{name} type veth peer name eth0 netns {space(name)}",
            f"link set orbit-{name} master orbit-br up",
        ]
    run("ip", "-batch", "-", text="\n".join(lines) + "\n")
    for name, address in parties:
        inside = f"link set lo up\nlink set eth0 up\naddr add {address}/16 dev eth0\n"
        inside += "route add 239.0.0.0/8 dev eth0\nroute add 224.0.0.0/8 dev eth0\n"
        run("ip", "-n", space(name), "-batch", "-", text=inside)


def remove_network() -> None:
    """Take the network down."""
    for line in run("ip", "netns", "list").splitlines():
        # A namespace and its cable have one name. The kernel would remove the cable too, but later.
        run("ip", "link", "delete", line.split()[0])
        run("ip", "netns", "delete", line.split()[0])
    run("ip", "link", "delete", "orbit-br")


def shape(name: str, bits: int | None, *, incoming: bool = False, rows: bool = False) -> None:
    """Limit what a party sends (or gets) to ``bits`` per second; None: no limit.

    With ``rows``, what the kernel handles as one passes or is lost as one. Otherwise it is taken apart where
    it is longer than 2 ms, as a switch does, but here it is the server's processor that does it.
    The queue holds 50 ms. The kernel counts 24 bytes less a datagram than the cable does, which is
    added to the datagram's size here, so that ``bits`` are those of the cable.
    """
    device = ["-n", space(name)] if not incoming else []
    link = f"orbit-{name}" if incoming else "eth0"
    if bits is None:
        subprocess.run(["tc", *device, "qdisc", "del", "dev", link, "root"], capture_output=True, check=False)
        return
    burst = max(_ROW if rows else 8192, bits // 8 // 500)
    run("tc", *device, "qdisc", "replace", "dev", link, "root", "tbf", "rate", f"{bits}", "burst", f"{burst}",
        "latency", "50ms", "overhead", str(ETHERNET_BYTES))  # fmt: skip


# -- programs -----------------------------------------------------------------------------------------------


class Used(NamedTuple):
    """What a program (or a pipe of them) took: CPU seconds, largest memory in bytes."""

    cpu: float
    memory: int


class Program:
    """One or more piped programs in the network namespace of a party."""

    def __init__(
        self,
        party: str | None,
        *commands: Sequence[str],
        keep: Sequence[int] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        before: IO[bytes] | None = None
        for i, command in enumerate(commands):
            prefix = ("nsenter", f"--net=/run/netns/{space(party)}") if party is not None else ()
            last = i == len(commands) - 1
            child = subprocess.Popen(
                [*prefix, *command],
                stdin=before if before is not None else subprocess.DEVNULL,
                stdout=self._log if last else subprocess.PIPE,
                stderr=self._log,
                pass_fds=keep,
                env={**os.environ, **(environment or {})},
            )
            if before is not None:
                before.close()
            before = child.stdout
            self._children.append(child)
        self.ended_at = 0.0
        self.name = " | ".join(Path(c[len(MODULE)] if c[0] == PYTHON else c[0]).name for c in commands)

    def stop(self) -> None:
        """Ask it to end."""
        for child in self._children:
            child.send_signal(signal.SIGTERM)

    def hold(self) -> None:
        """Stop it where it is."""
        for child in self._children:
            child.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        for child in self._children:
            child.send_signal(signal.SIGCONT)

    def has_socket(self, port: int) -> bool:
        """Whether somebody in its network namespace has a UDP socket of a port."""
        text = Path(f"/proc/{self._children[0].pid}/net/udp").read_text(encoding="ascii")
        return f":{port:04X} " in text

    def wait(self, *, stopped: bool = False) -> Used:
        """Wait for its end; ``stopped``: it was told to, its status does not matter."""
        cpu, memory = 0.0, 0
        # No polling: that would take time from what is measured.
        guard = threading.Timer(DEADLINE, self._kill)
        guard.daemon = True
        guard.start()
        for child in self._children:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode != 0 and not stopped:
                raise LabError(f"{self.name} ended with {child.returncode}: {self.output()}")
            cpu += usage.ru_utime + usage.ru_stime
            memory = max(memory, usage.ru_maxrss * 1024)
        self.ended_at = time.monotonic()
        guard.cancel()
        return Used(cpu, memory)

    def _kill(self) -> None:
        for child in self._children:
            child.kill()

    def output(self) -> str:
        """What it has printed so far, the end of it."""
        # Not by seeking: the programs write where the file's one position is.
        file = self._log.fileno()
        size = os.fstat(file).st_size
        return os.pread(file, 2000, max(0, size - 2000)).decode(errors="replace")


def wait_all(programs: Sequence[Program], start: float) -> tuple[list[Used], list[float]]:
    """Wait for programs that run together; returns what each took, and when it ended after ``start``."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(programs)) as pool:
        used = list(pool.map(Program.wait, programs))
    return used, [program.ended_at - start for program in programs]


def wait_for_sockets(programs: Sequence[Program], port: int) -> None:
    """Wait until all programs listen."""
    until = time.monotonic() + DEADLINE
    while not all(program.has_socket(port) for program in programs):
        if time.monotonic() > until:
            raise LabError("a client opened no socket")
        time.sleep(0.01)


def fresh(folder: Path, count: int, contents: Path | None = None, *, size: int = DISK_SIZE) -> list[Path]:
    """Return disks of zeros, or of what a file contains.

    Their memory is the same each time, as a disk's blocks are: a virtual machine that gets new memory from
    its host page by page would take more time for that than for all the rest, and never the same.
    """
    disks = [folder / f"target{i + 1}" for i in range(count)]
    for disk in disks:
        with (
            open(contents or "/dev/zero", "rb") as source,
            disk.open("r+b" if disk.exists() else "wb") as file,
        ):
            for _ in range(0, size, _PIECE):
                file.write(source.read(_PIECE))
            file.truncate(size)
    return disks


def warm() -> None:
    """Have the machine get the memory that programs are about to need; call it just before a measurement.

    A virtual machine may give what is free back to its host. To get it again takes ten times as long as
    anything that is done with it here, and what a program took would depend on when the one before it ended.
    """
    # In a child: what this process once took, the kernel says of every program that is started here.
    child = os.fork()
    if not child:
        memory = mmap.mmap(-1, _WARM, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, _WARM, mmap.PAGESIZE):
            memory[at] = 1
        os._exit(0)
    os.waitpid(child, 0)


def check_equal(disk: Path, copies: Sequence[Path], *, size: int = DISK_SIZE) -> None:
    """Raise unless every copy has every byte of the disk (its free blocks are zeros)."""
    for copy in copies:
        run("cmp", "-n", str(size), str(disk), str(copy))
