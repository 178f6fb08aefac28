# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import asyncio
import glob
import os
import shutil
import signal
import time
import uuid
from unittest import mock

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import manifest as texts
from ansible_collections.orbit.imaging.plugins.plugin_utils.node import fleet as fleets, verification
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.boot_wait import Facts
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.resets import Resets
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.progress import Progress

from ...manifestkit import DIGEST, make
from ...processkit import alive, has_ended
from . import fleetkit
from .test_fleet import SHELLS

# A client that checks what it does; with "cannot" in its folder, one that only says that it can.
CHECKING = """\
#!/bin/sh
here=$(dirname "$0")
if [ "$1" = --help ]; then
  echo x >>"$here/asked"
  echo "usage: frisbee [--manifest FILE] [--resume] [--verify] target"
  exit 0
fi
echo "$@" >>"$here/arguments"
checks=; resumes=
for argument in "$@"; do
  [ "$before" = --manifest ] && cat "$argument" >"$here/given"
  case "$argument" in --verify) checks=yes;; --resume) resumes=yes;; esac
  before=$argument
done
if [ -f "$here/fails" ]; then read -r status <"$here/fails"; echo "frisbee: so it is" >&2; exit "$status"; fi
[ -z "$resumes" ] || echo "Kept 3 of 4 chunks" >&2
for percent in 10 20 30 40 50 60 70 80 90 100; do echo "Progress: $percent% 000000 000009"; done
for percent in 10 20 30 40 50 60 70 80 90 100; do echo "Verifying: $percent%" >&2; done
[ -z "$checks" ] || [ -f "$here/cannot" ] || echo "Verified 98304 bytes" >&2
echo "Wrote 1048576 bytes (65536 actual)" >&2
"""


@pytest.fixture
def run(tmp_path):
    made = []

    def _run(node, power=fleetkit.no_power):
        node["power"]["after"] = time.time()
        record = {"id": uuid.uuid4().hex}
        made.append(record["id"])
        progress = Progress([{"label": "all", "image": "x.ndz", "nodes": [node["name"]]}], lambda line: None)
        known = str(tmp_path / "known")
        fleet = fleets.Fleet(record, [node], progress, known_hosts=known, interval=60, resets=Resets(power))
        return asyncio.run(fleet.image())[node["name"]]

    yield _run
    for name in made:
        assert not glob.glob(f"/tmp/orbit-{name}-*.help")
        for folder in glob.glob(f"/tmp/orbit-{name}-*"):
            shutil.rmtree(folder)


def checking(folder, *, text=None, client=CHECKING, **settings):
    """Return a node whose image has a manifest."""
    node = fleetkit.make_node(folder, client=client, **settings)
    text = text or make()
    path = folder / "stored.manifest"
    path.write_bytes(text)
    node["manifest"] = {"state": "present", "msg": "", "path": str(path), **texts.parse(text)._asdict()}
    # The disk of these tests is an empty file.
    node["manifest"]["disk_bytes"] = 0
    return node


def arguments(folder):
    return [line.split() for line in (folder / "node1-1" / "arguments").read_text().splitlines()]


def plain_call(node):
    return ["-i", "127.0.0.1", "-m", "239.77.0.1", "-p", "7000"], node["settings"]["orbit_disk"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_client_gets_the_manifest_and_reads_back(tmp_path, run, shell):
    text = make(count=22_000, chunk_bytes=2)
    assert len(text) > 4_000_000
    node = checking(tmp_path, text=text, shell=" ".join(shell))
    report = run(node)
    assert "cause" not in report
    assert (report["verified"], report["verified_bytes"], report["digest"]) == (True, 98304, DIGEST)
    assert report["bytes_written"] == 65536
    assert (tmp_path / "node1-1" / "given").read_bytes() == text
    (call,) = arguments(tmp_path)
    head, disk = plain_call(node)
    assert call[:7] == [*head, "--manifest"]
    assert call[8:] == ["--verify", disk]
    assert "kept_chunks" not in report


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_on_the_disk_is_kept_when_told_so(tmp_path, run, shell):
    report = run(checking(tmp_path, text=make(count=4), shell=" ".join(shell), orbit_resume=True))
    assert (report["kept_chunks"], report["chunks"], report["verified"]) == (3, 4, True)
    assert arguments(tmp_path)[0][8:10] == ["--verify", "--resume"]


def test_to_keep_without_reading_back(tmp_path, run):
    report = run(checking(tmp_path, text=make(count=4), orbit_resume=True, orbit_verify="never"))
    assert (report["kept_chunks"], report["verified"], report["digest"]) == (3, False, DIGEST)
    assert report["verified_reason"] == "orbit_verify is never"
    assert arguments(tmp_path)[0][8:9] == ["--resume"]


def test_a_second_try_keeps_what_the_first_one_wrote(tmp_path):
    node = checking(tmp_path)
    facts = Facts(can={"manifest", "verify", "resume"})

    class Taking:
        """A session with a node that takes everything."""

        async def send(self, *lines):
            assert lines == (f"manifest {len(make())}",)

        async def pour(self, data):
            assert data == make()

        line = mock.AsyncMock(side_effect=["@orbit send", "", "@orbit taken"])

    agreed = asyncio.run(verification.agree(Taking(), node, facts, again=True))
    assert agreed.go == "go verify resume"
    node["settings"]["orbit_verify"] = "never"
    assert [verification.question(node, again) for again in (False, True)] == ["no", "yes"]


USAGE = "#!/bin/sh\n[ \"$1\" != --help ] || { echo 'usage: frisbee [-i ip] -m ip -p port disk'; exit 1; }\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_client_of_the_field_is_started_as_ever(tmp_path, run, shell):
    node = checking(tmp_path, client=USAGE + fleetkit.GOOD, shell=" ".join(shell), orbit_resume=True)
    report = run(node)
    assert report["bytes_written"] == 65536
    assert report["verified"] is False
    assert report["verified_reason"].endswith("of this memory image knows neither --manifest nor --verify")
    assert "digest" not in report
    head, disk = plain_call(node)
    assert arguments(tmp_path) == [[*head, disk]]


def test_a_client_that_does_not_answer_is_not_waited_for(tmp_path, run):
    hangs = '#!/bin/sh\n[ "$1" != --help ] || exec sleep 1000\n'
    report = run(checking(tmp_path, client=hangs + fleetkit.GOOD))
    assert report["verified"] is False
    assert report["bytes_written"] == 65536


# Wrapper scripts whose program holds their output open, and what becomes of them and of it.
WRAPPERS = {
    "both hang": "sleep 1000 & echo $! >{pids}; wait",
    "its program hangs": "sleep 1000 & echo $! >{pids}",
    "in the foreground": "sh -c 'echo $$ >{pids}; exec sleep 1000'; :",
    "its program talks on": "yes usage & echo $! >{pids}; wait",
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("does", WRAPPERS.values(), ids=WRAPPERS)
def test_a_client_that_is_a_wrapper_is_ended_with_what_it_started(tmp_path, run, does, shell):
    pids = tmp_path / "pids"
    wrapper = f'#!/bin/sh\nif [ "$1" = --help ]; then echo --server; {does.format(pids=pids)}; exit; fi\n'
    node = fleetkit.make_node(tmp_path, client=wrapper + fleetkit.GOOD, shell=" ".join(shell))
    node["stream"]["server"] = "10.0.0.9"
    assert run(node)["bytes_written"] == 65536
    # What it said before counts.
    assert arguments(tmp_path)[0][6:8] == ["--server", "10.0.0.9"]
    assert pids.read_text().split()
    assert all(has_ended(int(pid)) for pid in pids.read_text().split())


def test_what_a_client_has_let_go_is_not_waited_for(tmp_path, run):
    """It has left its session; its end is nobody's business, but it holds the output open."""
    pids = tmp_path / "pids"
    lets_go = f"setsid sh -c 'echo $$ >{pids}.new; mv {pids}.new {pids}; exec sleep 1000' &"
    waits = f"while ! [ -e {pids} ]; do sleep 0.1; done"
    client = f'#!/bin/sh\nif [ "$1" = --help ]; then echo --server; {lets_go} {waits}; exit; fi\n'
    node = fleetkit.make_node(tmp_path, client=client + fleetkit.GOOD)
    node["stream"]["server"] = "10.0.0.9"
    try:
        assert run(node)["bytes_written"] == 65536
        assert arguments(tmp_path)[0][6:8] == ["--server", "10.0.0.9"]
        assert alive(int(pids.read_text()))
    finally:
        os.kill(int(pids.read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    ("settings", "manifest", "reason"),
    [
        ({"orbit_verify": "never"}, None, "orbit_verify is never"),
        (
            {},
            {"state": "absent", "msg": "this service has none"},
            "the image has no manifest: this service has",
        ),
    ],
)
def test_without_need_the_client_is_not_even_asked(tmp_path, run, settings, manifest, reason):
    node = checking(tmp_path, **settings)
    node["manifest"] = manifest or node["manifest"]
    report = run(node)
    assert report["verified"] is False
    assert report["verified_reason"].startswith(reason)
    assert not (tmp_path / "node1-1" / "asked").exists()
    head, disk = plain_call(node)
    assert arguments(tmp_path) == [[*head, disk]]


@pytest.mark.parametrize("manifest", ["present", "absent"])
def test_always_is_a_failure_before_a_byte_is_written(tmp_path, run, manifest):
    node = checking(tmp_path, client=USAGE + fleetkit.GOOD, orbit_verify="always")
    if manifest == "absent":
        node["manifest"] = {"state": "absent", "msg": "none here"}
    report = run(node)
    assert report["cause"] == "client_missing"
    assert report["evidence"].startswith("orbit_verify is always, but ")
    assert not (tmp_path / "node1-1" / "arguments").exists()


@pytest.mark.parametrize(
    ("status", "cause"),
    [(3, "verify_failed"), (4, "verify_failed"), (5, "client_failed"), (1, "client_failed")],
)
def test_how_a_checking_client_ends(tmp_path, run, status, cause):
    node = checking(tmp_path)
    (tmp_path / "node1-1" / "fails").write_text(f"{status}\n")
    report = run(node)
    assert report["cause"] == cause
    assert report["evidence"].startswith(f"frisbee: so it is (exit status {status})")


@pytest.mark.parametrize("status", [3, 4])
def test_a_client_without_a_manifest_cannot_find_it_wrong(tmp_path, run, status):
    node = checking(tmp_path, orbit_verify="never")
    (tmp_path / "node1-1" / "fails").write_text(f"{status}\n")
    assert run(node)["cause"] == "client_failed"


def test_a_promise_to_read_back_must_be_seen_kept(tmp_path, run):
    node = checking(tmp_path)
    (tmp_path / "node1-1" / "cannot").write_text("")
    report = run(node)
    assert report["cause"] == "verify_failed"
    assert "no word of a disk that was read back" in report["evidence"]


def test_a_manifest_that_is_gone_is_a_failure_before_a_byte_is_written(tmp_path, run):
    node = checking(tmp_path)
    (tmp_path / "stored.manifest").unlink()
    report = run(node)
    assert report["cause"] == "client_failed"
    assert "the manifest cannot be given to the node" in report["evidence"]
    assert not (tmp_path / "node1-1" / "arguments").exists()


def test_a_node_without_room_for_the_manifest_is_a_failure_before_a_byte_is_written(tmp_path, run):
    node = checking(tmp_path, text=make(count=1000))
    ssh = node["ssh"]["executable"]
    with open(ssh, encoding="utf-8") as stream:
        text = stream.read()
    # Files of this shell end at 64 KiB, as they would on a full file system.
    fleetkit.executable(ssh, text.replace("\n", "\ntrap '' XFSZ; ulimit -f 128\n", 1))
    report = run(node)
    assert report["cause"] == "client_failed"
    assert "bytes of the manifest arrived" in report["evidence"]
    assert not (tmp_path / "node1-1" / "arguments").exists()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("knows", [True, False])
def test_a_client_that_can_listens_to_the_streams_own_server_only(tmp_path, run, shell, knows):
    usage = USAGE if not knows else USAGE.replace("[-i ip]", "[-i ip] [-S, --server ADDRESS]")
    node = fleetkit.make_node(tmp_path, client=usage + fleetkit.GOOD, shell=" ".join(shell))
    node["stream"]["server"] = "10.0.0.9"
    assert run(node)["bytes_written"] == 65536
    head, disk = plain_call(node)
    assert arguments(tmp_path) == [[*head, *["--server", "10.0.0.9"] * knows, disk]]
