# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is said between a run and its guard, how large that may be, and where the run keeps what it has said.

The notes of a run are also kept in its folder, without tokens: should the guard be killed, the run still
knows what it has to undo.
"""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils import private

Step = t.Literal["link", "serve", "client", "unlink", "stop"]
#: What is known of a use of a stream; see :mod:`.rollback`.
State = t.Literal["intended", "owned", "stopping", "gone"]

#: Bytes of the largest message.
LARGEST = 16 * 1024 * 1024
_NOTES = "notes.jsonl"
_LARGEST_NOTES = 4 * LARGEST
# Nothing that the guard needs is longer, in characters; evidence may be.
_LONGEST_TEXT = 4000


class Asked(t.TypedDict, total=False):
    """A service, and in which words it is asked: URL, dialect, domain, user; time-out in seconds."""

    url: str
    dialect: str
    domain: str
    user: str | None
    timeout: float
    ca_path: str | None
    validate_certs: bool
    token: str | None


class Links(Asked):
    """Nodes (records) that one service links."""

    nodes: list[dict[str, t.Any]]


class Streams(Asked):
    """Images that one service shall send."""

    images: list[str]


class Config(t.TypedDict):
    """What a guard must know of its run.

    ``run``: its identity. ``dir``: its folder. ``user``: login name. ``since``: when it began, seconds since
    1970. ``claims``: names of the nodes by path of their claim. ``skip``: leave out nodes that are claimed.
    ``links``: what the run will link. ``claim_dir``: folder in which the uses of streams are claimed.
    """

    run: str
    dir: str
    user: str
    since: float
    claims: dict[str, str]
    skip: bool
    links: list[Links]
    claim_dir: str


class MoreConfig(Config, total=False):
    """What may be said besides.

    ``resume``: the run had a guard that was killed; take up its notes. ``streams``: with ``resume``, the
    services that send, with their tokens. ``playbooks``: what was run, for the command that runs it again.
    """

    resume: bool
    streams: list[Streams]
    playbooks: list[str]


class FullConfig(MoreConfig):
    """What the guard itself is given: also the process of ansible-playbook, its command and its birth."""

    pid: int
    pidfd: int
    command: str
    born: str


class Result(t.TypedDict, total=False):
    """What became of one node or stream."""

    name: str | None
    image: str | None
    url: str
    dialect: str
    domain: str
    user: str | None
    ok: bool
    port: int | None
    joined: bool | None


class _Note(t.TypedDict):
    say: t.Literal["note"]
    step: Step


class Note(_Note, total=False):
    """A step that begins or, with ``results``, what has come of it.

    ``streams`` belongs to ``serve``, ``nodes`` to ``client``. ``foreign`` is what the guard has found: for
    each image whether others had it sent. ``heard``, in notes that are kept, is false when no guard heard it.
    """

    results: list[Result]
    streams: list[Streams]
    nodes: list[str]
    record: dict[str, t.Any]
    playbooks: list[str]
    foreign: list[bool | None]
    heard: bool


class Answer(t.TypedDict, total=False):
    """What the guard answers.

    ``lost``: nodes whose claim was lost, if any; ``taken``: those of them that another run has now, with its
    name. ``refused``: why a note was not taken, which is no reason
    to end the run. ``warnings``: what a person should know, if anything. ``undone`` and ``left``: what was,
    and what could not be undone, in words. ``skipped`` and ``held``: answers to the start.
    """

    lost: list[str]
    taken: dict[str, str]
    refused: str
    warnings: list[str]
    foreign: list[bool | None]
    undone: list[str]
    left: list[str]
    skipped: dict[str, str]
    held: str
    error: str


_KEYS: dict[str, t.Collection[str]] = {
    "streams": Streams.__annotations__.keys() | Asked.__annotations__.keys(),
    "results": Result.__annotations__.keys(),
}


def encode(message: t.Mapping[str, t.Any]) -> bytes:
    """Return a message as the line that is sent, without what the guard does not need.

    A record in it is shortened or left out when it is too large.

    :raises ValueError: when it is too large nevertheless, or nothing that can be sent.
    """
    essence = _essence(message)
    attempts = [essence]
    if "record" in message:
        attempts = [
            {**essence, "record": message["record"]},
            {**essence, "record": _short(message["record"])},
            essence,
        ]
    for attempt in attempts:
        try:
            line = json.dumps(attempt).encode() + b"\n"
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from error
        if len(line) <= LARGEST:
            return line
    raise ValueError(f"the message is longer than {LARGEST} bytes")


def _essence(message: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    found = {key: value for key, value in message.items() if key != "record"}
    for part, keys in _KEYS.items():
        if isinstance(found.get(part), (list, tuple)):
            found[part] = [
                {key: entry[key] for key in keys if key in entry} if isinstance(entry, t.Mapping) else entry
                for entry in found[part]
            ]
    return t.cast("dict[str, t.Any]", _short(found))


def _short(value: t.Any) -> t.Any:
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]} ..."
    if isinstance(value, t.Mapping):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(item) for item in value]
    return value


def keep(folder: str, note: t.Mapping[str, t.Any], answer: Answer | None) -> None:
    """Add a note to those in the folder of the run; tokens stay out.

    :param answer: of the guard; None when it did not hear the note.
    :raises OSError: when the file cannot be written.
    """
    kept = {**_essence(note), "heard": answer is not None}
    if answer and "foreign" in answer:
        kept["foreign"] = answer["foreign"]
    if isinstance(kept.get("streams"), list):
        kept["streams"] = [
            {key: value for key, value in batch.items() if key != "token"} for batch in kept["streams"]
        ]
    line = json.dumps(kept, default=str).encode() + b"\n"
    descriptor = private.open_to_append(os.path.join(folder, _NOTES))
    try:
        while line:
            line = line[os.write(descriptor, line) :]
    finally:
        os.close(descriptor)


def kept(folder: str) -> tuple[list[Note], str]:
    """Return the notes of the run in ``folder``, and why some could not be read ("" when all were).

    A ``serve`` that no guard heard and of which nothing has come was not begun, and is left out.
    """
    found: list[Note] = []
    trouble = ""
    try:
        descriptor = os.open(os.path.join(folder, _NOTES), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            lines = stream.read(_LARGEST_NOTES).split(b"\n")
    except FileNotFoundError:
        return [], ""
    except OSError as error:
        return [], str(error)
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            note = json.loads(line)
            if note["say"] != "note" or not isinstance(note["step"], str):
                raise ValueError("no note")
            found.append(note)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            # A line that a full disk has cut short.
            trouble = f"{os.path.join(folder, _NOTES)}, line {number}: {error}"
    done = {note["step"] for note in found if "results" in note}
    begun = [
        note
        for note in found
        if "results" in note or note["step"] != "serve" or note.get("heard", True) or "serve" in done
    ]
    return begun, trouble
