# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clients against the testbed's services, in all dialects, over real sockets."""

from __future__ import annotations

import concurrent.futures
import contextlib
import getpass
import pathlib
import selectors
import subprocess
import sys
import time

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import pxe as pxe_module
from ansible_collections.orbit.imaging.plugins.module_utils.cmc import CmcClient
from ansible_collections.orbit.imaging.plugins.module_utils.dialects import DIALECTS
from ansible_collections.orbit.imaging.plugins.module_utils.frisbee import FrisbeeClient
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import Domain
from ansible_collections.orbit.imaging.plugins.module_utils.pxe import PxeClient
from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection, ServiceError

#: Seconds for the services to come up or to end.
PATIENCE = 180
DOMAIN = Domain("demo", control_ip="10.77.{x}.{y}")
NODES = [DOMAIN.node((x, y)) for x in range(1, 5) for y in (1, 2)]
STRANGER = DOMAIN.node((9, 9))
IMAGES = ("baseline.ndz", "other.ndz")


class Services:
    """The services as a process of their own."""

    def __init__(self, folder: pathlib.Path, *options: str) -> None:
        self.folder = folder
        images = folder / "images"
        images.mkdir()
        for name in IMAGES:
            (images / name).write_bytes(name.encode() * 1000)
        command = [
            sys.executable,
            "-m",
            "orbit_services",
            "--dir",
            str(folder),
            "--images",
            str(images),
        ]
        command += ["--domain", "demo", "--nodes", "4x2", "--number", "77", *options]
        self.urls: dict[str, str] = {}
        self._log = (folder / "stderr").open("wb")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        """Read the addresses: one line each, the dialect and the URL."""
        deadline = time.monotonic() + PATIENCE
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            text = b""
            while len(self.urls) < len(DIALECTS):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"the services are not up in {PATIENCE} s: {text!r}")
                part = self._process.stdout.read1(65536)
                assert part, f"the services ended: {(self.folder / 'stderr').read_text()}"
                text += part
                lines = [
                    line.split() for line in text.decode().splitlines(keepends=True) if line.endswith("\n")
                ]
                self.urls = {line[0]: line[1] for line in lines if len(line) == 2 and line[0] in DIALECTS}

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def links(self) -> dict[str, str]:
        """Return the links that are there: file name and target."""
        return {
            path.name: path.readlink().name
            for path in self.folder.rglob("pxelinux.cfg/*")
            if path.is_symlink()
        }


@pytest.fixture(scope="module", params=["kind", "faithful"])
def services(request, tmp_path_factory):
    """The services, once as they are meant and once with the traps of the historic ones."""
    options = ["--faithful"] if request.param == "faithful" else []
    found = Services(tmp_path_factory.mktemp(request.param), *options)
    with contextlib.closing(found):
        yield found


@pytest.fixture(params=list(DIALECTS))
def dialect(request):
    return request.param


@pytest.fixture
def connection(services, dialect):
    with Connection(services.urls[dialect], timeout=180) as connection:
        yield connection


@pytest.fixture(autouse=True)
def no_spacing(monkeypatch):
    # The spacing saves links from a leak of the historic services; here every test clears its own.
    monkeypatch.setattr(pxe_module, "SET_SPACING", 0)


@pytest.fixture
def pxe(connection, dialect):
    client = PxeClient(connection, "auto", "demo")
    yield client
    with contextlib.suppress(ServiceError):
        client.unlink(NODES)


@pytest.fixture
def frisbee(connection, dialect):
    client = FrisbeeClient(connection, "auto", "demo", getpass.getuser())
    yield client
    for image in IMAGES:
        while client.serving(image):
            client.stop(image)


@pytest.fixture
def cmc(connection, dialect):
    client = CmcClient(connection, "auto", "demo")
    yield client
    client.switch(NODES, "off")


#: E1 and E2 differ in the frisbee service only.
ALIKE = {"E1": "E2"}


def test_the_dialect_is_found_out(pxe, frisbee, cmc, dialect):
    assert frisbee.speaker.dialect.name == dialect
    for client in (pxe, cmc):
        assert client.speaker.dialect.name == ALIKE.get(dialect, dialect)


def test_links_come_and_go(services, pxe):
    links = pxe.link(NODES, "memory")
    assert all(link.ok for link in links), [link.message for link in links]
    assert [link.node for link in links] == NODES
    assert services.links() == {link.link: "memory" for link in links}
    if pxe.speaker.can("clear"):
        assert all(link.ok for link in pxe.unlink(NODES[:6]))
        assert set(services.links()) == {link.link for link in links[6:]}
        assert all(link.ok for link in pxe.unlink(NODES))
        assert services.links() == {}


def test_a_memory_image_that_is_not_there(services, pxe, dialect):
    """Seen before; and if it is linked nevertheless, seen after, also when the link then stays."""
    state = pxe.look()
    assert state.own_image == "memory"
    assert {"memory", "omf-5.4"} <= state.images
    assert state.links == {}
    if dialect == "B":
        with pytest.raises(ServiceError, match="cannot be chosen: dialect B"):
            pxe.check_image("nosuch", state)
        return
    assert "'nosuch'" in pxe.check_image("nosuch", state)
    links = pxe.read_back(pxe.link(NODES[:1], "nosuch"), present=True)
    assert not links[0].ok
    unlinked = pxe.read_back(pxe.unlink(NODES[:1]), present=False)
    stays = links[0].link in services.links()
    assert unlinked[0].ok is not stays
    assert unlinked[0].code == ("still_linked" if stays else "")
    for path in services.folder.rglob("pxelinux.cfg/0A*"):
        path.unlink()


def test_an_unknown_node_keeps_no_other_from_its_link(services, pxe):
    links = pxe.link([NODES[0], STRANGER, NODES[1]], "memory")
    assert [link.ok for link in links] == [True, False, True]
    assert links[1].message
    assert set(services.links()) == {links[0].link, links[2].link}
    cleared = pxe.unlink([NODES[0], STRANGER, NODES[1]])
    assert [link.ok for link in cleared] == [True, False, True]
    assert services.links() == {}


def test_images_and_streams(frisbee):
    assert frisbee.check("baseline.ndz") == (True, "")
    exists, reason = frisbee.check("nosuch.ndz")
    assert exists is False
    assert "nosuch.ndz" in reason
    started = [frisbee.start(image) for image in IMAGES]
    assert all(one.verified and not one.joined for one in started)
    assert len({(one.stream.address, one.stream.port) for one in started}) == 2
    again = frisbee.start("baseline.ndz")
    assert again.joined
    assert again.stream == started[0].stream
    status = frisbee.status()
    assert {stream.image for stream in status.streams} == set(IMAGES)
    # The embedded services count in every dialect but when they are faithful to those that did not.
    first = frisbee.stop("baseline.ndz").state
    assert first == ("still_used" if frisbee.serving("baseline.ndz") else "stopped")
    if frisbee.speaker.dialect.counts_uses:
        assert first == "still_used"
    if first == "still_used":
        assert frisbee.stop("baseline.ndz").state == "stopped"
    assert frisbee.stop("baseline.ndz").state == "not_sending"
    streams = {stream.image: stream.own for stream in frisbee.streams().streams}
    assert streams == {"other.ndz": None if frisbee.speaker.dialect.name == "A" else True}


def test_an_image_that_is_not_there_has_no_stream(frisbee):
    with pytest.raises(ServiceError, match=r"nosuch\.ndz"):
        frisbee.start("nosuch.ndz")


def test_starts_at_the_same_time_get_addresses_of_their_own(frisbee):
    with concurrent.futures.ThreadPoolExecutor(len(IMAGES)) as pool:
        started = list(pool.map(frisbee.start, IMAGES))
    assert len({(one.stream.address, one.stream.port) for one in started}) == len(IMAGES)


def test_power(cmc):
    assert {state.state for state in cmc.states(NODES)} == {"off"}
    assert [result.changed for result in cmc.switch(NODES[:2], "off")] == [False, False]
    results = cmc.verify(cmc.switch(NODES, "reset", window=3), "reset", 10)
    assert [(result.ok, result.state) for result in results] == [(True, "on")] * len(NODES)
    assert [result.changed for result in cmc.switch(NODES[:2], "on")] == [False, False]
    results = cmc.verify(cmc.switch(NODES[:1], "off"), "off", 10)
    assert [(result.ok, result.changed) for result in results] == [(True, True)]
    assert [state.state for state in cmc.states(NODES)] == ["off"] + ["on"] * 7


def test_an_unknown_node_keeps_no_other_from_its_power(cmc):
    results = cmc.switch([NODES[0], STRANGER, NODES[1]], "reset")
    assert [result.ok for result in results if result.node is not STRANGER] == [True, True]
    verified = cmc.verify(results, "reset", 1)
    assert [result.ok for result in verified] == [True, False, True]


def test_nodes_are_listed_where_that_is_possible(cmc, dialect):
    if dialect in ("E1", "E2"):
        with pytest.raises(ServiceError, match="does not list its nodes"):
            cmc.listed()
    else:
        assert {state.name for state in cmc.listed()} == {node.name for node in NODES}


def test_the_wrong_dialect_makes_no_success(connection, dialect):
    """The services answer 200 to nearly everything."""
    wrong = "E2" if dialect in ("A", "B", "C") else "C"
    links = PxeClient(connection, wrong, "demo").link(NODES[:2], "memory")
    assert not any(link.ok for link in links)
    client = CmcClient(connection, wrong, "demo")
    # `on` of 5.3 and 5.4 says OK to anything; reading the state back tells.
    results = client.verify(client.switch(NODES[:2], "reset"), "reset", 0)
    assert not any(result.ok for result in results)
    assert all(result.message for result in results)
