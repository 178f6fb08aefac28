# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server against hand-made datagrams, good and bad."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import struct
import time

import pytest

from orbit_frisbee.frisbee import net, pace, server as server_module, wire
from orbit_frisbee.frisbee.net import NetError, PortBusyError
from orbit_frisbee.frisbee.server import CLIENTS_KEPT, Server, ServerConfig, ServerError

from .stand import HOME, Running, Stand, make_image, new_group, wait_until
from .test_wire import BLOCK, JOIN, JOIN2, JOIN_REPLY, LEAVE, LEAVE2_64_BIT, PREQUEST, REQUEST, VALID

ID = 0x11223344


def ready(running: Running) -> None:
    """Wait until the server has taken everything sent to it."""
    wait_until(lambda: not running.server.work, "an empty queue")


def test_join_as_in_2004_and_2016(stand: Stand) -> None:
    """A plain JOIN gets the number of blocks, by multicast, where both generations hear it."""
    path, _ = stand.image(2)
    running = stand.serve(path)
    party = stand.party(running)
    party.send(JOIN)
    reply = next(d for d in party.hear() if d[0] == 2)
    assert reply == bytes.fromhex("02000000 01000000 04000000 7f000001 00080000")
    wait_until(lambda: running.server.count.joins == 1, "the join")
    assert [c["id"] for c in running.server.stats()["clients"]] == [ID]  # type: ignore[attr-defined]


def test_join2_as_in_2016(stand: Stand) -> None:
    running = stand.serve(stand.file(bytes(1500)))
    party = stand.party(running)
    party.send(JOIN2)
    reply = next(d for d in party.hear() if d[0] == 2)
    assert reply == bytes.fromhex(
        "02000000 07000000 18000000 7f000001 44332211 00000000 00040000 00040000 dc05000000000000"
    )


def test_the_minimal_client(stand: Stand) -> None:
    """JOIN, REQUEST, PREQUEST, LEAVE, each written from the protocol's tables."""
    image, _ = make_image(2)
    running = stand.serve(stand.file(image), rate=None)
    party = stand.party(running)
    party.send(JOIN)
    assert party.expect(wire.JoinReply).blocks == 2048
    party.send(bytes.fromhex("01000000 04000000 0c000000 7f000001 01000000 00000000 00040000"))
    received = {}
    for datagram in party.hear():
        message, source = wire.decode(datagram)
        if isinstance(message, wire.Block):
            assert len(datagram) == 1048
            assert datagram[:4] == b"\1\0\0\0"
            assert source == socket.inet_aton(HOME)
            assert message.chunk == 1
            received[message.block] = bytes(message.data)
            if len(received) == 1024:
                break
    assert b"".join(received[b] for b in range(1024)) == image[1 << 20 :]
    ready(running)
    bitmap = bytearray(128)
    bitmap[0], bitmap[127] = 0b101, 0b10000000
    party.send(bytes.fromhex("01000000 06000000 88000000 7f000001 00000000 01000000") + bitmap)
    assert party.blocks(3) == [(0, 0), (0, 2), (0, 1023)]
    party.send(LEAVE)
    wait_until(lambda: running.server.count.leaves == 1, "the leave")


@pytest.mark.parametrize(
    "leave",
    [LEAVE, LEAVE2_64_BIT, wire.encode_leave2(socket.inet_aton(HOME), ID, wire.Statistics(seconds=3))],
    ids=["LEAVE", "LEAVE2 of a 64-bit 2004 client", "LEAVE2"],
)
def test_every_kind_of_leave_counts(stand: Stand, leave: bytes) -> None:
    path, _ = stand.image(1)
    running = stand.serve(path)
    party = stand.party(running)
    party.send(JOIN)
    party.expect(wire.JoinReply)
    party.send(leave)
    wait_until(lambda: running.server.count.leaves == 1, "the leave")
    assert running.server.stats()["clients"] == []


def test_short_last_chunk(stand: Stand) -> None:
    content = random.Random(1).randbytes((1 << 20) + 1500)
    running = stand.serve(stand.file(content), rate=None)
    party = stand.party(running)
    party.send(JOIN)
    assert party.expect(wire.JoinReply).blocks == 1026
    # The whole chunk is asked for, as by a client that rounds up: what there is comes, padded with zeros.
    party.send(wire.encode_request(party.own, 1))
    first, second = party.expect(wire.Block), party.expect(wire.Block)
    assert bytes(first.data) + bytes(second.data) == content[1 << 20 :].ljust(2048, b"\0")
    assert party.silent(0.2, wire.Block)


def test_a_false_source_address_gets_no_answer(stand: Stand) -> None:
    path, _ = stand.image(1)
    running = stand.serve(path)
    party = stand.party(running)
    party.send(JOIN[:12] + bytes([10, 0, 0, 1]) + JOIN[16:])
    party.send(JOIN)
    party.expect(wire.JoinReply)
    wait_until(lambda: running.server.count.foreign == 1, "the refusal")
    assert running.server.count.joins == 1


@pytest.mark.parametrize(
    "datagram",
    [
        REQUEST[:24] + bytes(4),  # 0 blocks: the end of the 2004 server
        REQUEST[:8] + struct.pack("<i", -16) + REQUEST[12:],
        REQUEST[:16] + struct.pack("<i", 99) + REQUEST[20:],
        PREQUEST[:24] + bytes(128),
        JOIN_REPLY,
        b"",
        b"x",
    ],
    ids=["count 0", "negative length", "chunk 99", "empty bitmap", "an answer", "nothing", "a byte"],
)
def test_what_ends_or_confuses_others_does_nothing(stand: Stand, datagram: bytes) -> None:
    path, _ = stand.image(1)
    running = stand.serve(path, rate=None)
    party = stand.party(running)
    party.send(datagram)
    party.send(wire.encode_request(party.own, 0, 3, 1))
    assert party.blocks(1) == [(0, 3)]
    assert party.silent(0.1, wire.Block)
    assert running.server.count.joins == 0


def test_two_servers_on_one_group_do_not_answer_each_other(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the 2016 servers do so for ever."""
    monkeypatch.setattr(server_module, "claim_stream", lambda *_: socket.socket(socket.AF_UNIX))
    path, _ = stand.image(1)
    first = stand.serve(path)
    stand.serve(path, group=first.server.config.group, port=first.server.port)
    party = stand.party(first)
    party.send(JOIN)
    party.expect(wire.JoinReply)
    party.expect(wire.JoinReply)
    assert party.silent(0.5, wire.JoinReply)


def test_a_flood_of_joins_gets_few_answers(stand: Stand) -> None:
    path, _ = stand.image(1)
    running = stand.serve(path)
    party = stand.party(running)
    for ident in range(1500):
        party.send(wire.encode_join(party.own, ident))
        party.send(wire.encode_join2(party.own, ident))
    wait_until(lambda: running.server.count.messages_in >= 2000, "most of the flood")
    # Another client is answered all the same.
    late = stand.party(running, interface="127.0.0.3")
    late.send(wire.encode_join(late.own, 99))
    late.expect(wire.JoinReply)


def test_answers_keep_to_their_rate(stand: Stand) -> None:
    path, _ = stand.image(1)
    server = Server(ServerConfig(path, new_group(), 0, HOME))
    try:
        now = server._reply_time
        for ident in range(1500):
            server.handle(wire.encode_join2(socket.inet_aton(HOME), ident), (HOME, 1), now)
            server._answer(now)
        assert server.count.messages_out == server_module._REPLY_BURST
        for tenths in range(1, 31):
            server._answer(now + tenths / 10)
        most = server_module._REPLY_BURST + 3 * server_module.REPLIES_PER_SECOND
        assert 0.95 * most <= server.count.messages_out <= most
    finally:
        server.close()


def test_replies_that_had_to_wait_are_given(stand: Stand) -> None:
    path, _ = stand.image(1)
    running = stand.serve(path)
    party = stand.party(running)
    for ident in range(60):
        party.send(wire.encode_join2(party.own, ident))
    assert {party.expect(wire.Join2Reply).client for _ in range(60)} == set(range(60))


def test_requests_for_one_chunk_are_merged(stand: Stand) -> None:
    path, _ = stand.image(2)
    running = stand.serve(path, rate=None, gather=0.3)
    party = stand.party(running)
    party.send(JOIN)
    party.expect(wire.JoinReply)
    for _ in range(5):
        party.send(wire.encode_request(party.own, 1))
        party.send(wire.encode_request(party.own, 0, 5, 7))
    assert len(party.blocks(1031)) == 1031
    assert party.silent(0.2, wire.Block)
    stats = running.server.stats()
    assert (stats["requests"], stats["requests_merged"], stats["blocks_sent"]) == (10, 8, 1031)


def test_gather_waits_for_the_last_join(stand: Stand) -> None:
    path, _ = stand.image(1)
    server = Server(ServerConfig(path, new_group(), 0, HOME, rate=None, gather=0.4))
    own = socket.inet_aton(HOME)
    try:
        for client, when, until in (
            (1, 100.0, 100.4),
            (2, 100.25, 100.65),
            # The same client again is no new one and does not prolong the wait.
            (2, 100.5, 100.65),
        ):
            server.handle(wire.encode_join(own, client), (HOME, 1), when)
            assert server._gather_until == pytest.approx(until)
        # While the stream runs, or has just run, nobody is made to wait.
        server.handle(wire.encode_request(own, 0), (HOME, 1), 100.6)
        assert server._send(100.7, 1) == 1
        server.handle(wire.encode_join(own, 3), (HOME, 1), 100.8)
        assert server._gather_until == pytest.approx(100.65)
    finally:
        server.close()


def test_what_is_gathered_for_is_sent_then(stand: Stand) -> None:
    path, _ = stand.image(1)
    running = stand.serve(path, rate=None, gather=0.4)
    party = stand.party(running)
    party.send(wire.encode_join(party.own, 1))
    party.send(wire.encode_request(party.own, 0))
    party.blocks(1024)
    party.send(wire.encode_join(party.own, 2))
    party.send(wire.encode_request(party.own, 0, 0, 1))
    party.blocks(1)


def test_gather_ends_when_all_that_are_expected_are_there(stand: Stand) -> None:
    path, _ = stand.image(1)
    running = stand.serve(path, rate=None, gather=3600.0, expect=2)
    party = stand.party(running)
    party.send(wire.encode_join(party.own, 1))
    party.send(wire.encode_request(party.own, 0))
    assert party.silent(0.2, wire.Block)
    party.send(wire.encode_join(party.own, 2))
    party.blocks(1024)


def test_gather_ends_after_ten_times(stand: Stand) -> None:
    path, _ = stand.image(1)
    server = Server(ServerConfig(path, new_group(), 0, HOME, gather=0.5))
    try:
        for i in range(13):
            server.handle(wire.encode_join(socket.inet_aton(HOME), i), (HOME, 1), 100 + i * 0.4)
        assert server._gather_until == pytest.approx(105.0)
    finally:
        server.close()


def test_pace_on_the_wire(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate is kept over a whole pass, by the clock that the server reads when a batch has gone out."""
    batches: list[tuple[int, float]] = []
    sent = pace.Pacer.sent

    def note(pacer: pace.Pacer, blocks: int, now: float) -> None:
        batches.append((blocks, now))
        sent(pacer, blocks, now)

    monkeypatch.setattr(pace.Pacer, "sent", note)
    path, _ = stand.image(4)
    rate = pace.rate_of_bandwidth(100_000_000)
    running = stand.serve(path, rate=rate)
    party = stand.party(running)
    for chunk in range(4):
        party.send(wire.encode_request(party.own, chunk))
    assert len(party.blocks(4096)) == 4096
    (_, first), *others = batches
    last = others[-1][1]
    assert sum(blocks for blocks, _ in others) <= 1 + rate * (last - first + pace.BURST_SECONDS)


def test_own_blocks_do_not_fill_the_servers_buffer(stand: Stand) -> None:
    path, _ = stand.image(4)
    running = stand.serve(path, rate=None)
    party = stand.party(running)
    for chunk in range(4):
        party.send(wire.encode_request(party.own, chunk))
    party.blocks(4096)
    ready(running)
    party.send(BLOCK)
    party.send(JOIN)
    party.expect(wire.JoinReply)
    # Four requests and a JOIN, and the server's own answer to it; no BLOCK.
    wait_until(lambda: running.server.count.messages_in >= 6, "its own answer")
    assert running.server.count.messages_in == 6


def test_idle_time_ends_the_server(stand: Stand) -> None:
    path, _ = stand.image(1)
    running = stand.serve(path, idle_timeout=0.1)
    running.join()
    assert running.error is None


def test_the_last_leave_ends_the_server(stand: Stand) -> None:
    path, disk = stand.image(1)
    running = stand.serve(path, rate=None, idle_timeout=-1)
    stand.fetch(running, len(disk)).wait()
    running.join()
    assert running.server.count.leaves == 1


def test_statistics_file(stand: Stand) -> None:
    path, disk = stand.image(2)
    stats = stand.folder / "stats.json"
    running = stand.serve(path, rate=None, stats=stats)
    party = stand.party(running)
    party.send(JOIN)
    wait_until(lambda: stats.exists() and json.loads(stats.read_text())["joins"] == 1, "a first writing")
    numbers = json.loads(stats.read_text())
    assert numbers["state"] == "serving"
    assert numbers["clients"][0]["id"] == ID
    assert numbers["clients"][0]["ip"] == HOME
    stand.fetch(running, len(disk)).wait()
    wait_until(lambda: running.server.count.leaves == 1, "the leave")
    running.server.stop()
    running.join()
    numbers = json.loads(stats.read_text())
    assert numbers["state"] == "ended"
    # On a busy machine the client loses blocks and asks for them again.
    sent = 2048 + numbers["blocks_repeated"]
    for name, value in {
        "blocks_in_file": 2048,
        "blocks_sent": sent,
        "bytes_sent": sent * 1114,
        "joins": 2,
        "leaves": 1,
        "port": running.server.port,
    }.items():
        assert numbers[name] == value, name
    assert os.listdir(stats.parent).count(stats.name) == 1
    assert not [name for name in os.listdir(stats.parent) if name.startswith(".")]


def test_statistics_that_cannot_be_written_do_not_stop_the_stream(stand: Stand) -> None:
    path, disk = stand.image(1)
    running = stand.serve(path, rate=None, stats=stand.folder / "missing" / "stats.json")
    assert stand.fetch(running, len(disk)).wait().disk.read_bytes() == disk
    assert "cannot write statistics" in running.log.getvalue()  # type: ignore[attr-defined]


def test_slower_while_clients_lose(stand: Stand) -> None:
    path, _ = stand.image(1)
    server = Server(ServerConfig(path, new_group(), 0, HOME, dynamic=True, rate=1000.0))
    try:
        own = socket.inet_aton(HOME)
        now = time.monotonic()
        for step in range(1, 4):
            server.handle(wire.encode_prequest(own, 0, 1, retry=True), (HOME, 1), now)
            server._housekeeping(now + step)
            server.work.take(60, now + step)
        slow = server._pacer.rate
        assert slow == pytest.approx(1000 * 0.9**3)
        for step in range(4, 20):
            server._housekeeping(now + step)
        assert server._pacer.rate == 1000.0
    finally:
        server.close()


# -- refusals at the start --------------------------------------------------------------------------------


def test_a_taken_port(stand: Stand) -> None:
    path, _ = stand.image(1)
    running = stand.serve(path)
    with pytest.raises(PortBusyError, match="another frisbeed serves"):
        stand.serve(path, group=running.server.config.group, port=running.server.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 0))
        with pytest.raises(PortBusyError, match="in use"):
            stand.serve(path, port=other.getsockname()[1])


def test_the_port_is_free_again_after_the_end(stand: Stand) -> None:
    path, _ = stand.image(1)
    running = stand.serve(path)
    running.server.stop()
    running.join()
    running.server.close()
    stand.serve(path, group=running.server.config.group, port=running.server.port)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"interface": "192.0.2.1"}, "192.0.2.1 is no address of this host"),
        ({"interface": "eth0"}, "'eth0' is no IPv4 address"),
        ({"group": "localhost"}, "'localhost' is no IPv4 address"),
        ({"group": "0.0.0.0"}, "nobody's"),
    ],
)
def test_addresses_that_cannot_be(stand: Stand, options: dict[str, str], says: str) -> None:
    path, _ = stand.image(1)
    with pytest.raises(NetError, match=says):
        stand.serve(path, **options)


def test_files_that_cannot_be(stand: Stand) -> None:
    for path, says in (
        (stand.folder / "missing", "No such file"),
        (stand.file(b""), "empty"),
        (stand.folder, "neither a file nor a disk"),
    ):
        with pytest.raises(ServerError, match=says) as caught:
            stand.serve(path)
        assert str(path) in str(caught.value)


# -- anything at all --------------------------------------------------------------------------------------


def mutated(source: random.Random) -> bytes:
    data = bytearray(source.choice(VALID))
    for _ in range(source.randrange(4)):
        at = source.randrange(min(len(data), 28))
        data[at] = source.choice((0, 1, 2, 3, 127, 128, 255, source.randrange(256)))
    choice = source.random()
    if choice < 0.1:
        del data[source.randrange(len(data)) :]
    elif choice < 0.15:
        data += source.randbytes(source.randrange(40))
    elif choice < 0.2:
        data = bytearray(source.randbytes(source.randrange(64)))
    return bytes(data)


def test_mutated_datagrams_in_process(stand: Stand) -> None:
    path, _ = stand.image(8)
    server = Server(ServerConfig(path, new_group(), 0, HOME), log=io.StringIO())
    try:
        source = random.Random(20261122)
        now = 100.0
        for i in range(40_000):
            now += 0.0001
            server.handle(mutated(source), (HOME, 7000), now)
            if i % 100 == 0:
                server.work.take(60, now)
        assert len(server.work) <= 8
        assert len(server._clients) <= CLIENTS_KEPT
        assert len(server._join2_waits) <= server_module._REPLY_QUEUE
        count = server.count
        assert count.messages_in == 40_000
        assert min(count.invalid, count.joins, count.requests, count.partial_requests) > 1000
    finally:
        server.close()


def test_mutated_datagrams_over_the_socket(stand: Stand) -> None:
    path, disk = stand.image(3)
    running = stand.serve(path, rate=pace.rate_of_bandwidth(300_000_000))
    party = stand.party(running)
    source = random.Random(7)
    for i in range(4000):
        party.send(mutated(source))
        if i % 200 == 0:
            wait_until(lambda i=i: running.server.count.messages_in > i // 4, "the server taking part")  # type: ignore[misc]
    assert stand.fetch(running, len(disk)).wait().disk.read_bytes() == disk
    assert running.error is None


def test_many_clients_are_forgotten_not_hoarded(stand: Stand) -> None:
    path, _ = stand.image(1)
    server = Server(ServerConfig(path, new_group(), 0, HOME), log=io.StringIO())
    try:
        for ident in range(CLIENTS_KEPT + 500):
            server.handle(wire.encode_join(net.parse_address(HOME, ""), ident), (HOME, 1), 1.0)
        assert len(server._clients) == CLIENTS_KEPT
        assert (0, HOME) not in server._clients
    finally:
        server.close()
