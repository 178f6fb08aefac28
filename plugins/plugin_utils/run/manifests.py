# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The manifests of a run: where they are kept, what they demand, and what a node is given of them.

The record has a manifest in short, in each node that gets its image; the text is a file in the run's folder.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import os
import typing as t
import zlib

from ansible_collections.orbit.imaging.plugins.module_utils import manifest as texts
from ansible_collections.orbit.imaging.plugins.plugin_utils import private
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Answer, Node, Record

_IN_SHORT = ("digest", "size", "chunks", "disk_bytes", "identity", "path")


class ManifestError(Exception):
    """A manifest cannot be kept or read; the text says why and names the place."""


def store(folder: str, packed: str) -> str:
    """Put a manifest, as the module packs it, into ``folder``; return the path of its file.

    Raises :class:`ManifestError` for what is no manifest and for a folder that cannot be written.
    """
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(base64.b64decode(packed, validate=True), texts.MAX_SIZE + 1)
        texts.parse(text)
    except (binascii.Error, zlib.error, texts.ManifestError) as error:
        raise ManifestError(f"what came from the console is no manifest: {error}") from error
    path = os.path.join(os.path.expanduser(folder), f"{hashlib.sha256(text).hexdigest()}.manifest")
    try:
        private.make_folder(os.path.dirname(path))
        if not os.path.exists(path):
            private.write(path, text)
    except OSError as error:
        raise ManifestError(
            f"cannot be kept in {folder}: {error.strerror}. Make room there, or set orbit_run_dir"
        ) from error
    return path


@functools.lru_cache(maxsize=16)
def read(path: str) -> bytes:
    """Return the text of a manifest that was stored. Raises :class:`ManifestError`."""
    try:
        with open(path, "rb") as stream:
            return stream.read(texts.MAX_SIZE + 1)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error


def unpack(answer: t.Mapping[str, t.Any], folder: str) -> list[str]:
    """Put the manifests that came with an answer of ``frisbee_info`` into files; each is a path afterwards.

    One that cannot be kept is a damaged one, with the reason. Return these, in words.
    """
    mistakes = []
    for image in answer.get("images") or []:
        packed = (image.get("manifest") or {}).pop("packed", None)
        if packed is None:
            continue
        try:
            image["manifest"]["path"] = store(folder, str(packed))
        except ManifestError as error:
            image["manifest"].update(state="damaged", msg=str(error))
            mistakes.append(f"{image['image']}: {error}")
    return mistakes


def learn(record: Record, answers: t.Iterable[Answer]) -> Record:
    """Return the record in which every node has the ``manifest`` of its image, in short.

    Where there is none, it has the reason. ``answers`` are the results of the question for the images, one
    for each batch (``item``).
    """
    for node in record["nodes"].values():
        node["manifest"] = {"state": "absent", "msg": "the service was not asked"}
    for answer in answers:
        said = {entry.get("image"): entry.get("manifest") for entry in answer.get("images") or []}
        for asked in answer["item"]["nodes"]:
            node = record["nodes"][asked["name"]]
            found = said.get(node["image"])
            if found:
                kept = {key: found[key] for key in _IN_SHORT if found.get(key) not in (None, "")}
                node["manifest"] = {"state": found["state"], "msg": found.get("msg", ""), **kept}
    return record


def preflight_errors(record: Record) -> list[str]:
    """Return why images cannot be checked as asked: damaged manifests, and missing ones that must be."""
    found: dict[str, None] = {}
    for node in record["nodes"].values():
        state, reason = node["manifest"]["state"], node["manifest"]["msg"]
        where = f"image {node['image']!r}"
        if state == "damaged" and wanted(node):
            found[f"{where}: {reason}. Or go without: orbit_verify=never, no orbit_resume"] = None
        elif state == "absent" and node["settings"]["orbit_verify"] == "always":
            found[
                f"{where}: orbit_verify is always, but it has no manifest: {reason}. "
                "Make one with imagezip --manifest, or set orbit_verify to auto"
            ] = None
    return list(found)


def wanted(node: Node) -> bool:
    """Whether the node's client shall have the manifest of its image, if there is one."""
    setting = node["settings"]
    return setting["orbit_verify"] != "never" or bool(setting["orbit_resume"])


def expected_identity(node: Node) -> str | None:
    """Return what the node's new system must call itself, ``None`` when nobody knows."""
    return node["settings"]["orbit_identity"] or node.get("manifest", {}).get("identity") or None
