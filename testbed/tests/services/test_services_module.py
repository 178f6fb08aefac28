# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m orbit_services`` and streams of the real server."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from orbit_services.process import start_time

from .stand import DOMAIN, World, wait_until

_MODULE = [sys.executable, "-m", "orbit_services"]


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=180) as reply:
        text = reply.read().decode()
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_module_serves_and_cleans_up(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [*_MODULE, "--listen", "A=127.0.0.1:0", "--listen", "E2=127.0.0.1:0"],
        text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        try:
            assert process.stdout is not None
            places = dict(process.stdout.readline().split() for _ in range(2))
            assert process.stdout.readline() == "ready\n"
            assert fetch(places["A"] + "/pxe/setBootImage?node=node1-1") == "OK"
            address = fetch(places["A"] + "/frisbee/getAddress?img=sender.ndz")
            assert fetch(places["E2"] + "/frisbee/getAddress?img=sender.ndz&user=me") == f"<OK>{address}</OK>"
            state = json.loads(fetch(places["E2"] + "/orbit/state"))
            assert [node["name"] for node in state["nodes"]][:3] == ["node1-1", "node2-1", "node3-1"]
            pid = state["streams"][0]["pid"]
        finally:
            process.send_signal(number)
            assert process.wait(180) == 0
    assert start_time(pid) is None
    assert list(tmp_path.iterdir()) == []


def test_module_keeps_its_folder(tmp_path: Path) -> None:
    command = [
        *_MODULE,
        "--listen",
        "B=127.0.0.1:0",
        "--dir",
        str(tmp_path / "kept"),
        "--nodes",
        "2x1",
        "--domain",
        "sb9",
        "--number",
        "19",
    ]
    for expected in (None, "memory"):
        with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().split()[1]
                state = json.loads(fetch(url + "/orbit/state"))
                assert [node["link"] for node in state["nodes"]] == [expected, None]
                assert state["nodes"][1]["control_ip"] == "10.19.2.1"
                fetch(url + "/pxe/setBootImageNS?ns=[1,1]&domain=sb9")
            finally:
                process.terminate()
                assert process.wait(180) == 0


def refused(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [*_MODULE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "F=127.0.0.1:0"], "--listen F=127.0.0.1:0: not DIALECT=HOST:PORT"),
        (["--listen", "A=127.0.0.1"], "--listen A=127.0.0.1: not DIALECT=HOST:PORT"),
        (["--nodes", "many"], "--nodes many: not COLUMNSxROWS"),
        (["--number", "300"], "300"),
    ],
)
def test_module_refuses(arguments: list[str], message: str) -> None:
    done = refused(arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_module_names_a_busy_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        done = refused(["--listen", f"A={place}"])
    assert done.returncode == 2
    assert f"--listen A={place}: " in done.stderr
    assert "Traceback" not in done.stderr


# -- the real server ---------------------------------------------------------------------------------------

_FRISBEED = (sys.executable, "-m", "orbit_frisbee.frisbee.server_cli")


def test_real_server_comes_up_and_goes(make_world: Callable[..., World], tmp_path: Path) -> None:
    world = make_world(frisbeed=_FRISBEED)
    (world.config.image_dir / "real.ndz").write_bytes(os.urandom(1 << 20))
    reply = world.send("E2", f"/frisbee/getAddress?domain={DOMAIN}&img=real.ndz&user=me")
    assert reply.text.startswith("<OK>239.77."), (reply.text, *_logs(world))
    group, port = reply.text[4:-5].split(":")
    assert ipaddress.IPv4Address(group).is_multicast
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, pytest.raises(OSError, match="in use"):
        probe.bind(("", int(port)))
    stats = wait_until(lambda: world.streams()[0].stats(), "numbers")
    assert stats["blocks_sent"] == 0
    assert (stats["address"], stats["port"], stats["blocks_in_file"]) == (group, int(port), 1024)
    pid = world.streams()[0].pid
    world.restarted()
    assert [stream.pid for stream in world.streams()] == [pid]
    rate = stats["rate_blocks_per_second"] * 1114 * 8 / 1e6
    row = f" blocks_sent='0' blocks_repeated='0' bandwidth='{rate:.3f}'/>"
    assert row in world.send("E2", "/frisbee/status").text
    end = world.send("E2", f"/frisbee/stop?domain={DOMAIN}&img=real.ndz")
    sent = f"blocks_sent=0 blocks_repeated=0 bandwidth={rate:.3f}"
    assert end.headers["orbit-stream-sent"] == sent
    stopped = end.text
    assert stopped == f"<OK>Stopped serving &apos;real.ndz&apos; at {group}:{port}</OK>"
    assert start_time(pid) is None
    ended = json.loads(world.send("A", "/orbit/state").text)["ended_streams"]
    assert ended[-1]["stats"]["state"] == "ended"


def test_real_server_says_why_it_cannot(make_world: Callable[..., World]) -> None:
    world = make_world(frisbeed=_FRISBEED, interface="192.0.2.1")
    (world.config.image_dir / "real.ndz").write_bytes(os.urandom(1 << 20))
    reply = world.send("C", "/frisbee/getAddress?img=real.ndz")
    assert reply.status == 500
    assert "192.0.2.1" in reply.text.partition("failed: ")[2]


def _logs(world: World) -> list[str]:
    return [path.read_text() for path in world.config.log_dir.glob("*.log")]
