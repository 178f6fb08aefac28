# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing testbeds up and down: what is refused, what is replaced, and that nothing stays behind."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from beds import Bed, eventually, processes_about

import orbit_testbed
from orbit_testbed.bed import control, lifecycle
from orbit_testbed.bed.listeners import listen
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.layout import SERVICE_PORTS, Settings

NewBed = Callable[..., Bed]


def is_gone(bed: Bed) -> bool:
    return not bed.processes() and str(bed.state.root) not in Path("/proc/self/mounts").read_text()


def test_up_answers_everywhere_and_down_leaves_nothing(new_bed: NewBed) -> None:
    bed = new_bed()
    out = bed.up("2x1")
    assert "up: 2 nodes node1-1 to node2-1" in out
    for port in SERVICE_PORTS.values():
        with socket.create_connection((bed.settings.outside_ip, port), timeout=180) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.")
    document = bed.status()
    assert [(node["name"], node["power"]) for node in document["nodes"]] == [
        ("node1-1", "off"),
        ("node2-1", "off"),
    ]
    assert "node2-1" in bed.run("status").stdout
    assert bed.run("inventory").stdout.strip() == str(bed.state.inventory)
    assert "plugin: orbit.imaging.nodes" in bed.run("inventory", "--show").stdout
    images = bed.run("images").stdout
    assert "sender.ndz" in images
    assert "receiver.ndz" in images
    inside = bed.run("exec", "--", "ip", "-brief", "address", "show", "orbit0")
    assert f"{bed.settings.server_ip}/16" in inside.stdout, inside.stderr
    address = bed.settings.outside_ip
    bed.down()
    assert is_gone(bed)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 5012), timeout=180)
    assert bed.run("status").returncode == 3
    assert "not up" in bed.run("exec", "--", "true").stderr
    bed.down()
    again = bed.run("down")
    assert (again.returncode, again.stdout) == (0, "already down\n")


def test_up_replaces_what_is_up_or_keeps_it(new_bed: NewBed) -> None:
    bed = new_bed()
    bed.up("2x1")
    number = bed.settings.number
    bed.link("node1-1")
    bed.power("on", "node1-1")
    bed.wait_ssh("node1-1")
    first = bed.status()["hub"]
    assert "up already" in bed.up("2x1", "--keep", number=number)
    assert bed.status()["hub"] == first
    assert bed.node_status("node1-1")["power"] == "on"
    assert "stopped the testbed" in bed.up("3x1", "--keep", number=number)
    document = bed.status()
    assert document["hub"] != first
    assert [(node["name"], node["power"], node["link"]) for node in document["nodes"]] == [
        (f"node{x}-1", "off", None) for x in (1, 2, 3)
    ]


def test_two_testbeds_at_once(new_bed: NewBed) -> None:
    beds = [new_bed("east"), new_bed("west")]
    for bed in beds:
        bed.up("1x1")
        bed.link("node1-1")
        bed.power("on", "node1-1")
    boots = {bed.wait_ssh("node1-1", "cat /proc/sys/kernel/random/boot_id") for bed in beds}
    assert len(boots) == 2
    beds[0].down()
    assert is_gone(beds[0])
    assert beds[1].wait_ssh("node1-1", "cat /proc/sys/kernel/random/boot_id") in boots


def test_a_taken_number_is_refused_by_port(new_bed: NewBed) -> None:
    one, two = new_bed("one"), new_bed("two")
    one.up("1x1")
    number = one.settings.number
    result = two.run("up", "--number", str(number), "--nodes", "1x1")
    assert result.returncode == 1
    assert f"127.{number}.0.1:5012 (A) is in use, so testbed number {number} is taken" in result.stderr
    assert "--number" in result.stderr
    assert is_gone(two)
    assert one.status()["up"]


def test_a_port_taken_on_all_addresses_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        port = everywhere.getsockname()[1]
        monkeypatch.setattr(Settings, "listeners", lambda self: [("A", self.outside_ip, port)])
        with pytest.raises(TestbedError, match=f"listens on port {port} of all addresses") as caught:
            listen(Settings(number=99))
    assert "ss -ltnp" in caught.value.remedy


@pytest.mark.parametrize("victim", ["hub", "launcher"])
def test_a_crash_leaves_nothing(new_bed: NewBed, victim: str) -> None:
    bed = new_bed()
    bed.up("2x1")
    number = bed.settings.number
    bed.link("node1-1", "node2-1")
    bed.call("cmc/allOn")
    bed.call("frisbee/getAddress", img="sender.ndz")
    bed.wait_ssh("node1-1")
    assert len(bed.processes()) > 3
    launcher = lifecycle.running_hub(bed.state)
    assert launcher is not None
    os.kill(control.hub_process(bed.state.root) if victim == "hub" else launcher.pid, signal.SIGKILL)
    eventually(lambda: is_gone(bed), f"nothing is left: {bed.processes()}")
    assert bed.run("status").returncode == 3
    bed.up("2x1", number=number)
    assert bed.status()["up"]


def test_a_hub_that_hangs_is_taken_down(new_bed: NewBed) -> None:
    bed = new_bed()
    bed.up("1x1")
    os.kill(control.hub_process(bed.state.root), signal.SIGSTOP)
    bed.down()
    assert is_gone(bed)


def test_a_failing_hub_is_one_error_and_leaves_nothing(new_bed: NewBed, tmp_path: Path) -> None:
    """dnsmasq that ends at once stands for whatever may fail inside the namespaces."""
    bed = new_bed()
    (tmp_path / "bin").mkdir()
    false = tmp_path / "bin" / "dnsmasq"
    false.write_text("#!/bin/sh\necho 'no sockets left' >&2\nexit 5\n")
    false.chmod(0o755)
    bed.environment["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    result = bed.run("up", "--nodes", "1x1", "--number", "98")
    assert result.returncode == 1
    assert result.stderr == "orbit-testbed: dnsmasq did not start: no sockets left\n"
    assert is_gone(bed)
    assert not bed.state.hub_pid.exists()


def test_up_that_is_killed_leaves_nothing(new_bed: NewBed, tmp_path: Path) -> None:
    """The hub ends when nobody waits for its report any more."""
    bed = new_bed()
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin" / "dnsmasq"
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    slow.write_text(f'#!/bin/sh\nread line < {gate}\nexec /usr/sbin/dnsmasq "$@"\n')
    slow.chmod(0o755)
    bed.environment["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    up = subprocess.Popen(
        bed.command("up", "--nodes", "1x1", "--number", "97"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=bed.environment,
    )
    try:
        with gate.open("w") as stream:  # returns when the hub has started its dnsmasq
            up.kill()
            up.wait()
            stream.write("go\n")
        eventually(lambda: is_gone(bed), "nothing is left")
    finally:
        up.kill()
        up.wait()


def test_another_up_at_the_same_time_is_refused(new_bed: NewBed) -> None:
    bed = new_bed()
    with lifecycle._locked(bed.state):
        result = bed.run("up", "--nodes", "1x1", "--number", "96")
    assert result.returncode == 1
    assert "another orbit-testbed is working on" in result.stderr


def test_bad_arguments_name_the_option(new_bed: NewBed) -> None:
    bed = new_bed()
    for arguments in (
        ("--nodes", "4"),
        ("--number", "300"),
        ("--boot-delay", "x"),
        ("--loss", "100"),
        ("--bandwidth", "1"),
    ):
        result = bed.run("up", *arguments)
        assert result.returncode == 1
        assert arguments[0] in result.stderr
        assert "Traceback" not in result.stderr
    assert "--name" in bed.run("up", "--name", "../x").stderr


def test_purge_removes_its_own_folder_only(new_bed: NewBed, tmp_path: Path) -> None:
    bed = new_bed()
    bed.up("1x1")
    bed.down("--purge")
    assert not bed.state.root.exists()
    foreign = Bed(tmp_path / "foreign", name="foreign")
    foreign.state.root.mkdir()
    (foreign.state.root / "thesis.tex").write_text("x")
    assert foreign.run("down", "--purge").returncode == 1
    assert (foreign.state.root / "thesis.tex").exists()


def test_images_are_made_once_and_old_ones_forgotten(new_bed: NewBed) -> None:
    bed = new_bed()
    del bed.environment["ORBIT_TESTBED_CACHE"]
    assert "made memory image, sender.ndz, receiver.ndz (" in bed.up("1x1")
    number = bed.settings.number
    made = sorted(path.name for path in bed.state.cache.iterdir())
    assert len(made) == 4
    assert "made " not in bed.up("1x1", number=number)
    (bed.state.root / "keys/sender.ndz").unlink()
    (bed.state.images / "saved.ndz").write_bytes(b"mine")
    assert "made sender.ndz (" in bed.up("1x1", number=number)
    assert len(list(bed.state.cache.iterdir())) == 4
    assert sorted(path.name for path in bed.state.cache.iterdir()) != made
    assert (bed.state.images / "saved.ndz").read_bytes() == b"mine"


def test_doctor() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "orbit_testbed", "doctor"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode in (0, 1)
    assert "programs" in result.stdout
    broken = subprocess.run(
        [
            sys.executable,
            "-c",
            "from orbit_testbed.nodes import host; host.search_path = str\n"
            "from orbit_testbed.cli import main; raise SystemExit(main(['doctor']))",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert broken.returncode == 1
    assert (
        "apt-get install -y --no-install-recommends busybox-static dnsmasq-base dropbear-bin" in broken.stdout
    )


def find_python(prefix: list[str], environment: dict[str, str]) -> str:
    """Return a Python that the user of ``prefix`` can run the testbed with."""
    reasons = []
    for python in (sys.executable, "/usr/bin/python3"):
        probe = subprocess.run(
            [*prefix, python, "-c", "import orbit_services.app"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
            cwd="/",
        )
        if probe.returncode == 0:
            return python
        reasons.append(f"{python}: {(probe.stderr.splitlines() or ['?'])[-1]}")
    pytest.skip(f"nobody cannot run the testbed here: {'; '.join(reasons)}")


def test_an_ordinary_user_can_run_it(namespaces: None) -> None:
    if os.geteuid() != 0:
        pytest.skip("all other tests are run by an ordinary user already")
    user = pwd.getpwnam("nobody")  # ssh works for users with a name only
    home = Path("/var/tmp") / f"orbit-testbed-{os.getpid()}"
    bed = Bed(home / "state", name="user")
    bed.environment.update(
        HOME=str(home), PYTHONPATH=":".join(path for path in sys.path if path.endswith("-packages"))
    )
    source = str(Path(orbit_testbed.__file__).parents[1])
    bed.environment["PYTHONPATH"] += f":{source}"
    # The shell in between gives up what setpriv keeps of root's capabilities until its first exec.
    bed.prefix = [
        "setpriv",
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
        "--",
        "sh",
        "-c",
        'exec "$@"',
        "sh",
    ]
    bed.python = find_python(list(bed.prefix), bed.environment)

    def as_user(*command: str) -> str:
        return subprocess.run(
            [*bed.prefix, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**bed.environment, "ORBIT_TESTBED_DISK": "1"},
            cwd="/",
        ).stdout

    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    try:
        bed.up("2x1")
        assert Path(f"/proc/{control.hub_process(bed.state.root)}").stat().st_uid == user.pw_uid
        bed.link("node1-1")
        bed.power("on", "node1-1")
        one, two = (lifecycle.ssh_command(bed.state, node) for node in ("node1-1", "node2-1"))
        marker = eventually(lambda: as_user(*one, "cat /.omf_imageid"), "node1-1 answers ssh")
        assert marker == "pxe-orbit-testbed\n"
        image, disk = bed.state.images / "sender.ndz", bed.state.disk(bed.settings.node("node2-1"))
        assert "Wrote " in as_user(
            "sh",
            "-c",
            '"$@" 2>&1',
            "sh",
            bed.python,
            "-m",
            "orbit_frisbee.ndz.unzip_cli",
            str(image),
            str(disk),
        )
        bed.power("on", "node2-1")
        name = eventually(lambda: as_user(*two, "cat /etc/orbit-image"), "node2-1 answers ssh")
        assert name == "sender.ndz\n"
        bed.down()
        assert not processes_about(str(home))
    finally:
        bed.run("down")
        subprocess.run(["rm", "-rf", str(home)], check=True)
