# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One part of the transport alone: ``transport_parts.py PART IMAGE TARGET`` prints its seconds at the end."""

from __future__ import annotations

import json
import os
import select
import socketserver
import struct
import sys
import time
import zlib
from pathlib import Path

from orbit_frisbee.frisbee import wire
from orbit_frisbee.frisbee.net import Endpoint, Receiver
from orbit_frisbee.frisbee.server import Server, ServerConfig
from orbit_frisbee.ndz.format import CHUNK_SIZE, INDEX_SIZE, SECTOR, parse_index
from orbit_frisbee.ndz.unpack import Target, contents, new_workspace

GROUP, PORT = "239.77.1.9", 7009


def chunks(image: Path) -> list[bytes]:
    """Return the chunks of an image."""
    data = image.read_bytes()
    return [data[at : at + CHUNK_SIZE] for at in range(0, len(data), CHUNK_SIZE)]


def read(image: Path, _: str) -> float:
    """Read the file as the server does."""
    start = time.monotonic()
    file = os.open(image, os.O_RDONLY)
    buffer = [memoryview(bytearray(1024)) for _ in range(60)]
    at = 0
    while got := os.preadv(file, buffer, at):
        at += got
    return time.monotonic() - start


def send(image: Path, _: str) -> float:
    """Send every block once, as the server does, as fast as the kernel takes them."""
    server = Server(ServerConfig(image, GROUP, PORT, offload=True))
    for chunk in range(server.chunks):
        server.work.add(chunk, wire.FULL, 0.0, exact=False)
    start = time.monotonic()
    while server.work:
        server._send(time.monotonic(), 60)
        while server._unsent:
            if server._flush() is None and server._unsent:
                select.select([], [server.endpoint.tx], [])
    seconds = time.monotonic() - start
    server.close()
    return seconds


def receive(image: Path, _: str) -> float:
    """Receive blocks until nothing comes any more; CPU seconds for a whole image's worth of them."""
    endpoint = Endpoint(GROUP, PORT, server=False)
    receiver = Receiver(endpoint.rx, gro=endpoint.gro)
    print("ready", flush=True)
    got, begun = 0, 0.0
    while select.select([endpoint.rx], [], [], 0.5 if got else 30)[0]:
        begun = begun or time.process_time()
        while receiver.receive() is not None:
            got += receiver.blocks
    return (time.process_time() - begun) * image.stat().st_size / 1024 / max(1, got)


def inflate(image: Path, _: str) -> float:
    """Inflate every chunk on one core."""
    work = [(chunk, parse_index(chunk, i)) for i, chunk in enumerate(chunks(image))]
    workspace = new_workspace()
    start = time.monotonic()
    for chunk, index in work:
        for _piece in contents(chunk, index, workspace=workspace):
            pass
    return time.monotonic() - start


def write(image: Path, target: str) -> float:
    """Write what the chunks hold, inflated before."""
    work = []
    for i, chunk in enumerate(chunks(image)):
        work.append([(sector, bytes(piece)) for sector, piece in contents(chunk, parse_index(chunk, i))])
    start = time.monotonic()
    file = os.open(target, os.O_RDWR)
    for pieces in work:
        for sector, piece in pieces:
            os.pwrite(file, piece, sector * SECTOR)
    return time.monotonic() - start


def unpack(image: Path, target: str) -> float:
    """Inflate and write every chunk on one core."""
    work = [(chunk, parse_index(chunk, i)) for i, chunk in enumerate(chunks(image))]
    start = time.monotonic()
    with Target.open(target) as disk:
        for chunk, index in work:
            disk.write_chunk(chunk, index)
    return time.monotonic() - start


def _raw(image: Path) -> list[bytes]:
    return [
        b"".join(bytes(piece) for _, piece in contents(chunk, parse_index(chunk, i)))
        for i, chunk in enumerate(chunks(image))
    ]


def deflate1(image: Path, _: str) -> float:
    """Compress the disk's data by zlib level 1 on one core; prints the size as well."""
    work = _raw(image)
    start = time.monotonic()
    size = sum(len(zlib.compress(data, 1)) for data in work)
    seconds = time.monotonic() - start
    print(size)
    return seconds


def zinflate(image: Path, _: str) -> float:
    """Inflate every chunk by zlib on one core."""
    work = []
    for i, chunk in enumerate(chunks(image)):
        work.append(chunk[INDEX_SIZE : INDEX_SIZE + parse_index(chunk, i).length])
    start = time.monotonic()
    for data in work:
        zlib.decompress(data)
    return time.monotonic() - start


def regions(image: Path, _: str) -> float:
    """Print where data is, in sectors: [first, number] of each region."""
    found = [parse_index(chunk, i).regions for i, chunk in enumerate(chunks(image))]
    print(json.dumps([[region.start, region.count] for some in found for region in some]))
    return 0.0


def listen(image: Path, what: str) -> float:
    """Ask for chunks, note when datagrams come; prints bits per second on the cable, bursts in s."""
    bits, seconds = (float(part) for part in what.split(":"))
    endpoint = Endpoint("239.77.1.1", 7000, server=False)
    endpoint.rx.setsockopt(1, 35, 1)  # SO_TIMESTAMPNS
    buffer = bytearray(1 << 17)
    total = image.stat().st_size // CHUNK_SIZE
    seen: list[tuple[float, int]] = []
    asked, got = 0, 0
    while not seen or seen[-1][0] - seen[0][0] < seconds:
        # Half a second ahead, so that the server never runs dry.
        while asked < total and asked < got // wire.CHUNK_BLOCKS + 3 + int(bits / 16e6):
            endpoint.send(wire.encode_request(endpoint.own_packed, asked))
            asked += 1
        if not select.select([endpoint.rx], [], [], 5)[0]:
            break
        size, control, _, _ = endpoint.rx.recvmsg_into([buffer], 256)
        if size < wire.BLOCK_DATAGRAM or size % wire.BLOCK_DATAGRAM:
            continue
        stamp = next(struct.unpack("=qq", data) for _, kind, data in control if kind == 35)
        count = size // wire.BLOCK_DATAGRAM
        got += count
        seen.append((stamp[0] + stamp[1] / 1e9, count))
        if got >= total * wire.CHUNK_BLOCKS:
            break
    size_on_cable = wire.BLOCK_ON_WIRE * 8
    # What was sent after the first moment, over the time since.
    span = seen[-1][0] - seen[0][0]
    rate = sum(count for _, count in seen[1:]) * size_on_cable / span
    print(rate)
    # What comes at once: repaying a delay by a quarter more than the rate is none.
    print(_fullest(seen, bits * 1.25) / bits)
    return _fullest(seen, bits) / bits


def _fullest(seen: list[tuple[float, int]], bits: float) -> float:
    """Return the fullest that a bucket gets that is emptied at a rate, in bits."""
    level, worst, before = 0.0, 0.0, seen[0][0]
    for at, count in seen:
        level = max(0.0, level - (at - before) * bits) + count * wire.BLOCK_ON_WIRE * 8
        worst, before = max(worst, level), at
    return worst


class _Page(socketserver.BaseRequestHandler):
    """Answers any GET with the image, by sendfile: as little work for the server as HTTP allows."""

    image: Path

    def handle(self) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            if not (more := self.request.recv(65536)):
                return
            request += more
        with self.image.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.request.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            self.request.sendfile(file)


class _Web(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64


def serve(image: Path, address: str) -> float:
    """Serve the image by HTTP until killed."""
    host, port = address.split(":")
    _Page.image = image
    with _Web((host, int(port)), _Page) as server:
        print("ready", flush=True)
        server.serve_forever(3600)
    return 0.0


PARTS = {
    "serve": serve,
    "read": read,
    "send": send,
    "receive": receive,
    "inflate": inflate,
    "write": write,
    "unpack": unpack,
    "deflate1": deflate1,
    "zinflate": zinflate,
    "regions": regions,
    "listen": listen,
}

if __name__ == "__main__":
    print(PARTS[sys.argv[1]](Path(sys.argv[2]), sys.argv[3]))
