# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images' manifests over HTTP: below ``/orbit/``, beside what the historic services have."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orbit_frisbee.ndz.manifest import MAX_SIZE, SUFFIX, Manifest, ManifestError, belongs, parse, path_of

from .config import is_safe_name

#: Verdicts remembered; each stands for a manifest and an image that have not changed since.
_REMEMBERED = 1024
_REMEDY = "make it again: imagezip --manifest"

_Key = tuple[int, ...]


class Refused(Exception):
    """A manifest cannot be given; ``status`` is the HTTP status, the text names image, reason and remedy."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Manifests:
    """Finds, checks and gives out the manifests of the images in one folder.

    Whether a manifest belongs to its image is told by size and time stamp, or else by the digest of the whole
    image, which takes its time and is therefore remembered.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._verdicts: OrderedDict[_Key, bool] = OrderedDict()

    def routes(self) -> list[Route]:
        """Return the routes: ``/orbit/images`` and ``/orbit/images/<name>/manifest``."""
        return [
            Route("/orbit/images", self._list),
            Route("/orbit/images/{name}/manifest", self._give),
        ]

    async def _list(self, request: Request) -> Response:
        return JSONResponse({"images": await asyncio.to_thread(self.listing)})

    async def _give(self, request: Request) -> Response:
        try:
            text = await asyncio.to_thread(self.text, request.path_params["name"])
        except Refused as refused:
            return JSONResponse({"error": str(refused)}, status_code=refused.status)
        return Response(text, media_type="application/x-ndjson")

    def text(self, name: str) -> bytes:
        """Return the manifest of an image as it is in its file. Raises :class:`Refused`."""
        image = self._image(name)
        text, manifest, key = self._read(image)
        if not self._belongs(image, manifest, key):
            raise Refused(
                409, f"{path_of(image)}: does not belong to the image as it is now; {_REMEDY} {image}"
            )
        return text

    def listing(self) -> list[dict[str, Any]]:
        """Return name, size (bytes) and manifest of every image, as plain data.

        ``manifest`` is ``none``, ``belongs``, ``foreign`` (of another content), ``unusable``, or
        ``unknown``: the time stamps differ and nobody has asked for it since, so the
        digests were not compared.
        """
        found = []
        for image in sorted(self._folder.iterdir() if self._folder.is_dir() else ()):
            if (
                not is_safe_name(image.name)
                or image.name.endswith((SUFFIX, ".partial"))
                or not image.is_file()
            ):
                continue
            state, error = self._state(image)
            found.append(
                {"name": image.name, "size": image.stat().st_size, "manifest": state, "error": error}
            )
        return found

    def _state(self, image: Path) -> tuple[str, str | None]:
        if not os.path.exists(path_of(image)):
            return "none", None
        try:
            _, manifest, key = self._read(image)
        except Refused as refused:
            return "unusable", str(refused)
        state = image.stat()
        unread = state.st_size == manifest.size and state.st_mtime_ns != manifest.mtime_ns
        if unread and key not in self._verdicts:
            return "unknown", None
        return ("belongs", None) if self._belongs(image, manifest, key) else ("foreign", None)

    def _image(self, name: str) -> Path:
        if not is_safe_name(name):
            raise Refused(400, f"{name!r} is no image's name; give a plain file name")
        image = self._folder / name
        # Not Path.is_file, which fails on a name that is too long for a file.
        if name.endswith(SUFFIX) or not os.path.isfile(image):
            raise Refused(404, f"{image}: there is no such image")
        return image

    def _read(self, image: Path) -> tuple[bytes, Manifest, _Key]:
        path = path_of(image)
        if not os.path.exists(path):
            raise Refused(404, f"{path}: the image has no manifest; make it: imagezip --manifest {image}")
        if not path.resolve().is_relative_to(self._folder.resolve()) or not path.is_file():
            raise Refused(403, f"{path}: is no file of the image folder; {_REMEDY} {image}")
        try:
            with path.open("rb") as file:
                own, state = os.fstat(file.fileno()), image.stat()
                text = file.read(MAX_SIZE + 1)
            manifest = parse(text, str(path))
        except OSError as error:
            raise _unreadable(path, error) from None
        except ManifestError as error:
            raise Refused(409, str(error)) from None
        return (
            text,
            manifest,
            tuple(number for s in (own, state) for number in (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns)),
        )

    def _belongs(self, image: Path, manifest: Manifest, key: _Key) -> bool:
        verdict = self._verdicts.get(key)
        if verdict is None:
            try:
                verdict = belongs(manifest, image)
            except OSError as error:
                raise _unreadable(image, error) from None
            self._verdicts[key] = verdict
            if len(self._verdicts) > _REMEMBERED:
                self._verdicts.popitem(last=False)
        return verdict


def _unreadable(path: Path, error: OSError) -> Refused:
    """Tell what is not there (404) or not for us (403) from what only cannot be read now (503)."""
    status = {FileNotFoundError: 404, PermissionError: 403}.get(type(error), 503)
    return Refused(status, f"{path}: {(error.strerror or str(error)).lower()}")
