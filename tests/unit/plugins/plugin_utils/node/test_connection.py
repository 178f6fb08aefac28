# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Ansible's own connection plugin takes, a node is reached by, or it is refused by name."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import connection, ssh, ssh_options


def resolve(said=None, **variables):
    return connection.resolve("node1-1", variables, said)


def way(said=None, **variables):
    found = resolve(said, **variables)
    assert found.mistakes == []
    assert json.loads(json.dumps(found.ssh)) == found.ssh
    return found.ssh


def mistakes(said=None, **variables):
    found = resolve(said, **variables).mistakes
    assert all(mistake.startswith("host node1-1: ") and mistake.endswith(".") for mistake in found)
    return " ".join(found)


def test_nobody_says_anything():
    assert way(inventory_hostname="node1-1.example") == {
        "host": None,
        "port": None,
        "user": "root",
        "private_key_file": None,
        "executable": "ssh",
        "timeout": None,
        "host_key_checking": True,
        "verbosity": 0,
        "ssh_args": [],
        "ssh_common_args": [],
        "ssh_extra_args": [],
    }


@pytest.mark.parametrize(
    ("variables", "part", "value"),
    [
        ({"ansible_host": "10.0.0.1"}, "host", "10.0.0.1"),
        ({"ansible_ssh_host": "10.0.0.2"}, "host", "10.0.0.2"),
        ({"ansible_port": "2222"}, "port", 2222),
        ({"ansible_ssh_port": 2223}, "port", 2223),
        ({"ansible_user": "x"}, "user", "x"),
        ({"ansible_ssh_user": "y"}, "user", "y"),
        ({"ansible_ssh_common_args": "-l z"}, "user", "z"),
        ({"ansible_ssh_extra_args": "-o 'User z'"}, "user", "z"),
        ({"ansible_ssh_common_args": "-oUser=z", "ansible_user": "x"}, "user", "x"),
        ({"ansible_ssh_args": "-4lz", "ansible_user": "x"}, "user", "z"),
        ({"ansible_private_key_file": "/k"}, "private_key_file", "/k"),
        ({"ansible_ssh_private_key_file": "~/k"}, "private_key_file", "~/k"),
        ({"ansible_ssh_executable": "/opt/ssh"}, "executable", "/opt/ssh"),
        ({"ansible_ssh_timeout": 60}, "timeout", 60),
        ({"ansible_timeout": "61"}, "timeout", 61),
        ({"ansible_host_key_checking": "no"}, "host_key_checking", False),
        ({"ansible_ssh_host_key_checking": False}, "host_key_checking", False),
        ({"ansible_ssh_args": "-C -o ControlMaster=auto"}, "ssh_args", ["-C", "-o", "ControlMaster=auto"]),
        (
            {"ansible_ssh_common_args": "-J jump -o ProxyCommand='nc %h %p'"},
            "ssh_common_args",
            ["-J", "jump", "-o", "ProxyCommand=nc %h %p"],
        ),
        ({"ansible_ssh_extra_args": "-F none"}, "ssh_extra_args", ["-F", "none"]),
    ],
)
def test_every_variable_of_the_plugin_counts(variables, part, value):
    assert set(variables) <= set(connection.variables())
    assert way(**variables)[part] == value


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ansible_password": "hunter2"}, "ansible_password sets password"),
        ({"ansible_ssh_pass": "hunter2"}, "ansible_ssh_pass sets password"),
        ({"ansible_ssh_pkcs11_provider": "/x.so"}, "ansible_ssh_pkcs11_provider sets pkcs11_provider"),
        ({"ansible_connection": "local"}, "ansible_connection is local"),
        ({"ansible_connection": "paramiko"}, "ansible_connection is paramiko"),
        ({"ansible_become": True, "ansible_user": "x"}, "who logs in (x) writes the disk"),
        ({"ansible_become": "yes", "ansible_become_user": "x"}, "become is set for the user x"),
        ({"ansible_port": 0}, "port 0 is none"),
        ({"ansible_port": 65536}, "port 65536 is none"),
        ({"ansible_port": "ssh"}, "option port of ansible.builtin.ssh has a value of a wrong type"),
        ({"ansible_port": [22]}, "option port of ansible.builtin.ssh has a value of a wrong type"),
        ({"ansible_ssh_timeout": 0}, "timeout of a connection is 0 s"),
        (
            {"ansible_ssh_timeout": "soon"},
            "option timeout of ansible.builtin.ssh has a value of a wrong type",
        ),
        ({"ansible_user": "a\nb"}, "remote_user is 'a\\nb'"),
        ({"ansible_user": "-oX=y"}, "remote_user is '-oX=y'"),
        ({"ansible_host": "10.0.0.1 "}, "host is '10.0.0.1 '"),
        (
            {"ansible_ssh_common_args": "-o 'ProxyJump"},
            "ssh_common_args cannot be used: No closing quotation",
        ),
        ({"ansible_ssh_common_args": "jump"}, "'jump' is no option of ssh"),
        ({"ansible_ssh_extra_args": "-4 -- x"}, "'--' is no option of ssh"),
        ({"ansible_ssh_extra_args": "-p"}, "-p has no value"),
        ({"ansible_ssh_extra_args": "-4Z"}, "-Z is no option of ssh"),
        ({"ansible_ssh_extra_args": "-Cf"}, "ssh_extra_args has -f"),
        ({"ansible_ssh_args": "-tt -N"}, "ssh_args has -t"),
        ({"ansible_ssh_common_args": "-L 1:x:2"}, "ssh_common_args has -L"),
        ({"ansible_ssh_common_args": "-o RequestTTY=force"}, "has -o RequestTTY,"),
        ({"ansible_ssh_common_args": "-oRemoteCommand=x"}, "has -o RemoteCommand,"),
        ({"ansible_ssh_common_args": "-o 'stdinnull yes'"}, "has -o stdinnull,"),
        ({"ansible_ssh_common_args": "-o loglevel=QUIET"}, "has -o loglevel=QUIET,"),
        ({"ansible_ssh_common_args": "-o BatchMode=no"}, "has -o BatchMode,"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(variables, words):
    assert set(variables) <= set(connection.variables())
    text = mistakes(**variables)
    assert words in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "variables",
    [
        {"ansible_connection": "ssh"},
        {"ansible_connection": "ansible.builtin.ssh"},
        {"ansible_connection": "smart"},
        {"ansible_become": False, "ansible_user": "x"},
        {"ansible_become": True},
        {"ansible_password": ""},
        {"ansible_ssh_common_args": "-o RequestTTY=no -o BatchMode=yes -o LogLevel=DEBUG -vv"},
        {"ansible_ssh_use_tty": True, "ansible_ssh_retries": 3, "ansible_pipelining": True},
    ],
)
def test_what_makes_no_difference_is_no_mistake(variables):
    assert mistakes(**variables) == ""


def test_every_option_of_the_plugin_has_been_decided_on():
    decided = connection.HONOURED | connection.HARMLESS | set(connection.REFUSED)
    assert set(connection._options()) - decided == set()


def test_an_option_of_a_later_ansible_is_refused_when_somebody_sets_it(monkeypatch):
    options = {**connection._options(), "tunnel_through": {"vars": [{"name": "ansible_ssh_tunnel_through"}]}}
    monkeypatch.setattr(connection, "_options", lambda: options)
    real = connection.C.config.get_config_value_and_origin

    def look(name, **arguments):
        return (
            ("x", "var: ansible_ssh_tunnel_through") if name == "tunnel_through" else real(name, **arguments)
        )

    monkeypatch.setattr(connection.C.config, "get_config_value_and_origin", look)
    assert "ansible_ssh_tunnel_through sets tunnel_through" in mistakes()


def test_keywords_count_and_variables_go_before():
    said = {"remote_user": "play", "port": 24, "connection": "ssh", "become": False, "become_user": None}
    assert (way(said)["user"], way(said)["port"]) == ("play", 24)
    assert way(said, ansible_user="x")["user"] == "x"
    assert "become is set" in mistakes({**said, "become": True})
    assert "(-c) is winrm" in mistakes({"connection": "winrm"})
    # A play may run its own tasks on the control host.
    assert way({"connection": "local"})["user"] == "root"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"ansible_user": "x", "ansible_port": 2222, "ansible_host": "10.0.0.1", "ansible_ssh_timeout": 7},
        {"ansible_ssh_common_args": "-o ProxyCommand='nc \"a b\" %h' -l z", "ansible_ssh_args": "-C"},
        {"ansible_host_key_checking": False, "ansible_ssh_executable": "/opt/my ssh"},
        {"ansible_private_key_file": "/a b%c"},
    ],
)
def test_the_same_way_is_found_again(variables):
    first = way(**variables)
    assert way(**ssh_options.variables_of(first)) == first


def test_a_session_has_ansibles_own_order():
    node = {
        "control_ip": "10.11.1.1",
        "ssh": way(
            ansible_ssh_args="-o Port=1",
            ansible_port=2,
            ansible_ssh_common_args="-o Port=3 -o User=a",
            ansible_user="b",
            ansible_private_key_file="/k %h",
            ansible_host_key_checking=False,
            ansible_ssh_timeout=9,
        ),
    }
    arguments = ssh.command(node, "/run/known", "true")
    for earlier, later in (
        ("Port=1", "2"),
        ("2", "Port=3"),
        ("b", "User=a"),
        ("StrictHostKeyChecking=no", "StrictHostKeyChecking=accept-new"),
        ("ConnectTimeout=9", "ConnectTimeout=5"),
        ('IdentityFile="/k %h"', "IdentitiesOnly=yes"),
    ):
        assert arguments.index(earlier) < arguments.index(later)
    assert ssh.connect_seconds(node) == 9
    assert not ssh.checks_host_key(node)


# -- what Ansible itself makes of its command line, its file, its environment and a play

PLAY = """\
- hosts: all
  gather_facts: false
  {keywords}
  tasks:
    - orbit.imaging.image_plan:
      vars: {{image: x.ndz, orbit_run_dir: "{{{{ playbook_dir }}}}/runs"}}
      register: planned
      run_once: true
    - ansible.builtin.copy:
        src: "{{{{ planned.dir }}}}/record.json"
        dest: "{{{{ playbook_dir }}}}/record.json"
      run_once: true
      delegate_to: localhost
"""


@pytest.fixture
def plan(tmp_path):
    """Plan with a real ansible-playbook; gives the nodes' ways, or the words with which it refused."""
    collections = next(
        parent.parent
        for parent in pathlib.Path(connection.__file__).parents
        if parent.name == "ansible_collections"
    )
    interpreter = f"localhost ansible_connection=local ansible_python_interpreter={sys.executable}\n"
    (tmp_path / "hosts").write_text(
        "[all:vars]\norbit_domain=sb1.orbit-lab.org\n[nodes]\n"
        "node1-1\nnode1-2 ansible_user=own ansible_port=26\n"
    )

    def run(*arguments, keywords="", cfg="", **environment):
        (tmp_path / "play.yml").write_text(
            PLAY.format(keywords=keywords).replace("hosts: all", "hosts: nodes")
        )
        (tmp_path / "ansible.cfg").write_text(cfg)
        (tmp_path / "local").write_text(interpreter)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        done = subprocess.run(
            [
                str(pathlib.Path(sys.executable).parent / "ansible-playbook"),
                "-i",
                "hosts",
                "-i",
                "local",
                "play.yml",
                *arguments,
            ],
            cwd=tmp_path,
            env={
                **kept,
                "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(collections),
                "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
                "ANSIBLE_REMOTE_TEMP": str(tmp_path / "tmp"),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout)  # shown when the test fails
        if done.returncode:
            return done.stdout
        record = json.loads((tmp_path / "record.json").read_text())
        return {name: node["ssh"] for name, node in record["nodes"].items()}

    return run


def test_the_command_line_counts(plan):
    ways = plan(
        *("-u", "cli", "--private-key", "/etc/hostname", "--ssh-common-args", "-o Compression=yes"),
        *("--ssh-extra-args=-C", "-T", "31"),
    )
    first, second = ways["node1-1"], ways["node1-2"]
    assert (first["user"], first["private_key_file"], first["port"]) == ("cli", "/etc/hostname", None)
    assert (first["ssh_common_args"], first["ssh_extra_args"]) == (["-o", "Compression=yes"], ["-C"])
    assert first["timeout"] == 31
    assert (second["user"], second["port"]) == ("own", 26)


def test_file_environment_and_play_count(plan):
    cfg = (
        "[defaults]\nremote_user = file\nremote_port = 27\nprivate_key_file = /etc/hosts\n"
        "host_key_checking = false\n"
        "[ssh_connection]\nssh_args = -4\n"
    )
    ways = plan(cfg=cfg, ANSIBLE_SSH_COMMON_ARGS="-6", ANSIBLE_REMOTE_PORT="28")
    first = ways["node1-1"]
    assert (first["user"], first["port"], first["private_key_file"]) == ("file", 28, "/etc/hosts")
    assert (first["ssh_args"], first["ssh_common_args"]) == (["-4"], ["-6"])
    assert first["host_key_checking"] is False
    ways = plan(cfg=cfg, keywords="remote_user: play\n  port: 29\n  become: true\n  become_user: root")
    assert "become is set for the user root, but who logs in (play) writes the disk" in ways
    ways = plan(cfg=cfg, keywords="remote_user: play\n  port: 29")
    assert (ways["node1-1"]["user"], ways["node1-1"]["port"]) == ("play", 29)


def test_a_password_from_the_command_line_is_refused(plan, tmp_path):
    (tmp_path / "secret").write_text("hunter2\n")
    words = plan("--connection-password-file", str(tmp_path / "secret"))
    assert "--connection-password-file gives a password" in words
    assert "hunter2" not in words
