# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import asyncio
import os
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
    found = subprocess.run(asked, capture_output=True, text=True, timeout=180, check=True).stdout.splitlines()
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


def lines_of(program):
    async def read():
        found = []
        async with ssh.Session([sys.executable, "-c", program]) as session:
            while (lines := await session.lines()) is not None:
                found += lines
            return found, await session.end()

    return asyncio.run(read())


def test_of_long_lines_only_the_beginning_is_kept():
    found, _end = lines_of("for n in range(25): print(str(n) + 'x' * 900_000)\nprint('end', end='')")
    assert [line[:3].strip("x") for line in found] == [*map(str, range(25)), "end"]
    assert max(map(len, found)) == 4096


def test_what_ssh_says_without_end_is_taken_and_bounded():
    program = (
        "import sys\nsys.stderr.write('first\\n' + 'x' * 5_000_000 + '\\nlast\\n')\nprint('done', flush=True)"
    )
    found, (status, words) = lines_of(program)
    assert (found, status) == (["done"], 0)
    assert words.startswith("first\n")
    assert words.endswith("\nlast")
    assert len(words) < 70_000


def test_the_language_and_the_umask_of_the_user_are_not_those_of_ssh(monkeypatch):
    for name in ("LANG", "LC_ALL", "LC_MESSAGES", "LANGUAGE"):
        monkeypatch.setenv(name, "de_DE.UTF-8")
    monkeypatch.setenv("SSH_ASKPASS", "/bin/ask")
    program = (
        "import os\nprint(*sorted(n + '=' + os.environ[n] for n in os.environ if n[:2] in ('LC', 'LA') "
        "or n[:11] == 'SSH_ASKPASS'))\nprint(oct(os.umask(0)))"
    )
    before = os.umask(0o777)
    try:
        found, _end = lines_of(program)
    finally:
        os.umask(before)
    assert found == ["LC_ALL=C SSH_ASKPASS_REQUIRE=never", "0o77"]


CONFIG = """\
Host *
  IgnoreUnknown UseKeychain
  UseKeychain yes
  RequestTTY force
  RemoteCommand echo no
  PermitLocalCommand yes
  LocalCommand echo local
  LocalForward 127.0.0.1:9 127.0.0.1:9
  ForwardX11 yes
  ForwardAgent yes
  Tunnel yes
  StdinNull yes
  ForkAfterAuthentication yes
  SessionType none
  EscapeChar x
  SetEnv LC_ALL=de_DE
  LogLevel QUIET
  VisualHostKey yes
  UpdateHostKeys ask
  AddKeysToAgent ask
  ControlMaster auto
  ControlPath /tmp/%C
  ControlPersist yes
  BatchMode no
  StrictHostKeyChecking ask
  KnownHostsCommand /bin/true
  ServerAliveInterval 0
  User other
  ProxyJump gateway
"""


def test_files_of_ssh_say_how_a_node_is_reached_and_nothing_else(tmp_path):
    (tmp_path / "config").write_text(CONFIG)
    arguments = ssh.command(NODE, "/run/known", "true")
    asked = [arguments[0], "-G", "-F", str(tmp_path / "config"), *arguments[1:]]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=180, check=True)
    found = {
        name: value for name, _blank, value in (line.partition(" ") for line in done.stdout.splitlines())
    }
    wanted = {
        "requesttty": "false",
        "permitlocalcommand": "no",
        "clearallforwardings": "yes",
        "forwardx11": "no",
        "forwardagent": "no",
        "tunnel": "false",
        "stdinnull": "no",
        "forkafterauthentication": "no",
        "sessiontype": "default",
        "escapechar": "none",
        "setenv": "LC_ALL=C",
        "loglevel": "INFO",
        "visualhostkey": "no",
        "updatehostkeys": "false",
        "addkeystoagent": "false",
        "controlmaster": "false",
        "controlpersist": "no",
        "batchmode": "yes",
        "stricthostkeychecking": "accept-new",
        "serveraliveinterval": "5",
        "user": "root",
        "proxyjump": "gateway",
        "userknownhostsfile": "/run/known",
    }
    assert {name: found.get(name) for name in wanted} == wanted
    assert not {"localforward", "remotecommand", "knownhostscommand"} & {
        name for name, value in found.items() if value != "none"
    }


def test_what_older_versions_of_ssh_do_not_know_comes_after_ignoreunknown():
    arguments = ssh.command(node(ansible_ssh_common_args="-o Compression=yes"), "/run/known", "true")
    ignore = arguments.index("IgnoreUnknown=*")
    assert arguments.index("Compression=yes") < ignore
    for name in ("StdinNull", "SessionType", "ForkAfterAuthentication", "KnownHostsCommand"):
        assert next(n for n, word in enumerate(arguments) if word.startswith(f"{name}=")) > ignore
