# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

from orbit_frisbee.ndz import manifest, zip_cli
from orbit_testbed.nodes import diskimage


def test_an_image_comes_with_its_manifest(tmp_path: Path) -> None:
    source, target = tmp_path / "made", tmp_path / "x.ndz"
    (tmp_path / "disk").write_bytes(bytes(range(256)) * 40)
    assert zip_cli.main(["-r", "--no-manifest", str(tmp_path / "disk"), str(source)]) == 0
    sidecar = manifest.path_of(target)
    diskimage.copy_unless_same(source, target, "a system")
    known = manifest.read(sidecar)
    assert manifest.belongs(known, target)
    before = sidecar.stat().st_mtime_ns, sidecar.stat().st_ino
    diskimage.copy_unless_same(source, target, "a system")
    assert (sidecar.stat().st_mtime_ns, sidecar.stat().st_ino) == before
    (tmp_path / "disk").write_bytes(bytes(range(256)) * 44)
    assert zip_cli.main(["-r", "--no-manifest", str(tmp_path / "disk"), str(source)]) == 0
    diskimage.copy_unless_same(source, target, "a system")
    assert manifest.read(sidecar) != known
    assert manifest.belongs(manifest.read(sidecar), target)
    sidecar.write_bytes(b"damaged")
    diskimage.copy_unless_same(source, target, "a system")
    assert manifest.belongs(manifest.read(sidecar), target)
    assert manifest.read(sidecar).identity == "a system"
    diskimage.copy_unless_same(source, target, "another")
    assert manifest.read(sidecar).identity == "another"
