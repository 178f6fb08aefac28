# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifest, resume and read-back: what the client checks beyond the image's own means."""

from __future__ import annotations

import io
import random
import re
import socket
import struct
import sys
import tempfile
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from orbit_frisbee.frisbee import client_cli, fetch, pace
from orbit_frisbee.frisbee.integrity import CheckError, Checks, sha256
from orbit_frisbee.frisbee.options import EXIT_DIGEST, EXIT_MANIFEST, EXIT_USAGE, EXIT_VERIFY
from orbit_frisbee.ndz import manifest, unpack, zip_cli
from orbit_frisbee.ndz.format import (
    CHUNK_SIZE,
    RELOC_LILO_MAP,
    ChunkIndex,
    NdzError,
    Region,
    Relocation,
    Tiling,
    encode_chunk,
    parse_index,
)
from orbit_frisbee.ndz.manifest import Manifest, ManifestError
from orbit_frisbee.ndz.unpack import HEAD_SECTORS, Target

from .stand import HOME, Fetch, HandServer, Running, Stand, make_image, wait_until


def manifest_of(stand: Stand, image: bytes) -> Manifest:
    return manifest.of_image(stand.file(image))


def onto(disk: Path, running: Running, **options: Any) -> Fetch:
    return Fetch(disk, running.server.config.group, running.server.port, **options)


# -- manifest ---------------------------------------------------------------------------------------------


def test_a_wrong_chunk_is_refused_before_it_is_written(stand: Stand) -> None:
    """A whole and valid chunk of the right place, but of another image."""
    good, disk = make_image(4, seed=1)
    other, _ = make_image(4, seed=2)
    mixed = good[: 2 * CHUNK_SIZE] + other[2 * CHUNK_SIZE : 3 * CHUNK_SIZE] + good[3 * CHUNK_SIZE :]
    running = stand.serve(stand.file(mixed), rate=None)
    target = stand.file(b"x" * len(disk))
    wanted = manifest_of(stand, good).entries[2].digest.hex()
    with pytest.raises(CheckError, match=rf"^chunk 2: its SHA-256 is [0-9a-f]{{64}}, .* {wanted}; ") as error:
        onto(target, running, manifest=manifest_of(stand, good)).wait()
    assert error.value.status == EXIT_DIGEST
    assert target.read_bytes()[2 * 64 * 512 : 3 * 64 * 512] == b"x" * 64 * 512
    wait_until(lambda: running.server.count.leaves == 1, "the leave of a client that failed")
    # The same stream without a manifest: nothing is wrong with it as far as an image can tell.
    onto(target, running).wait()


def test_a_manifest_of_an_image_of_another_size(stand: Stand) -> None:
    path, disk = stand.image(2)
    running = stand.serve(path, rate=None)
    target = stand.file(b"x" * len(disk) * 2)
    with pytest.raises(CheckError, match="serves 2097152 bytes, the manifest's image has 3145728") as error:
        onto(target, running, manifest=manifest_of(stand, make_image(3)[0])).wait()
    assert error.value.status == EXIT_MANIFEST
    assert set(target.read_bytes()) == {ord("x")}


def test_a_small_disk_is_refused_before_joining(stand: Stand) -> None:
    path, disk = stand.image(2)
    running = stand.serve(path, rate=None)
    with pytest.raises(CheckError, match="up to byte 53248, the target ends at 52736") as error:
        stand.fetch(running, 103 * 512, manifest=manifest.of_image(path)).wait()
    assert error.value.status == EXIT_USAGE
    assert running.server.count.joins == 0
    assert (
        stand.fetch(running, 104 * 512, manifest=manifest.of_image(path)).wait().disk.read_bytes()
        == (disk[: 104 * 512])
    )


# -- resume -----------------------------------------------------------------------------------------------


def test_only_what_differs_is_asked_for(stand: Stand) -> None:
    path, disk = stand.image(8)
    running = stand.serve(path, rate=None)
    target = bytearray(disk)
    for chunk in (1, 6):
        target[chunk * 64 * 512 + 39 * 512] ^= 1
    target[3 * 64 * 512 + 50 * 512] ^= 1  # free space: no matter
    expected = bytearray(disk)
    expected[3 * 64 * 512 + 50 * 512] ^= 1
    fetch = onto(
        stand.file(bytes(target)), running, manifest=manifest.of_image(path), resume=True, verify=True
    )
    assert fetch.wait().disk.read_bytes() == expected
    said = fetch.err.getvalue()
    assert "Kept 6 of 8 chunks\n" in said
    assert f"Verified {8 * 40 * 512} bytes\n" in said
    assert f"Wrote {len(disk)} bytes ({2 * 40 * 512} actual)\n" in said
    count = running.server.count
    assert count.blocks_sent - count.blocks_repeated == 2 * 1024, "what differs, and nothing else"
    assert re.fullmatch(r"Progress: 100% \d{6} 000000", fetch.out.getvalue().splitlines()[-2])


def test_nothing_is_asked_for_when_all_is_there(stand: Stand) -> None:
    path, disk = stand.image(3)
    running = stand.serve(path, rate=None)
    fetch = onto(stand.file(disk), running, manifest=manifest.of_image(path), resume=True, verify=True).wait()
    assert running.server.count.messages_in == 0
    assert "Kept 3 of 3 chunks\n" in fetch.err.getvalue()
    assert f"Wrote {len(disk)} bytes (0 actual)\n" in fetch.err.getvalue()
    progress, left = fetch.out.getvalue().splitlines()
    assert re.fullmatch(r"Progress: 100% \d{6} 000000", progress)
    assert re.fullmatch(r"Left the team after \d+ seconds on the field!", left)


@pytest.mark.parametrize("changed", [0, 1])
def test_free_space_of_kept_chunks_is_zeroed_when_asked(stand: Stand, changed: int) -> None:
    path, disk = stand.image(3)
    running = stand.serve(path, rate=None)
    target = bytearray(disk)
    for chunk in range(3):
        target[(chunk * 64 + 40) * 512 : (chunk + 1) * 64 * 512] = b"x" * 24 * 512
    if changed:
        target[0] ^= 1
    fetch = onto(
        stand.file(bytes(target)),
        running,
        manifest=manifest.of_image(path),
        resume=True,
        zero_free=True,
        verify=True,
    )
    assert fetch.wait().disk.read_bytes() == disk
    assert f"Kept {3 - changed} of 3" in fetch.err.getvalue()
    assert f"Verified {len(disk)} bytes" in fetch.err.getvalue()


def test_an_interrupted_transfer_is_taken_up(stand: Stand) -> None:
    path, disk = stand.image(12, sectors=900)
    running = stand.serve(path, rate=pace.rate_of_bandwidth(200_000_000))
    first = stand.fetch(running, len(disk), silence=1.0, ascending=True)
    wait_until(lambda: "Progress: 30%" in first.out.getvalue(), "a good part")
    running.stop()
    with pytest.raises(Exception, match="silent"):
        first.wait()
    second = stand.serve(path, rate=None)
    fetch = onto(first.disk, second, manifest=manifest.of_image(path), resume=True).wait()
    assert fetch.disk.read_bytes() == disk
    assert 0 < second.server.count.blocks_sent <= 9 * 1024


def test_relocated_chunks_are_never_kept(stand: Stand) -> None:
    data = bytes(random.Random(1).randbytes(8 * 512))
    data = data[:512] + b"\1\0\0\0\1".ljust(512, b"\0") + data[1024:]
    chunk = encode_chunk(
        [zlib.compress(data)],
        version=2,
        number=0,
        regions=[Region(0, 8)],
        relocations=[Relocation(RELOC_LILO_MAP, 1, 0, 512)],
        after=8,
    )
    path = stand.file(chunk)
    known = manifest.of_image(path)
    assert known.entries[0].relocated
    running = stand.serve(path, rate=None)
    fetch = onto(stand.file(data), running, manifest=known, resume=True, verify=True).wait()
    assert "Kept 0 of 1" in fetch.err.getvalue()
    assert "Verified 4096 bytes" in fetch.err.getvalue()


# -- read-back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_what_was_written_is_read_back(stand: Stand, known: bool, plain: bool) -> None:
    path, disk = stand.image(3)
    running = stand.serve(path, rate=None)
    options = {"verify": True, "plain": plain, "manifest": manifest.of_image(path) if known else None}
    fetch = stand.fetch(running, 4 << 20, **options).wait()
    expected = path.read_bytes() if plain else disk
    assert fetch.disk.read_bytes()[: len(expected)] == expected
    size = len(expected) if plain else 3 * 40 * 512
    lines = fetch.err.getvalue().splitlines()
    assert lines[-2:] == [f"Verified {size} bytes", f"Wrote {len(expected)} bytes ({size} actual)"]
    if plain and known:
        again = onto(fetch.disk, running, resume=True, **options).wait()
        assert "Kept 3 of 3 chunks" in again.err.getvalue()
        assert f"Verified {size} bytes" in again.err.getvalue()


def test_in_a_partition(stand: Stand) -> None:
    """One that begins at no multiple of what direct reads ask for."""
    path, disk = stand.image(2)
    running = stand.serve(path, rate=None)
    entry = struct.pack("<B3xB3xII", 0, 0x83, 3, len(disk) // 512)
    table = (bytes(446) + entry).ljust(510, b"\0") + b"\x55\xaa"
    target = stand.file(table + b"x" * (2 * 512 + len(disk) + 512))
    options = {"partition": 1, "manifest": manifest.of_image(path), "resume": True, "verify": True}
    first = onto(target, running, zero_free=True, **options).wait()
    assert target.read_bytes() == table + b"x" * 2 * 512 + disk + b"x" * 512
    assert "Kept 0 of 2 chunks" in first.err.getvalue()
    again = onto(target, running, **options).wait()
    assert "Kept 2 of 2 chunks" in again.err.getvalue()
    assert f"Verified {2 * 40 * 512} bytes" in again.err.getvalue()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("where", ["data", "free"])
def test_a_disk_that_forgets(stand: Stand, known: bool, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit of chunk 1 is another after the flush."""
    path, disk = stand.image(3)
    running = stand.serve(path, rate=None)
    target = stand.disk(len(disk))
    at = 64 * 512 + (39 if where == "data" else 41) * 512

    def sync(self: Target) -> None:
        with target.open("r+b") as file:
            file.seek(at)
            file.write(bytes([disk[at] ^ 4]))

    monkeypatch.setattr(Target, "sync", sync)
    fetch = onto(
        target, running, verify=True, zero_free=True, manifest=manifest.of_image(path) if known else None
    )
    with pytest.raises(CheckError, match=r"chunk 1 reads back wrong \(1 of 3 do\): its ") as error:
        fetch.wait()
    assert error.value.status == EXIT_VERIFY
    assert "Wrote" not in fetch.err.getvalue()


def test_a_disk_that_shrinks(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    path, disk = stand.image(3)
    running = stand.serve(path, rate=None)
    target = stand.disk(len(disk))
    monkeypatch.setattr(Target, "sync", lambda self: target.write_bytes(b"short"))
    with pytest.raises(NdzError, match=r"ends at byte \d+"):
        onto(target, running, verify=True).wait()


def test_what_is_kept_of_each_chunk_is_little(stand: Stand) -> None:
    """Of a large image there are a hundred thousand."""
    chunks, regions = 2000, [(i * 10, 5) for i in range(6)]
    checks = Checks(None, verify=True)
    checks.joined(HOME, chunks * 1024)
    indexes = [
        ChunkIndex(2, n, 1, [Region(n * 100 + s, c) for s, c in regions], first=n * 100, after=(n + 1) * 100)
        for n in range(chunks)
    ]
    hasher = sha256(b"")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for index in indexes:
            checks.wrote(index, hasher)
        kept = (tracemalloc.get_traced_memory()[0] - before) / chunks
    finally:
        tracemalloc.stop()
    assert kept < 1.2 * (60 + 16 * len(regions))
    assert checks._must_be(1999).ranges == [((199_900 + s) * 512, c * 512) for s, c in regions]


# -- commands ---------------------------------------------------------------------------------------------


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    try:
        status = client_cli.main(list(arguments))
    except SystemExit as end:
        status = int(end.code or 0)
    return status, capsys.readouterr().err


def test_the_command(
    stand: Stand, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, disk = stand.image(2)
    running = stand.serve(path, rate=None)
    where = ["-i", HOME, "-m", running.server.config.group, "-p", str(running.server.port)]
    target = stand.disk(len(disk))
    text = manifest.of_image(path).encode()
    known = stand.file(text)
    assert call(capsys, *where, "--manifest", str(known), "--verify", str(target))[0] == 0
    assert target.read_bytes() == disk
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    status, err = call(capsys, *where, "--manifest", "-", "--resume", "-q", str(target))
    assert (status, "Kept 2 of 2 chunks\n" in err, "Comparing" in err) == (0, True, False)
    other = manifest_of(stand, make_image(2, seed=5)[0]).encode()
    for content, status, says in (
        (other, 3, "frisbee: chunk "),
        (text[:-1], 5, "is no manifest, or cut off; make it again: imagezip --manifest IMAGE"),
        (path.read_bytes(), 5, "is no manifest, or cut off"),
    ):
        found, err = call(capsys, *where, "--manifest", str(stand.file(content)), str(target))
        assert found == status
        assert says in err
    for arguments, status, says in (
        (["--resume"], 1, "--resume needs --manifest or --manifest-url"),
        (["--manifest", "a", "--manifest-url", "b"], 1, "--manifest goes without --manifest-url"),
        (["--manifest", "/missing"], 5, "frisbee: /missing: no such file or directory; name a readable"),
        (["--manifest-url", "https://h/x"], 5, "frisbee: https://h/x: is no plain http URL; give"),
    ):
        found, err = call(capsys, *where, *arguments, str(target))
        assert (found, says in err) == (status, True), err


# -- fetching by HTTP -------------------------------------------------------------------------------------


@pytest.fixture
def http(stand: Stand) -> Callable[[bytes], str]:
    """Return a function that serves one reply and returns its URL."""

    def serve(reply: bytes, close: bool = True) -> str:
        listener = stand.keep(socket.create_server((HOME, 0)))
        held: list[socket.socket] = []

        def answer() -> None:
            connection, _ = listener.accept()
            held.append(connection)
            connection.recv(65536)
            connection.sendall(reply)
            if close:
                connection.close()
            else:
                stand.keep(connection)

        threading.Thread(target=answer, daemon=True).start()
        return f"http://{HOME}:{listener.getsockname()[1]}/orbit/images/x/manifest"

    return serve


def reply(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "", "")).encode() + body


def test_a_manifest_by_http(stand: Stand, http: Callable[..., str]) -> None:
    known = manifest_of(stand, make_image(2)[0])
    text = known.encode()
    assert fetch.from_url(http(reply(text, f"Content-Length: {len(text)}"))) == known
    assert fetch.from_url(http(reply(text))) == known


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "the answer is not HTTP"),
        (b"\r\n\r\n", "the answer is not HTTP"),
        (b"SSH-2.0-x\r\n\r\n", "the answer is not HTTP"),
        (reply(b"{}", status="404 Not Found"), "the service answers 404 Not Found: {}"),
        (reply(b"", status="302 Found"), "the service answers 302 Found"),
        (reply(b"x", "Content-Length: 9"), "1 of 9 bytes came"),
        (reply(b"0\r\n\r\n", "Transfer-Encoding: chunked"), "is encoded"),
        (reply(b"what"), "is no manifest, or cut off"),
    ],
)
def test_http_that_does_not_do(http: Callable[..., str], answer: bytes, says: str) -> None:
    with pytest.raises(ManifestError) as error:
        fetch.from_url(http(answer))
    assert says in str(error.value)


def test_http_that_takes_too_long_or_too_much(
    http: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ManifestError, match="did not come in time"):
        fetch.from_url(http(reply(b"x"), close=False), 0.05)
    monkeypatch.setattr(fetch, "MAX_SIZE", 1000)
    with pytest.raises(ManifestError, match="of unknown bytes came"):
        fetch.from_url(http(reply(bytes(20000))))
    with socket.create_server((HOME, 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ManifestError, match="cannot be fetched: connection refused"):
        fetch.from_url(f"http://{HOME}:{port}/")


# -- any disk, any version, any network -------------------------------------------------------------------


@st.composite
def disks(draw: st.DrawFn) -> bytes:
    """A disk of runs of random data, text, and what compresses to nothing, its end inside a sector."""
    source = random.Random(draw(st.integers(0, 1 << 30)))
    kinds: dict[str, Callable[[int], bytes]] = {
        "random": source.randbytes,
        "text": lambda size: (b"all work and no play " * (size // 21 + 1))[:size],
        "zero": bytes,
    }
    parts = draw(
        st.lists(st.tuples(st.sampled_from(sorted(kinds)), st.integers(1, 900_000)), min_size=1, max_size=5)
    )
    return b"".join(kinds[kind](size) for kind, size in parts)


@settings(max_examples=8, deadline=None)
@given(
    disk=disks(),
    version=st.sampled_from(["2", "3", "4"]),
    checksum=st.booleans(),
    level=st.sampled_from(["0", "1", "6"]),
    network=st.sampled_from([(0.0, 0.0, 0.0), (0.02, 0.05, 0.05)]),
    known=st.booleans(),
    seed=st.integers(0, 1 << 20),
)
def test_any_disk_in_any_version_survives(
    disk: bytes,
    version: str,
    checksum: bool,
    level: str,
    network: tuple[float, float, float],
    known: bool,
    seed: int,
) -> None:
    """Disk, imagezip, multicast, disk; then again onto that disk after some of it was overwritten."""
    with tempfile.TemporaryDirectory() as folder:
        stand = Stand(Path(folder))
        try:
            source, image = stand.file(disk), Path(folder, "x.ndz")
            options = ["-r", "-V", version, "-z", level, *(["-a"] if checksum and version == "4" else [])]
            assert zip_cli.main([*options, str(source), str(image)]) == 0
            running = stand.serve(image, rate=pace.rate_of_bandwidth(400_000_000))
            proxy = stand.bad_network(
                running, loss=network[0], double=network[1], overtake=network[2], seed=seed
            )
            sidecar = manifest.read(manifest.path_of(image))
            assert sidecar == manifest.of_image(image)
            target = stand.disk(-(-len(disk) // 512) * 512)
            first = Fetch(target, proxy.group, proxy.port, verify=True, manifest=sidecar if known else None)
            assert first.wait().disk.read_bytes()[: len(disk)] == disk
            assert f"Verified {len(disk)} bytes" in first.err.getvalue()
            with target.open("r+b") as file:
                file.seek(random.Random(seed).randrange(len(disk)))
                at = file.tell()
                file.write(bytes([disk[at] ^ 0x55]))
            second = Fetch(target, proxy.group, proxy.port, resume=True, verify=True, manifest=sidecar).wait()
            assert second.disk.read_bytes()[: len(disk)] == disk
            chunks = image.stat().st_size // CHUNK_SIZE
            assert f"Kept {chunks - 1} of {chunks} chunks" in second.err.getvalue()
        finally:
            stand.close()


@pytest.mark.parametrize("seed", range(4))
def test_bits_that_flip_on_the_way_are_never_success(stand: Stand, seed: int) -> None:
    """In data, chunk or block number, with UDP's checksum fooled. Begun again often enough, it gets there."""
    image, disk = make_image(4, sectors=200, seed=seed)
    source = random.Random(seed)

    def change(_chunk: int, _block: int, datagram: bytes) -> bytes:
        if source.random() > 1 / 1500:
            return datagram
        data = bytearray(datagram)
        data[source.choice((16, 20, 21, *range(24, 40)))] ^= 1 << source.randrange(8)
        return bytes(data)

    server = stand.keep(HandServer(image, change=change))
    known = manifest_of(stand, image)
    target = stand.disk(len(disk))
    statuses = set()
    for _ in range(60):
        client = Fetch(target, server.group, server.port, manifest=known, resume=True, verify=True)
        try:
            client.wait()
            break
        except CheckError as error:
            statuses.add(error.status)
        assert "Wrote" not in client.err.getvalue()
    assert statuses <= {EXIT_DIGEST}
    assert target.read_bytes() == disk
    assert f"Verified {4 * 200 * 512} bytes" in client.err.getvalue()


# -- damage in every field --------------------------------------------------------------------------------


def damage(chunk: bytes, version: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """Yield a place and the chunk with that byte changed: all of the index, some data, some padding."""
    source = random.Random(seed)
    index = parse_index(chunk)
    used = {1: 24, 2: 36, 3: 36, 4: 344}[version] + 8 * len(index.regions) + 16 * len(index.relocations)
    end = 4096 + index.length
    # Most of the long checksum field of version 4 is left out: one byte of it is like another.
    fields = [at for at in range(used) if version < 4 or not 100 <= at < 320]
    places = [*fields, *source.sample(range(4096, end), 40), used, end, CHUNK_SIZE - 1]
    for at in places:
        bad = bytearray(chunk)
        bad[at] ^= 1 << source.randrange(8)
        yield at, bytes(bad)


@pytest.mark.parametrize(("version", "checksum"), [(1, False), (2, False), (3, False), (4, False), (4, True)])
def test_damage_in_every_field(stand: Stand, version: int, checksum: bool) -> None:
    """With a manifest all damage is refused. Without, the disk outside the chunk's range stays as it is.

    The SHA-1 of version 4 covers index and data, so there only padding may be another.
    """
    data = random.Random(version).randbytes(30 * 512)
    chunks = [
        encode_chunk(
            [zlib.compress(data)],
            version=version,
            number=number,
            total=3 if version == 1 else 0,
            regions=[Region(number * 100, 10), Region(number * 100 + 20, 20)],
            first=number * 100,
            after=(number + 1) * 100,
            checksum=checksum,
        )
        for number in range(3)
    ]
    checks = Checks(manifest_of(stand, b"".join(chunks)))
    checks.arrived(1, chunks[1])
    before = b"x" * 300 * 512
    path = stand.file(before)
    indexes = [parse_index(chunk, number, chunks=3) for number, chunk in enumerate(chunks)]
    end = 4096 + indexes[1].length
    passed = []
    with Target.open(path) as target:
        for at, bad in damage(chunks[1], version, version):
            with pytest.raises(CheckError, match=r"^chunk 1: its SHA-256"):
                checks.arrived(1, bad)
            try:
                index = parse_index(bad, 1, chunks=3)
                tiling = Tiling()
                for other in (indexes[0], index, indexes[2]):
                    tiling.add(other)
                target.write_chunk(bad, index)
            except NdzError:
                continue
            passed.append(at)
            found = path.read_bytes()
            # What a machine boots from is kept back until all is there.
            assert found[HEAD_SECTORS * 512 : 100 * 512] == before[HEAD_SECTORS * 512 : 100 * 512]
            assert found[200 * 512 :] == before[200 * 512 :]
            path.write_bytes(before)
    assert set(passed) < set(range(4096)) | set(range(end, CHUNK_SIZE)), "damaged data was taken"
    assert version < 4 or not {38, 39} & set(passed), "a checksum was switched off"
    if checksum:
        # The checksum's own field is longer than a SHA-1; what is behind that counts as zero.
        assert set(passed) <= {*range(92, 328), end, CHUNK_SIZE - 1}


def test_the_reader_without_direct_access(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system knows no direct I/O, from the start or at the first read."""
    path = stand.file(bytes(range(256)) * 64)
    wanted = path.read_bytes()[512:700] + path.read_bytes()[8192:8200]
    real = unpack.os.open

    def refuse(name: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & unpack.os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return real(name, flags, *rest, **more)

    for refused in (False, True):
        with monkeypatch.context() as patch, Target.open(path) as target:
            if refused:
                patch.setattr(unpack.os, "open", refuse)
            with target.reader() as reader:
                found = bytearray()
                reader.feed([(512, 188), (8192, 8)], found.extend)
                assert found == wanted
                assert not (refused and reader.direct)
