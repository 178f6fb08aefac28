# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the transport: our frisbee against its peers on the same work, the same machine, in the same run.

Machines differ and are shared: what counts are the ratios, printed as *asked*, *got* and *met* or *NOT MET*.
Nothing here passes or fails. Sections run in the order given; see ``--help``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import transport_lab as lab
from transport_lab import Program, Used

BLOCK_ON_WIRE = 1114
PAYLOAD_SHARE = 1024 / BLOCK_ON_WIRE
SHAPED = 200_000_000
SMALL_SIZE = 64 << 20
"""The disk that groups get."""
GATHER = "0.5"
"""As a limit: the server is told how many clients come, as udp-sender is."""
TOOL = Path(__file__).resolve().parent / "transport_parts.py"


class Run(NamedTuple):
    """One transfer: seconds from the clients' start to their ends, what each took, blocks sent (again)."""

    ends: list[float]
    server: Used
    clients: list[Used]
    repeated: float | None = None
    blocks: int = 0

    @property
    def wall(self) -> float:
        return max(self.ends)

    @property
    def client_cpu(self) -> float:
        return statistics.mean(used.cpu for used in self.clients)


class Bench:
    """What the sections share."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.disk = lab.make_disk(folder)
        self.image = folder / "image.ndz"
        lab.run(*lab.ZIP, str(self.disk), str(self.image))
        self.blocks = self.image.stat().st_size // 1024
        self.data = self._data_bytes()
        self.verdicts: list[str] = []
        self.checked: set[str] = set()
        os.sync()

    def _data_bytes(self) -> int:
        text = lab.run(*lab.ZIP, "-i", str(self.disk))
        return int(text.rsplit(" of ", 1)[0].split()[-1]) * lab.SECTOR

    def check(self, what: str, disks: Sequence[Path]) -> None:
        """Compare all disks with the original the first time something is measured, one afterwards."""
        lab.check_equal(self.disk, disks if what not in self.checked else disks[:1])
        self.checked.add(what)

    def many(self, runs: int, *makers: Callable[[], Run]) -> list[list[Run]]:
        """Run several things ``runs`` times in turn, so that all see the same moods of the machine."""
        results: list[list[Run]] = [[] for _ in makers]
        for _ in range(runs):
            for result, make in zip(results, makers, strict=True):
                result.append(make())
        return results

    def verdict(self, what: str, got: float, asked: float, *, least: bool = False, unit: str = "") -> None:
        """Print and keep one comparison with what is asked for."""
        met = got >= asked if least else got <= asked
        line = (
            f"{what}: asked {'>=' if least else '<='} {asked:g}{unit}, got {got:.3g}{unit}: "
            f"{'met' if met else 'NOT MET'}"
        )
        self.verdicts.append(line)
        print(f"  -> {line}", flush=True)

    # -- transfers ----------------------------------------------------------------------------------------

    def frisbee(
        self,
        clients: Sequence[int],
        *server_options: str,
        image: Path | None = None,
        client_options: Sequence[str] = (),
        loss: float | None = None,
        losers: Sequence[int] | None = None,
        together: bool = False,
        quitter: int | None = None,
    ) -> Run:
        """One server, some clients; the ``losers`` among them (default: all) lose ``loss`` per cent.

        A client that may lose something takes longer, also when that is 0 per cent. ``quitter`` is ended when
        all others have. ``together``: the run begins when all clients have joined, not when the first is
        started.
        """
        daemon, programs, start, stats = self.frisbee_start(
            clients,
            *server_options,
            image=image,
            client_options=client_options,
            loss=loss,
            losers=losers,
            hold=together,
        )
        if together:
            lab.wait_for_sockets(programs, lab.PORT)
            start = time.monotonic()
            daemon.go_on()
        staying = [program for i, program in zip(clients, programs, strict=True) if i != quitter]
        used, ends = lab.wait_all(staying, start)
        if quitter is not None:
            at = clients.index(quitter)
            programs[at].stop()
            used.insert(at, programs[at].wait(stopped=True))
            ends.insert(at, programs[at].ended_at - start)
        daemon.stop()
        server_used = daemon.wait()
        numbers = json.loads(stats.read_text())
        if self.options.verbose:
            told = ("blocks_sent", "blocks_repeated", "requests", "partial_requests", "longest_queue",
                    "rate_blocks_per_second")  # fmt: skip
            print("   ", {key: numbers[key] for key in told}, [f"{end:.2f}" for end in ends])
        return Run(ends, server_used, used, numbers["blocks_repeated"] / self.blocks, numbers["blocks_sent"])

    def frisbee_start(
        self,
        clients: Sequence[int],
        *server_options: str,
        image: Path | None = None,
        client_options: Sequence[str] = (),
        loss: float | None = None,
        losers: Sequence[int] | None = None,
        stream: int = 1,
        hold: bool = False,
    ) -> tuple[Program, list[Program], float, Path]:
        """Start one; returns server, clients, when the clients were started, and where the statistics are.

        With ``hold`` the server hears nobody until it is told to go on.
        """
        group, stats = f"239.77.1.{stream}", self.folder / f"stats{stream}.json"
        end, ready = os.pipe()
        daemon = Program(
            "s1",
            [*lab.FRISBEED, "-i", lab.SERVER, "-m", group, "-p", str(lab.PORT), "-G", "0", "--gather", GATHER,
             "--expect", str(len(clients)), "--stats", str(stats), "--ready-fd", str(ready), *server_options,
             str(image or self.image)],
            keep=(ready,),
        )  # fmt: skip
        os.close(ready)
        if not os.read(end, 100):
            raise lab.LabError(f"frisbeed: {daemon.output()}")
        os.close(end)
        if hold:
            daemon.hold()
        losing = () if loss is None else clients if losers is None else losers
        lab.warm()
        start = time.monotonic()
        programs = [
            Program(
                f"c{i}",
                [*(lab.LOSSY if i in losing else lab.FRISBEE), "-i", f"10.77.1.{i}", "-m", group,
                 "-p", str(lab.PORT), "-q", *client_options, str(self.folder / f"target{i}")],
                environment={"ORBIT_TESTBED_LOSS": str(loss or 0)},
            )
            for i in clients
        ]  # fmt: skip
        return daemon, programs, start, stats

    def targets(self, count: int) -> list[Path]:
        return lab.fresh(self.folder, count)

    def ours(self, count: int, *server_options: str, together: bool = False) -> Run:
        disks = self.targets(count)
        result = self.frisbee(range(1, count + 1), *server_options, together=together)
        self.check(f"frisbee {count}", disks)
        return result

    def udpcast(self, count: int) -> Run:
        disks = self.targets(count)
        sender = Program(
            "s1",
            ["udp-sender", "--file", str(self.image), "--interface", "eth0", "--portbase", "9000", "--nokbd",
             "--no-progress", "--min-receivers", str(count), "--full-duplex",
             "--mcast-rdv-address", "239.77.3.1"],
        )  # fmt: skip
        lab.warm()
        start = time.monotonic()
        receivers = [
            Program(
                f"c{i}",
                ["udp-receiver", "--interface", "eth0", "--portbase", "9000", "--nokbd", "--no-progress",
                 "--mcast-rdv-address", "239.77.3.1"],
                [*lab.UNZIP, "-", str(disk)],
            )
            for i, disk in enumerate(disks, 1)
        ]  # fmt: skip
        used, ends = lab.wait_all(receivers, start)
        server = sender.wait()
        self.check(f"udpcast {count}", disks)
        return Run(ends, server, used)

    def http(self, count: int) -> Run:
        disks = self.targets(count)
        server = Program("s1", [lab.PYTHON, str(TOOL), "serve", str(self.image), f"{lab.SERVER}:8080"])
        while "ready" not in server.output():
            time.sleep(0.01)
        lab.warm()
        start = time.monotonic()
        clients = [
            Program(
                f"c{i}",
                ["curl", "-sf", f"http://{lab.SERVER}:8080/image.ndz"],
                [*lab.UNZIP, "-", str(disk)],
            )
            for i, disk in enumerate(disks, 1)
        ]
        used, ends = lab.wait_all(clients, start)
        server.stop()
        taken = server.wait(stopped=True)
        self.check(f"http {count}", disks)
        return Run(ends, taken, used)

    def uftp(self, count: int) -> Run:
        """uftp writes a file; imageunzip reads that when it is there."""
        disks = self.targets(count)
        lab.warm()
        start = time.monotonic()
        clients = []
        for i, disk in enumerate(disks, 1):
            place = self.folder / f"uftp{i}"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            shutil.rmtree(f"{place}.new", ignore_errors=True)
            Path(f"{place}.new").mkdir()
            script = (
                'uftpd -d -q -I eth0 -M 239.77.4.1 -D "$1" -T "$1.new" & keep=$!; '
                'while [ ! -f "$1/image.ndz" ]; do sleep 0.02; done; '
                'shift; "$@"; status=$?; kill $keep; exit $status'
            )
            clients.append(
                Program(
                    f"c{i}",
                    ["sh", "-c", script, "sh", str(place), *lab.UNZIP, str(place / "image.ndz"), str(disk)],
                )
            )
        groups = ["-M", "239.77.4.1", "-P", "239.77.4.2"]
        sender = Program(
            "s1",
            ["uftp", "-q", "-R", "-1", "-I", "eth0", *groups, "-r", "0.05:0.01:0.5", str(self.image)],
        )
        used, ends = lab.wait_all(clients, start)
        server = sender.wait(stopped=True)
        self.check(f"uftp {count}", disks)
        return Run(ends, server, used)

    # -- sections -----------------------------------------------------------------------------------------

    def show(self, what: str, runs: list[Run]) -> float:
        """Print the medians of some runs; returns the wall time's."""
        wall = statistics.median(run.wall for run in runs)
        spread = f"{min(run.wall for run in runs):.2f}-{max(run.wall for run in runs):.2f}"
        server = statistics.median(run.server.cpu for run in runs)
        client = statistics.median(run.client_cpu for run in runs)
        memory = max(used.memory for run in runs for used in run.clients) >> 20
        again = [run.repeated for run in runs if run.repeated is not None]
        repeated = f"{100 * statistics.median(again):6.1f} %" if again else "       -"
        print(
            f"  {what:34} {wall:7.2f} s ({spread:>11})  {self.data / wall / 1e6:7.1f} MB/s  "
            f"server {server:5.2f} s  client {client:5.2f} s  {memory:4} MiB  again {repeated}",
            flush=True,
        )
        return wall

    def parts(self) -> dict[str, float]:
        """What each part alone can do, in MB of disk data per second."""
        print("\nEach part alone (MB of disk data a second)")
        rates: dict[str, float] = {}
        for name in ("read", "send", "receive", "inflate", "write", "unpack"):
            seconds = []
            for _ in range(self.options.runs):
                if name == "receive":
                    seconds.append(self._receive_alone())
                else:
                    target = str(lab.fresh(self.folder, 1)[0])
                    lab.warm()
                    text = Program("s1", [lab.PYTHON, str(TOOL), name, str(self.image), target])
                    text.wait()
                    seconds.append(float(text.output().split()[-1]))
            rates[name] = self.data / statistics.median(seconds) / 1e6
            print(f"  {name:10} {rates[name]:8.0f} MB/s  ({statistics.median(seconds):.3f} s)", flush=True)
        return rates

    def _receive_alone(self) -> float:
        receiver = Program("c1", [lab.PYTHON, str(TOOL), "receive", str(self.image), "-"])
        while "ready" not in receiver.output():
            time.sleep(0.01)
        Program("s1", [lab.PYTHON, str(TOOL), "send", str(self.image), "-"]).wait()
        receiver.wait()
        return float(receiver.output().split()[-1])

    def free(self) -> None:
        """1, 2, 4 and 8 clients on an unshaped wire, against the peers."""
        rates = self.parts()
        print("\nFree wire (seconds of the last client; CPU seconds; blocks sent again)")
        walls: dict[tuple[str, int], float] = {}
        cpu: dict[int, float] = {}
        for count in self.options.clients:
            makers: list[tuple[str, Callable[[], Run]]] = [("frisbee", lambda n=count: self.ours(n))]
            if "udpcast" in self.options.peers:
                makers.append(("udpcast | imageunzip", lambda n=count: self.udpcast(n)))
            if "http" in self.options.peers:
                makers.append(("http | imageunzip", lambda n=count: self.http(n)))
            if "uftp" in self.options.peers:
                makers.append(("uftp, imageunzip", lambda n=count: self.uftp(n)))
            for (name, _), runs in zip(
                makers, self.many(self.options.runs, *(m for _, m in makers)), strict=True
            ):
                walls[name, count] = self.show(f"{count} x {name}", runs)
                if name == "frisbee":
                    cpu[count] = statistics.median(run.client_cpu for run in runs)
                    again = statistics.median(run.repeated or 0.0 for run in runs)
                    self.verdict(f"{count} clients, blocks sent again", 100 * again, 5, unit=" %")
                    memory = max(used.memory for run in runs for used in run.clients) / 1e6
                    self.verdict(f"{count} clients, memory of each", memory, 200, unit=" MB")
        for count in self.options.clients:
            ours = walls["frisbee", count]
            if ("udpcast | imageunzip", count) in walls and count == 4:
                self.verdict("4 clients, of udpcast's time", ours / walls["udpcast | imageunzip", count], 0.5)
            if ("http | imageunzip", count) in walls:
                self.verdict(
                    f"{count} clients, of HTTP's time", ours / walls["http | imageunzip", count], 1.15
                )
        if 4 in cpu:
            self.verdict("4 clients, of the C programs' 3.7 s", walls["frisbee", 4] / 3.7, 0.35)
            self.verdict("4 clients, of the C client's 1.1 CPU s", cpu[4] / 1.1, 0.5)
        if 1 in cpu:
            rate = self.data / walls["frisbee", 1] / 1e6
            slowest = min(rates[name] for name in ("send", "receive", "inflate", "write"))
            self.verdict("1 client, share of the slowest part alone", rate / slowest, 0.7, least=True)
            print(f"  and {rate / rates['unpack']:.2f} of what inflating and writing in one thread can do")

    def shaped_wire(self) -> None:
        """The server's link at 200 Mbit/s, ours at the same ``-W``.

        From when all clients have joined: here they all start on one machine, one after the other.
        """
        print(f"\nServer's link {SHAPED // 1_000_000} Mbit/s (seconds from when all clients have joined)")
        lab.shape("s1", SHAPED)
        walls: dict[int, float] = {}
        ideal = self.blocks * BLOCK_ON_WIRE * 8 / SHAPED
        for count in self.options.clients:
            ours, free = self.many(
                self.options.runs,
                lambda n=count: self.ours(n, "-W", str(SHAPED), together=True),
                lambda n=count: self.ours(n, together=True),
            )
            walls[count] = self.show(f"{count} x frisbee, -W {SHAPED}", ours)
            self.show(f"{count} x frisbee, no -W", free)
        lab.shape("s1", None)
        print(f"  the blocks alone take {ideal:.2f} s on this cable")
        first, last = min(walls), max(walls)
        self.verdict(f"{last} clients, of the time of {first}", walls[last] / walls[first], 1.05)
        self.verdict("share of the link's payload rate", ideal / walls[last], 0.92, least=True)

    def zipping(self) -> None:
        """imagezip and imageunzip against zlib on one core."""
        print("\nimagezip and imageunzip (MB of disk data a second)")
        target = self.folder / "again.ndz"
        timed: dict[str, list[float]] = {"zip": [], "unzip": [], "zlib -1": [], "zlib inflate": []}
        size = 0
        for _ in range(self.options.runs):
            for what in timed:
                target.unlink(missing_ok=True)
                lab.warm()
                start = time.monotonic()
                if what == "zip":
                    lab.run(*lab.ZIP, str(self.disk), str(target))
                    seconds = time.monotonic() - start
                elif what == "unzip":
                    disk = lab.fresh(self.folder, 1)[0]
                    lab.warm()
                    start = time.monotonic()
                    lab.run(*lab.UNZIP, str(self.image), str(disk))
                    seconds = time.monotonic() - start
                    lab.check_equal(self.disk, [disk])
                else:
                    name = "deflate1" if what == "zlib -1" else "zinflate"
                    text = lab.run(lab.PYTHON, str(TOOL), name, str(self.image), "-").split()
                    seconds, size = float(text[-1]), int(text[-2]) if name == "deflate1" else size
                timed[what].append(seconds)
        median = {what: statistics.median(values) for what, values in timed.items()}
        for what, seconds in median.items():
            print(f"  {what:14} {self.data / seconds / 1e6:7.0f} MB/s ({seconds:.3f} s)")
        used = self.image.stat().st_size
        print(f"  image {used / 1e6:.1f} MB, zlib level 1 {size / 1e6:.1f} MB")
        self.verdict("imagezip, times zlib -1", median["zlib -1"] / median["zip"], 4, least=True)
        self.verdict("imagezip, size of zlib -1", used / size, 1.1)
        self.verdict("imageunzip, times zlib", median["zlib inflate"] / median["unzip"], 2, least=True)

    def rate(self) -> None:
        """``-W``: bytes on the cable, and how smooth."""
        print("\n-W: what is on the cable")
        for megabits in (5, 50, 200, 800, 2000, 5000):
            bits = megabits * 1_000_000
            lab.shape("s1", 10_000_000_000)
            errors, bursts, at_once = [], [], []
            for _ in range(self.options.runs):
                seconds = min(4.0, self.blocks * BLOCK_ON_WIRE * 8 / bits * 0.8)
                end, ready = os.pipe()
                daemon = Program(
                    "s1",
                    [*lab.FRISBEED, "-i", lab.SERVER, "-m", lab.GROUP, "-p", "7000", "-W", str(bits),
                     "--ready-fd", str(ready), str(self.image)],
                    keep=(ready,),
                )  # fmt: skip
                os.close(ready)
                os.read(end, 100)
                os.close(end)
                listener = Program(
                    "c1", [lab.PYTHON, str(TOOL), "listen", str(self.image), f"{bits}:{seconds}"]
                )
                listener.wait()
                daemon.stop()
                daemon.wait(stopped=True)
                got, once, fullest = (float(number) for number in listener.output().split()[-3:])
                errors.append(got / bits - 1)
                at_once.append(once)
                bursts.append(fullest)
            error = max(errors, key=abs)
            burst = max(bursts)
            print(
                f"  {megabits:4} Mbit/s: {100 * error:+.2f} % at most, ahead of the rate by "
                f"{1000 * burst:.2f} ms, of 1.25 times the rate by {1000 * statistics.median(at_once):.2f} ms"
            )
            self.verdict(f"-W {megabits} Mbit/s, off by", 100 * abs(error), 5, unit=" %")
            least = BLOCK_ON_WIRE * 8 / bits
            self.verdict(f"-W {megabits} Mbit/s, burst", 1000 * (burst - least), 2, unit=" ms")
        lab.shape("s1", None)

    def loss(self) -> None:
        """Lost datagrams, of one client and of all."""
        settings: tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...] = (
            ("one of 4 loses, -W 200 Mbit/s", ("-W", str(SHAPED)), (4,)),
            ("each of 4 loses by itself, -W 200 Mbit/s", ("-W", str(SHAPED)), (1, 2, 3, 4)),
            ("each of 4 loses by itself, no -W", (), (1, 2, 3, 4)),
        )
        for name, options, losers in settings:
            self._lossy(name, options, losers)

    def slow(self) -> None:
        """One client ten times slower than the others, beside what a fourth client costs that is not.

        All four take their time from the same two processors, which clients of a testbed do not.
        """
        for name, options in (("-W 200 Mbit/s", ("-W", str(SHAPED))), ("no -W", ())):
            for loss in (None, 0.1, 1.0, 5.0):
                self._slow(name, options, loss)

    def _slow(self, name: str, options: Sequence[str], loss: float | None) -> None:
        lossy = f", each loses {loss:g} %" if loss else ""
        print(f"\nOne client at a tenth of the speed, {name}{lossy}")
        alone, alike, mixed, slow = [], [], [], []
        for _ in range(self.options.runs):
            disks = self.targets(3)
            alone.append(self.frisbee(range(1, 4), *options, loss=loss))
            self.check("three", disks)
            disks = self.targets(4)
            alike.append(self._but_the_last(self.frisbee(range(1, 5), *options, loss=loss)))
            self.check("four", disks)
            rate = SHAPED // 10 if options else int(self.data / alone[-1].wall * 8 / 10 / 2)
            disks = self.targets(4)
            lab.shape("c4", rate, incoming=True, rows=True)
            # Ten times as long as the others: once is enough to see that it gets there.
            result = self.frisbee(range(1, 5), *options, loss=loss, quitter=4 if loss else None)
            lab.shape("c4", None, incoming=True)
            self.check(f"slow {name} {loss}", disks[: 3 if loss else 4])
            mixed.append(self._but_the_last(result))
            slow.append(result.ends[3])
        self.show("3 clients alone", alone)
        before = self.show("3 of 4 that are alike", alike)
        after = self.show("3 beside a slow one", mixed)
        if not loss:
            print(f"  the slow one took {statistics.median(slow):.2f} s")
        self.verdict(
            f"3 clients beside a slow one, {name}{lossy}, of beside one like them", after / before, 1.1
        )

    @staticmethod
    def _but_the_last(run: Run) -> Run:
        return run._replace(ends=run.ends[:-1], clients=run.clients[:-1])

    def _lossy(self, name: str, options: Sequence[str], losers: Sequence[int]) -> None:
        """4 clients of which some lose datagrams: what that costs those that do not, or all if all do."""
        print(f"\nLoss: {name}")
        percents = (0.0, 0.1, 1.0, 5.0)
        fast = [i for i in range(4) if i + 1 not in losers] or list(range(4))

        def one(percent: float) -> Run:
            disks = self.targets(4)
            result = self.frisbee(range(1, 5), *options, loss=percent, losers=losers)
            self.check(f"{name} {percent}", disks)
            return result._replace(ends=[result.ends[i] for i in fast])

        runs = self.many(self.options.runs, *(lambda p=percent: one(p) for percent in percents))
        walls = [self.show(f"{percent:g} % lost", some) for percent, some in zip(percents, runs, strict=True)]
        for percent, wall in zip(percents[1:], walls[1:], strict=True):
            self.verdict(f"{name}: {percent:g} %, of the time without", wall / walls[0], 1.1)

    def resume(self) -> None:
        """Disks that are read back, or hold nearly the same already: 8 MiB in eight places are new."""
        print("\nChunks checked by the manifest; a disk read back; a disk that is nearly the same already")
        disk, image = self.folder / "next.raw", self.folder / "next.ndz"
        shutil.copyfile(self.disk, disk)
        known = json.loads(lab.run(lab.PYTHON, str(TOOL), "regions", str(self.image), "-").splitlines()[0])
        with disk.open("r+b") as file:
            for start, count in known[:: max(1, len(known) // 8)][:8]:
                file.seek(start * lab.SECTOR)
                file.write(os.urandom(min(1 << 20, count * lab.SECTOR)))
        lab.run(*lab.ZIP, str(disk), str(image))
        manifest = ["--manifest", f"{image}.manifest"]

        def one(before: Path | None, *options: str) -> Run:
            targets = lab.fresh(self.folder, 4, before)
            result = self.frisbee(range(1, 5), image=image, client_options=[*manifest, *options])
            lab.check_equal(disk, targets)
            return result

        whole, verified, part, same = self.many(
            self.options.runs,
            lambda: one(None),
            lambda: one(None, "--verify"),
            lambda: one(self.disk, "--resume"),
            lambda: one(disk, "--resume"),
        )
        for what, runs in (
            ("all of it", whole),
            ("all, read back", verified),
            ("what is new", part),
            ("nothing", same),
        ):
            self.show(f"4 clients fetch {what}", runs)
            print(f"    blocks sent: {statistics.median(run.blocks for run in runs):.0f} of {self.blocks}")
        disk.unlink()
        image.unlink()

    def groups(self) -> None:
        """The shape of the 2003 paper's table 6: 16 clients in 1, 2, 4 or 8 groups."""
        print("\nGroups: 16 clients at 100 Mbit/s each, the sender's link 1 Gbit/s")
        small = self.folder / "small.raw"
        image = self.folder / "small.ndz"
        with self.disk.open("rb") as source, small.open("wb") as target:
            target.write(source.read(SMALL_SIZE))
        # As it is: a disk cut short has no file system that could be read.
        lab.run(*lab.ZIP, "-r", "-z", "1", str(small), str(image))
        lab.remove_network()
        lab.make_network(16, snooping=True)
        lab.shape("s1", 1_000_000_000)
        for i in range(1, 17):
            lab.shape(f"c{i}", 100_000_000, incoming=True)
        walls: dict[int, float] = {}
        for number in (1, 2, 4, 8):
            lasts, spreads = [], []
            for _ in range(self.options.runs):
                ends = self._grouped(number, image)
                lasts.append(max(ends))
                spreads.append(max(ends) / min(ends))
            walls[number] = statistics.median(lasts)
            spread = statistics.median(spreads)
            print(f"  {number} x {16 // number:2} clients: last group ends after {walls[number]:6.2f} s, "
                  f"last of first {spread:.2f}", flush=True)  # fmt: skip
            if number > 1:
                self.verdict(f"{number} groups, of the time of one", walls[number] / walls[1], 1.15)
                self.verdict(f"{number} groups, last of first", spread, 1.1)
        lab.remove_network()
        lab.make_network(max(*self.options.clients, 4))
        small.unlink()
        image.unlink()

    def _grouped(self, number: int, image: Path) -> list[float]:
        """Serve ``number`` groups at 95 Mbit/s each; returns when the last client of each ended."""
        size = 16 // number
        disks = lab.fresh(self.folder, 16, size=SMALL_SIZE)
        groups = [range(1 + i * size, 1 + (i + 1) * size) for i in range(number)]
        running = [
            self.frisbee_start(clients, "-W", "95000000", image=image, stream=i + 1, hold=True)
            for i, clients in enumerate(groups)
        ]
        everybody = [program for _, programs, *_ in running for program in programs]
        # The clients are started one after the other: no server may begin before the last of them is there.
        lab.wait_for_sockets(everybody, lab.PORT)
        start = time.monotonic()
        for daemon, *_ in running:
            daemon.go_on()
        _, ends = lab.wait_all(everybody, start)
        for daemon, *_ in running:
            daemon.stop()
            daemon.wait()
        lab.check_equal(self.disk, disks, size=SMALL_SIZE)
        return [max(ends[i * size : (i + 1) * size]) for i in range(number)]


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "free": Bench.free,
    "shaped": Bench.shaped_wire,
    "zip": Bench.zipping,
    "rate": Bench.rate,
    "loss": Bench.loss,
    "slow": Bench.slow,
    "resume": Bench.resume,
    "groups": Bench.groups,
}


def main() -> int:
    """Run the sections asked for."""
    parser = argparse.ArgumentParser(description="Measure the transport; nothing passes or fails.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("-n", dest="runs", type=int, default=5, help="runs, of which the median counts (5)")
    parser.add_argument("-c", dest="clients", default="1,2,4,8", help="numbers of clients (1,2,4,8)")
    parser.add_argument("-p", dest="peers", default="udpcast,http,uftp", help="peers (udpcast,http,uftp)")
    parser.add_argument("-v", dest="verbose", action="store_true", help="print each run")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}")
    if options.inside is None:
        return lab.enter(sys.argv)
    options.clients = [int(number) for number in options.clients.split(",")]
    options.peers = set(options.peers.split(","))
    lab.prepare(options.inside)
    try:
        lab.make_network(max(*options.clients, 4))
        bench = Bench(options.inside, options)
        print(
            f"disk {lab.DISK_SIZE >> 20} MiB, {bench.data / 1e6:.0f} MB of it data, image "
            f"{bench.blocks / 1024:.0f} chunks; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; "
            f"medians of {options.runs}; zlib {zlib.ZLIB_RUNTIME_VERSION}",
            flush=True,
        )
        for section in options.sections or SECTIONS:
            SECTIONS[section](bench)
    except lab.LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print("\nAsked and got")
    for line in bench.verdicts:
        print(f"  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
