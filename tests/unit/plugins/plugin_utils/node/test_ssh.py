# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import connection, ssh


def node(**variables):
    return {"control_ip": "10.11.1.1", "ssh": connection.resolve("node1-1", variables).ssh}


NODE = node()


def test_nothing_of_the_node_becomes_part_of_the_remote_program():
    arguments = ssh.command(node(ansible_user="x"), "/run/known", "true")
    assert arguments[-3:] == ["--", "10.11.1.1", "true"]
    assert arguments[arguments.index("-l") + 1] == "x"


def test_keep_alives_and_no_shared_connection_always():
    text = " ".join(ssh.command(NODE, "/run/known", "true"))
    for option in (
        "ServerAliveInterval=5",
        "ConnectTimeout=5",
        "ControlMaster=no",
        "ControlPath=none",
        "BatchMode=yes",
    ):
        assert f"-o {option}" in text
    assert "-o UserKnownHostsFile=/run/known" in text


@pytest.mark.parametrize(
    ("variables", "checked"),
    [
        ({}, True),
        ({"ansible_ssh_common_args": "-o StrictHostKeyChecking=yes -J jump"}, True),
        ({"ansible_ssh_common_args": "-o StrictHostKeyChecking=no"}, False),
        ({"ansible_ssh_extra_args": "-oStricthostkeychecking=off"}, False),
        ({"ansible_ssh_extra_args": "-o 'StrictHostKeyChecking no'"}, False),
        ({"ansible_ssh_common_args": "-o StrictHostKeyChecking=no", "ansible_host": "127.77.1.1"}, True),
    ],
)
def test_it_is_known_whether_host_keys_are_checked(variables, checked):
    assert ssh.checks_host_key(node(**variables)) is checked


def test_the_users_own_options_win_by_standing_first():
    arguments = ssh.command(
        node(ansible_ssh_common_args="-o ConnectTimeout=60 -J jump"), "/run/known", "true"
    )
    assert arguments.index("ConnectTimeout=60") < arguments.index("ConnectTimeout=5")


def test_a_master_connection_of_the_user_is_never_shared():
    shared = "-o ControlMaster=auto -o ControlPersist=60 -o ControlPath=/tmp/%C -o ConnectTimeout=60"
    arguments = ssh.command(node(ansible_ssh_common_args=shared), "/run/known", "true")
    asked = [arguments[0], "-G", "-F", "/dev/null", *arguments[1:]]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    assert "controlmaster false" in found
    assert "controlpersist no" in found
    assert "connecttimeout 60" in found
    assert not [line for line in found if line.startswith("controlpath ") and line != "controlpath none"]


def test_a_session_speaks_in_lines_and_tells_its_end():
    async def talk():
        async with ssh.Session(["/bin/sh", "-c", "read a; echo got $a; echo words >&2; exit 7"]) as session:
            await session.send("one")
            assert await session.line() == "got one"
            assert await session.line() is None
            return await session.end()

    assert asyncio.run(talk()) == (7, "words")


def test_a_session_that_is_left_is_ended():
    async def leave():
        async with ssh.Session([sys.executable, "-c", "import time; time.sleep(600)"]) as session:
            pid = session._process.pid
        return pid, session._process.returncode

    _pid, status = asyncio.run(leave())
    assert status == -9


def test_a_line_break_in_a_value_is_refused():
    async def send():
        async with ssh.Session(["/bin/cat"]) as session:
            await session.send("a\nb")

    with pytest.raises(ValueError, match="line break"):
        asyncio.run(send())
