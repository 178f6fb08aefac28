# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A testbed of three groups of four nodes with three images, and a look at it that trusts no service."""

from __future__ import annotations

import contextlib
import pathlib
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence

from orbit_frisbee.ndz import manifest
from orbit_testbed.bed import control
from orbit_testbed.nodes import diskimage, tree
from orbit_testbed.nodes.layout import DISK_SIZE, Settings, State
from orbit_testbed.tiers.light import disk as light_disk

from ..integration import leftovers
from ..integration.kit import IMAGE, Played, Testbed, finish, program, start

#: Group -> its row of nodes and its image.
GROUPS = {"senders": (1, "sender.ndz"), "receivers": (2, "receiver.ndz"), "relays": (3, "relay.ndz")}
COLUMNS = 4
#: Bit/s of one stream: the smallest image takes a second, so that what happens in the middle has a middle.
BANDWIDTH = 24_000_000
#: Time-outs that are small, and yet far above what a node takes on two cores that others use as well. Only
#: the cases whose node or service never answers wait so long.
VARIABLES = {
    "orbit_boot_timeout": 30,
    "orbit_gather": 1,
    "orbit_stall_timeout": 10,
    "orbit_service_timeout": 10,
    "orbit_retries": 0,
}
_RELAY = diskimage.Recipe("relay.ndz", 3_000_000)


def node_names(columns: int = COLUMNS) -> list[str]:
    """Return all nodes, or the first ones of each group, group by group."""
    return [f"node{x}-{row}" for row, _image in GROUPS.values() for x in range(1, columns + 1)]


def image_of(node: str) -> str:
    """Return the image that a node gets."""
    return next(image for row, image in GROUPS.values() if node.endswith(f"-{row}"))


class FaultBed(Testbed):
    """The testbed of the fault tests. It is cleaned between runs, never brought up again."""

    __test__ = False

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder, f"{COLUMNS}x{len(GROUPS)}", "--bandwidth", str(BANDWIDTH))
        self.layout = State(folder / "state")
        self._raw: dict[str, pathlib.Path] = {}
        self._ranges: dict[str, list[tuple[int, int]]] = {}

    def __enter__(self) -> FaultBed:
        super().__enter__()
        try:
            self._make_images()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make_images(self) -> None:
        """Make the third image, and of each image what must be on a disk that has it."""
        public = self.layout.key.with_suffix(".pub").read_text().strip()
        hostkey = tree.make_hostkey(self.layout.root / "keys" / _RELAY.name)
        made = light_disk.build(self.layout.cache, _RELAY, hostkey=hostkey, authorized_key=public)
        diskimage.copy_unless_same(made, self.layout.images / _RELAY.name, _RELAY.name)
        for _row, image in GROUPS.values():
            path = self.layout.images / image
            raw = self.folder / f"{image}.raw"
            subprocess.run(
                [program("imageunzip"), str(path), str(raw)], check=True, capture_output=True, timeout=60
            )
            self._raw[image] = raw
            described = manifest.read(manifest.path_of(path))
            self._ranges[image] = [place for entry in described.entries for place in entry.ranges()]

    # -- orders

    def order(self, *nodes: str, fault: str) -> None:
        """Order a fault for nodes."""
        control.ask(self.layout.root, {"do": "fault", "nodes": list(nodes), "fault": fault})

    def order_service(
        self, service: str, fault: str, method: str | None = None, count: int | None = None
    ) -> None:
        """Order a fault for a service."""
        request = {"do": "fault", "service": service, "fault": fault, "method": method, "count": count}
        control.ask(self.layout.root, request)

    def hits(self) -> dict[str, int]:
        """Return how often the fault of each service has struck."""
        found: dict[str, int] = control.ask(self.layout.root, {"do": "status"})["service_hits"]
        return found

    def nodes(self) -> dict[str, dict]:
        """Return what the hub knows of each node."""
        return {node["name"]: node for node in control.ask(self.layout.root, {"do": "status"})["nodes"]}

    # -- between two runs

    def clean(self) -> None:
        """Leave sound services and nodes that are off, with blank disks."""
        self.order("all", fault="none")
        self.order_service("all", "none")
        self.wait_for_services()
        self.power_off()
        for name in node_names():
            with self._disk(name).open("r+b") as disk:
                disk.truncate(0)
                disk.truncate(DISK_SIZE)

    def power_off(self) -> None:
        """Switch all nodes off."""
        assert self._call("cmc/allOffHard") == "OK"

    def power_on(self, names: Sequence[str]) -> None:
        """Switch nodes on, and wait until their systems answer."""
        for name in names:
            x, y = name.removeprefix("node").split("-")
            assert self._call(f"cmc/on?x={x}&y={y}") == "OK"
        for name in names:
            self.command("ssh", *self._common, name, "true", check=False)
            end = time.monotonic() + 180
            while self.command("ssh", *self._common, name, "true", check=False).returncode != 0:
                assert time.monotonic() < end, f"{name} does not come up"

    def _call(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.{self.number}.0.1:5012/{path}", timeout=180) as reply:
            text: str = reply.read().decode()
            return text

    def wait_for_services(self) -> None:
        """Wait until the services answer, as they do some time after a restart."""
        end = time.monotonic() + 180
        while True:
            with contextlib.suppress(OSError):
                self.state()
                return
            assert time.monotonic() < end, "the services do not come back"
            time.sleep(0.05)

    def put(self, node: str, image: str) -> None:
        """Write an image on a node's disk."""
        with self._raw[image].open("rb") as source, self._disk(node).open("r+b") as disk:
            for at, size in self._ranges[image]:
                source.seek(at)
                disk.seek(at)
                disk.write(source.read(size))

    # -- the independent look

    def _disk(self, node: str) -> pathlib.Path:
        return self.layout.disk(Settings.from_json(self.layout.settings.read_text()).node(node))

    def has_image(self, node: str) -> bool:
        """Whether each byte of the node's image is on its disk."""
        image = image_of(node)
        with self._raw[image].open("rb") as source, self._disk(node).open("rb") as disk:
            for at, size in self._ranges[image]:
                source.seek(at)
                disk.seek(at)
                if source.read(size) != disk.read(size):
                    return False
        return True

    def left(self, spared: Sequence[str] = ()) -> list[str]:
        """Return in words what there is of any run, seen by files, processes and the kernel alone.

        ``spared`` nodes may have a client that goes on: they could not be told to stop.
        """
        found = [f"link {name}" for name in self.links()]
        found += self._processes(spared)
        found += self._memberships(spared)
        found += self._locks()
        return found

    def _processes(self, spared: Sequence[str]) -> Iterator[str]:
        folder, clients = str(self.folder), {}
        for name in node_names():
            x, y = name.removeprefix("node").split("-")
            clients[f"10.{self.number}.{x}.{y}"] = name
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_text(errors="replace").split("\0")
                pid = path.parent.name
                if "orbit_frisbee.frisbee.server_cli" in words and any(folder in word for word in words):
                    yield f"frisbeed, process {pid}"
                elif "orbit_frisbee.frisbee.client_cli" in words:
                    node = next((clients[word] for word in words if word in clients), None)
                    if node is not None and node not in spared:
                        yield f"client on {node}, process {pid}"
                elif any(word.endswith("/guard_main.py") for word in words):
                    run = self.folder / "runs" / words[-2]
                    if run.is_dir():
                        state = (path.parent / "wchan").read_text()
                        yield f"guard, process {pid}, waiting in {state}, last words: {_last_words(run)}"
                elif pathlib.Path(words[0]).name == "ssh" and any(
                    word.startswith(f"127.{self.number}.") for word in words
                ):
                    yield f"ssh, process {pid}"

    def _memberships(self, spared: Sequence[str]) -> Iterator[str]:
        """Yield the multicast groups that somebody in the testbed listens to, besides that of all hosts."""
        look = (
            "echo @hub; cat /proc/net/igmp; for space in /run/netns/*; do echo @$space; "
            "nsenter --net=$space cat /proc/net/igmp; done"
        )
        text = self.command("exec", *self._common, "--", "sh", "-c", look).stdout
        place = ""
        for line in text.splitlines():
            if line.startswith("@"):
                place = line.rpartition("/")[2].removeprefix("@").removeprefix("orbit-")
            elif match := re.match(r"\s+([0-9A-F]{8})\s", line):
                octets = [str(byte) for byte in reversed(bytes.fromhex(match[1]))]
                if octets[0] == "239" and place not in spared:
                    yield f"{place} listens to {'.'.join(octets)}"

    def _locks(self) -> Iterator[str]:
        """Yield the claims that the kernel holds a lock for."""
        folder = self.folder / "claims"
        numbers = {path.stat().st_ino: path.name for path in folder.glob("*")} if folder.is_dir() else {}
        for line in pathlib.Path("/proc/locks").read_text().splitlines():
            words = line.split()
            number = next((int(word.split(":")[2]) for word in words if word.count(":") == 2), 0)
            if number in numbers:
                yield f"claim {numbers[number]}"

    def left_soon(self, spared: Sequence[str] = (), seconds: float = leftovers.SOON) -> list[str]:
        """Return what is still left after some seconds, or as soon as nothing is."""
        return leftovers.left_soon(lambda: self.left(spared), seconds)

    # -- runs

    def three_groups(self, **variables: object) -> str:
        """Write the inventory of the three groups; return its path."""
        groups = "groups:\n" + "".join(
            f'  {name}:\n    nodes: "[1..{COLUMNS},{row}]"\n    image: {image}\n'
            for name, (row, image) in GROUPS.items()
        )
        settings = {**VARIABLES, **variables}
        lines = "".join(f"  {name}: {str(value).lower()}\n" for name, value in settings.items())
        return self.inventory(groups, variables=lines)

    def begin(self, *arguments: str, **variables: object) -> subprocess.Popen[str]:
        """Start a run of all groups."""
        return start("-i", self.three_groups(**variables), IMAGE, *arguments)

    def run(self, *arguments: str, **variables: object) -> Played:
        """Run all groups to the end."""
        return finish(self.begin(*arguments, **variables))


def _last_words(run: pathlib.Path) -> str:
    """Return what the guard of a run has said last."""
    log = run / "guard.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return lines[-1] if lines else "none"
