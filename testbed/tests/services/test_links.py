# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PXE links: how long they live, how they are set, and what a restart makes of them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from orbit_services.links import HistoricLife, LinkTable, PerLinkLife

from .stand import DOMAIN, World, wait_until


class Book:
    """Links without a disk, driven by a clock of numbers."""

    def __init__(self, life: PerLinkLife | HistoricLife, strict: bool = False) -> None:
        self.life = life
        self.strict = strict
        self.links: set[str] = set()

    def set(self, now: float, *names: str) -> None:
        self.links.update(names)
        self.life.linked(names, now, self.strict)

    def clear(self, *names: str) -> None:
        self.links.difference_update(names)
        self.life.unlinked(names)

    def at(self, now: float) -> set[str]:
        self.links.difference_update(self.life.due(now, self.links.__contains__))
        return self.links


def historic(strict: bool) -> Book:
    return Book(HistoricLife(6), strict)


@pytest.mark.parametrize("book", [Book(PerLinkLife(6)), historic(False), historic(True)])
def test_links_end_after_their_life(book: Book) -> None:
    book.set(0.2, "a", "b")
    assert book.at(4) == {"a", "b"}
    assert book.at(7) == set()


@pytest.mark.parametrize("book", [Book(PerLinkLife(6)), historic(False), historic(True)])
def test_setting_again_renews(book: Book) -> None:
    book.set(0.2, "a")
    book.set(3.2, "a")
    assert book.at(7) == {"a"}
    assert book.at(10) == set()


@pytest.mark.parametrize("book", [Book(PerLinkLife(6)), historic(False), historic(True)])
def test_clear_and_set_again(book: Book) -> None:
    book.set(0.2, "a")
    book.clear("a")
    book.set(2.2, "a")
    assert book.at(7) == {"a"}
    assert book.at(9.5) == set()


@pytest.mark.parametrize("strict", [False, True])
def test_historic_calls_in_one_second_leak(strict: bool) -> None:
    book = historic(strict)
    book.set(0.2, "a")
    book.set(0.7, "b")
    assert book.at(8) == {"a"}
    book.set(8.5, "a")
    assert book.at(20) == {"a"}


def test_our_calls_in_one_second_do_not() -> None:
    book = Book(PerLinkLife(6))
    book.set(0.2, "a")
    book.set(0.7, "b")
    assert book.at(8) == set()


def test_a_cleared_link_stops_the_old_timers_only() -> None:
    for book, left in ((historic(False), set()), (historic(True), {"d", "e"}), (Book(PerLinkLife(6)), set())):
        book.set(0.2, "c", "d", "e")
        book.clear("c")
        assert book.at(8) == left


def test_historic_links_of_half_calls_stay() -> None:
    life = HistoricLife(6)
    book = Book(life)
    book.links.add("f")
    life.half_linked(["f"])
    book.set(8.2, "f")
    assert book.at(30) == {"f"}


def test_an_endless_life() -> None:
    book = Book(PerLinkLife(0))
    book.set(0, "a")
    assert book.life.next_time() is None
    assert book.at(1e12) == {"a"}


_NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), _NAMES), max_size=12))
def test_ours_never_leaks_and_never_ends_early(events: Sequence[tuple[int, bool, list[str]]]) -> None:
    """Whatever is set and cleared: a link lives until its life after the last set, and no longer."""
    book = Book(PerLinkLife(6))
    last: dict[str, int] = {}
    now = 0
    for pause, setting, names in events:
        now += pause
        expected = {name for name, when in last.items() if now < when + 6}
        assert book.at(now) == expected
        if setting:
            book.set(now, *names)
            last.update(dict.fromkeys(names, now))
        else:
            book.clear(*names)
            for name in names:
                last.pop(name, None)
    assert book.at(now + 6) == set()
    assert book.life.next_time() is None


def test_links_are_relative_and_replaced_without_a_gap(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    table = LinkTable(tmp_path, ["0A0A0101"], PerLinkLife(0))
    table.set("0A0A0101", "one")
    assert os.readlink(tmp_path / "0A0A0101") == "./one"
    missing = 0
    stop = threading.Event()

    def watch() -> None:
        nonlocal missing
        while not stop.is_set():
            missing += not (tmp_path / "0A0A0101").exists()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for turn in range(500):
            table.set("0A0A0101", ("one", "two")[turn % 2])
    finally:
        stop.set()
        watcher.join()
    assert missing == 0
    assert table.all() == {"0A0A0101": "two"}


def test_only_links_are_removed(tmp_path: Path) -> None:
    (tmp_path / "0A0A0101").write_text("a file somebody put there")
    table = LinkTable(tmp_path, ["0A0A0101"], PerLinkLife(0))
    table.clear("0A0A0101")
    assert (tmp_path / "0A0A0101").is_file()


# -- over HTTP ---------------------------------------------------------------------------------------------


def test_links_go_by_themselves(make_world: Callable[..., World]) -> None:
    world = make_world(link_lifetime=0.3)
    world.send("A", "/pxe/setBootImage?node=node1-1,node2-1")
    assert len(world.links()) == 2
    wait_until(lambda: not world.links(), "the links' end")
    wait_until(lambda: world.saved()["links"] == {}, "the state file")


@pytest.mark.parametrize("dialect", ["A", "B", "C", "D"])
def test_all_nodes(dialect: str, make_world: Callable[..., World]) -> None:
    world = make_world()
    methods = (
        ("allSetBootImage", "allClearBootImage")
        if dialect == "A"
        else ("setBootImageAll", "clearBootImageAll")
    )
    reply = world.send(dialect, f"/pxe/{methods[0]}?domain={DOMAIN}")
    assert reply.text.count("<node ") == (0 if dialect == "A" else 400)
    assert len(world.links()) == 400
    assert world.links()["0A0A1414"] == "omf-5.4"
    world.send(dialect, f"/pxe/{methods[1]}?domain={DOMAIN}")
    assert world.links() == {}


@pytest.mark.parametrize("dialect", ["D", "E1", "E2"])
def test_four_hundred_names_in_one_form(dialect: str, make_world: Callable[..., World]) -> None:
    world = make_world()
    everybody = ",".join(node.hrn for node in world.config.nodes)
    form = f"domain={DOMAIN}&ns={everybody}"
    reply = world.send(dialect, "/pxe/setBootImageNS", "POST", form)
    assert reply.text.count("<node ") == 400
    assert len(world.links()) == 400
    assert world.send(dialect, "/pxe/clearBootImageNS", "POST", form).status == 200
    assert world.links() == {}


def test_request_line_limit(make_world: Callable[..., World]) -> None:
    """5.4 on Ruby 1.9.3 takes lines of 2083 bytes; before Ruby 1.9 there was no limit."""
    world = make_world()
    target = f"/pxe/setBootImageNS?domain={DOMAIN}&ns="
    target += f"node1-1.{DOMAIN}," * 200
    fits = target[: 2083 - len("GET  HTTP/1.1\r\n")]
    assert world.send("E2", fits).status == 200
    reply = world.send("E2", fits + "x")
    assert (reply.status, reply.content_type) == (414, "text/plain")
    assert reply.text == "WEBrick::HTTPStatus::RequestURITooLarge"
    everybody = ",".join(node.hrn for node in world.config.nodes)
    for dialect in ("D", "E1"):
        reply = world.send(dialect, f"/pxe/setBootImageNS?domain={DOMAIN}&ns={everybody}")
        assert reply.text.count("<node ") == 400


def test_dangling_links_are_in_nobodys_way(make_world: Callable[..., World]) -> None:
    world = make_world()
    (world.config.tftp_dir / "0A0A0101").symlink_to("./gone")
    state = json.loads(world.send("A", "/orbit/state").text)
    assert [link["image"] for link in state["links"] if link["dangling"]] == ["gone"]
    world.send("C", f"/pxe/setBootImageNS?domain={DOMAIN}&ns=[1,1]")
    assert world.links() == {"0A0A0101": "omf-5.4"}
    (world.config.tftp_dir / "0A0A0201").symlink_to("./gone")
    world.send("D", f"/pxe/clearBootImageNS?domain={DOMAIN}&ns=node2-1.{DOMAIN}")
    assert world.links() == {"0A0A0101": "omf-5.4"}


_HRN = f"domain={DOMAIN}&ns=node1-1.{DOMAIN}"
_SET_WITH_IMAGE = {
    "A": "/pxe/setBootImage?node=node1-1&img=",
    "C": "/pxe/setBootImageNS?ns=[1,1]&imgName=",
    "D": f"/pxe/setBootImageNS?{_HRN}&imgName=",
    "E2": f"/pxe/setBootImageNS?{_HRN}&imgName=",
}


@pytest.mark.parametrize("dialect", _SET_WITH_IMAGE)
def test_no_image_name_leads_out_of_the_folder(dialect: str, make_world: Callable[..., World]) -> None:
    world = make_world()
    for bad in ("../x", "..", "/etc/passwd", "a/../../x", "", ".", "a%00b", "a%20b", "$(id)", "%2e%2e%2fx"):
        reply = world.send(dialect, _SET_WITH_IMAGE[dialect] + bad)
        assert "Found unsafe characters in parameter" in reply.text
        assert reply.status == (200 if dialect == "E2" else 400)
    assert world.links() == {}


@pytest.mark.parametrize("dialect", _SET_WITH_IMAGE)
def test_not_even_a_faithful_one_does(dialect: str, make_world: Callable[..., World]) -> None:
    world = make_world(faithful=True)
    for bad in ("../x", "..", "a/../../x", "a%00b", "%2e%2e%2fx", "/etc/passwd"):
        world.send(dialect, _SET_WITH_IMAGE[dialect] + bad)
    for name in world.links():
        target = os.path.normpath(world.config.tftp_dir / os.readlink(world.config.tftp_dir / name))
        assert target.startswith(f"{world.config.tftp_dir}/")


def test_a_restart_loses_no_link(make_world: Callable[..., World]) -> None:
    world = make_world(link_lifetime=100)
    world.send("A", "/pxe/setBootImage?node=node1-1&img=omf-5.4.1")
    before = json.loads(world.send("A", "/orbit/state").text)["links"]
    world.restarted()
    after = json.loads(world.send("A", "/orbit/state").text)["links"]
    assert after == before
    assert world.links() == {"0A0A0101": "omf-5.4.1"}
    document = world.saved()
    world.close()
    document["links"]["0A0A0101"]["deadline"] = time.time() - 1
    world.config.state_file.write_text(json.dumps(document))
    world.restarted()
    wait_until(lambda: not world.links(), "a link whose time was over during the restart")


def test_a_restart_gives_links_without_a_time_one(make_world: Callable[..., World]) -> None:
    """After a restart the historic services left such links for ever."""
    world = make_world(link_lifetime=0.3)
    world.close()
    (world.config.tftp_dir / "0A0A0101").symlink_to("./omf-5.4")
    (world.config.tftp_dir / "0B0B0B0B").symlink_to("./omf-5.4")
    world.restarted()
    wait_until(lambda: world.links() == {"0B0B0B0B": "omf-5.4"}, "the end of the link that is ours")


@pytest.mark.parametrize("garbage", ["", "{", "[]", '{"version": 99}', '{"version": 1, "links": 3}', "\0"])
def test_a_broken_state_file_is_set_aside(garbage: str, make_world: Callable[..., World]) -> None:
    world = make_world()
    world.close()
    world.config.state_file.write_text(garbage)
    world.restarted()
    assert world.send("A", "/pxe/setBootImage?node=node1-1").text == "OK"
    assert world.saved()["links"].keys() == {"0A0A0101"}


def test_links_of_both_kinds_come_and_go_together(tmp_path: Path) -> None:
    pxelinux, grub = tmp_path / "pxelinux.cfg", tmp_path / "grub"
    for folder in (pxelinux, grub):
        folder.mkdir()
        (folder / "memory").touch()
    (pxelinux / "bios-only").touch()
    name = "0A0A0101"
    table = LinkTable(pxelinux, [name], PerLinkLife(0), grub)
    both = {pxelinux / name, grub / f"grub.cfg-{name}"}

    def links() -> set[Path]:
        return {path for folder in (pxelinux, grub) for path in folder.iterdir() if path.is_symlink()}

    table.set(name, "memory")
    assert links() == both
    assert {os.readlink(path) for path in both} == {"./memory"}
    table.clear(name)
    assert links() == set()

    # One without a configuration for GRUB: no link that leads nowhere, and none that leads elsewhere.
    table.set(name, "memory")
    table.set(name, "bios-only")
    assert links() == {pxelinux / name}
    assert table.get(name) == "bios-only"

    # Half a pair, as a crash may leave it, is a link that is shown, ends and can be cleared.
    table.set(name, "memory")
    (pxelinux / name).unlink()
    assert table.all() == {name: "memory"}
    table.clear(name)
    assert links() == set()
    assert table.all() == {}


def test_state_tells_the_memory_images(make_world: Callable[..., World]) -> None:
    """By which a client sees one that is not there before it links a node to it."""
    world = make_world()
    (world.config.tftp_dir / "default").write_text("")
    (world.config.tftp_dir / "another").write_text("")
    world.send("E2", f"/pxe/setBootImageNS?domain={DOMAIN}&ns=node1-1.{DOMAIN}")
    state = json.loads(world.send("A", "/orbit/state").text)
    assert state["memory_image"] == world.config.memory_image
    assert {"another", state["memory_image"]} <= set(state["memory_images"])
    assert len(state["links"]) == 1
    assert not {"default", state["links"][0]["hex"]} & set(state["memory_images"])
