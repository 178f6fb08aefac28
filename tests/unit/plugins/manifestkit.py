# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Manifests as imagezip writes them, of images that need not exist."""

from __future__ import annotations

import hashlib
import json
import typing as t

DIGEST = "ab" * 32
_SAME = object()


def make(
    *, count: int = 1, end: int = 2048, regions: t.Any = _SAME, chunk_bytes: int = 512, **head: t.Any
) -> bytes:
    """Return a manifest of an image whose data end before sector ``end``; ``head`` changes its first line.

    ``chunk_bytes`` is how many bytes of data each chunk has.
    """
    first = {
        "manifest": "orbit.imaging",
        "version": 1,
        "algorithm": "sha256",
        "image_version": 2,
        "size": count << 20,
        "mtime_ns": 0,
        "chunks": count,
        "digest": DIGEST,
        **head,
    }
    lines = [first]
    for number in range(count):
        place = [[end - count + number, 1]] if regions is _SAME else regions
        lines.append(
            {"chunk": number, "digest": DIGEST, "regions": place, "bytes": chunk_bytes, "data": DIGEST}
        )
    body = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
    return body + json.dumps({"end": hashlib.sha256(body).hexdigest()}).encode() + b"\n"
