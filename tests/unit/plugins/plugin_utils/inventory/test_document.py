# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.inventory.document import (
    Document,
    Mistake,
    read_text,
)

TEXT = "a: 1\nb:\n  c: [x, y]\n  d: {e: 2}\n"


@pytest.mark.parametrize(
    ("path", "position"),
    [
        ((), (1, 1)),
        (("a",), (1, 1)),
        (("b", "c"), (3, 3)),
        (("b", "c", 1), (3, 10)),
        (("b", "d", "e"), (4, 7)),
        (("b", "gone"), (2, 1)),
        (("b", "c", 7), (3, 3)),
        (("a", "deeper"), (1, 1)),
    ],
)
def test_positions(path, position):
    assert Document(TEXT).position(path) == position


def test_an_encrypted_file_tells_no_positions():
    document = Document("$ANSIBLE_VAULT;1.1;AES256\n3132\n")
    document.refuse_twins()
    assert document.position(("a",)) == (0, 0)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 0, "the file is empty"),
        ("# a\n\n", 0, "the file is empty"),
        ("a: 1\nb: ]\n", 2, "is not YAML"),
        ("a: 1\n\tb: 1\n", 2, "is not YAML"),
        ("a: 1\n\nb: \0\n", 3, "it has the character '\\x00'"),
        ("a: *b\n", 1, "is not YAML: found undefined alias"),
        ("{" * 5000, 0, "nested too deeply"),
    ],
)
def test_what_is_no_document(text, line, message):
    with pytest.raises(Mistake) as caught:
        Document(text)
    assert caught.value.line == line
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", 3),
        ("a: {b: 1,\n  b: 2}\n", 2),
        ("- a: 1\n- {c: 1, 'c': 2}\n", 2),
    ],
)
def test_twins(text, line):
    with pytest.raises(Mistake, match="is there twice") as caught:
        Document(text).refuse_twins()
    assert caught.value.line == line


@pytest.mark.parametrize("text", [TEXT, "a: &x {b: *x}\n", "1: a\n'1': b\n", "? [a]\n: 1\n? [a, b]\n: 2\n"])
def test_no_twins(text):
    Document(text).refuse_twins()


def test_files(tmp_path):
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert read_text(str(tmp_path / "marked")) == "a: 1\r\n"
    (tmp_path / "binary").write_bytes(b"a\nb\n\x80")
    with pytest.raises(Mistake, match="no text") as caught:
        read_text(str(tmp_path / "binary"))
    assert caught.value.line == 3
    with pytest.raises(Mistake, match="No such file"):
        read_text(str(tmp_path / "gone"))
