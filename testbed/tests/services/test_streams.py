# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams: shared, counted, each on its own address, alive or noticed to be dead, and kept over a restart."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orbit_services import streams
from orbit_services.process import is_running, start_time

from .stand import DOMAIN, NULL_FRISBEED, Reply, World, wait_until

MakeWorld = Callable[..., World]


def get(world: World, image: str, dialect: str = "A") -> Reply:
    return world.send(dialect, f"/frisbee/getAddress?img={image}&user=me&domain={DOMAIN}")


def stop(world: World, image: str, dialect: str = "E2") -> str:
    return world.send(dialect, f"/frisbee/stop?img={image}&domain={DOMAIN}").text


def at_once(works: Sequence[Callable[[], Reply]]) -> list[Reply]:
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], Reply]) -> Reply:
        barrier.wait(180)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def shown(world: World) -> list[Any]:
    found = json.loads(world.send("A", "/orbit/state").text)["streams"]
    assert isinstance(found, list)
    return found


def test_two_askers_at_the_same_moment_share_one_stream(make_world: MakeWorld) -> None:
    world = make_world()
    replies = at_once(
        [
            lambda dialect=dialect: get(world, "baseline.ndz", dialect)  # type: ignore[misc]
            for dialect in ("A", "B", "C", "D", "E1", "E2")
        ]
    )
    addresses = {re.sub("</?OK>", "", reply.text) for reply in replies}
    assert len(addresses) == 1
    assert [stream["users"] for stream in shown(world)] == [6]
    (stream,) = shown(world)
    assert f"{stream['group']}:{stream['port']}" in addresses
    assert stream["server"] == world.config.interface
    assert len(list(world.config.log_dir.glob("*.log"))) == 1
    for _ in range(5):
        assert stop(world, "baseline.ndz").startswith("<ERROR>Did not stop")
    assert stop(world, "baseline.ndz").startswith("<OK>Stopped serving")
    assert shown(world) == []


def test_different_images_at_the_same_moment_get_different_addresses(make_world: MakeWorld) -> None:
    world = make_world()
    replies = at_once(
        [
            lambda image=image: get(world, image)  # type: ignore[misc]
            for image in ("baseline.ndz", "other.ndz", "third.ndz")
        ]
    )
    groups, ports = zip(*(reply.text.split(":") for reply in replies), strict=True)
    assert len(set(groups)) == len(set(ports)) == 3
    low = {int(ipaddress.IPv4Address(group)) & 0x7FFFFF for group in groups}
    assert len(low) == 3
    assert all(ipaddress.IPv4Address(group) in ipaddress.IPv4Network("239.77.0.0/16") for group in groups)


def test_faithful_different_images_at_the_same_moment_clash(make_world: MakeWorld) -> None:
    world = make_world(faithful=True, faithful_wait=0.5)
    replies = at_once(
        [
            lambda image=image: get(world, image, "E2")  # type: ignore[misc]
            for image in ("baseline.ndz", "other.ndz")
        ]
    )
    assert replies[0].text == replies[1].text
    assert len(shown(world)) == 2


def test_addresses_are_not_used_again_soon(make_world: MakeWorld) -> None:
    """A client that missed the end of a stream must not hear the next one at the same address."""
    world = make_world()
    seen = set()
    for _ in range(4):
        seen.add(get(world, "baseline.ndz").text.partition(":")[0])
        stop(world, "baseline.ndz")
    assert len(seen) == 4
    world.restarted()
    assert get(world, "baseline.ndz").text.partition(":")[0] not in seen


def test_group_addresses_cover_the_range(make_world: MakeWorld) -> None:
    world = make_world()
    groups = {world.services.streams._next_group() for _ in range(0xFFFF)}
    assert len(groups) == 0xFFFF
    assert "239.77.0.0" not in groups


def test_a_busy_port_is_left_alone(make_world: MakeWorld) -> None:
    world = make_world()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", world.config.port_base))
        assert get(world, "baseline.ndz").text.endswith(f":{world.config.port_base + 1}")


def test_a_port_taken_during_the_start_is_given_up(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    probe = streams._bindable
    answers = [True, True]
    monkeypatch.setattr(streams, "_bindable", lambda port: answers.pop() if answers[1:] else probe(port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", world.config.port_base))
        assert get(world, "baseline.ndz").text.endswith(f":{world.config.port_base + 1}")
    assert answers == [True], "the port was not looked at"


def test_too_many(make_world: MakeWorld) -> None:
    world = make_world(max_daemons=2)
    replies = at_once(
        [
            lambda image=image: get(world, image, "E2")  # type: ignore[misc]
            for image in ("baseline.ndz", "other.ndz", "third.ndz")
        ]
    )
    assert sorted(reply.status for reply in replies) == [200, 200, 400]
    refused = next(reply for reply in replies if reply.status == 400)
    assert refused.text == "Max. number of daemons reached. Shutdown others and try again"
    running = shown(world)[0]["image"]
    assert get(world, running, "E2").status == 200


def test_a_server_that_dies_is_started_again_where_it_was(make_world: MakeWorld) -> None:
    world = make_world()
    address = get(world, "baseline.ndz").text
    assert get(world, "baseline.ndz").text == address
    before = shown(world)[0]["pid"]
    for restarts in (1, 2, 3):
        os.kill(shown(world)[0]["pid"], signal.SIGKILL)
        wait_until(lambda n=restarts: [s.restarts for s in world.streams()] == [n], "the next server")  # type: ignore[misc]
    found = shown(world)[0]
    assert f"{found['group']}:{found['port']}" == address
    assert found["users"] == 2
    assert found["pid"] != before
    assert world.saved()["streams"]["running"][0]["pid"] == found["pid"]
    # A server that cannot be kept alive is given up.
    os.kill(found["pid"], signal.SIGKILL)
    wait_until(lambda: world.services.streams.ended, "the note")
    assert shown(world) == []


def test_who_asks_while_a_server_is_started_again_waits_for_it(make_world: MakeWorld) -> None:
    world = make_world()
    address = get(world, "baseline.ndz").text

    def die() -> None:
        pid = wait_until(lambda: shown(world), "a server")[0]["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: start_time(pid) is None, "its end")

    die()
    assert get(world, "baseline.ndz").text == address
    assert [stream["users"] for stream in shown(world)] == [2]
    die()
    assert "still receiving" in stop(world, "baseline.ndz")
    die()
    assert stop(world, "baseline.ndz").startswith("<OK>")
    assert shown(world) == []
    wait_until(lambda: world.services.streams.ended, "the note")


def test_a_server_that_ended_well_is_not_started_again(make_world: MakeWorld) -> None:
    world = make_world()
    get(world, "baseline.ndz")
    os.kill(shown(world)[0]["pid"], signal.SIGTERM)
    wait_until(lambda: world.services.streams.ended, "the note")
    assert shown(world) == []


def test_a_server_that_dies_is_noticed(make_world: MakeWorld) -> None:
    world = make_world(faithful=True)
    address = get(world, "baseline.ndz").text
    pid = shown(world)[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: start_time(pid) is None, "the end of the process")
    assert world.send("E2", "/frisbee/status").text == "<OK>No frisbee daemons are running</OK>"
    wait_until(lambda: world.services.streams.ended, "the note")
    assert world.saved()["streams"]["running"] == []
    ended = json.loads(world.send("A", "/orbit/state").text)["ended_streams"]
    assert [(end["image"], end["reason"].partition(":")[0]) for end in ended] == [
        ("baseline.ndz", "ended by itself")
    ]
    again = get(world, "baseline.ndz").text
    assert again == address
    assert [stream["users"] for stream in shown(world)] == [1]


def script(tmp_path: Path, text: str) -> tuple[str, ...]:
    path = tmp_path / "frisbeed.py"
    path.write_text(text)
    return (sys.executable, "-I", "-S", str(path))


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit('no such interface')", "no such interface"),
        ("import sys; print('first'); print('last words'); sys.exit(3)", "last words"),
        ("import os; os._exit(0)", "no output"),
        (
            "import os, sys; os.write(int(sys.argv[sys.argv.index('--ready-fd') + 1]), b'239.0.0.1:1\\n'); "
            "import signal; signal.pause()",
            "no output",
        ),
    ],
)
def test_servers_that_do_not_come_up(
    program: str, said: str, make_world: MakeWorld, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world(frisbeed=script(tmp_path, program))
    caplog.set_level("INFO", logger="orbit_services")
    assert get(world, "baseline.ndz", "E2").text == "internal error"
    assert said in caplog.text
    reply = get(world, "baseline.ndz", "C")
    assert reply.status == 500
    assert said in reply.text
    assert shown(world) == []
    # Nothing is left that keeps the port or the count.
    assert world.services.streams._reserved == set()


@pytest.mark.parametrize(
    ("bandwidth", "options"), [(50_000_000, ["-W", "50000000"]), (0, ["-G", "0"])], ids=["paced", "unpaced"]
)
def test_a_stream_has_the_rate_of_its_service(
    make_world: MakeWorld, tmp_path: Path, bandwidth: int, options: list[str]
) -> None:
    asked = tmp_path / "asked"
    program = f"import sys; open({str(asked)!r}, 'w').write('\\n'.join(sys.argv)); sys.exit(1)"
    world = make_world(frisbeed=script(tmp_path, program), bandwidth=bandwidth)
    get(world, "baseline.ndz", "C")
    given = asked.read_text().splitlines()
    assert [given[i : i + 2] for i, word in enumerate(given) if word in ("-W", "-G")] == [options]


def test_a_server_that_never_gets_ready_is_ended(make_world: MakeWorld, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    program = f"import os, signal; open({str(mark)!r}, 'w').write(str(os.getpid())); signal.pause()"
    world = make_world(frisbeed=script(tmp_path, program), start_timeout=0.4)
    assert get(world, "baseline.ndz", "D").text == "internal error"
    assert start_time(int(mark.read_text())) is None


def test_a_missing_program_is_named(make_world: MakeWorld) -> None:
    world = make_world(frisbeed=("/nonexistent/frisbeed",))
    assert "/nonexistent/frisbeed: No such file or directory" in get(world, "baseline.ndz", "B").text


def test_a_server_that_ignores_sigterm_is_killed(make_world: MakeWorld, tmp_path: Path) -> None:
    program = (
        Path(NULL_FRISBEED[-1])
        .read_text()
        .replace(
            "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))",
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        )
    )
    world = make_world(frisbeed=script(tmp_path, program), stop_timeout=0.2)
    get(world, "baseline.ndz")
    pid = shown(world)[0]["pid"]
    assert stop(world, "baseline.ndz").startswith("<OK>")
    assert start_time(pid) is None


def test_a_stream_nobody_asks_for_ends(make_world: MakeWorld) -> None:
    world = make_world(stream_timeout=0.4)
    get(world, "baseline.ndz")
    wait_until(lambda: world.services.streams.ended, "the end of the stream's time")
    state = json.loads(world.send("A", "/orbit/state").text)
    assert (state["streams"], state["ended_streams"][0]["reason"]) == ([], "time limit")


def test_a_stream_that_still_sends_goes_on(make_world: MakeWorld) -> None:
    """Historically a load of more than an hour was cut off."""
    world = make_world(stream_timeout=0.4)
    get(world, "baseline.ndz")
    stream = world.streams()[0]
    first = stream.deadline
    Path(stream.stats_file).write_text('{"blocks_sent": 5}')
    wait_until(lambda: stream.deadline > first, "a longer time")
    assert [found["stats"] for found in shown(world)] == [{"blocks_sent": 5}]
    wait_until(lambda: not shown(world), "the end after the last block")


def test_faithful_refusals_are_counted(make_world: MakeWorld) -> None:
    world = make_world(faithful=True)
    assert get(world, "baseline.ndz", "E2").text.startswith("<OK>")
    # In faithful mode the address comes before the server has opened the image.
    wait_until(lambda: world.streams()[0].stats(), "the server's first numbers")
    (world.config.image_dir / "baseline.ndz").unlink()
    assert get(world, "baseline.ndz", "E2").text.startswith("<ERROR>Image file")
    assert stop(world, "baseline.ndz").startswith("<ERROR>Did not stop")
    assert stop(world, "baseline.ndz").startswith("<OK>Stopped")


def test_our_refusals_are_not(make_world: MakeWorld) -> None:
    world = make_world()
    get(world, "baseline.ndz", "E2")
    (world.config.image_dir / "baseline.ndz").unlink()
    assert get(world, "baseline.ndz", "E2").text.startswith("<ERROR>Image file")
    assert stop(world, "baseline.ndz").startswith("<OK>Stopped")


def slow_server(tmp_path: Path) -> tuple[tuple[str, ...], Path]:
    """A server that gets ready when the file returned beside it exists."""
    go = tmp_path / "go"
    wait = f"import pathlib\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.005)\n"
    text = Path(NULL_FRISBEED[-1]).read_text().replace("from __future__ import annotations\n", "")
    return script(tmp_path, "import time\n" + wait + text), go


def test_the_first_asker_may_leave(make_world: MakeWorld, tmp_path: Path) -> None:
    command, go = slow_server(tmp_path)
    world = make_world(frisbeed=command)
    path = world.config.image_dir / "baseline.ndz"

    async def ask() -> tuple[int, int]:
        first = asyncio.create_task(world.services.streams.use("baseline.ndz", path))
        second = asyncio.create_task(world.services.streams.use("baseline.ndz", path))
        await asyncio.sleep(0)
        first.cancel()
        go.touch()
        stream = await second
        return stream.users, stream.pid

    users, pid = world.stand.run(ask())
    assert users == 1
    assert start_time(pid) is not None


def test_a_stream_nobody_waits_for_any_more_ends(make_world: MakeWorld, tmp_path: Path) -> None:
    command, go = slow_server(tmp_path)
    world = make_world(frisbeed=command)

    async def ask() -> None:
        only = asyncio.create_task(
            world.services.streams.use("baseline.ndz", world.config.image_dir / "baseline.ndz")
        )
        await asyncio.sleep(0)
        only.cancel()
        go.touch()

    world.stand.run(ask())
    wait_until(lambda: world.services.streams.ended, "the end of the stream")
    assert world.services.streams.ended[0]["reason"] == "nobody waited for it"
    assert shown(world) == []


def test_close_during_a_start_leaves_no_server(make_world: MakeWorld, tmp_path: Path) -> None:
    command, go = slow_server(tmp_path)
    world = make_world(frisbeed=command)

    async def ask_and_close() -> int:
        streams = world.services.streams
        asking = asyncio.create_task(streams.use("baseline.ndz", world.config.image_dir / "baseline.ndz"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(world.services.close())
        await asyncio.sleep(0)
        go.touch()
        await closing
        return (await asking).pid

    pid = world.stand.run(ask_and_close())
    world.open = False
    assert start_time(pid) is None
    assert world.saved()["streams"]["running"] == []


@pytest.mark.parametrize("dialect", ["A", "B", "C", "D", "E1", "E2"])
@pytest.mark.parametrize("faithful", [False, True])
def test_no_image_outside_the_folder_is_served(dialect: str, faithful: bool, make_world: MakeWorld) -> None:
    world = make_world(faithful=faithful)
    secret = world.config.image_dir.parent / "secret.ndz"
    secret.write_text("not an image of this testbed")
    for name in ("../secret.ndz", "sub/../../secret.ndz", "%2e%2e/secret.ndz", str(secret), "..%00"):
        checked = world.send(dialect, f"/frisbee/checkImage?img={name}&user=me&domain={DOMAIN}").text
        assert "found" not in checked.replace("not found", ""), checked
        assert "OK" not in checked
        assert not re.search(r"239\.77\.\d", get(world, name, dialect).text)
    assert shown(world) == []


def test_status_names_every_address(make_world: MakeWorld) -> None:
    world = make_world()
    addresses = {image: get(world, image).text for image in ("baseline.ndz", "other.ndz")}
    text = world.send("D", f"/frisbee/status?domain={DOMAIN}").text
    for image, address in addresses.items():
        group, port = address.split(":")
        assert f"<daemon img='{image}' mc_address='{group}' port='{port}' " in text


# -- restart -----------------------------------------------------------------------------------------------


def test_a_restart_keeps_streams_and_counts(make_world: MakeWorld) -> None:
    world = make_world()
    address = get(world, "baseline.ndz").text
    get(world, "baseline.ndz")
    before = shown(world)
    world.restarted()
    after = shown(world)
    assert [(stream["pid"], stream["users"]) for stream in after] == [(before[0]["pid"], 2)]
    assert after[0]["time_left"] == pytest.approx(before[0]["time_left"], abs=30)
    assert get(world, "baseline.ndz").text == address
    assert get(world, "other.ndz").text.partition(":")[2] != address.partition(":")[2]
    for _ in range(2):
        assert stop(world, "baseline.ndz").startswith("<ERROR>")
    assert stop(world, "baseline.ndz") == f"<OK>Stopped serving &apos;baseline.ndz&apos; at {address}</OK>"
    wait_until(lambda: start_time(before[0]["pid"]) is None, "the end of the adopted process")


def test_an_adopted_server_that_dies_is_started_again(make_world: MakeWorld) -> None:
    world = make_world()
    address = get(world, "baseline.ndz").text
    world.restarted()
    pid = shown(world)[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: [s["pid"] for s in world.saved()["streams"]["running"]] != [pid], "the next server")
    assert get(world, "baseline.ndz").text == address


def test_a_server_that_died_meanwhile_is_gone(make_world: MakeWorld) -> None:
    world = make_world()
    address = get(world, "baseline.ndz").text
    pid = shown(world)[0]["pid"]
    world.close(keep_streams=True)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: start_time(pid) is None, "the end of the process")
    world.restarted()
    assert shown(world) == []
    assert get(world, "baseline.ndz").text != address
    assert [stream["users"] for stream in shown(world)] == [1]


@pytest.mark.parametrize("change", [{"started": 1}, {"group": "239.77.1.2"}, {"port": 1}, {"surprise": 1}])
def test_another_process_of_that_number_is_not_taken_for_the_server(
    change: dict[str, Any], make_world: MakeWorld
) -> None:
    world = make_world()
    get(world, "baseline.ndz")
    saved = shown(world)[0]
    world.close(keep_streams=True)
    try:
        document = world.saved()
        document["streams"]["running"][0].update(change)
        world.config.state_file.write_text(json.dumps(document))
        world.restarted()
        assert shown(world) == []
        assert start_time(saved["pid"]) is not None, "a process that is not ours was ended"
    finally:
        os.kill(saved["pid"], signal.SIGKILL)


def test_close_ends_the_servers(make_world: MakeWorld) -> None:
    world = make_world()
    get(world, "baseline.ndz")
    get(world, "other.ndz")
    pids = [stream["pid"] for stream in shown(world)]
    world.close()
    assert [start_time(pid) for pid in pids] == [None, None]
    assert world.saved()["streams"]["running"] == []


def test_start_time_tells_processes_apart() -> None:
    mine = start_time(os.getpid())
    assert mine is not None
    assert is_running(os.getpid(), mine)
    assert not is_running(os.getpid(), mine + 1)
    assert start_time(2**22 + 1) is None
