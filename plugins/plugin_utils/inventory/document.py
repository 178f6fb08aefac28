# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The text of an inventory file, and where in it everything is."""

from __future__ import annotations

import typing as t

import yaml

#: Keys that lead to a place in a YAML file.
Path = t.Tuple[t.Union[str, int], ...]

_VAULT = "$ANSIBLE_VAULT;"
#: Tag of the key ``<<``, which may be there for each mapping that is merged.
_MERGE = "tag:yaml.org,2002:merge"


class Mistake(Exception):
    """Something in an inventory file is not acceptable.

    :param message: what is wrong, without the file's name.
    :param path: keys that lead to it.
    :param remedy: what to write instead.
    :param line: line of it, from 1, when no keys lead there; 0 when unknown.
    :param column: column of it, from 1; 0 when unknown.
    """

    def __init__(
        self, message: str, path: Path = (), remedy: str = "", *, line: int = 0, column: int = 0
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.remedy = remedy
        self.line = line
        self.column = column


def read_text(path: str) -> str:
    """Return the text of a file, without the mark of the byte order that some editors put first.

    :raises Mistake: when it cannot be read, or is no text.
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except OSError as error:
        raise Mistake(f"cannot be read: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Mistake("is no text in UTF-8", remedy="Save it as UTF-8", line=line) from error


class Document:
    """A YAML text.

    A file that is encrypted as a whole has no places: Ansible decrypts it, and tells no positions.

    :param text: content of the file.
    :raises Mistake: when it is empty or not YAML.
    """

    def __init__(self, text: str) -> None:
        self._root: yaml.Node | None = None
        if text.startswith(_VAULT):
            return
        try:
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
            raise Mistake(f"is not YAML: {error.problem}", line=line, column=column) from error
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise Mistake(
                f"is not YAML: it has the character {chr(int(error.character))!r}", line=line
            ) from error
        except RecursionError as error:
            raise Mistake("is nested too deeply") from error
        if self._root is None:
            raise Mistake("the file is empty")

    def position(self, path: Path) -> tuple[int, int]:
        """Return line and column, from 1, of the key or item to which ``path`` leads.

        If it is not there, those of the last one on the way; (0, 0) when nothing is known.
        """
        node = self._root
        if node is None:
            return 0, 0
        mark = node.start_mark
        for key in path:
            if isinstance(node, yaml.MappingNode):
                found = next(((k, value) for k, value in node.value if str(k.value) == str(key)), None)
                if found is None:
                    break
                mark, node = found[0].start_mark, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                mark = node.start_mark
            else:
                break
        return mark.line + 1, mark.column + 1

    def refuse_twins(self) -> None:
        """Refuse a mapping that has a key twice, of which YAML would take the last without a word.

        :raises Mistake: naming key, line and the line of the first.
        """
        seen: set[int] = set()
        waiting = [self._root]
        while waiting:
            node = waiting.pop()
            # An alias is the node it stands for once more, perhaps within itself.
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                waiting += node.value
            elif isinstance(node, yaml.MappingNode):
                self._refuse_twins_of(node)
                waiting += [value for _key, value in node.value]

    @staticmethod
    def _refuse_twins_of(mapping: yaml.MappingNode) -> None:
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _value in mapping.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            other = first.setdefault((key.tag, key.value), key)
            if other is not key:
                mark = key.start_mark
                raise Mistake(
                    f"the key '{key.value}' is there twice, first in line {other.start_mark.line + 1}",
                    remedy="Join the two, or rename one",
                    line=mark.line + 1,
                    column=mark.column + 1,
                )
