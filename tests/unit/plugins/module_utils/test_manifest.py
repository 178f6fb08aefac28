# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import manifest
from ansible_collections.orbit.imaging.plugins.module_utils.manifest import Manifest, ManifestError, parse

from ..manifestkit import DIGEST, make


def test_what_a_run_needs():
    assert parse(make(count=3, end=4096)) == Manifest(DIGEST, 3 << 20, 3, 4096 * 512, "")
    assert parse(make(identity="Größe 5.4")).identity == "Größe 5.4"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"manifest": "other"}, "no manifest of an image"),
        ({"version": 2}, "version 2"),
        ({"version": True}, "version True"),
        ({"algorithm": "md5"}, "'md5' digests"),
        ({"chunks": 2}, "do not go together"),
        ({"chunks": "1"}, "do not go together"),
        ({"size": 5}, "do not go together"),
        ({"digest": "x"}, "no SHA-256"),
        ({"digest": None}, "no SHA-256"),
        ({"identity": "two\nlines"}, "no name"),
        ({"identity": " x"}, "no name"),
        ({"identity": "x" * 256}, "no name"),
        ({"identity": 5}, "no name"),
    ],
)
def test_a_wrong_head_is_refused(change, words):
    with pytest.raises(ManifestError, match=words):
        parse(make(**change))


@pytest.mark.parametrize("regions", [None, [], [[1]], [[1, 0]], [[-1, 2]], [["a", 1]], [[1, True]], 5])
def test_a_last_chunk_without_regions_is_refused(regions):
    with pytest.raises(ManifestError, match="last chunk"):
        parse(make(regions=regions))


def test_every_damage_of_the_text_is_noticed():
    text = make(count=2)
    for at in range(len(text)):
        damaged = bytearray(text)
        damaged[at] ^= 1
        with pytest.raises(ManifestError):
            parse(bytes(damaged))
    for size in range(len(text)):
        with pytest.raises(ManifestError):
            parse(text[:size])


def test_too_large_a_text_is_refused(monkeypatch):
    monkeypatch.setattr(manifest, "MAX_SIZE", 10)
    with pytest.raises(ManifestError, match="larger than 10 bytes"):
        parse(make())


@pytest.mark.parametrize(
    "text", [b"", b"\n\n\n\n", b"[]\n[]\n[]\n", b"{}\n{}\n{}\n", b"\xff\n\n\n", b"[" * 10**6 + b"\n\n\n"]
)
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(ManifestError):
        parse(text)
