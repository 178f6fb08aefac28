# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images' manifests below /orbit/: given out as they are, or refused with the reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orbit_frisbee.frisbee import fetch
from orbit_frisbee.ndz import manifest, zip_cli
from orbit_frisbee.ndz.manifest import ManifestError
from orbit_services.dialects import DIALECTS

from .stand import World

MakeWorld = Callable[..., World]


@pytest.fixture
def world(make_world: MakeWorld, tmp_path: Path) -> World:
    world = make_world()
    (tmp_path / "disk").write_bytes(os.urandom(700 * 512))
    image = str(world.config.image_dir / "real.ndz")
    assert zip_cli.main(["-r", "--identity", "baseline 5.4", str(tmp_path / "disk"), image]) == 0
    return world


def refused(world: World, name: str) -> tuple[int, str]:
    reply = world.send("A", f"/orbit/images/{name}/manifest")
    return reply.status, json.loads(reply.text)["error"]


def listed(world: World) -> dict[str, str]:
    images = json.loads(world.send("A", "/orbit/images").text)["images"]
    return {image["name"]: image["manifest"] for image in images}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_client_gets_it_from_every_dialect(world: World, dialect: str) -> None:
    url = f"http://127.0.0.1:{world.stand.ports[dialect]}/orbit/images/real.ndz/manifest"
    found = fetch.from_url(url)
    image = world.config.image_dir / "real.ndz"
    assert found == manifest.read(manifest.path_of(image)) == manifest.of_image(image, "baseline 5.4")
    assert found.identity == "baseline 5.4"
    assert found.size == image.stat().st_size


def test_the_list_tells_which_images_have_one(world: World) -> None:
    assert listed(world) == {
        "baseline.ndz": "none",
        "other.ndz": "none",
        "third.ndz": "none",
        "real.ndz": "belongs",
    }


def test_a_copied_image_is_told_by_its_digest(world: World) -> None:
    image = world.config.image_dir / "real.ndz"
    os.utime(image, (1, 1))
    assert listed(world)["real.ndz"] == "unknown"
    assert world.send("A", "/orbit/images/real.ndz/manifest").status == 200
    assert listed(world)["real.ndz"] == "belongs"


@pytest.mark.parametrize("change", ["content", "size"])
def test_a_manifest_of_another_image_is_refused(world: World, change: str) -> None:
    image = world.config.image_dir / "real.ndz"
    assert world.send("A", "/orbit/images/real.ndz/manifest").status == 200
    with image.open("r+b") as file:
        file.seek(5000 if change == "content" else image.stat().st_size)
        file.write(b"other")
    os.utime(image, (1, 1))
    status, error = refused(world, "real.ndz")
    assert status == 409
    assert "real.ndz.manifest: does not belong to the image as it is now; make it again: imagezip" in error
    assert listed(world)["real.ndz"] == "foreign"
    url = f"http://127.0.0.1:{world.stand.ports['E2']}/orbit/images/real.ndz/manifest"
    with pytest.raises(ManifestError, match=r"the service answers 409 Conflict: .*does not belong"):
        fetch.from_url(url)


def test_a_damaged_manifest_is_refused(world: World) -> None:
    path = manifest.path_of(world.config.image_dir / "real.ndz")
    path.write_bytes(path.read_bytes().replace(b'"first":0', b'"first":1'))
    status, error = refused(world, "real.ndz")
    assert (status, "damaged" in error) == (409, True)
    assert listed(world)["real.ndz"] == "unusable"


def test_nothing_outside_the_image_folder_is_read(world: World, tmp_path: Path) -> None:
    folder = world.config.image_dir
    secret = manifest.path_of(folder / "real.ndz").rename(tmp_path / "outside.ndz.manifest")
    (tmp_path / "outside.ndz").write_bytes((folder / "real.ndz").read_bytes())
    for name, status in (
        ("..%2Foutside.ndz", 404), ("..", 400), ("sub%2Fnested.ndz", 404), ("nothing.ndz", 404),
        ("real.ndz%00", 400), ("a%20b", 400), ("sub", 404), ("baseline.ndz", 404),
    ):  # fmt: skip
        reply = world.send("A", f"/orbit/images/{name}/manifest")
        assert (name, reply.status, set(json.loads(reply.text))) == (name, status, {"error"})
    manifest.path_of(folder / "real.ndz").symlink_to(secret)
    assert refused(world, "real.ndz")[0] == 403
    manifest.path_of(folder / "real.ndz").unlink()
    assert refused(world, "real.ndz")[1].endswith(
        "has no manifest; make it: imagezip --manifest " + str(folder / "real.ndz")
    )
