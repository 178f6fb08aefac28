# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The run's variables: types and defaults from the role's own specification, ranges and formats from one
table.

The specification is read from the role, which otherwise stands above the plugins: it is what Ansible itself
reads for `ansible-doc`, and a second list would drift away from it.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import difflib
import functools
import math
import os
import re
import typing as t

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.orbit.imaging.plugins.module_utils import names
from ansible_collections.orbit.imaging.plugins.module_utils.service import ServiceError, check_url
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import quorum, sizes, tokens

_SPECIFICATION = os.path.join(
    os.path.dirname(__file__), "..", "..", "..", "roles", "image", "meta", "argument_specs.yml"
)

_DISK = re.compile(r"/dev/[A-Za-z0-9][A-Za-z0-9/._:-]{0,254}\Z")
_CLIENT = re.compile(r"[A-Za-z0-9/_][A-Za-z0-9/._-]{0,254}\Z")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\Z")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}\Z")

#: Longest text that a variable may be, in characters, unless its rule says less.
_LONGEST = 4096
_DAY = 86_400

#: Variables of the collection that are no options of the role ``image``.
OTHERS = frozenset(["orbit_chosen", "orbit_run", "orbit_report", "orbit_again"])


class SettingsError(Exception):
    """Variables have values that cannot be meant.

    :ivar mistakes: one sentence for each: variable, value, remedy.
    :ivar resolved: what :func:`resolve` would have returned, with None for the values that are wrong.
    """

    def __init__(self, mistakes: t.Sequence[str], resolved: dict[str, t.Any]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = list(mistakes)
        self.resolved = resolved


@functools.lru_cache(maxsize=1)
def specification() -> dict[str, dict[str, t.Any]]:
    """Return the options of the role ``image`` as its argument specification has them."""
    with open(_SPECIFICATION, encoding="utf-8") as stream:
        options: dict[str, dict[str, t.Any]] = yaml.safe_load(stream)["argument_specs"]["main"]["options"]
    return options


@functools.lru_cache(maxsize=1)
def _validator() -> ArgumentSpecValidator:
    # Only what a validator needs: the specification also holds documentation.
    keys = ("type", "elements", "choices", "default")
    return ArgumentSpecValidator(
        {name: {k: spec[k] for k in keys if k in spec} for name, spec in specification().items()}
    )


# -- ranges and formats

#: Says what is wrong with a value, and the remedy; "" when nothing is.
Rule = t.Callable[[t.Any], str]


def _number(least: float, most: float, unit: str) -> Rule:
    def rule(value: t.Any) -> str:
        # Neither NaN nor infinity is in any range.
        if least <= value <= most:
            return ""
        return f"which is not from {least:g} to {most:g} {unit}. Give a number in that range"

    return rule


def _text(pattern: re.Pattern[str], what: str, remedy: str) -> Rule:
    def rule(value: t.Any) -> str:
        if pattern.match(value) and ".." not in value:
            return ""
        return f"which is no {what}. {remedy}"

    return rule


def _one_line(what: str, remedy: str) -> Rule:
    def rule(value: t.Any) -> str:
        if value and value.isprintable() and value == value.strip() and len(value) <= _LONGEST:
            return ""
        return f"which is no {what}. {remedy}"

    return rule


def _each(rule: Rule) -> Rule:
    def of_all(value: t.Any) -> str:
        if not value:
            return "which is empty. Name at least one, or leave the variable out"
        return next((said for said in map(rule, value) if said), "")

    return of_all


def _url(value: t.Any) -> str:
    try:
        path = check_url(value).partition("://")[2].partition("/")[2]
    except ServiceError as error:
        return f"but {error}"
    if path:
        return f"which has the path /{path}. Give the address of the service alone, such as http://pxe:5012"
    return ""


def _raises(parse: t.Callable[[str], object]) -> Rule:
    def rule(value: t.Any) -> str:
        try:
            parse(value)
        except ValueError as error:
            return f": {error}"
        return ""

    return rule


def _anything(_value: t.Any) -> str:
    """For choices and switches, which the type checks whole, and for what the planner checks itself."""
    return ""


def _image(value: t.Any) -> str:
    return "" if names.is_image_name(value) else f"which is no image name. Use {names.IMAGE_NAME_RULE}"


def _folder(value: t.Any) -> str:
    wrong = _one_line("folder", "Give the path of a folder on the control host")(value)
    if not wrong and (value.startswith("~") or "$" in value):
        return "in which a home or a variable of the environment is unknown. Give the path of a folder"
    return wrong


def _whole_path(value: t.Any) -> str:
    wrong = _one_line("path", "Give the path of a file or folder of certificates")(value)
    if not wrong and not value.startswith("/"):
        return "which is no whole path, and not every process that reads it has the same folder. Give one"
    return wrong


_FILE_ON_NODE = _one_line("path of a file", "Give the path of a file on the node, on one line")

#: What each variable must be beyond its type. Every option of the specification stands here.
RULES: dict[str, Rule] = {
    "orbit_image": _image,
    "orbit_nodes": _anything,
    "orbit_memory_image": _image,
    "orbit_domain": _text(_HOST, "domain", "Give a name such as sb1.orbit-lab.org"),
    "orbit_hrn": _anything,
    "orbit_x": _number(1, 254, "(a coordinate)"),
    "orbit_y": _number(1, 254, "(a coordinate)"),
    "orbit_control_ip": _anything,
    "orbit_disk": _text(
        _DISK, "path that can be used", "Give the whole path of a device, for example /dev/sda"
    ),
    "orbit_disk_type": _anything,
    "orbit_disk_serial": _one_line("serial number", "Give it as the kernel of the node tells it, in quotes"),
    "orbit_disk_min_size": _raises(sizes.parse),
    "orbit_pxe_url": _url,
    "orbit_frisbee_url": _url,
    "orbit_cmc_url": _url,
    "orbit_dialect": _anything,
    "orbit_user": _text(_USER, "login name", "Give the name of a user of the frisbee service's host"),
    "orbit_service_token": _anything,
    "orbit_service_ca": _whole_path,
    "orbit_validate_certs": _anything,
    "orbit_service_timeout": _number(1, _DAY, "seconds"),
    "orbit_console": _text(
        _HOST, "host name", "Give the name of a host, or leave it out for the control host"
    ),
    "orbit_power_window": _number(1, 100_000, "nodes"),
    "orbit_power_interval": _number(0, _DAY, "seconds"),
    "orbit_power_verify": _anything,
    "orbit_client": _text(
        _CLIENT, "path that can be used", "Give the path of the frisbee client on the node"
    ),
    "orbit_verify": _anything,
    "orbit_resume": _anything,
    "orbit_memory_markers": _each(_FILE_ON_NODE),
    "orbit_memory_id": _one_line("text of a marker", "Give the text with which the marker file begins"),
    "orbit_boot_timeout": _number(1, _DAY, "seconds"),
    "orbit_gather": _number(0, _DAY, "seconds"),
    "orbit_stall_timeout": _number(1, _DAY, "seconds"),
    "orbit_retries": _number(0, 100, "tries"),
    "orbit_boot": _anything,
    "orbit_identity_files": _each(_FILE_ON_NODE),
    "orbit_identity": _one_line("identity", "Give the text that the system's identity file has"),
    "orbit_quorum": _raises(quorum.parse),
    "orbit_voice": _number(0.1, _DAY, "seconds"),
    "orbit_run_dir": _folder,
    "orbit_claim_dir": _folder,
}

#: Texts that people also write as a bare number, which YAML then reads as that number.
_NUMBERS_TOO = ("orbit_quorum", "orbit_disk_min_size")

# The one spelling of values that can be written in several ways. Values are compared (nodes of one service
# share a stream), and the guard, which has a working folder of its own, uses the same folders.
_ONE_SPELLING: dict[str, t.Callable[[str], str]] = {
    "orbit_pxe_url": check_url,
    "orbit_frisbee_url": check_url,
    "orbit_cmc_url": check_url,
    "orbit_run_dir": os.path.abspath,
    "orbit_claim_dir": os.path.abspath,
}

# Ansible cannot convert numbers beyond what a float holds.
_LARGEST = 1e300


def _wrong_kind(name: str, spec: t.Mapping[str, t.Any], value: t.Any) -> str:
    """Say what YAML has made of a value that was meant as something else; "" when it has the right kind.

    Ansible would convert these silently: the serial number 0123456 is the number 42798 by then, ``no`` is
    false.
    """
    kind = spec.get("type", "str")
    if kind in ("str", "path") and not isinstance(value, str):
        if name in _NUMBERS_TOO and isinstance(value, int) and not isinstance(value, bool):
            return ""
        if isinstance(value, dict) and "changed" in value:
            return "which is the result of a task, not a text. Give what is meant of it, such as its stdout"
        return f"which YAML reads as {_kind_of(value)}, not as text. Put the value in quotes"
    if kind in ("int", "float") and (isinstance(value, bool) or not isinstance(value, (int, float, str))):
        return f"which is {_kind_of(value)}, not a number. Give a number"
    if kind == "bool" and not isinstance(value, (bool, int, float, str)):
        return f"which is {_kind_of(value)}, not a yes or no. Say true or false"
    if kind in ("int", "float") and _is_boundless(value):
        return RULES[name](math.inf)
    if kind == "list" and isinstance(value, dict):
        return "which is a mapping, not a list. Give a list"
    if kind == "list" and isinstance(value, list):
        odd = next((item for item in value if not isinstance(item, str)), None)
        if odd is not None:
            return f"in which {odd!r} is {_kind_of(odd)}, not text. Put it in quotes"
    return ""


def _is_boundless(value: t.Any) -> bool:
    """Whether ``value`` is a number, or a text that says one, which Ansible cannot convert."""
    try:
        return not abs(float(value)) < _LARGEST
    except OverflowError:
        return True
    except (TypeError, ValueError):
        return False


def _whole(value: float | str) -> float | str:
    """Return the whole number that ``value`` is, however it is written; what is none stays as it is.

    ansible-core 2.17 takes neither 3.0 nor "3.0" for one, as later versions do. ``-e`` makes a text of both.
    """
    with contextlib.suppress(decimal.DecimalException):
        number = decimal.Decimal(value)
        if number == int(number):
            return int(number)
    return value


def _kind_of(value: t.Any) -> str:
    # In this order: a truth is a number, too. What ansible-core adds to a type is nothing for people.
    kinds: dict[type, str] = {
        bool: "a yes or no",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a mapping",
        datetime.date: "a date",
    }
    return next((words for kind, words in kinds.items() if isinstance(value, kind)), "something else")


def image_mistake(value: t.Any) -> str:
    """Return, as a sentence, why what ``image`` says is no image name; "" when it is one."""
    spec = {"type": "str"}
    wrong = _wrong_kind("image", spec, value)
    if wrong:
        return _sentence("image", spec, value, wrong)
    return f"image: {_shown(value)} is no image name. Use {names.IMAGE_NAME_RULE}." if _image(value) else ""


def resolve(values: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Give every ``orbit_`` variable its type, and its default where ``values`` has none.

    :raises SettingsError: with one sentence for each variable that is wrong.
    """
    mistakes = _misspelt(values)
    bad: dict[str, None] = {}
    given: dict[str, t.Any] = {}
    for name, spec in specification().items():
        if name not in values:
            continue
        value = values[name]
        if value is None:
            if spec.get("default") is not None:
                mistakes.append(
                    f"{name} is empty. Give it a value, or leave it out for {_shown(spec['default'])}."
                )
            continue
        wrong = _wrong_kind(name, spec, value)
        if wrong:
            mistakes.append(_sentence(name, spec, value, wrong))
            bad[name] = None
        else:
            given[name] = _whole(value) if spec.get("type") == "int" else value
    result = _validator().validate(given)
    resolved = {**result.validated_parameters, **bad}
    for name in given if result.error_messages else ():
        # One by one, so that every message names its variable and value and no bad one hides another.
        alone = _validator().validate({name: given[name]})
        resolved[name] = alone.validated_parameters.get(name)
        if alone.error_messages:
            wrong = alone.error_messages[0]
            mistakes.append(_sentence(name, specification()[name], given[name], f"but {wrong}"))
            resolved[name] = None
    for name in given:
        wrong = RULES[name](resolved[name]) if resolved[name] is not None else ""
        if wrong:
            mistakes.append(_sentence(name, specification()[name], given[name], wrong))
            resolved[name] = None
    for name, spelling in _ONE_SPELLING.items():
        if resolved.get(name):
            resolved[name] = spelling(resolved[name])
    if tokens.mistake(resolved.get(tokens.VARIABLE)):
        mistakes.append(tokens.mistake(resolved[tokens.VARIABLE]))
    if mistakes:
        raise SettingsError(mistakes, {**dict.fromkeys(specification()), **resolved})
    return resolved


def _sentence(name: str, spec: t.Mapping[str, t.Any], value: t.Any, wrong: str) -> str:
    shown = "(not shown)" if spec.get("no_log") else _shown(value)
    if wrong.startswith(": "):
        # The reason quotes the value itself.
        return f"{name}{wrong.rstrip('.')}."
    return f"{name} is {shown}, {wrong.rstrip('.')}."


def _shown(value: t.Any) -> str:
    text = str(value) if isinstance(value, datetime.date) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _misspelt(values: t.Mapping[str, t.Any]) -> list[str]:
    """Return a sentence for each variable that looks like one of ours and is none."""
    known = set(specification())
    found = []
    for name in values:
        if not name.startswith("orbit_") or name in known or name in OTHERS:
            continue
        near = difflib.get_close_matches(name, known, 1, 0.8)
        if near:
            found.append(f"{name} is no variable of this role. Write {near[0]}, if that is meant.")
    return found
