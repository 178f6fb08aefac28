# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run needs to know of an image's manifest.

A manifest is text, a JSON object per line: the first is about the image, then comes one for each chunk, the
last has the SHA-256 of all lines before it. That digest tells whether the text is whole; the client on the
node checks every single line.
"""

from __future__ import annotations

import hashlib
import re
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.service import parse_json

#: Bytes of the largest manifest that imagezip makes, that is fetched, and that is handed to nodes.
MAX_SIZE = 64 * 1024 * 1024
SECTOR = 512
CHUNK = 1024 * 1024
#: Characters of the longest identity.
MAX_IDENTITY = 255

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class ManifestError(ValueError):
    """The text is no manifest, or a damaged one; the message says why."""


class Manifest(t.NamedTuple):
    """A manifest in short.

    :ivar digest: SHA-256 of the image file.
    :ivar size: bytes of the image file.
    :ivar chunks: number of its chunks.
    :ivar disk_bytes: bytes a disk must have so that all data of the image lies on it.
    :ivar identity: what the installed system calls itself; "" when the manifest does not say.
    """

    digest: str
    size: int
    chunks: int
    disk_bytes: int
    identity: str


def parse(text: bytes) -> Manifest:
    """Return what a manifest says of its image.

    :raises ManifestError: when it is no manifest, damaged, or of a version that is not known.
    """
    if len(text) > MAX_SIZE:
        raise ManifestError(f"larger than {MAX_SIZE} bytes")
    lines = text.split(b"\n")
    if len(lines) < 4 or lines.pop():
        raise ManifestError("is no manifest, or cut off")
    head = _fields(lines[0])
    if head.get("manifest") != "orbit.imaging":
        raise ManifestError("is no manifest of an image")
    if repr(head.get("version")) != "1" or head.get("algorithm") != "sha256":
        raise ManifestError(
            f"version {head.get('version')!r} with {head.get('algorithm')!r} digests is not known"
        )
    body = memoryview(text)[: len(text) - len(lines[-1]) - 1]
    if _fields(lines[-1]).get("end") != hashlib.sha256(body).hexdigest():
        raise ManifestError("damaged: the digest in its last line is another")
    chunks, size = head.get("chunks"), head.get("size")
    if not _is_whole(chunks) or chunks != len(lines) - 2 or size != chunks * CHUNK:
        raise ManifestError(f"{size!r} bytes, {chunks!r} chunks and {len(lines)} lines do not go together")
    digest, identity = head.get("digest"), head.get("identity", "")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ManifestError("the image's digest is no SHA-256")
    if not isinstance(identity, str) or not _is_identity(identity):
        raise ManifestError("the identity is no name")
    return Manifest(digest, chunks * CHUNK, chunks, _end(_fields(lines[-2])) * SECTOR, identity)


def _is_whole(value: t.Any) -> bool:
    """Whether a value of JSON is a whole number; in Python, true and false are numbers, too."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_identity(text: str) -> bool:
    return len(text) <= MAX_IDENTITY and text.isprintable() and text == text.strip()


def _end(chunk: t.Mapping[str, t.Any]) -> int:
    """Return the first sector behind a chunk's data."""
    try:
        start, count = chunk["regions"][-1]
        if _is_whole(start) and _is_whole(count) and start >= 0 and count > 0:
            return int(start + count)
    except (KeyError, IndexError, TypeError, ValueError):
        pass
    raise ManifestError("its last chunk has no regions")


def _fields(line: bytes) -> t.Dict[str, t.Any]:
    try:
        found = parse_json(line if line.isascii() else b"")
    except ValueError:
        raise ManifestError("a line of it is not JSON") from None
    if not isinstance(found, dict):
        raise ManifestError("a line of it is no JSON object")
    return found
