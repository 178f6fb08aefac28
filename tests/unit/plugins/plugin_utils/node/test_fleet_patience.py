# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whatever hangs, and wherever: the node ends with a named cause, within the limits that were given."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
import threading

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import boot_wait, monitor

from . import fleetkit


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(boot_wait, "_ANSWER", 3.0)
    monkeypatch.setattr(monitor, "_LOGIN", 3.0)
    monkeypatch.setattr(monitor, "_STOP", 0.5)


@contextlib.contextmanager
def hanging_server(words=b""):
    """A server that takes every connection, says ``words`` and nothing more; gives its port."""
    taken = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _address = listener.accept()
            except OSError:
                return
            taken.append(connection)
            connection.sendall(words)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in taken:
            connection.close()


@pytest.mark.skipif(not shutil.which("ssh"), reason="there is no ssh here")
@pytest.mark.parametrize(
    ("words", "options", "cause"),
    [
        # Gateways take connections for nodes that are down: silence says nothing about the node.
        (b"", ["-o", "ConnectTimeout=1"], "no_boot"),
        (b"SSH-2.0-hanging\r\n", [], "ssh_refused"),
    ],
    ids=["silent", "silent after its name"],
)
def test_a_server_that_takes_connections_and_hangs(tmp_path, run, words, options, cause):
    node = fleetkit.make_node(tmp_path, orbit_boot_timeout=1)
    with hanging_server(words) as port:
        node["ssh"] = fleetkit.way(ssh_extra_args=["-F", "none", *options], port=port)
        report = run(node)["node1-1"]
    assert report["cause"] == cause


@pytest.mark.skipif(not shutil.which("ssh"), reason="there is no ssh here")
def test_nodes_that_say_nothing_hold_no_turn(tmp_path, run, said):
    with hanging_server() as port:
        silent = [fleetkit.make_node(tmp_path, f"node2-{y}", orbit_boot_timeout=1) for y in range(1, 97)]
        for node in silent:
            node["ssh"] = fleetkit.way(ssh_extra_args=["-F", "none"], port=port)
        reports = run(*silent, fleetkit.make_node(tmp_path, "node1-1", orbit_gather=0))
    assert reports["node1-1"]["bytes_written"] == 65536
    ready = next(number for number, line in enumerate(said) if "node1-1: imaging" in line)
    # Were turns held by the silent nodes, which came before, most of them would have failed by then.
    assert sum(": failed" in line for line in said[:ready]) < 48


def test_a_session_that_hangs_before_it_has_said_who_it_is(tmp_path, run):
    node = fleetkit.make_node(tmp_path, orbit_boot_timeout=1)
    (tmp_path / "node1-1" / "hang").write_text("1000")
    report = run(node)["node1-1"]
    assert report["cause"] == "ssh_refused"
    assert "not all was said within" in report["evidence"]


def test_a_hanging_session_is_followed_by_one_that_answers(tmp_path, run):
    node = fleetkit.make_node(tmp_path)
    (tmp_path / "node1-1" / "hang").write_text("1")
    assert run(node)["node1-1"]["bytes_written"] == 65536


def test_a_session_that_freezes_while_the_disk_is_written(tmp_path, run):
    """As when the node loses its power: nothing ends, nothing comes any more."""
    client = "#!/bin/sh\necho 'Progress: 10% 1 9'\nkill -STOP 0\n"
    report = run(fleetkit.make_node(tmp_path, client=client, orbit_stall_timeout=2))["node1-1"]
    assert report["cause"] == "stalled"
    assert "nothing was written for 2 s" in report["evidence"]


# Ends its own session, as a network that breaks does, and does not end with it.
CUT = """\
#!/bin/sh
state=$(dirname "$0")
[ -n "$AWAY" ] || AWAY=1 exec setsid "$0" "$@"
[ -e "$state/cut" ] && exec sleep 60
: >"$state/cut"
echo "Progress: 10% 1 9"
{then}
kill -KILL "-$(cat "$state/session")"
exec sleep 60
"""


def test_contact_that_is_lost_for_good_is_stalled(tmp_path, run):
    node = fleetkit.make_node(
        tmp_path, client=CUT.format(then='echo 1000 >"$state/refuse"'), orbit_stall_timeout=2
    )
    report = run(node)["node1-1"]
    assert report["cause"] == "stalled"
    assert "contact lost while the disk was being written" in report["evidence"]


def test_a_node_that_rebooted_while_its_disk_was_written_is_client_failed(tmp_path, run):
    then = 'echo another >"$state/boot_id"'
    report = run(fleetkit.make_node(tmp_path, client=CUT.format(then=then)))["node1-1"]
    assert report["cause"] == "client_failed"
    assert "rebooted while its disk was being written" in report["evidence"]


def test_a_node_that_came_up_from_its_disk_meanwhile_is_client_failed(tmp_path, run):
    then = 'echo another >"$state/boot_id"; : >"$state/marker"; echo old.ndz >"$state/identity"'
    report = run(fleetkit.make_node(tmp_path, client=CUT.format(then=then)))["node1-1"]
    assert report["cause"] == "client_failed"
    assert "rebooted while its disk was being written: the node booted old.ndz" in report["evidence"]


# Not a shell: what its children read while they start would count as reading.
TALKER = f"""\
#!{sys.executable}
import time
while True:
    print({{words!r}}, flush=True)
    time.sleep(0.2)
"""


@pytest.mark.parametrize("words", ["Progress: 10% 1 9", "still waiting for data"])
def test_a_client_that_only_talks_does_not_come_further(tmp_path, run, words):
    node = fleetkit.make_node(tmp_path, client=TALKER.format(words=words), orbit_stall_timeout=4)
    report = run(node)["node1-1"]
    assert report["cause"] == "stalled"
    assert words in report["evidence"]


@pytest.mark.parametrize("word", ["Progress", "Flushing", "Verifying", "Comparing"])
def test_a_client_that_takes_longer_than_all_patience_but_moves_is_followed(tmp_path, run, word):
    client = (
        "#!/bin/sh\n"
        f'for n in 1 2 3 4 5 6; do echo "{word}: $n% 0 0"; sleep 0.5; done\n'
        "echo 'Wrote 1048576 bytes (65536 actual)'\n"
    )
    assert run(fleetkit.make_node(tmp_path, client=client, orbit_stall_timeout=2))["node1-1"]["bytes_written"]


WRITER = f"""\
#!{sys.executable}
import sys, time
with open(sys.argv[-1], "wb", buffering=0) as disk:
    for n in range(9):
        disk.write(bytes(4096))
        time.sleep(0.5)
print("Wrote 1048576 bytes (65536 actual)")
"""


def test_a_client_that_writes_without_a_word_is_followed(tmp_path, run):
    node = fleetkit.make_node(tmp_path, client=WRITER, orbit_stall_timeout=3)
    assert run(node)["node1-1"]["bytes_written"] == 65536


@pytest.mark.parametrize(
    "noise", ["@orbit heartbeat many", "@orbit age -5", "@orbit age soon", "@orbit", "@orbit exit well"]
)
def test_noise_from_a_node_is_no_mistake_of_ours(tmp_path, run, noise):
    node = fleetkit.make_node(
        tmp_path, client=fleetkit.GOOD.replace("#!/bin/sh\n", f"#!/bin/sh\necho '{noise}'\n")
    )
    ssh = node["ssh"]["executable"]
    with open(ssh) as stream:
        text = stream.read()
    fleetkit.executable(ssh, text.replace("#!/bin/sh\n", f"#!/bin/sh\necho '{noise}'\n"))
    assert run(node)["node1-1"]["bytes_written"] == 65536


def test_a_client_that_floods_is_bounded_and_keeps_nobody_else_waiting(tmp_path, run, said):
    loud = "#!/bin/sh\nyes '' | head -c 3000000\n" + (
        "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do\n"
        "  head -c 900000 /dev/zero | tr '\\0' x; echo\ndone\n"
        "printf '\\033[2J\\001 so it is\\n'; exit 9\n"
    )
    report = run(
        fleetkit.make_node(tmp_path, "node1-1", client=loud, orbit_gather=0),
        fleetkit.make_node(tmp_path, "node1-2", orbit_gather=0),
    )
    assert report["node1-2"]["bytes_written"] == 65536
    failed = report["node1-1"]
    assert failed["cause"] == "client_failed"
    assert failed["evidence"].startswith("?[2J? so it is (exit status 9)")
    assert len(json.dumps(failed)) < 50_000
    imaged, given_up = (
        next(n for n, line in enumerate(said) if text in line) for text in (": imaged", ": failed")
    )
    assert imaged < given_up
