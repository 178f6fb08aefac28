# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory image of light nodes: what its programs find there."""

from __future__ import annotations

import os
import subprocess

import pytest

from orbit_frisbee.ndz import libdeflate
from orbit_testbed.nodes.memoryimage import RUNTIME_AT
from orbit_testbed.tiers.light import memory as light_memory


def run(image: light_memory.MemoryImage, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the Python of the image as it is run on a node."""
    home = image.runtime / RUNTIME_AT
    (loader,) = (home / "lib.so").glob("ld*")
    return subprocess.run(
        [str(loader), "--library-path", str(home / "lib.so"), str(home / "bin/python"), "-S", *arguments],
        env={"PYTHONHOME": str(home), "PYTHONPATH": str(home / "site"), "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> light_memory.MemoryImage:
    folder = tmp_path_factory.mktemp("image")
    (folder / "key").write_text("stands for one")
    return light_memory.build(folder / "cache", hostkey=folder / "key", authorized_key="ssh-ed25519 x")


@pytest.mark.skipif(libdeflate.load() is None, reason="libdeflate is not installed here")
def test_nodes_inflate_as_fast_as_this_machine(image: light_memory.MemoryImage) -> None:
    done = run(image, "-c", "from orbit_frisbee.ndz import libdeflate; print(libdeflate.load())")
    assert "CDLL" in done.stdout, done.stderr


def test_a_lossy_client_needs_nothing_else_of_the_testbed(image: light_memory.MemoryImage) -> None:
    done = run(image, "-m", "orbit_testbed.tiers.light.lossy", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: frisbee ")
    ours = image.runtime / RUNTIME_AT / "site/orbit_testbed"
    assert sorted(str(path.relative_to(ours)) for path in ours.rglob("*.py")) == [
        "__init__.py",
        "tiers/__init__.py",
        "tiers/light/__init__.py",
        "tiers/light/lossy.py",
    ]
