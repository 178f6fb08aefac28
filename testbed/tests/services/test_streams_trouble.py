# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams when something is in the way: no folder, no room, no descriptors, a caller who is gone."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orbit_services import process, state, streams
from orbit_services.links import LinkTable, PerLinkLife
from orbit_services.process import is_running, start_time
from orbit_services.state import StateError, StateFile

from .stand import DOMAIN, World, wait_until
from .test_streams import get, shown, slow_server, stop

MakeWorld = Callable[..., World]


def too_many(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def block(folder: Path) -> None:
    """Let a folder's place be taken by a file: nobody, root neither, can write there any more."""
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.write_text("in the way")


# -- a server that cannot be started again


@pytest.mark.parametrize("why", ["log folder", "program"])
def test_a_server_that_cannot_be_started_again_is_given_up(
    why: str, make_world: MakeWorld, tmp_path: Path
) -> None:
    program = tmp_path / "frisbeed"
    shutil.copyfile(Path(streams.__file__).with_name("null_frisbeed.py"), program)
    command = ("/usr/bin/env", "python3", "-I", "-S", str(program)) if why == "program" else None
    world = make_world(**({"frisbeed": command} if command else {}))
    get(world, "baseline.ndz")
    pid = shown(world)[0]["pid"]
    if why == "program":
        program.unlink()
    else:
        block(world.config.log_dir)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: world.services.streams.ended, "the note")
    assert world.services.streams.ended[0]["reason"].startswith("ended by itself")
    # Nobody waits for ever for what will not come, and nothing is reported that is not so.
    assert get(world, "baseline.ndz", "C").status == 500
    assert stop(world, "baseline.ndz").startswith("<ERROR>Did not stop")
    if why == "log folder":
        world.config.log_dir.unlink()
        assert get(world, "baseline.ndz").text.startswith("239.")


def test_whatever_fails_nobody_waits_for_ever(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world()
    get(world, "baseline.ndz")

    async def fail(*_: Any) -> None:
        raise RuntimeError("a mistake in this program")

    monkeypatch.setattr(world.services.streams, "_again", fail)
    os.kill(shown(world)[0]["pid"], signal.SIGKILL)
    wait_until(lambda: world.services.streams.ended, "the note")
    monkeypatch.undo()
    assert get(world, "baseline.ndz").text.startswith("239.")
    assert [stream["users"] for stream in shown(world)] == [1]


# -- a state that cannot be saved


@contextlib.contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """Let something be where a file belongs that no file can replace, not even root's."""
    if path.exists():
        path.unlink()
    path.mkdir()
    try:
        yield
    finally:
        path.rmdir()


def test_a_use_that_cannot_be_noted_is_not_counted(make_world: MakeWorld) -> None:
    world = make_world()
    get(world, "baseline.ndz")
    with unwritable(world.config.state_file):
        assert get(world, "baseline.ndz").status == 500
        assert [stream["users"] for stream in shown(world)] == [1]
        # A stream that nobody could be told of is none.
        assert get(world, "other.ndz").status == 500
        assert [stream["image"] for stream in shown(world)] == ["baseline.ndz"]
    get(world, "baseline.ndz")
    with unwritable(world.config.state_file):
        assert stop(world, "baseline.ndz") == "internal error"
        assert [stream["users"] for stream in shown(world)] == [2]
    assert stop(world, "baseline.ndz").startswith("<ERROR>Did not stop")
    assert stop(world, "baseline.ndz").startswith("<OK>")
    assert shown(world) == []


def test_what_could_not_be_saved_is_saved_later(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orbit_services import app

    monkeypatch.setattr(app, "_SAVE_AGAIN", 0.01)
    world = make_world()
    with unwritable(world.config.state_file):
        assert world.send("A", "/pxe/setBootImage?node=node1-1&domain=" + DOMAIN).status == 500
        # The link is there, and ends in its time: that is noted as soon as it can be.
        assert list(world.links()) == ["0A0A0101"]
        assert world.services.links.deadline("0A0A0101") is not None
        assert world.services._expiry is not None
    wait_until(world.config.state_file.is_file, "the note")
    assert "0A0A0101" in world.saved()["links"]


# -- a state that cannot be read


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO])
def test_a_state_file_that_cannot_be_read_now_is_kept(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"version": state.VERSION, "links": {"0A": {}}}))

    def fail(*_: Any, **__: Any) -> str:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", fail)
        with pytest.raises(StateError, match=f"{path} cannot be read: .*start without it"):
            StateFile(path).load()
    assert list(tmp_path.iterdir()) == [path]
    assert StateFile(path).load()["links"] == {"0A": {}}


def test_a_state_file_that_is_none_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for text in ("{", "[]", "\xff", '{"version": 99}', "[" * 100_000):
        path.write_text(text, encoding="latin-1")
        assert StateFile(path).load() == {}
        assert [found.name for found in tmp_path.iterdir()] == ["state.json.bad"]
    path.write_text("{")
    (tmp_path / "state.json.bad").unlink()
    (tmp_path / "state.json.bad").mkdir()
    (tmp_path / "state.json.bad/x").touch()
    with pytest.raises(StateError, match="cannot be moved"):
        StateFile(path).load()


# -- too many open files


def test_a_server_is_not_dead_because_nobody_can_look(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    address = get(world, "baseline.ndz").text
    pid = shown(world)[0]["pid"]
    with monkeypatch.context() as patched:
        patched.setattr(process.Path, "read_text", too_many)
        assert is_running(pid, 1)
        assert not is_running(2**22 + 1, 1)
        with pytest.raises(OSError, match="Too many open files"):
            start_time(pid)
        assert get(world, "baseline.ndz").text == address
    assert [stream["users"] for stream in shown(world)] == [2]


def test_a_server_without_a_handle_is_watched_all_the_same(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_LOOK_AGAIN", 0.01)
    monkeypatch.setattr(process.os, "pidfd_open", too_many)
    world = make_world()
    address = get(world, "baseline.ndz").text
    os.kill(shown(world)[0]["pid"], signal.SIGKILL)
    wait_until(lambda: [s.restarts for s in world.streams()] == [1], "the next server")
    assert get(world, "baseline.ndz").text == address
    stop(world, "baseline.ndz")
    assert stop(world, "baseline.ndz").startswith("<OK>")


def test_without_descriptors_no_stream_and_no_count(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    with monkeypatch.context() as patched:
        patched.setattr(streams.os, "pipe", too_many)
        assert "Too many open files" in get(world, "baseline.ndz", "C").text
    assert shown(world) == []
    assert world.services.streams._reserved == set()
    assert get(world, "baseline.ndz").text.startswith("239.")


def test_a_stream_whose_numbers_cannot_be_read_is_not_cut(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(stream_timeout=0.1)
    monkeypatch.setattr(streams.Stream, "read_stats", too_many)
    get(world, "baseline.ndz")
    first = world.streams()[0].deadline
    wait_until(lambda: world.streams()[0].deadline > first, "a longer time")
    monkeypatch.undo()
    wait_until(lambda: not shown(world), "the end")


# -- links whose time is over


def test_an_expiry_that_fails_is_tried_again(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("0A010101", "0A010102"):
        (tmp_path / name).symlink_to("./memory")
    table = LinkTable(tmp_path, ["0A010101", "0A010102"], PerLinkLife(5))
    table.life.linked(["0A010101", "0A010102"], 0, strict=False)
    remove = Path.unlink

    def fail(path: Path, *_: Any, **__: Any) -> None:
        if path.name == "0A010101":
            raise PermissionError(errno.EACCES, "no")
        remove(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", fail)
        assert table.expire(6) == ["0A010102"]
    assert list(table.all()) == ["0A010101"]
    again = table.next_time()
    assert again is not None
    assert table.export()["0A010101"]["deadline"] == again
    assert table.expire(again - 1) == []
    assert table.expire(again) == ["0A010101"]
    assert (table.all(), table.next_time()) == ({}, None)


def test_a_link_set_again_is_not_overdue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = LinkTable(tmp_path, ["0A010101"], PerLinkLife(5))
    table.set("0A010101", "memory")
    table.life.linked(["0A010101"], 0, strict=False)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", too_many)
        assert table.expire(6) == []
    table.set("0A010101", "memory")
    table.life.linked(["0A010101"], 7, strict=False)
    assert table.next_time() == 12
    assert table.expire(11.9) == []
    assert table.expire(12) == ["0A010101"]


def test_no_link_names_another(make_world: MakeWorld) -> None:
    world = make_world()
    folder = world.config.tftp_dir
    world.send("A", f"/pxe/setBootImage?node=node1-1,node1-2&img=omf-5.4&domain={DOMAIN}")
    before = world.links()
    assert len(before) == 2
    (folder / "alias").symlink_to("omf-5.4")
    (folder / "detour").symlink_to("./0A0A0101")
    for name in ("0A", "01-00-11-22-33-44-55", ".0A0A0101.new", "grub.cfg-0A0A0101"):
        (folder / name).write_text("for one node")
    names = ("0A0A0101", "0A0A0102", "0A", "01-00-11-22-33-44-55", ".0A0A0101.new", "detour")
    for name in (*names, "grub.cfg-0A0A0101"):
        for dialect, target in (
            ("A", f"/pxe/setBootImage?node=node1-1&img={name}"),
            ("C", f"/pxe/setBootImageNS?ns=[1,1]&imgName={name}"),
            ("E2", f"/pxe/setBootImageNS?ns=node1-1.{DOMAIN}&imgName={name}"),
        ):
            reply = world.send(dialect, f"{target}&domain={DOMAIN}")
            assert "not found" in reply.text, (name, dialect)
    assert {name: image for name, image in world.links().items() if name in before} == before
    assert world.send("A", f"/pxe/setBootImage?node=node1-1&img=alias&domain={DOMAIN}").text == "OK"


# -- a caller who is gone


@pytest.mark.parametrize("others", [0, 1])
def test_who_is_gone_is_no_user(others: int, make_world: MakeWorld, tmp_path: Path) -> None:
    command, go = slow_server(tmp_path)
    world = make_world(frisbeed=command)
    target = f"/frisbee/getAddress?img=baseline.ndz&domain={DOMAIN}"
    starting = world.services.streams._starting
    with socket.create_connection(("127.0.0.1", world.stand.ports["A"]), timeout=180) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: [start.askers for start in starting.values()] == [1], "the start")
    connection = http.client.HTTPConnection("127.0.0.1", world.stand.ports["A"], timeout=180)
    if others:
        connection.request("GET", target)
        wait_until(lambda: [start.askers for start in starting.values()] == [2], "the second asker")
    # Enough that the server sees the first one go before it can answer.
    assert get(world, "none.ndz").status == 400
    go.touch()
    if others:
        assert connection.getresponse().read().startswith(b"239.")
        wait_until(lambda: [stream["users"] for stream in shown(world)] == [1], "the count")
        assert stop(world, "baseline.ndz").startswith("<OK>")
    else:
        wait_until(lambda: world.services.streams.ended, "the end of a stream of nobody")
        assert shown(world) == []
    connection.close()


# -- an image that is replaced


def replace(path: Path, text: str) -> None:
    """Put another file in the place of an image, at once."""
    new = path.with_name(path.name + ".partial")
    new.write_text(text)
    os.replace(new, path)


def test_a_replaced_image_is_another_stream(make_world: MakeWorld) -> None:
    world = make_world()
    image = world.config.image_dir / "baseline.ndz"
    image.write_text("one")
    first = get(world, "baseline.ndz").text
    replace(image, "two")
    second = get(world, "baseline.ndz").text
    assert get(world, "baseline.ndz").text == second
    assert set(first.split(":")).isdisjoint(second.split(":"))
    assert [f"{s['group']}:{s['port']}" for s in shown(world)] == [first, second]
    # Nobody can tell which of them is given up: none is cut while one of the three uses is left.
    for _ in range(2):
        assert stop(world, "baseline.ndz").startswith("<ERROR>Did not stop")
        assert len(shown(world)) == 2
    assert stop(world, "baseline.ndz").startswith("<OK>Stopped")
    assert shown(world) == []


def test_a_dead_server_is_not_started_again_with_another_image(make_world: MakeWorld) -> None:
    world = make_world()
    image = world.config.image_dir / "baseline.ndz"
    image.write_text("one")
    first = get(world, "baseline.ndz").text
    replace(image, "two")
    os.kill(shown(world)[0]["pid"], signal.SIGKILL)
    wait_until(lambda: world.services.streams.ended, "the note")
    assert "not the file it served" in world.services.streams.ended[0]["reason"]
    assert get(world, "baseline.ndz").text != first


def test_a_restart_does_not_forget_which_image_it_was(make_world: MakeWorld) -> None:
    world = make_world()
    image = world.config.image_dir / "baseline.ndz"
    image.write_text("one")
    first = get(world, "baseline.ndz").text
    world.restarted()
    assert get(world, "baseline.ndz").text == first
    world.close(keep_streams=True)
    replace(image, "two")
    world.restarted()
    assert get(world, "baseline.ndz").text != first
    assert [stream["users"] for stream in shown(world)] == [2, 1]
    os.kill(shown(world)[0]["pid"], signal.SIGKILL)
    wait_until(lambda: world.services.streams.ended, "the note")
    # Its uses still stand for clients that may be at work: they count for what is left.
    assert [stream["users"] for stream in shown(world)] == [3]


def test_an_image_written_in_place_ends_its_stream(make_world: MakeWorld) -> None:
    world = make_world()
    image = world.config.image_dir / "baseline.ndz"
    image.write_text("one")
    first = get(world, "baseline.ndz").text
    image.write_text("another one")
    second = get(world, "baseline.ndz").text
    assert second != first
    assert [f"{s['group']}:{s['port']}" for s in shown(world)] == [second]
    assert [end["reason"] for end in world.services.streams.ended] == ["its image was overwritten"]
    # Who used the first one will say stop, too: that must not cut off the others.
    assert stop(world, "baseline.ndz").startswith("<ERROR>Did not stop")
    assert stop(world, "baseline.ndz").startswith("<OK>")


def test_the_same_content_is_the_same_image(make_world: MakeWorld) -> None:
    world = make_world()
    image = world.config.image_dir / "baseline.ndz"

    def put(name: str, digest: str, text: str = "one") -> None:
        new = world.config.image_dir / f"{name}.partial"
        new.write_text(text)
        found = new.stat()
        head = {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "digest": digest}
        (world.config.image_dir / f"{image.name}.manifest").write_text(json.dumps(head) + "\n")
        os.replace(new, image)

    put("a", "11" * 32)
    first = get(world, "baseline.ndz").text
    put("b", "11" * 32)
    assert get(world, "baseline.ndz").text == first
    os.kill(shown(world)[0]["pid"], signal.SIGKILL)
    wait_until(lambda: [s.restarts for s in world.streams()] == [1], "the next server")
    put("c", "22" * 32)
    assert get(world, "baseline.ndz").text != first


def test_an_image_changed_during_the_start_is_not_served(make_world: MakeWorld, tmp_path: Path) -> None:
    command, go = slow_server(tmp_path)
    world = make_world(frisbeed=command)
    connection = http.client.HTTPConnection("127.0.0.1", world.stand.ports["C"], timeout=180)
    connection.request("GET", f"/frisbee/getAddress?img=baseline.ndz&domain={DOMAIN}")
    wait_until(lambda: world.services.streams._starting, "the start")
    replace(world.config.image_dir / "baseline.ndz", "two")
    go.touch()
    assert b"was changed while its server started" in connection.getresponse().read()
    connection.close()
    assert shown(world) == []
    assert get(world, "baseline.ndz").text.startswith("239.")


def test_a_stream_of_an_older_version_goes_on_but_takes_nobody(make_world: MakeWorld) -> None:
    world = make_world()
    first = get(world, "baseline.ndz").text
    world.close(keep_streams=True)
    document = world.saved()
    del document["streams"]["running"][0]["identity"]
    world.config.state_file.write_text(json.dumps(document))
    world.restarted()
    assert len(shown(world)) == 1
    assert get(world, "baseline.ndz").text != first
    assert len(shown(world)) == 2
