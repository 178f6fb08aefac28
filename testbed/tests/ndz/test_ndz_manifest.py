# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: made with the image or from it, read back strictly, true by means of its own."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from ndz_tools import make_chunk, read_image

from orbit_frisbee.ndz import manifest, write, zip_cli
from orbit_frisbee.ndz.format import NdzError
from orbit_frisbee.ndz.manifest import Manifest, ManifestError, Recorder, parse, path_of

CHUNK = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk of three chunks, the last sector of it incomplete."""
    path = tmp_path / "disk"
    path.write_bytes(random.Random(5).randbytes(4500 * 512 + 100))
    return path


@pytest.fixture
def image(tmp_path: Path, disk: Path) -> Path:
    path = tmp_path / "x.ndz"
    assert zip_cli.main(["-r", str(disk), str(path)]) == 0
    return path


def lines(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def sealed(fields: list[dict[str, Any]]) -> bytes:
    """A manifest's file of any lines, with the last one as it must be."""
    body = b"".join(json.dumps(line).encode() + b"\n" for line in fields)
    return body + json.dumps({"end": hashlib.sha256(body).hexdigest()}).encode() + b"\n"


def test_what_is_in_it(disk: Path, image: Path) -> None:
    """Every number and digest, worked out without the package."""
    content, source = image.read_bytes(), disk.read_bytes()
    head, *chunks, end = lines(path_of(image).read_bytes())
    assert head == {
        "manifest": "orbit.imaging",
        "version": 1,
        "algorithm": "sha256",
        "image_version": 2,
        "size": len(content),
        "mtime_ns": image.stat().st_mtime_ns,
        "chunks": 3,
        "digest": hashlib.sha256(content).hexdigest(),
    }
    _, _, layout = read_image(content)
    for number, chunk in enumerate(chunks):
        data = b"".join(source[s * 512 : (s + n) * 512] for s, n in layout[number])
        assert chunk == {
            "chunk": number,
            "digest": hashlib.sha256(content[number * CHUNK : (number + 1) * CHUNK]).hexdigest(),
            "first": layout[number][0][0],
            "after": sum(layout[number][-1]),
            "regions": [list(region) for region in layout[number]],
            "bytes": len(data),
            "data": hashlib.sha256(data).hexdigest(),
            "relocated": False,
        }
    assert chunks[-1]["bytes"] % 512 == 100
    assert end == {"end": hashlib.sha256(path_of(image).read_bytes().rsplit(b'{"end', 1)[0]).hexdigest()}


@pytest.mark.parametrize("arguments", [["-V", "2"], ["-V", "3"], ["-V", "4", "-a"], ["-z", "0"], ["-j", "1"]])
def test_made_with_the_image_or_from_it(tmp_path: Path, disk: Path, arguments: list[str]) -> None:
    image = tmp_path / "y.ndz"
    assert zip_cli.main(["-r", *arguments, str(disk), str(image)]) == 0
    made = path_of(image).read_bytes()
    path_of(image).unlink()
    assert zip_cli.main(["--manifest", str(image)]) == 0
    assert path_of(image).read_bytes() == made
    assert manifest.read(path_of(image)) == manifest.of_image(image)
    assert manifest.belongs(parse(made, "m"), image)


@pytest.mark.parametrize("identity", ["baseline.ndz", "Größe \N{SNOWMAN} 5.4", "x" * 255])
def test_the_identity_of_the_system_inside(tmp_path: Path, disk: Path, identity: str) -> None:
    image = tmp_path / "y.ndz"
    assert zip_cli.main(["-r", "--identity", identity, str(disk), str(image)]) == 0
    made = path_of(image).read_bytes()
    assert made.isascii()
    assert manifest.read(path_of(image)).identity == identity
    assert zip_cli.main(["--manifest", "--identity", identity, str(image)]) == 0
    assert path_of(image).read_bytes() == made
    assert zip_cli.main(["--manifest", str(image)]) == 0
    assert manifest.read(path_of(image)).identity == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--identity", "two\nlines", "disk", "y.ndz"],
        ["--identity", "", "disk", "y.ndz"],
        ["--identity", "x", "--no-manifest", "disk", "y.ndz"],
        ["--identity", "x", "disk", "-"],
        ["--identity", "x", "-i", "disk"],
    ],
)
def test_an_identity_that_cannot_be_kept_is_refused(
    tmp_path: Path, disk: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        zip_cli.main(["-r", *arguments])
    assert ended.value.code == 1
    assert {path.name for path in tmp_path.iterdir()} == {"disk"}


def test_where_none_is_made(tmp_path: Path, disk: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    image = tmp_path / "y.ndz"
    assert zip_cli.main(["-r", "--no-manifest", str(disk), str(image)]) == 0
    assert zip_cli.main(["-r", str(disk), "-"]) == 0
    assert zip_cli.main(["-r", str(disk), "/dev/null"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "y.ndz"}
    assert capfdbinary.readouterr().out == image.read_bytes()
    assert zip_cli.main(["--manifest", str(image), "-"]) == 0
    assert parse(capfdbinary.readouterr().out, "-") == manifest.of_image(image)


def test_both_or_neither(tmp_path: Path, disk: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that cannot be finished leaves the old image and the old manifest."""
    before = image.read_bytes(), path_of(image).read_bytes()
    disk.write_bytes(random.Random(6).randbytes(3 << 20))

    def fail(*_: object) -> Manifest:
        raise NdzError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "finish", fail)
        assert zip_cli.main(["-r", str(disk), str(image)]) == 1
    assert (image.read_bytes(), path_of(image).read_bytes()) == before
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "x.ndz", "x.ndz.manifest"}
    assert zip_cli.main(["-r", str(disk), str(image)]) == 0
    assert manifest.read(path_of(image)) == manifest.of_image(image)


def finish(recorder: Recorder, image: Path) -> Manifest:
    with image.open("rb") as file:
        return recorder.finish(file.fileno())


def test_an_error_in_the_sums_is_an_error(image: Path) -> None:
    recorder = Recorder()
    recorder.chunk(b"no chunk" * 512)
    recorder.data(b"more")
    with pytest.raises(NdzError, match="is no image"):
        finish(recorder, image)


def test_a_file_that_is_not_what_was_written_is_an_error(image: Path) -> None:
    recorder = Recorder()
    recorder.data(bytes(512))
    recorder.chunk(bytes(make_chunk(2, [(0, 1)], bytes(512))))
    with pytest.raises(NdzError, match=f"{3 * CHUNK} bytes instead of {CHUNK}"):
        finish(recorder, image)


def test_a_sidecar_in_the_way(tmp_path: Path, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "y.ndz.manifest").mkdir()
    assert zip_cli.main(["-r", str(disk), str(tmp_path / "y.ndz")]) == 1
    assert "y.ndz.manifest: a folder; name a file" in capsys.readouterr().err
    assert not (tmp_path / "y.ndz").exists()
    assert not (tmp_path / "y.ndz.partial").exists()


@pytest.mark.parametrize("damage", ["empty", "no image", "cut", "data", "index", "mixed"])
def test_no_manifest_of_a_damaged_image(image: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(image.read_bytes())
    if damage == "empty":
        content.clear()
    elif damage == "no image":
        content[:4] = b"what"
    elif damage == "cut":
        del content[-5:]
    elif damage == "data":
        content[CHUNK + 5000] ^= 1
    elif damage == "index":
        content[CHUNK + 20] = 0
    elif damage == "mixed":
        content[CHUNK : 2 * CHUNK] = make_chunk(2, [(0, 1)], bytes(512), number=1)
    image.write_bytes(content)
    path_of(image).unlink()
    capsys.readouterr()
    assert zip_cli.main(["--manifest", str(image)]) == 1
    assert capsys.readouterr().err.startswith(f"imagezip: {image}: ")
    assert not path_of(image).exists()


def test_the_manifest_is_not_written_over_the_image(image: Path) -> None:
    with pytest.raises(SystemExit):
        zip_cli.main(["--manifest", str(image), str(image)])


def test_belonging(image: Path, tmp_path: Path) -> None:
    known = manifest.read(path_of(image))
    os.utime(image, (5, 5))
    assert manifest.belongs(known, image)
    content = bytearray(image.read_bytes())
    content[-1] ^= 1
    image.write_bytes(content)
    assert not manifest.belongs(known, image)
    image.write_bytes(content[:-1])
    assert not manifest.belongs(known, image)


# -- reading ----------------------------------------------------------------------------------------------


def changes() -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and fields that make a manifest of the image of these tests wrong."""
    for field in (
        "manifest",
        "version",
        "algorithm",
        "image_version",
        "size",
        "chunks",
        "digest",
        "mtime_ns",
    ):
        for value in (None, -1, True, 1.0, "x", [], "0" * 64 + "0", 1 << 70):
            yield 0, {field: value}
    yield 0, {"chunks": 2}
    yield 0, {"size": CHUNK}
    yield 0, {"image_version": 5}
    yield 0, {"digest": "A" * 64}
    for value in (None, 1, "", " x", "x\n", "x\ny", "\ud800", "x" * 256, ["x"]):
        yield 0, {"identity": value}
    for field in ("chunk", "digest", "first", "after", "regions", "bytes", "data", "relocated"):
        for value in (None, -1, 1.0, "x", [], [[]], [[1]], [[1, 2, 3]], [["a", 1]], [[0, True]], {}, 1 << 70):
            yield 2, {field: value}
    yield 2, {"chunk": 2}
    yield 2, {"regions": [[0, 1]]}
    yield 2, {"regions": [[0, 1 << 32]], "first": 0, "after": 1 << 32}
    yield 1, {"regions": [[0, 1 << 32]], "after": 1 << 32}
    yield 2, {"bytes": 1}
    yield 2, {"first": 0}
    yield 2, {"data": "0" * 62}


@pytest.mark.parametrize(("line", "fields"), list(changes()))
def test_a_wrong_field_is_refused(line: int, fields: dict[str, Any], wrong: list[dict[str, Any]]) -> None:
    assert parse(sealed(wrong), "m")
    there = wrong[line] | fields
    text = sealed([*wrong[:line], there, *wrong[line + 1 :]])
    with pytest.raises(ManifestError, match=r"^m: ") as error:
        parse(text, "m")
    assert error.value.remedy


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The lines of a good manifest, the last one left out."""
    folder = tmp_path_factory.mktemp("manifest")
    (folder / "disk").write_bytes(random.Random(5).randbytes(4500 * 512))
    assert zip_cli.main(["-r", str(folder / "disk"), str(folder / "x.ndz")]) == 0
    return lines(path_of(folder / "x.ndz").read_bytes())[:-1]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n" * 10,
        b"{}\n" * 4,
        b"[" * 100_000 + b"\n{}\n{}\n{}\n",
        b"{" * 70_000 + b"\n{}\n{}\n{}\n",
        b"null\nnull\nnull\nnull\n",
        b"\xff\n{}\n{}\n{}\n",
        b"1e999\n{}\n{}\n{}\n",
        b"9" * 5000 + b"\n{}\n{}\n{}\n",
    ],
    ids=range(9),
)
def test_what_is_no_manifest(text: bytes) -> None:
    with pytest.raises(ManifestError, match=r"^m: "):
        parse(text, "m")


def test_a_manifest_that_is_too_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(manifest, "MAX_SIZE", 100)
    path = tmp_path / "m"
    path.write_bytes(bytes(1000))
    with pytest.raises(ManifestError, match="larger than 100 bytes"):
        manifest.read(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_change_of_the_text_is_noticed(wrong: list[dict[str, Any]], data: st.DataObject) -> None:
    text = bytearray(sealed(wrong))
    at = data.draw(st.integers(0, len(text) - 1))
    kind = data.draw(st.sampled_from(["change", "cut", "drop", "double"]))
    if kind == "change":
        text[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del text[at:]
    elif kind == "drop":
        del text[at]
    else:
        text[at:at] = text[at : at + 1]
    try:
        found = parse(bytes(text), "m")
    except ManifestError:
        return
    assert found == parse(sealed(wrong), "m")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_refused(text: bytes) -> None:
    with pytest.raises(ManifestError):
        parse(text, "m")


def test_none_is_made_that_nobody_reads(
    tmp_path: Path,
    disk: Path,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither is one left that is of another image."""
    size = path_of(image).stat().st_size
    # What is written at this limit can be read.
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "MAX_SIZE", size + 128)
        assert zip_cli.main(["-r", str(disk), str(image)]) == 0
        assert manifest.read(path_of(image))
    content = image.read_bytes()
    monkeypatch.setattr(manifest, "MAX_SIZE", size - 1)
    capsys.readouterr()
    for arguments in (["--identity", "x", str(disk), str(image)], ["--manifest", str(image)]):
        assert zip_cli.main(["-r", *arguments]) == 1
        assert f"its manifest would be larger than {size - 1} bytes; let it be" in capsys.readouterr().err
        assert path_of(image).exists()
    assert zip_cli.main(["-r", str(disk), str(image)]) == 0
    assert f"imagezip: warning: {image}: without manifest: its manifest would be" in capsys.readouterr().err
    assert image.read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "x.ndz"}


def test_all_who_read_it_have_one_limit() -> None:
    """The collection, which cannot import this package, has the number once more."""
    theirs = Path(__file__).parents[3] / "plugins/module_utils/manifest.py"
    assert "\nMAX_SIZE = 64 * 1024 * 1024\n" in theirs.read_text(encoding="utf-8")
    assert manifest.MAX_SIZE == 64 * 1024 * 1024


def test_as_large_as_can_be_it_takes_little_memory() -> None:
    """Parsed, it must not take much more than its text, of which a client with 200 MB has 64 MiB."""
    code = """
import resource, sys
from array import array
from orbit_frisbee.ndz import manifest
entries, at = manifest.Entries(), 0
for number in range(60_000):
    regions = array("I", [at, 5, at + 10, 5, at + 100, 7])
    entries.append(manifest.Entry(number, bytes(32), at, at + 200, regions, 17 * 512, bytes(32), False))
    at += 200
whole = manifest.Manifest(2, 60_000 << 20, 0, bytes(32), entries)
text = whole.encode()
del entries
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = manifest.parse(text, "m")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert found == whole
print(len(text) // 1024, after - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, more = map(int, done.stdout.split())
    assert text > 15_000
    assert more < 0.7 * text


def test_records_cost_little_memory(tmp_path: Path) -> None:
    """A chunk with the most regions takes some kilobytes, not a hundred."""
    regions = [(i * 10, 1) for i in range(500)]
    chunk = bytes(make_chunk(2, regions, bytes(500 * 512)))
    recorder = Recorder()
    recorder.data(bytes(500 * 512))
    recorder.chunk(chunk)
    path = tmp_path / "x.ndz"
    path.write_bytes(chunk)
    (entry,) = finish(recorder, path).entries
    assert entry.regions.itemsize * len(entry.regions) == 4000
    assert entry.ranges() == [(i * 5120, 512) for i in range(500)]


def test_the_writer_tells_all_data(disk: Path) -> None:
    """What the record takes in is what was read, in order, and every chunk behind its data."""
    from orbit_frisbee.ndz.plan import plan_raw
    from orbit_frisbee.ndz.source import Source

    seen: list[tuple[str, bytes]] = []

    class Seen:
        def data(self, data: bytes, /) -> None:
            seen.append(("data", data))

        def chunk(self, chunk: bytes, /) -> None:
            seen.append(("chunk", chunk))

    out = bytearray()
    with Source.open(disk) as source:
        write.write_image(plan_raw(source), out.extend, record=Seen())
    assert b"".join(chunk for kind, chunk in seen if kind == "chunk") == out
    told = b"".join(data for kind, data in seen if kind == "data")
    assert told == disk.read_bytes() + bytes(-disk.stat().st_size % 512)
    assert seen[-1][0] == "chunk"
