# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our server and our client over real sockets on the loopback interface."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from orbit_frisbee.frisbee import net, pace, wire
from orbit_frisbee.frisbee.client import ClientError
from orbit_frisbee.ndz.format import NdzError

from .stand import Fetch, Stand, assert_one_pass, make_image, new_group, wait_until


@pytest.mark.parametrize("clients", [1, 2, 4])
def test_clients_of_one_stream(stand: Stand, clients: int) -> None:
    path, disk = stand.image(6, sectors=900)
    running = stand.serve(path, rate=pace.rate_of_bandwidth(400_000_000), gather=60, expect=clients)
    fetches = [stand.fetch(running, len(disk)) for _ in range(clients)]
    for fetch in fetches:
        assert fetch.wait().disk.read_bytes() == disk
    wait_until(lambda: running.server.count.leaves == clients, "all leaves")
    stats = running.server.stats()
    assert stats["joins"] == clients
    assert stats["clients"] == []
    assert stats["blocks_in_file"] == 6 * 1024
    assert_one_pass(stats, 6)


def test_what_the_client_prints(stand: Stand) -> None:
    path, disk = stand.image(3)
    fetch = stand.fetch(stand.serve(path, rate=None), len(disk)).wait()
    out, err = fetch.out.getvalue().splitlines(), fetch.err.getvalue().splitlines()
    assert [line[:13] for line in out[:-1]] == [f"Progress: {p}%"[:13] for p in range(10, 101, 10)]
    assert re.fullmatch(r"Progress: 10% \d{6} 000002", out[0])
    assert re.fullmatch(r"Progress: 100% \d{6} 000000", out[-2])
    assert re.fullmatch(r"Left the team after \d+ seconds on the field!", out[-1])
    assert re.match(r"Joined the team after \d+ sec\. ID is ", err[0])
    assert err[0].endswith("File is 3 chunks (3145728 bytes)")
    assert err[-1] == f"Wrote {len(disk)} bytes ({3 * 40 * 512} actual)"


def test_two_streams_at_once(stand: Stand) -> None:
    """Same port, different groups: they do not mix."""
    first, first_disk = stand.image(4, seed=1)
    second, second_disk = stand.image(5, seed=2)
    a = stand.serve(first, rate=None)
    b = stand.serve(second, rate=None, port=a.server.port)
    fetches = [stand.fetch(a, len(first_disk)), stand.fetch(b, len(second_disk))]
    assert fetches[0].wait().disk.read_bytes() == first_disk
    assert fetches[1].wait().disk.read_bytes() == second_disk
    assert a.server.count.joins == b.server.count.joins == 1


def test_zero_free_space(stand: Stand) -> None:
    path, disk = stand.image(3)
    running = stand.serve(path, rate=None)
    for zero in (False, True):
        fetch = Fetch(
            stand.file(b"x" * len(disk)), running.server.config.group, running.server.port, zero_free=zero
        )
        found = fetch.wait().disk.read_bytes()
        assert (found == disk) == zero
        assert found[40 * 512 : 64 * 512] == (bytes(24 * 512) if zero else b"x" * 24 * 512)


def test_unicast_one_to_one(stand: Stand) -> None:
    path, disk = stand.image(3)
    running = stand.serve(path, rate=None, group="127.0.0.2", interface="127.0.0.1")
    fetch = Fetch(stand.disk(len(disk)), "127.0.0.1", running.server.port, interface="127.0.0.2")
    assert fetch.wait().disk.read_bytes() == disk


def test_broadcast(stand: Stand) -> None:
    path, disk = stand.image(2)
    running = stand.serve(path, rate=None, group="127.255.255.255", broadcast=True)
    fetches = [stand.fetch(running, len(disk), broadcast=True) for _ in range(2)]
    for fetch in fetches:
        assert fetch.wait().disk.read_bytes() == disk


@pytest.mark.parametrize("side", ["server", "client", "both"])
def test_without_segmentation_offload(stand: Stand, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if side != "server":
        monkeypatch.setattr(net, "_UDP_GRO", 9999)
    path, disk = stand.image(4, sectors=900)
    running = stand.serve(path, rate=pace.rate_of_bandwidth(400_000_000), offload=side == "client")
    fetch = stand.fetch(running, len(disk))
    assert fetch.wait().disk.read_bytes() == disk
    assert fetch.client._endpoint.gro == (side == "server")


def test_a_kernel_that_refuses_to_segment_is_served_block_by_block(stand: Stand) -> None:
    path, disk = stand.image(2)
    running = stand.serve(path, rate=None)
    # More segments than any kernel takes: what a device without the feature answers as well.
    running.server._sender._segment = [(17, 103, b"\1\0")]
    assert stand.fetch(running, len(disk)).wait().disk.read_bytes() == disk
    assert not running.server._sender.offload


def test_late_joiner(stand: Stand) -> None:
    path, disk = stand.image(8, sectors=900)
    running = stand.serve(path, rate=pace.rate_of_bandwidth(200_000_000))
    first = stand.fetch(running, len(disk))
    wait_until(lambda: running.server.count.blocks_sent > 3500, "a good part of the pass")
    late = stand.fetch(running, len(disk))
    assert first.wait().disk.read_bytes() == disk
    assert late.wait().disk.read_bytes() == disk
    # The late one takes the rest of the first one's pass and has the beginning repeated for it.
    assert running.server.count.blocks_sent < 8 * 1024 * 2


def test_a_client_that_vanishes_harms_nobody(stand: Stand) -> None:
    path, disk = stand.image(4)
    running = stand.serve(path, rate=pace.rate_of_bandwidth(400_000_000))
    party = stand.party(running)
    party.send(wire.encode_join(party.own, 1))
    party.expect(wire.JoinReply)
    for chunk in range(4):
        party.send(wire.encode_request(party.own, chunk))
    party.expect(wire.Block)
    party.close()
    fetch = stand.fetch(running, len(disk))
    assert fetch.wait().disk.read_bytes() == disk
    wait_until(lambda: running.server.count.leaves == 1, "the leave of the other")
    assert [c["id"] for c in running.server.stats()["clients"]] == [1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("order", ["ascending", "round"])
def test_few_buffers(stand: Stand, order: str) -> None:
    path, disk = stand.image(6)
    running = stand.serve(path, rate=None)
    fetch = stand.fetch(running, len(disk), buffers=1, workers=1, ascending=order == "ascending")
    assert fetch.wait().disk.read_bytes() == disk


@settings(max_examples=8, deadline=None)
@given(
    chunks=st.integers(1, 4),
    sectors=st.integers(1, 600),
    clients=st.integers(1, 2),
    loss=st.sampled_from([0.0, 0.01, 0.05]),
    double=st.sampled_from([0.0, 0.05]),
    overtake=st.sampled_from([0.0, 0.05]),
    seed=st.integers(0, 1 << 20),
)
def test_any_disk_survives_a_bad_network(
    chunks: int, sectors: int, clients: int, loss: float, double: float, overtake: float, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stand = Stand(Path(folder))
        try:
            path, disk = stand.image(chunks, sectors=sectors, seed=seed)
            running = stand.serve(path, rate=pace.rate_of_bandwidth(300_000_000))
            proxy = stand.bad_network(running, loss=loss, double=double, overtake=overtake, seed=seed)
            fetches = [Fetch(stand.disk(len(disk)), proxy.group, proxy.port) for _ in range(clients)]
            for fetch in fetches:
                assert fetch.wait().disk.read_bytes() == disk
            assert loss == 0 or proxy.lost
        finally:
            stand.close()


def test_plain_files_of_any_length(stand: Stand) -> None:
    """Also of a length where the 2016 client loses the last KiB."""
    for size in (1, 512, 1024, 1025, (1 << 20) - 1, 1 << 20, 3 << 19, (2 << 20) + 7):
        content = make_image(3, sectors=2000, seed=size)[0][:size]
        running = stand.serve(stand.file(content), rate=None)
        fetch = stand.fetch(running, 3 << 20, plain=True).wait()
        assert fetch.disk.read_bytes()[:size] == content
        assert not any(fetch.disk.read_bytes()[size:])
        assert f"Wrote {size} bytes ({size} actual)" in fetch.err.getvalue()


def test_a_plain_file_larger_than_the_disk(stand: Stand) -> None:
    running = stand.serve(stand.file(bytes(4096)), rate=None)
    fetch = stand.fetch(running, 2048, plain=True)
    with pytest.raises(ClientError, match="4096 bytes, the target 2048"):
        fetch.wait()


# -- images that are not right: an error of their own, and the disk as it was -----------------------------


def damaged(kind: str) -> tuple[bytes, bytes]:
    image, disk = make_image(1)
    bad = bytearray(image)
    if kind == "magic":
        bad[0] ^= 0xFF
    elif kind == "number":
        bad[8] = 7
    elif kind == "data":
        bad[4096 + 900] ^= 1
    elif kind == "region count":
        bad[20] = 0
    elif kind == "region":
        bad[36 + 4] += 1
    elif kind == "length":
        bad[4:8] = (1 << 20).to_bytes(4, "little")
    elif kind == "cut in data":
        bad = bad[: 4096 + 2048]
    elif kind == "cut in index":
        bad = bad[:30]
    return bytes(bad), disk


@pytest.mark.parametrize(
    "kind",
    ["magic", "number", "data", "region count", "region", "length", "cut in data", "cut in index"],
)
def test_a_damaged_image_does_not_touch_the_disk(stand: Stand, kind: str) -> None:
    image, disk = damaged(kind)
    running = stand.serve(stand.file(image), rate=None)
    before = b"before" * (len(disk) // 6) + b"x" * (len(disk) % 6)
    fetch = Fetch(stand.file(before), running.server.config.group, running.server.port)
    with pytest.raises(NdzError, match="chunk 0"):
        fetch.wait()
    assert fetch.disk.read_bytes() == before
    assert "Wrote" not in fetch.err.getvalue()
    assert "Left the team" not in fetch.out.getvalue()
    wait_until(lambda: running.server.count.leaves == 1, "the leave of a client that failed")


def test_an_image_without_its_last_padding_is_whole(stand: Stand) -> None:
    image, disk = make_image(2)
    running = stand.serve(stand.file(image[: -(1 << 19)]), rate=None)
    assert stand.fetch(running, len(disk)).wait().disk.read_bytes() == disk


def test_chunks_of_two_images(stand: Stand) -> None:
    first, disk = make_image(3, seed=1)
    second, _ = make_image(3, sectors=50, seed=2)
    mixed = first[: 1 << 20] + second[1 << 20 : 2 << 20] + first[2 << 20 :]
    running = stand.serve(stand.file(mixed), rate=None)
    with pytest.raises(NdzError, match=r"chunk [12]: first sector"):
        stand.fetch(running, len(disk) * 2).wait()


def test_chunks_of_two_versions(stand: Stand) -> None:
    first, disk = make_image(2, version=3)
    second, _ = make_image(2, version=2)
    running = stand.serve(stand.file(first[: 1 << 20] + second[1 << 20 :]), rate=None)
    with pytest.raises(NdzError, match="of different images"):
        stand.fetch(running, len(disk)).wait()


def test_image_larger_than_the_disk(stand: Stand) -> None:
    path, _ = stand.image(1)
    running = stand.serve(path, rate=None)
    with pytest.raises(NdzError, match="the target ends at 39"):
        stand.fetch(running, 39 * 512).wait()


def test_the_file_changes_while_it_is_served(stand: Stand) -> None:
    path, disk = stand.image(8)
    running = stand.serve(path, rate=pace.rate_of_bandwidth(100_000_000))
    fetch = stand.fetch(running, len(disk), silence=1.0)
    wait_until(lambda: running.server.count.blocks_sent > 500, "the first blocks")
    with path.open("r+b") as file:
        file.write(b"x")
    running.join()
    assert "changed while it was being served" in str(running.error)
    with pytest.raises(ClientError, match="silent for 1 seconds"):
        fetch.wait()


def test_the_file_is_cut_while_it_is_served(stand: Stand) -> None:
    path, disk = stand.image(8)
    running = stand.serve(path, rate=pace.rate_of_bandwidth(100_000_000))
    fetch = stand.fetch(running, len(disk), silence=1.0)
    wait_until(lambda: running.server.count.blocks_sent > 500, "the first blocks")
    with path.open("r+b") as file:
        file.truncate(1000)
    running.join()
    assert running.error is not None
    assert str(path) in str(running.error)
    with pytest.raises(ClientError):
        fetch.wait()


def test_target_errors_come_before_the_network(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NdzError, match="no such file"):
        Fetch(stand.folder / "missing", new_group(), 7000).wait()
    assert not (stand.folder / "missing").exists()
    monkeypatch.delenv("ORBIT_TESTBED_DISK")
    with pytest.raises(NdzError, match="regular file, not a disk"):
        Fetch(stand.disk(4096), new_group(), 7000).wait()
