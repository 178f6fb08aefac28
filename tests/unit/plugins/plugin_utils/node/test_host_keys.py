# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real servers: host keys are kept in a folder of any name, and why a login fails is what is said."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import boot_wait, scripts

from . import fleetkit

SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
DROPBEAR = shutil.which("dropbear", path=SEARCH)

pytestmark = pytest.mark.skipif(
    not (DROPBEAR and shutil.which("ssh") and shutil.which("ssh-keygen") and shutil.which("dropbearkey")),
    reason="there is no ssh or no dropbear here",
)

#: Folders in which users keep their things.
FOLDERS = [
    "a b",
    "100%",
    "%h%d",
    "$HOME",
    "${HOME}",
    "it's",
    'say "x"',
    "back\\slash",
    "two\nlines",
    "#x",
    "tilde~",
    "\u00e4\u00f6",
    "x" * 200,
]


@pytest.fixture
def server(tmp_path):
    """Start a dropbear with a key of its own on a loopback port; gives the port."""
    running = []

    def start(port=0):
        key = str(tmp_path / f"host{len(running)}")
        subprocess.run(["dropbearkey", "-t", "ed25519", "-f", key], check=True, capture_output=True)
        if not port:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
        # -E: it says on its standard error when it listens for logins.
        process = subprocess.Popen(
            [DROPBEAR, "-F", "-E", "-r", key, "-p", f"127.0.0.1:{port}", "-P", str(tmp_path / "pid"), "-s"],
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        while "Not backgrounding" not in (line := process.stderr.readline()):
            assert line, "dropbear has ended"
        return port

    def stop():
        for process in running:
            process.kill()
            process.wait()
            process.stderr.close()

    start.stop = stop
    yield start
    stop()


def reach(folder, node):
    """Log in once; return the failure."""

    async def once():
        logins = boot_wait.Logins(str(folder))
        boot = boot_wait.Boot(time.monotonic(), time.monotonic() - 100)
        try:
            async with boot_wait.BootWait(logins, node, scripts.SYSTEM, ["."], boot, memory=True):
                raise AssertionError("nobody can log in there")
        except boot_wait.Failed as failure:
            return failure
        finally:
            logins.close()

    return asyncio.run(once())


def node_at(folder, port, **way):
    node = fleetkit.make_node(folder, orbit_boot_timeout=1)
    node["ssh"] = fleetkit.way(port=port, ssh_extra_args=["-F", "none", "-o", "IdentityAgent=none"], **way)
    return node


def test_host_keys_are_kept_in_a_folder_of_any_name(tmp_path, server):
    port = server()
    for number, name in enumerate(FOLDERS):
        place = tmp_path / str(number) / name
        place.mkdir(parents=True)
        node = node_at(tmp_path / f"node{number}", port)
        failure = reach(place / "known", node)
        assert failure.cause == "ssh_refused"
        assert "Permission denied (publickey)" in str(failure)
        assert "127.0.0.1" in (place / "known" / "node1-1.memory.1").read_text()


def test_a_key_is_found_in_a_folder_of_any_name(tmp_path, server):
    port = server()
    for number, name in enumerate(FOLDERS):
        place = tmp_path / str(number) / name
        place.mkdir(parents=True)
        # What is no key ssh says to be none, once it has found and opened it.
        (place / "id").write_text("no key\n")
        (place / "id").chmod(0o600)
        node = node_at(tmp_path / f"node{number}", port, private_key_file=str(place / "id"))
        text = str(reach(tmp_path / "known", node))
        assert "Load key" in text or "invalid format" in text, name
        assert "No such file" not in text


def test_a_changed_key_is_what_is_said(tmp_path, server):
    port = server()
    node = node_at(tmp_path, port)
    reach(tmp_path / "known", node)
    server.stop()
    server(port)
    failure = reach(tmp_path / "known", node)
    assert failure.cause == "ssh_refused"
    first = str(failure).splitlines()[0]
    assert f"Host key for [127.0.0.1]:{port} has changed and you have requested strict checking" in first
    assert "SHA256:" in str(failure)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (
            "HostKeyAlgorithms=ecdsa-sha2-nistp521",
            "no matching host key type found. Their offer: ssh-ed25519",
        ),
        ("KexAlgorithms=diffie-hellman-group18-sha512", "no matching key exchange method found"),
        ("Ciphers=aes192-cbc", "no matching cipher found"),
        ("SendMoney=yes", "Bad configuration option: sendmoney"),
    ],
)
def test_why_no_session_comes_about_is_said_first(tmp_path, server, option, words):
    node = node_at(tmp_path, server())
    node["ssh"]["ssh_common_args"] = ["-o", option]
    failure = reach(tmp_path / "known", node)
    assert failure.cause == "ssh_refused"
    assert words in str(failure).splitlines()[0]


def test_any_name_of_a_host_makes_a_name_of_a_file(tmp_path):
    names = ["node1-1", "a b", "a/b", "..", "x" * 300, "%h", "n\u00f6de", "\udcff"]

    async def all_names():
        logins = boot_wait.Logins(str(tmp_path))
        found = [logins.known_hosts({"name": name}, "disk.1") for name in names]
        logins.close()
        return found

    found = [path.rpartition("/")[2] for path in asyncio.run(all_names())]
    assert found[0] == "node1-1.disk.1"
    assert len(set(found)) == len(names)
    assert all(len(name) < 120 and name.isascii() and "%" not in name for name in found)
