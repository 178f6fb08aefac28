# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of ``ssh``: which ones somebody gives, which ones a session cannot have, how they are kept."""

from __future__ import annotations

import os
import re
import shlex
import typing as t

#: Options of Ansible's with arguments for ssh, in the order in which ssh gets them.
ARGUMENTS = ("ssh_args", "ssh_common_args", "ssh_extra_args")

# Flags of ssh that stand alone, and flags with a value.
_ALONE = "1246AaCfGgKkMNnqsTtVvXxYy"
_WITH_VALUE = "BbcDEeFIiJLlmOoPpQRSWw"
# Flags that would take the session its input, its output, its words or its only connection.
_BAD_FLAGS = frozenset("fGMNnqstVXYyDELOQRSWw")
# Options of the same kind, each with the values that change nothing.
_BAD_OPTIONS: dict[str, tuple[str, ...]] = {
    "batchmode": ("yes",),
    "dynamicforward": (),
    "forkafterauthentication": ("no",),
    "forwardx11": ("no",),
    "localcommand": (),
    "localforward": (),
    "permitlocalcommand": ("no",),
    "remotecommand": ("none",),
    "remoteforward": (),
    "requesttty": ("no",),
    "sessiontype": ("default",),
    "stdinnull": ("no",),
    "tunnel": ("no",),
    "tunneldevice": (),
}
_MUTE = ("quiet", "fatal")


def first(arguments: t.Sequence[str], name: str) -> str | None:
    """Return the value that ``arguments`` of ssh give to an option; the first one counts, as for ssh.

    :param name: as in ``ssh_config``, in lower case. For ``user`` the flag ``-l`` says the same.
    """
    flags = {"user": "l", "port": "p"}
    for flag, value in _scan(arguments):
        if flag == flags.get(name):
            return value
        if flag == "o" and _split_option(value)[0] == name:
            return _split_option(value)[1]
    return None


def _split_option(text: str) -> tuple[str, str]:
    """Return the name (in lower case) and the value of an option as in ``-o``."""
    match = re.match(r"\s*([^\s=]*)(?:\s*=\s*|\s+)?(.*)\Z", text, re.DOTALL)
    name, value = match.groups() if match else (text, "")
    return name.lower(), value.strip().strip("\"'")


def _scan(arguments: t.Iterable[str]) -> list[tuple[str, str]]:
    """Return flags and values of arguments for ssh.

    :raises ValueError: at what is no option of ssh, or lacks its value.
    """
    found = []
    words = iter(arguments)
    for word in words:
        if len(word) < 2 or not word.startswith("-") or word == "--":
            raise ValueError(f"{word!r} is no option of ssh")
        rest = word[1:]
        while rest:
            flag, rest = rest[0], rest[1:]
            if flag in _WITH_VALUE:
                value = rest or next(words, None)
                if value is None:
                    raise ValueError(f"-{flag} has no value")
                found.append((flag, value))
                break
            if flag not in _ALONE:
                raise ValueError(f"-{flag} is no option of ssh")
            found.append((flag, ""))
    return found


def unusable(arguments: t.Iterable[str]) -> list[str]:
    """Return what of ``arguments`` a session cannot have, each as it is shown to a user.

    :raises ValueError: at what is no option of ssh, or lacks its value.
    """
    return list(dict.fromkeys(shown for shown in map(_bad, _scan(arguments)) if shown))


def _bad(pair: tuple[str, str]) -> str | None:
    """Return how an option is shown with which a session could not be led, None for any other."""
    flag, text = pair
    if flag in _BAD_FLAGS:
        return f"-{flag}"
    if flag != "o":
        return None
    name, value = _split_option(text)
    if name in _BAD_OPTIONS and value.lower() not in _BAD_OPTIONS[name]:
        return f"-o {text.split('=')[0].split()[0]}"
    return f"-o {text}" if name == "loglevel" and value.lower() in _MUTE else None


def variables_of(ssh: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return variables with which Ansible, and a run like this one, reaches the node of ``ssh`` again."""
    key = ssh["private_key_file"]
    found = {
        "ansible_host": ssh["host"],
        "ansible_port": ssh["port"],
        "ansible_user": ssh["user"],
        "ansible_ssh_private_key_file": os.path.abspath(os.path.expanduser(key)) if key else None,
        "ansible_ssh_executable": ssh["executable"] if ssh["executable"] != "ssh" else None,
        "ansible_ssh_timeout": ssh["timeout"],
        "ansible_ssh_host_key_checking": None if ssh["host_key_checking"] else False,
        "ansible_ssh_verbosity": ssh["verbosity"] or None,
        **{f"ansible_{name}": shlex.join(ssh[name]) or None for name in ARGUMENTS},
    }
    return {name: value for name, value in found.items() if value is not None}
