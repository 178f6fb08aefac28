# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on the disks is what was sent, on the right disk, and it is the system that was expected."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from .kit import IMAGE, play, program

NODES = {"node1-1": "sender.ndz", "node2-1": "sender.ndz", "node1-2": "receiver.ndz"}
GROUPS = """\
groups:
  senders:
    nodes: "[1..2,1]"
    image: sender.ndz
  receivers:
    nodes: "[1,2]"
    image: receiver.ndz
"""
ONE = ("--limit", "node1-1")
WITHOUT_BOOT = ("-e", '{"orbit_boot": false}')
QUICK = "  orbit_gather: 1\n  orbit_retries: 0\n"


@pytest.fixture
def inventory(testbed):
    return testbed.inventory(GROUPS, variables=QUICK)


@pytest.fixture
def images(testbed):
    return testbed.folder / "state" / "images"


@pytest.fixture
def copy(images):
    """Put copies of an image on the service, with a manifest whose lines a function has changed."""
    made = []

    def _copy(name, change=None):
        image = images / name
        made.extend([image, images / f"{name}.manifest"])
        shutil.copy2(images / "sender.ndz", image)
        if change is not None:
            text = (images / "sender.ndz.manifest").read_text()
            lines = [json.loads(line) for line in text.splitlines()[:-1]]
            change(lines)
            body = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
            end = json.dumps({"end": hashlib.sha256(body).hexdigest()}).encode()
            (images / f"{name}.manifest").write_bytes(body + end + b"\n")
        return name

    yield _copy
    for path in made:
        path.unlink(missing_ok=True)


def nodes_of(played):
    return played.result["nodes"]


@pytest.mark.parametrize("port", [5012, 5054], ids=["A", "E2"])
def test_every_node_is_read_back(testbed, images, port):
    played = play("-i", testbed.inventory(GROUPS, port=port, variables=QUICK), IMAGE)
    assert played.status == 0, played.output
    nodes = nodes_of(played)
    assert set(nodes) == set(NODES)
    for name, node in nodes.items():
        with (images / NODES[name]).open("rb") as image:
            assert node["digest"] == hashlib.file_digest(image, "sha256").hexdigest()
        assert node["verified"] is True
        assert node["verified_bytes"] >= node["bytes_written"] > 1_000_000
        assert node["verified_reason"] is None
        assert node["kept_chunks"] is None
        assert (node["identity"], node["identity_checked"]) == (NODES[name], True)
        assert f"{name}: imaged: " in played.output
    assert played.output.count(" s, read back") == len(NODES)


def test_the_text_of_a_manifest_is_in_the_runs_folder_and_nowhere_else(inventory, images, tmp_path):
    console = tmp_path / "console.ini"
    console.write_text(f"console ansible_connection=local ansible_python_interpreter={sys.executable}\n")
    other = ("-i", str(console), "-e", "orbit_console=console")
    played = play("-i", inventory, *other, IMAGE, "-vvv", *ONE, *WITHOUT_BOOT)
    assert played.status == 0, played.output
    (kept,) = (played.folder / "manifests").iterdir()
    text = (images / "sender.ndz.manifest").read_bytes()
    assert kept.read_bytes() == text
    line = text.splitlines()[1].decode()
    data = json.loads(line)["data"]
    for path in played.folder.rglob("*"):
        assert path == kept or not path.is_file() or data not in path.read_text()
    assert data not in played.output


def test_nodes_keep_what_they_have(inventory):
    assert play("-i", inventory, IMAGE, *ONE, *WITHOUT_BOOT).status == 0
    played = play("-i", inventory, IMAGE, *ONE, "-e", '{"orbit_resume": true}')
    assert played.status == 0, played.output
    (node,) = nodes_of(played).values()
    assert node["kept_chunks"] >= 5
    assert node["bytes_written"] == 0
    assert node["verified"] is True
    assert node["verified_bytes"] > 1_000_000


def test_a_chunk_that_is_not_the_manifests_is_not_written(inventory, copy):
    def change(lines):
        lines[1]["digest"] = "0" * 64

    name = copy("odd.ndz", change)
    played = play("-i", inventory, IMAGE, "-e", f"image={name}")
    assert played.status == 2, played.output
    assert set(played.outcomes.values()) == {"verify_failed"}
    for node in nodes_of(played).values():
        assert "chunk 0: its SHA-256 is" in node["evidence"]
        assert "(exit status 3)" in node["evidence"]
        assert node["verified"] is None


def test_a_disk_with_another_system_than_the_images_is_named(inventory, copy):
    def change(lines):
        lines[0]["identity"] = "release 5"

    name = copy("named.ndz", change)
    played = play("-i", inventory, IMAGE, *ONE, "-e", f"image={name}")
    assert played.status == 2, played.output
    (node,) = nodes_of(played).values()
    assert node["outcome"] == "no_boot_from_disk"
    assert "the system that came up is sender.ndz, not release 5" in node["evidence"]
    played = play("-i", inventory, IMAGE, *ONE, "-e", f"image={name}", "-e", "orbit_identity=sender.ndz")
    assert played.status == 0, played.output


def test_an_image_without_a_manifest_is_imaged_and_the_result_says_so(testbed, inventory, copy):
    name = copy("plain.ndz")
    played = play("-i", inventory, IMAGE, *ONE, "-e", f"image={name}")
    assert played.status == 0, played.output
    (node,) = nodes_of(played).values()
    assert node["outcome"] == "imaged"
    assert (node["verified"], node["digest"], node["identity_checked"]) == (False, None, False)
    assert node["verified_reason"].startswith("the image has no manifest: ")
    before = testbed.boots()
    played = play("-i", inventory, IMAGE, *ONE, "-e", f"image={name}", "-e", "orbit_verify=always")
    assert played.status == 2, played.output
    assert "image 'plain.ndz': orbit_verify is always, but it has no manifest" in played.output
    assert testbed.boots() == before


def test_a_damaged_manifest_is_one_error_before_any_node_is_touched(testbed, inventory, images, copy):
    name = copy("bad.ndz", lambda lines: None)
    path = images / f"{name}.manifest"
    path.write_bytes(path.read_bytes().replace(b'"first":0', b'"first":1'))
    before = testbed.boots()
    played = play("-i", inventory, IMAGE, "-e", f"image={name}")
    assert played.status == 2, played.output
    assert "bad.ndz.manifest: damaged" in played.output
    assert played.output.count("fatal:") + played.output.count("failed: [") == 1, played.output
    assert testbed.boots() == before
    never = ("-e", f"image={name}", "-e", "orbit_verify=never", *WITHOUT_BOOT)
    played = play("-i", inventory, IMAGE, *ONE, *never)
    assert played.status == 0, played.output
    assert nodes_of(played)["node1-1"]["verified_reason"] == "orbit_verify is never"


def wrong_disk(played):
    assert played.status == 2, played.output
    (node,) = nodes_of(played).values()
    assert node["outcome"] == "wrong_disk"
    assert node["bytes_written"] is None
    return node["evidence"]


def test_a_disk_that_is_too_small_is_not_written(inventory, images, copy, tmp_path):
    said = wrong_disk(play("-i", inventory, IMAGE, *ONE, "-e", "orbit_disk_min_size=500G"))
    assert said.startswith("the size of /dev/sda is 134217728 bytes, expected at least 500G")
    name = copy("large.ndz")
    raw = tmp_path / "raw"
    with raw.open("wb") as disk:
        disk.truncate(160 << 20)
        disk.seek((160 << 20) - 5)
        disk.write(b"data!")
    (images / name).unlink()
    subprocess.run([program("imagezip"), "-r", str(raw), str(images / name)], check=True, capture_output=True)
    os.remove(raw)
    said = wrong_disk(play("-i", inventory, IMAGE, *ONE, "-e", f"image={name}"))
    assert said.startswith("/dev/sda has 134217728 bytes, but large.ndz has data up to byte 167772160")


def test_the_disk_of_another_serial_number_is_not_written(testbed, inventory):
    serial = f"LIGHT-0A{testbed.number:02X}0101"
    said = wrong_disk(play("-i", inventory, IMAGE, *ONE, "-e", "orbit_disk_serial=WD-1"))
    assert said.startswith(f"the serial number of /dev/sda is {serial}, expected WD-1")
    right = ("-e", f"orbit_disk_serial={serial}", "-e", "orbit_disk_min_size=128M", *WITHOUT_BOOT)
    played = play("-i", inventory, IMAGE, *ONE, *right)
    assert played.status == 0, played.output
