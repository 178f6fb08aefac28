# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client against hand-made servers: old ones, short ones, wrong ones, several."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orbit_frisbee.frisbee import wire
from orbit_frisbee.frisbee.client import ClientError
from orbit_frisbee.frisbee.net import Endpoint, NetError
from orbit_frisbee.ndz import manifest
from orbit_frisbee.ndz.format import NdzError
from orbit_frisbee.ndz.unpack import Target

from .stand import DEADLINE, HOME, Fetch, HandServer, Party, Stand, make_image, new_group, wait_until


def fetch(stand: Stand, hand: HandServer, size: int, **options: object) -> Fetch:
    return Fetch(stand.disk(size), hand.group, hand.port, **options)


@pytest.mark.parametrize("unicast", [True, False], ids=["2004", "2016"])
def test_both_generations_of_servers(stand: Stand, unicast: bool) -> None:
    """The older answers a JOIN by unicast, one datagram per BLOCK, full chunks only."""
    image, disk = make_image(3)
    server = stand.keep(HandServer(image, unicast=unicast, floor=unicast))
    assert fetch(stand, server, len(disk)).wait().disk.read_bytes() == disk
    wait_until(lambda: any(d[4] in (wire.LEAVE, wire.LEAVE2) for d in server.seen), "the LEAVE")
    leave = server.seen[-1]
    message, source = wire.decode(leave)
    assert source == server.own
    assert isinstance(message, wire.Leave)
    if unicast:
        # The numbers have another length where that one was built for 64 bits: it would not count the leave.
        assert len(leave) == 16 + 8
        assert message.statistics is None
    else:
        assert len(leave) == 16 + 1036
        assert message.statistics is not None
        assert message.statistics.bytes_covered == len(disk)
        assert message.statistics.bytes_written == 3 * 40 * 512
    join = server.seen[0]
    assert join[:12] == bytes.fromhex("01000000 01000000 04000000")
    assert wire.decode(join)[0] == wire.Join(message.client)


def test_nobody_answers(stand: Stand) -> None:
    party = stand.keep(Party(new_group(), 0))
    waiting = Fetch(stand.disk(4096), party.endpoint.group, party.endpoint.port, silence=1.2)
    with pytest.raises(ClientError, match=r"no server answered on .* for 1.2 seconds") as caught:
        waiting.wait()
    assert caught.value.status == 110
    joins = [d for d in party.hear(0.1) if d[4] == wire.JOIN]
    assert len(joins) == 5, "at once, soon again, ever more rarely"
    assert waiting.disk.read_bytes() == bytes(4096)


def test_the_server_falls_silent(stand: Stand) -> None:
    image, disk = make_image(2)
    server = stand.keep(HandServer(image, mute_after=1500))
    with pytest.raises(ClientError, match="1 of 2 chunks are missing") as caught:
        fetch(stand, server, len(disk), silence=1.0).wait()
    assert caught.value.status == 110
    # It asked again, ever more rarely, and says good-bye in the end.
    wait_until(lambda: server.seen[-1][4] == wire.LEAVE, "the LEAVE")
    assert 2 < len(server.seen) < 60


def test_an_empty_file(stand: Stand) -> None:
    server = stand.keep(HandServer(b"", blocks=0))
    with pytest.raises(ClientError, match="serves 0 blocks") as caught:
        fetch(stand, server, 4096).wait()
    assert caught.value.status == 1


def test_a_2004_server_loses_a_short_last_chunk(stand: Stand) -> None:
    image, disk = make_image(2)
    server = stand.keep(HandServer(image[: -(1 << 19)], floor=True))
    waiting = fetch(stand, server, len(disk), silence=1.5, again=0.2)
    with pytest.raises(ClientError, match="short last chunk 1") as caught:
        waiting.wait()
    assert caught.value.status == 1
    assert "Wrote" not in waiting.err.getvalue()


def test_two_servers(stand: Stand) -> None:
    image, disk = make_image(2)
    intruder: list[Party] = []

    def change(chunk: int, block: int, datagram: bytes) -> bytes:
        if block == 500:
            intruder[0].send(wire.encode_block(intruder[0].own, chunk, block + 1, b"evil"))
        return datagram

    server = stand.keep(HandServer(image, change=change))
    intruder.append(stand.keep(Party(server.group, server.port, "127.0.0.2")))
    # A datagram now and then is no server.
    waiting = fetch(stand, server, len(disk)).wait()
    assert waiting.disk.read_bytes() == disk
    assert waiting.client.strangers > 0
    # Pinned, it hears only the right one.
    pinned = fetch(stand, server, len(disk), server=HOME).wait()
    assert pinned.disk.read_bytes() == disk
    assert pinned.client.strangers > 0


def test_two_servers_that_both_serve(stand: Stand) -> None:
    """Nobody can tell which image is wanted, so nobody is told that all is well."""
    image, disk = make_image(3)
    intruder: list[Party] = []

    def change(chunk: int, block: int, datagram: bytes) -> bytes:
        if waiting.client._assembly.complete:
            with contextlib.suppress(OSError):  # it is closed first
                intruder[0].send(wire.encode_block(intruder[0].own, chunk, block, b"evil"))
        return datagram

    server = stand.keep(HandServer(image, change=change))
    intruder.append(stand.keep(Party(server.group, server.port, "127.0.0.2")))
    waiting = fetch(stand, server, len(disk), ascending=True, read_ahead=1)
    with pytest.raises(ClientError, match=r"two servers, 127\.0\.0\.1 and 127\.0\.0\.2") as caught:
        waiting.wait()
    assert caught.value.status == 255
    assert "Wrote" not in waiting.err.getvalue()


def test_a_pinned_server_that_does_not_answer(stand: Stand) -> None:
    image, disk = make_image(1)
    server = stand.keep(HandServer(image))
    with pytest.raises(ClientError, match="no server answered") as caught:
        fetch(stand, server, len(disk), server="127.0.0.9", silence=0.3).wait()
    assert caught.value.status == 110


def test_a_false_header_address_is_not_heard(stand: Stand) -> None:
    image, disk = make_image(1)
    server = stand.keep(HandServer(image, change=lambda c, b, d: d[:12] + b"\n\0\0\1" + d[16:]))
    waiting = fetch(stand, server, len(disk), silence=0.5)
    with pytest.raises(ClientError, match=r"silent for 0\.5 seconds"):
        waiting.wait()
    assert waiting.disk.read_bytes() == bytes(len(disk))


def test_the_image_changes_its_length(stand: Stand) -> None:
    image, disk = make_image(2)

    def change(chunk: int, block: int, datagram: bytes) -> bytes:
        if waiting.client._assembly.complete and block == 700:
            server._count = 1024
            return wire.encode_join_reply(server.own, 1024)
        return datagram

    server = stand.keep(HandServer(image, change=change))
    waiting = fetch(stand, server, len(disk), ascending=True, read_ahead=1)
    with pytest.raises(ClientError, match="now serves 1024 blocks instead of 2048") as caught:
        waiting.wait()
    assert caught.value.status == 1


def test_one_wrong_word_about_the_length_is_not_believed(stand: Stand) -> None:
    image, disk = make_image(2)

    def change(chunk: int, block: int, datagram: bytes) -> bytes:
        if block in (0, 700):
            server.send(wire.encode_join_reply(server.own, (0, 1024, 1 << 30)[block % 3]))
        return datagram

    server = stand.keep(HandServer(image, change=change))
    assert fetch(stand, server, len(disk)).wait().disk.read_bytes() == disk


def test_a_byte_changes_on_the_way(stand: Stand) -> None:
    """UDP's checksum is weak; zlib's finds it, and the chunk is not written."""
    image, disk = make_image(1)

    def change(chunk: int, block: int, datagram: bytes) -> bytes:
        return datagram[:100] + bytes([datagram[100] ^ 1]) + datagram[101:] if block == 6 else datagram

    server = stand.keep(HandServer(image, change=change))
    waiting = fetch(stand, server, len(disk))
    with pytest.raises(NdzError, match="chunk 0: compressed data"):
        waiting.wait()
    assert waiting.disk.read_bytes() == bytes(len(disk))


def test_blocks_outside_the_file_are_not_taken(stand: Stand) -> None:
    image, disk = make_image(2)

    def change(chunk: int, block: int, datagram: bytes) -> bytes:
        for bad in ((2, 0), (-1, 0), (1, 1024), (1 << 30, 5), (0, -1)):
            if block % 200 == 0:
                server.send(wire.encode_block(server.own, *bad, b"bad"))
        return datagram + b"tail" * (block % 3)

    server = stand.keep(HandServer(image, change=change))
    assert fetch(stand, server, len(disk)).wait().disk.read_bytes() == disk


def test_other_chunk_sizes_are_refused(stand: Stand) -> None:
    """A jumbo build of 2016 has 128 blocks of 8192 bytes."""
    party = stand.keep(Party(new_group(), 0))
    waiting = Fetch(stand.disk(4096), party.endpoint.group, party.endpoint.port, plain=True)
    join = party.expect(wire.Join2)
    reply = bytearray(wire.encode_join2_reply(party.own, join.client, 8192))
    reply[20:32] = b"".join(v.to_bytes(4, "little") for v in (1, 128, 8192))
    party.send(bytes(reply))
    with pytest.raises(ClientError, match="chunks of 128 blocks of 8192 bytes"):
        waiting.wait()


def test_a_join2_reply_for_another_client_is_not_ours(stand: Stand) -> None:
    content = b"x" * 3000
    party = stand.keep(Party(new_group(), 0))
    waiting = Fetch(stand.disk(4096), party.endpoint.group, party.endpoint.port, plain=True)
    join = party.expect(wire.Join2)
    party.send(wire.encode_join2_reply(party.own, join.client ^ 1, 9999))
    party.send(wire.encode_join2_reply(party.own, join.client, len(content)))
    party.expect(wire.Request)
    for block in range(3):
        party.send(wire.encode_block(party.own, 0, block, content[block * 1024 : (block + 1) * 1024]))
    assert waiting.wait().disk.read_bytes()[:3000] == content


def test_an_error_in_a_writer_ends_the_client_though_the_server_is_silent(stand: Stand) -> None:
    """The thread that waits for the network must be woken by the one that failed."""
    image, disk = make_image(2)
    server = stand.keep(HandServer(b"\0" * (1 << 20) + image[1 << 20 :], mute_after=1024))
    with pytest.raises(NdzError, match="chunk 0: magic"):
        fetch(stand, server, len(disk), silence=3600.0, ascending=True).wait()


class Forger(Party):
    """Answers each JOIN at once with what is not so, and perhaps sends blocks of its own."""

    def __init__(self, group: str, port: int, blocks: int, image: bytes = b"", plain: bool = False) -> None:
        super().__init__(group, port, "127.0.0.2")
        self._blocks, self._image, self._plain = blocks, image, plain
        self._wake = os.eventfd(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._wake not in select.select([self.endpoint.rx, self._wake], [], [])[0]:
            for datagram in self.hear(0):
                with contextlib.suppress(wire.WireError):
                    self._answer(wire.decode(datagram)[0])

    def _answer(self, message: object) -> None:
        if isinstance(message, wire.Join):
            self.send(wire.encode_join_reply(self.own, self._blocks))
        elif isinstance(message, wire.Join2):
            self.send(wire.encode_join2_reply(self.own, message.client, self._blocks * 1024))
        elif isinstance(message, wire.Request | wire.PartialRequest):
            for first, count in wire.runs(message.bits):
                for block in range(first, first + count):
                    at = (message.chunk * 1024 + block) * 1024
                    if at < len(self._image):
                        data = self._image[at : at + 1024]
                        self.send(wire.encode_block(self.own, message.chunk, block, data))

    def stop(self) -> None:
        os.eventfd_write(self._wake, 1)
        self._thread.join(DEADLINE)
        os.close(self._wake)
        self.close()


class LateServer(HandServer):
    """A server whose answer to a JOIN comes after that of everybody else."""

    def __init__(self, image: bytes, *, deaf_to: int = 2, **options: Any) -> None:
        self._deaf_to = deaf_to
        super().__init__(image, **options)

    def _answer(self, datagram: bytes, source: tuple[str, int]) -> None:
        if datagram[4] in (wire.JOIN, wire.JOIN2):
            self._deaf_to -= 1
            if self._deaf_to >= 0:
                return
        super()._answer(datagram, source)


@pytest.mark.parametrize("blocks", [0, 1, 1024, 2049, 1 << 22])
@pytest.mark.parametrize("how", ["nothing", "manifest", "pinned", "unicast"])
def test_a_forged_answer_ends_no_client(stand: Stand, blocks: int, how: str) -> None:
    image, disk = make_image(2)
    server = stand.keep(LateServer(image, unicast=how == "unicast"))
    stand.keep(Forger(server.group, server.port, blocks))
    options: dict[str, Any] = {}
    if how == "manifest":
        options["manifest"] = manifest.of_image(stand.file(image))
    elif how == "pinned":
        options["server"] = f"127.0.0.9,{HOME}"
    waiting = fetch(stand, server, len(disk), **options).wait()
    assert waiting.disk.read_bytes() == disk
    assert "Wrote" in waiting.err.getvalue()


@pytest.mark.parametrize("size", [1, 5000, 1 << 30])
def test_a_forged_answer_for_a_plain_file(stand: Stand, size: int) -> None:
    content = os.urandom(3000)
    server = stand.keep(LateServer(content))
    stand.keep(Forger(server.group, server.port, size))
    waiting = fetch(stand, server, 4096, plain=True).wait()
    assert waiting.disk.read_bytes()[:3000] == content


@pytest.mark.parametrize("known", [False, True])
def test_a_forger_whose_chunks_are_none(stand: Stand, known: bool) -> None:
    image, disk = make_image(2)
    server = stand.keep(LateServer(image))
    other = make_image(2, seed=9)[0] if known else bytes(2 << 20)
    stand.keep(Forger(server.group, server.port, 2048, other))
    options = {"manifest": manifest.of_image(stand.file(image))} if known else {}
    waiting = fetch(stand, server, len(disk), **options).wait()
    assert waiting.disk.read_bytes() == disk
    assert "127.0.0.2 does not seem to be the server: " in waiting.err.getvalue()


def test_a_wrong_first_answer_in_the_servers_name(stand: Stand) -> None:
    """What comes from the server's own address, and is not so, is found out by asking again."""
    image, disk = make_image(2)
    server = stand.keep(LateServer(image, mute_after=0))
    waiting = fetch(stand, server, len(disk))
    wait_until(lambda: bool(server.seen), "a JOIN")
    server.send(wire.encode_join_reply(server.own, 5000))
    wait_until(lambda: waiting.client._blocks == 5000, "a client that is deceived")
    wait_until(lambda: waiting.client._blocks == 2048, "one that has asked again")
    server._mute_after = None
    assert waiting.wait().disk.read_bytes() == disk


@pytest.fixture
def held_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Disks that take nothing until the event is set."""
    goes_on = threading.Event()
    write = Target.write_chunk

    def wait(self: Target, *arguments: Any) -> None:
        assert goes_on.wait(DEADLINE)
        write(self, *arguments)

    monkeypatch.setattr(Target, "write_chunk", wait)
    try:
        yield goes_on
    finally:
        goes_on.set()


def wait_for_full_buffers(waiting: Fetch, buffers: int) -> None:
    def full() -> bool:
        assembly = getattr(waiting.client, "_assembly", None)
        return assembly is not None and assembly.complete == buffers and not assembly.filling

    wait_until(full, "full buffers")


def members(group: str) -> int:
    """Return how many sockets of this network namespace have joined a group."""
    (wanted,) = struct.unpack("=I", socket.inet_aton(group))
    lines = Path("/proc/self/net/igmp").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split()[0] == f"{wanted:08X}")


def test_who_has_everything_leaves_the_group_and_writes_on(stand: Stand, held_disk: threading.Event) -> None:
    image, disk = make_image(2)
    server = stand.keep(HandServer(image))
    assert members(server.group) == 1
    waiting = fetch(stand, server, len(disk))
    wait_until(lambda: waiting.client._joined_at > 0 and members(server.group) == 1, "the end of listening")
    assembly = waiting.client._assembly
    assert assembly.complete == 2
    before = assembly.finished_again
    server.send(wire.encode_block(server.own, 0, 0, bytes(1024)))
    held_disk.set()
    assert waiting.wait().disk.read_bytes() == disk
    assert assembly.finished_again == before
    wait_until(lambda: any(d[4] == wire.LEAVE2 for d in server.seen), "the LEAVE2")


def test_memory_is_bounded_while_the_disk_takes_nothing(stand: Stand, held_disk: threading.Event) -> None:
    """What then comes is dropped, and nothing is asked for. Both are counted, and end with the wait."""
    image, disk = make_image(10)
    server = stand.keep(HandServer(image))
    waiting = fetch(stand, server, len(disk), buffers=3, silence=DEADLINE)
    wait_for_full_buffers(waiting, 3)
    client = waiting.client

    def asked() -> int:
        return client._asker.requests + client._asker.partial_requests

    before = asked()
    there = {chunk for chunk in range(10) if client._assembly.is_untouched(chunk)}
    assert len(there) == 7
    for chunk in there:
        for block in range(1024):
            at = (chunk * 1024 + block) * 1024
            server.send(wire.encode_block(server.own, chunk, block, image[at : at + 1024]))
        # At the pace of the client: what its socket loses, it does not have to drop.
        wait_until(lambda: client._assembly.dropped >= 1024, "dropped blocks")
        client._assembly.dropped = 0
    idle = client._asker.idle_rounds
    wait_until(lambda: client._asker.idle_rounds >= idle + 3, "times to ask again")
    assembly = client._assembly
    assert (assembly.free, assembly.complete, len(assembly.filling)) == (0, 3, 0)
    assert len(assembly._spare) == 0
    assert asked() == before
    held_disk.set()
    assert waiting.wait().disk.read_bytes() == disk
    assert (assembly.free, len(assembly._spare)) == (3, 3), "no buffer was made besides"


@pytest.mark.parametrize("mute", [False, True])
def test_a_slow_disk_is_not_the_servers_silence(stand: Stand, held_disk: threading.Event, mute: bool) -> None:
    """While all buffers wait for the disk nothing is asked for; afterwards silence counts again."""
    image, disk = make_image(4)
    server = stand.keep(HandServer(image, mute_after=2048 if mute else None))
    waiting = fetch(stand, server, len(disk), buffers=2, silence=0.4)
    wait_for_full_buffers(waiting, 2)
    until = time.monotonic() + 1.5
    wait_until(lambda: time.monotonic() > until, "the end of the wait")
    assert waiting.error is None
    held_disk.set()
    if not mute:
        assert waiting.wait().disk.read_bytes() == disk
        return
    with pytest.raises(ClientError, match=r"silent for 0\.4 seconds, 2 of 4 chunks are missing") as caught:
        waiting.wait()
    assert caught.value.status == 110


def test_the_group_cannot_be_joined_again(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment: it is tried again. For good: an error of one line."""
    image, disk = make_image(2)
    real = Endpoint._membership

    def run(number: int) -> Fetch:
        def membership(self: Endpoint, option: int) -> None:
            tried.append(option)
            # The first joins, then they leave and join by turns.
            if 1 < len(tried) <= 4:
                raise OSError(number, os.strerror(number))
            real(self, option)

        tried: list[int] = []
        server = stand.keep(HandServer(image, mute_after=1500))
        monkeypatch.setattr(Endpoint, "_membership", membership)
        waiting = fetch(stand, server, len(disk), keepalive=0.02, silence=1.0)
        with pytest.raises((ClientError, NetError)) as caught:
            waiting.wait()
        monkeypatch.setattr(Endpoint, "_membership", real)
        assert ("has been silent" in str(caught.value)) == (number == errno.ENODEV)
        assert (len(tried) > 6) == (number == errno.ENODEV)
        if number != errno.ENODEV:
            assert re.fullmatch(r"cannot join 239\.\S+ again from 127\.0\.0\.1: .*", str(caught.value))
        return waiting

    run(errno.ENODEV)
    run(errno.ENOMEM)


def test_a_file_that_was_cut_at_the_border_of_a_chunk(stand: Stand) -> None:
    image, disk = make_image(3, counted=True)
    server = stand.keep(HandServer(image))
    assert fetch(stand, server, len(disk)).wait().disk.read_bytes() == disk
    for there in (1, 2):
        server = stand.keep(HandServer(image[: there << 20]))
        waiting = fetch(stand, server, len(disk))
        with pytest.raises(
            NdzError, match=f"chunk 0: number of chunks: the index says 3 but {there} are there"
        ):
            waiting.wait()
        assert "Wrote" not in waiting.err.getvalue()
    # What nothing in the file tells.
    image, disk = make_image(3)
    fetch(stand, stand.keep(HandServer(image[: 2 << 20])), len(disk)).wait()


def test_the_checksum_of_version_4_covers_the_whole_chunk(stand: Stand) -> None:
    """A region that moves to where it fits as well: nothing but the checksum tells."""
    image, disk = make_image(2, version=4, checksum=True)
    plain, _ = make_image(2, version=4)
    for whole, checked in ((image, True), (plain, False)):
        moved = bytearray(whole)
        moved[(1 << 20) + 344] += 1
        server = stand.keep(HandServer(bytes(moved)))
        waiting = fetch(stand, server, len(disk))
        if not checked:
            assert waiting.wait().disk.read_bytes() != disk
            continue
        with pytest.raises(NdzError, match="chunk 1: checksum: the SHA-1 of index and data is another"):
            waiting.wait()
        assert waiting.disk.read_bytes()[64 * 512 :] == bytes(64 * 512)


def test_a_signature_that_nobody_verifies_is_told_once(stand: Stand) -> None:
    image, disk = make_image(3, version=4)
    signed = bytearray(image)
    for chunk in range(3):
        signed[(chunk << 20) + 38 : (chunk << 20) + 40] = b"\x01\x80"
    waiting = fetch(stand, stand.keep(HandServer(bytes(signed))), len(disk)).wait()
    assert waiting.disk.read_bytes() == disk
    assert waiting.err.getvalue().count("the image is signed, which is not verified") == 1


def test_start_delay_and_threads_end(stand: Stand) -> None:
    image, disk = make_image(1)
    server = stand.keep(HandServer(image))
    assert fetch(stand, server, len(disk), start_delay=0.01, keepalive=0.01).wait()
    assert not [t for t in threading.enumerate() if t.name.startswith("frisbee-writer")]
