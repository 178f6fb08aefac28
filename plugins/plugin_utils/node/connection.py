# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Ansible knows of the way to a node by SSH, from wherever it knows it.

A user says how a node is reached in variables, on the command line, in ``ansible.cfg``, in the environment or
with a keyword of the play. The collection runs ``ssh`` itself, so it asks Ansible's own configuration for the
options of its connection plugin ``ansible.builtin.ssh``, with Ansible's own precedence. What somebody has set
is honoured, or refused by name; what makes no difference to a session of ours is named here, too.

Interface::

    names = connection.variables()                  # the variables of a host that resolve() looks at
    keywords = connection.keywords(self._task)      # what the play and the command line say, once per task
    way = connection.resolve("node1-1", hostvars_of_that_host, keywords)
    node["ssh"] = way.ssh                           # a plain dict, goes into the record
    mistakes += way.mistakes                        # sentences; a node with any of them is refused
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
import typing as t

from ansible import constants as C, context
from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.loader import connection_loader

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import ssh_options
from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import plain

_PLUGIN = "ssh"
_TEXTS = ("host", "remote_user", "private_key_file", "ssh_executable")

#: What a session takes over.
HONOURED = frozenset([*_TEXTS, *ssh_options.ARGUMENTS, "port", "timeout", "host_key_checking", "verbosity"])
#: What concerns only files that Ansible copies, connections that it shares or passwords that it gives: a
#: session of ours has none of these. It has no terminal, and a node that does not answer is asked again.
HARMLESS = frozenset(
    [
        "control_path",
        "control_path_dir",
        "password_mechanism",
        "pipelining",
        "reconnection_retries",
        "scp_executable",
        "scp_extra_args",
        "scp_if_ssh",
        "sftp_batch_mode",
        "sftp_executable",
        "sftp_extra_args",
        "ssh_transfer_method",
        "sshpass_prompt",
        "use_tty",
    ]
)
_KEY_REMEDY = "Load the key into an ssh-agent, or name its file with ansible_ssh_private_key_file."
#: What cannot be honoured, with what to do instead.
REFUSED = {
    "password": "Nodes are logged in to with a key: leave the password out and name a key with "
    "ansible_ssh_private_key_file.",
    "pkcs11_provider": "Load the card's key into an ssh-agent (ssh-add -s) and leave this out.",
    "private_key": _KEY_REMEDY,
    "private_key_passphrase": _KEY_REMEDY,
}

# Other variables that say how a host is reached, without being options of the plugin.
_OTHERS = ("ansible_connection", "ansible_timeout", "ansible_become", "ansible_become_user")
_KEYWORDS = ("remote_user", "port", "connection", "become", "become_user")
_OUR_CONNECTIONS = tuple(
    f"{prefix}{name}" for prefix in ("", "ansible.builtin.") for name in ("ssh", "smart")
)


@dataclasses.dataclass
class Connection:
    """The way to one node.

    :ivar ssh: ``host`` (None: the node's control address), ``port`` (int or None), ``user`` (text, root when
        nobody says another), ``private_key_file`` (text or None), ``executable`` (text), ``timeout`` (seconds
        to connect, None when nobody has said), ``host_key_checking`` (bool), ``verbosity`` (int), and
        ``ssh_args``, ``ssh_common_args``, ``ssh_extra_args`` (lists of arguments, in the order in which ssh
        gets them). Only plain data: it is part of the record.
    :ivar mistakes: what cannot be honoured, one sentence each: input, place and remedy. Never a secret.
    """

    ssh: dict[str, t.Any]
    mistakes: list[str] = dataclasses.field(default_factory=list)


@functools.cache
def _options() -> dict[str, dict[str, t.Any]]:
    """Return the definitions of the plugin's options, name to definition."""
    # Finding the class reads its documentation, and with it the definitions of its options.
    connection_loader.get(_PLUGIN, class_only=True)
    return t.cast(
        "dict[str, dict[str, t.Any]]", C.config.get_configuration_definitions("connection", _PLUGIN)
    )


def variables() -> list[str]:
    """Return the names of all variables of a host that :func:`resolve` looks at."""
    names = [entry["name"] for option in _options().values() for entry in option.get("vars", [])]
    usable = (name for name in names if name.isidentifier() and name != "inventory_hostname")
    return list(dict.fromkeys([*usable, *_OTHERS]))


def keywords(task: t.Any) -> dict[str, t.Any]:
    """Return what the play and the command line say of connections; ``task`` is a task of Ansible's."""
    return {name: plain(getattr(task, name, None)) for name in _KEYWORDS}


def resolve(
    name: str, values: t.Mapping[str, t.Any], said: t.Mapping[str, t.Any] | None = None
) -> Connection:
    """Return how the host ``name`` is reached, and what of that cannot be honoured.

    :param values: the host's variables, templated; others than :func:`variables` do not matter.
    :param said: what :func:`keywords` has returned; none where there is no play.
    """
    return _Reader(name, values, said or {}).connection()


class _Reader:
    def __init__(self, name: str, values: t.Mapping[str, t.Any], said: t.Mapping[str, t.Any]) -> None:
        self._where = f"host {name}"
        # The name of a host in the inventory is no address here: a node has one on the control network.
        self._values = {key: value for key, value in values.items() if key != "inventory_hostname"}
        self._said = said
        self._mistakes: list[str] = []

    def connection(self) -> Connection:
        found = {name: self._get(name) for name in HONOURED if name in _options()}
        ssh: dict[str, t.Any] = {
            "host": self._text("host", found),
            "port": self._port(found.get("port")),
            "private_key_file": self._text("private_key_file", found),
            "executable": self._text("ssh_executable", found) or "ssh",
            "timeout": self._timeout(found.get("timeout")),
            "host_key_checking": found["host_key_checking"] is not False,
            "verbosity": found.get("verbosity") or 0,
            **{name: self._arguments(name, found[name]) for name in ssh_options.ARGUMENTS},
        }
        before, after = ssh["ssh_args"], [*ssh["ssh_common_args"], *ssh["ssh_extra_args"]]
        # Of all that say it, ssh believes the first; options of their own stand behind ssh_args.
        ssh["user"] = (
            ssh_options.first(before, "user")
            or self._text("remote_user", found)
            or ssh_options.first(after, "user")
            or "root"
        )
        self._refuse_options()
        self._refuse_connection()
        self._refuse_become(ssh["user"])
        return Connection(ssh, self._mistakes)

    def _mistake(self, what: str, remedy: str) -> None:
        self._mistakes.append(f"{self._where}: {what}. {remedy}")

    def _get(self, name: str) -> t.Any:
        """Return the value of an option that somebody has set; None when nobody has."""
        return self._look(name)[0]

    def _look(self, name: str) -> tuple[t.Any, str]:
        """Return the value of an option and who has set it; None and "" when nobody has."""
        # Of the keywords only those that are the plugin's: a task's own timeout, for one, is another thing.
        keys = {key: self._said[key] for key in ("remote_user", "port") if self._said.get(key) is not None}
        try:
            value, origin = C.config.get_config_value_and_origin(
                name, plugin_type="connection", plugin_name=_PLUGIN, keys=keys, variables=self._values
            )
        except (AnsibleError, ValueError, TypeError):
            self._mistake(
                f"the option {name} of ansible.builtin.ssh has a value of a wrong type",
                f"Correct it where it is set: {self._places(name)}",
            )
            return None, ""
        return (None, "") if value is None or origin == "default" else (plain(value), str(origin))

    @staticmethod
    def _places(name: str) -> str:
        definition = _options()[name]
        places = [entry["name"] for kind in ("vars", "env") for entry in definition.get(kind, [])]
        places += [f"[{entry['section']}] {entry['key']}" for entry in definition.get("ini", [])]
        return ", ".join(place for place in places if place != "inventory_hostname") + "."

    def _text(self, name: str, found: t.Mapping[str, t.Any]) -> str | None:
        text = found[name]
        if text in (None, ""):
            return None
        text = str(text)
        if not text.isprintable() or (name != "private_key_file" and text != text.strip()):
            self._mistake(f"{name} is {text!r}, which ssh cannot be given", f"Correct {self._places(name)}")
        elif name in ("host", "remote_user") and (text.startswith("-") or " " in text):
            self._mistake(f"{name} is {text!r}, which is none", f"Correct {self._places(name)}")
        return text

    def _port(self, port: int | None) -> int | None:
        if port is not None and not 0 < port < 65536:
            self._mistake(f"port {port} is none", "Give a number from 1 to 65535 (ansible_port).")
        return port

    def _timeout(self, seconds: int | None) -> int | None:
        magic = self._values.get("ansible_timeout")
        if seconds is None and magic not in (None, ""):
            try:
                seconds = int(str(magic))
            except ValueError:
                seconds = 0
        if seconds is not None and not 0 < seconds <= 3600:
            self._mistake(
                f"the timeout of a connection is {seconds} s",
                "Give a number of seconds from 1 to 3600 (ansible_ssh_timeout).",
            )
            return None
        return seconds

    def _arguments(self, name: str, text: str | None) -> list[str]:
        """Split options of ssh as Ansible does, and refuse what a session cannot be with."""
        try:
            words = [word.strip() for word in shlex.split(text or "") if word.strip()]
            bad = ssh_options.unusable(words)
        except ValueError as error:
            self._mistake(f"{name} cannot be used: {error}", f"Correct {self._places(name)}")
            return []
        for shown in bad:
            self._mistake(
                f"{name} has {shown}, with which ssh is no session that a program can use",
                f"Leave it out of {self._places(name)}",
            )
        return words

    def _refuse_options(self) -> None:
        for name in sorted(_options()):
            if name in HONOURED or name in HARMLESS:
                continue
            value, origin = self._look(name)
            if value not in (None, ""):
                remedy = REFUSED.get(name, "Leave it out, or say the same with ansible_ssh_common_args.")
                origin = origin.removeprefix("var: ").removeprefix("env: ")
                self._mistake(f"{origin} sets {name}, which cannot be used for nodes", remedy)
        for key, shown in (("ask_pass", "-k"), ("connection_password_file", "--connection-password-file")):
            if context.CLIARGS.get(key):
                self._mistake(
                    f"{shown} gives a password, which cannot be used for nodes", REFUSED["password"]
                )

    def _refuse_connection(self) -> None:
        kind, where = self._values.get("ansible_connection"), "ansible_connection"
        if kind in (None, ""):
            kind, where = (
                self._said.get("connection"),
                "the connection of the play or of the command line (-c)",
            )
            # A play may run its own tasks here; its nodes are reached by SSH all the same.
            if kind == "local" and context.CLIARGS.get("connection") != "local":
                return
        if kind not in (None, "", *_OUR_CONNECTIONS):
            self._mistake(f"{where} is {kind}, but nodes are reached by ssh only", "Leave it out for nodes.")

    def _refuse_become(self, user: str) -> None:
        wanted = self._values.get("ansible_become")
        if wanted in (None, ""):
            wanted = self._said.get("become")
        try:
            if not boolean(wanted, strict=False):
                return
        except TypeError:
            return
        who = self._values.get("ansible_become_user") or self._said.get("become_user") or "root"
        if user != "root" or who != "root":
            self._mistake(
                f"become is set for the user {who}, but who logs in ({user}) writes the disk",
                "Log in as root (ansible_user: root), and leave become out.",
            )
