# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets of a frisbee session.

All parties use one port number, as source and as destination, and talk to one address: a multicast
group, a broadcast address, or (one server, one client) each other.

* **Two sockets**, save one to one. One is bound to *group:port* and hears the group and nothing else: two
  streams on one port with different groups do not mix. The other is bound to *own address:port* and
  sends, because the 2016 client drops what does not come from the session's port. A client also listens
  on it, as the 2004 server answers a JOIN by unicast; a server's is deaf.
* **Own address**: what goes into each header, and what a receiver compares with the UDP source. It is
  the interface address given, else the one the kernel would send from. No name is looked up.
* **Multicast loop is on**, where the programs in the field switch it off: server and clients may then run
  in one host or one network namespace. The price is that a sender hears itself. The server refuses
  BLOCKs in a socket filter, before they cost it buffer space, and a client that hears its own request
  treats it like anybody's.
* ``IP_MULTICAST_ALL`` is off, so that a socket hears only the group it joined itself and not what another
  process of the machine joined.
* ``SO_REUSEADDR`` is set, for clients that share a machine. It would also let two servers share a
  group and port unnoticed; an abstract Unix socket named after both guards against that
  (:func:`claim_stream`).
* **Segmentation offload**: up to 60 BLOCKs go to the kernel in one call (``UDP_SEGMENT``) and come back in
  one (``UDP_GRO``). On the wire they are ordinary datagrams. Where the kernel or the interface refuses,
  each BLOCK is one call.
"""

from __future__ import annotations

import array
import contextlib
import errno
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final, Literal

from orbit_frisbee.frisbee.wire import (
    BLOCK,
    BLOCK_DATAGRAM,
    BLOCK_HEAD_SIZE,
    BLOCK_SIZE,
    Buffer,
)

TTL: Final = 5
"""Time to live of multicast datagrams, as in both generations."""
MAX_SEGMENTS: Final = 60
"""BLOCKs handed to the kernel in one call."""
SERVER_BUFFER: Final = 1 << 20
CLIENT_BUFFER: Final = 32 << 20
"""Socket buffer asked for, in bytes. A client's should hold all it has asked for: that is what keeps a
server without rate limit from drowning it."""

# Linux numbers that Python 3.11's socket module does not have.
_IP_MULTICAST_ALL: Final = 49
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_SO_TIMESTAMPNS: Final = 35
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_UDP_HEADER: Final = 8

CONTROL_SIZE: Final = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(16)
"""Room for what the kernel says about a datagram: segment size and time."""
_RECEIVE_SEGMENTS: Final = 64

Kind = Literal["multicast", "broadcast", "unicast"]


class NetError(Exception):
    """The network cannot be used as asked; the text names address and reason."""


class PortBusyError(NetError):
    """The port is taken."""


def parse_address(text: str, what: str) -> bytes:
    """Return the 4 bytes of a dotted IPv4 address; raises :class:`NetError`, never asks a name server."""
    try:
        packed = socket.inet_pton(socket.AF_INET, text)
    except OSError:
        raise NetError(f"{what} {text!r} is no IPv4 address (names are not looked up)") from None
    return packed


def kind_of(address: bytes, broadcast: bool) -> Kind:
    """Tell how to talk to an address; ``broadcast`` is what the user said, it cannot be seen."""
    if 224 <= address[0] <= 239:
        return "multicast"
    return "broadcast" if broadcast else "unicast"


def own_address(target: str, interface: str | None) -> str:
    """Return the address to send from: the one given, else the kernel's choice for ``target``."""
    if interface is not None:
        parse_address(interface, "interface address")
        return interface
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        try:
            # Connecting a UDP socket sends nothing.
            probe.connect((target, 9))
        except OSError as error:
            raise NetError(f"no route to {target} ({error.strerror}); give the interface's address") from None
        own: str = probe.getsockname()[0]
    return own


def claim_stream(group: str, port: int) -> socket.socket:
    """Take the right to serve ``group:port`` in this network namespace.

    It lasts until the returned socket is closed or the process ends. Raises :class:`PortBusyError` when
    another of our servers has it.
    """
    guard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        guard.bind(f"\0orbit-frisbeed/{group}:{port}")
    except OSError as error:
        guard.close()
        if error.errno == errno.EADDRINUSE:
            raise PortBusyError(f"another frisbeed serves {group}:{port} on this host") from None
        raise NetError(f"cannot claim {group}:{port}: {error.strerror}") from None
    return guard


class Endpoint:
    """The sockets of one party.

    ``rx`` hears the session, ``tx`` sends; they are the same one to one. ``own`` and ``own_packed`` are
    the own address, ``target`` where to send to, ``port`` the session's port (the one found when 0 was
    asked for). ``buffer`` is the receive buffer obtained, in bytes as the kernel counts them.
    """

    def __init__(
        self,
        group: str,
        port: int,
        *,
        interface: str | None = None,
        server: bool,
        broadcast: bool = False,
        buffer: int | None = None,
        loop: bool = True,
    ) -> None:
        packed = parse_address(group, "address")
        if packed == bytes(4):
            raise NetError("address 0.0.0.0 is nobody's")
        self.kind = kind_of(packed, broadcast)
        self.group = group
        self.own = own_address(group, interface)
        self.own_packed = parse_address(self.own, "interface address")
        self._group_packed = packed
        self._sockets: list[socket.socket] = []
        size = buffer if buffer is not None else (SERVER_BUFFER if server else CLIENT_BUFFER)
        try:
            self._open(port, server, size, loop)
        except OSError as error:
            self.close()
            if error.errno == errno.EADDRINUSE:
                raise PortBusyError(f"port {port} is in use on {self.own}") from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise NetError(f"{self.own} is no address of this host") from None
            if error.errno == errno.ENODEV:
                raise NetError(f"{self.own} belongs to no interface that can join {group}") from None
            raise NetError(f"cannot use {group}:{port} from {self.own}: {error.strerror}") from None
        except BaseException:
            self.close()
            raise

    def _open(self, port: int, server: bool, size: int, loop: bool) -> None:
        listen_on = self.own if self.kind == "unicast" else self.group
        self.rx = self._bind(listen_on, port)
        self.port: int = self.rx.getsockname()[1]
        self.target = (self.group, self.port)
        self.tx = self.rx if self.kind == "unicast" else self._bind(self.own, self.port)
        if self.kind == "multicast":
            self.rx.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            self._membership(socket.IP_ADD_MEMBERSHIP)
            self.tx.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, self.own_packed)
            self.tx.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, TTL)
            self.tx.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, loop)
        elif self.kind == "broadcast":
            self.tx.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self.buffer = _set_buffer(self.rx, _SO_RCVBUFFORCE, socket.SO_RCVBUF, size)
        _set_buffer(self.tx, _SO_SNDBUFFORCE, socket.SO_SNDBUF, min(size, SERVER_BUFFER))
        self.gro = _try_option(self.rx, _UDP_GRO)
        if server:
            self.rx.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            _refuse_blocks(self.rx)
            if self.tx is not self.rx:
                _deafen(self.tx)

    def _bind(self, address: str, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._sockets.append(sock)
        if port == 0:
            # "Any free port" must not be one that others share: bind alone, share afterwards.
            sock.bind((address, 0))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
        return sock

    def _membership(self, option: int) -> None:
        self.rx.setsockopt(socket.IPPROTO_IP, option, self._group_packed + self.own_packed)

    def rejoin(self) -> None:
        """Leave and join the group again, which makes the kernel tell the switches (IGMP keep-alive).

        An interface that is away for the moment is tried again the next time. Raises :class:`NetError`.
        """
        if self.kind != "multicast":
            return
        # Not a member any more: then joining did not work the last time.
        with contextlib.suppress(OSError):
            self._membership(socket.IP_DROP_MEMBERSHIP)
        try:
            self._membership(socket.IP_ADD_MEMBERSHIP)
        except OSError as error:
            if error.errno not in (*TRANSIENT, errno.EADDRINUSE):
                raise NetError(f"cannot join {self.group} again from {self.own}: {error.strerror}") from None

    def send(self, datagram: Buffer) -> None:
        """Send one datagram to the session; a full buffer or a missing route loses it, like the network."""
        try:
            self.tx.sendto(datagram, self.target)
        except (BlockingIOError, ConnectionRefusedError):
            pass
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise NetError(f"cannot send to {self.group}:{self.port}: {error.strerror}") from None

    def hush(self) -> None:
        """Stop hearing on the sending socket; for a client that has had its unicast answer."""
        if self.tx is not self.rx:
            _deafen(self.tx)

    def listen(self) -> None:
        """Hear again on the sending socket, after :meth:`hush`."""
        if self.tx is not self.rx:
            self.tx.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)

    def deafen(self) -> None:
        """Hear nothing any more and leave the group, so that switches stop sending it here."""
        _deafen(self.rx)
        if self.kind == "multicast":
            with contextlib.suppress(OSError):
                self._membership(socket.IP_DROP_MEMBERSHIP)

    def close(self) -> None:
        """Close the sockets."""
        for sock in self._sockets:
            sock.close()


TRANSIENT: Final = frozenset(
    {
        errno.ENOBUFS,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ECONNREFUSED,
        errno.EPERM,
        errno.ENODEV,
    }
)
"""Errors of a send that a later one may not meet: a link that is down, a firewall that is being changed."""

NO_OFFLOAD: Final = frozenset({errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.EOPNOTSUPP, errno.ENOPROTOOPT})
"""Errors of a send that mean: this kernel or interface does not segment."""


class BlockSender:
    """Sends batches of BLOCKs of equal size, in one call each where the kernel can.

    ``offload`` says whether it does.
    """

    def __init__(self, endpoint: Endpoint, *, offload: bool = True) -> None:
        self._tx, self._target = endpoint.tx, endpoint.target
        self.offload = offload and _try_option(self._tx, _UDP_SEGMENT, 0)
        self._segment = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", BLOCK_DATAGRAM))]

    def send(self, batch: memoryview) -> int:
        """Send a batch (whole BLOCKs one behind the other); returns the bytes the kernel took.

        Less than all means that the send buffer is full: wait until the socket is writable and go on from
        there. Raises OSError with a :data:`TRANSIENT` number when the network is not there.
        """
        if self.offload and len(batch) > BLOCK_DATAGRAM:
            try:
                return self._tx.sendmsg((batch,), self._segment, 0, self._target)
            except BlockingIOError:
                return 0
            except OSError as error:
                if error.errno not in NO_OFFLOAD:
                    raise
                self.offload = False
        sent = 0
        try:
            while sent < len(batch):
                sent += self._tx.sendto(batch[sent : sent + BLOCK_DATAGRAM], self._target)
        except BlockingIOError:
            pass
        return sent


class Receiver:
    """Receives datagrams so that BLOCKs need no taking apart.

    The kernel scatters what comes, a datagram or a row of merged ones, over two buffers in turn: 24 bytes
    to ``heads``, 1024 to ``data``. When all are BLOCKs, ``heads`` holds their headers and ``data`` the
    bytes of the file, both without gaps. Anything else is put together again by :meth:`datagrams`.
    """

    def __init__(self, sock: socket.socket, *, gro: bool) -> None:
        self._sock = sock
        segments = _RECEIVE_SEGMENTS if gro else 2
        self.heads = memoryview(bytearray(segments * BLOCK_HEAD_SIZE))
        self.data = memoryview(bytearray(segments * BLOCK_SIZE))
        self._buffers: list[memoryview] = []
        for i in range(segments):
            self._buffers.append(self.heads[i * BLOCK_HEAD_SIZE : (i + 1) * BLOCK_HEAD_SIZE])
            self._buffers.append(self.data[i * BLOCK_SIZE : (i + 1) * BLOCK_SIZE])
        self._one = self._buffers[:2]
        self._peek = bytearray(1)
        self.size = 0
        self._segment = 0

    def receive(self) -> tuple[str, int] | None:
        """Take the next datagrams; returns their source, None when nothing is there."""
        try:
            # To give room for a row where a single datagram has come costs more than to ask before.
            size = self._sock.recv_into(self._peek, 1, socket.MSG_PEEK | socket.MSG_TRUNC)
            buffers = self._one if size <= BLOCK_DATAGRAM else self._buffers
            size, control, _, source = self._sock.recvmsg_into(buffers, CONTROL_SIZE)
        except (BlockingIOError, ConnectionRefusedError):
            return None
        self.size = self._segment = size
        if control:
            self._segment = _segment_size(control) or size
        address: tuple[str, int] = source
        return address

    @property
    def blocks(self) -> int:
        """How many BLOCK-sized datagrams lie in ``heads`` and ``data`` one behind the other."""
        return self.size // BLOCK_DATAGRAM if self._segment == BLOCK_DATAGRAM else 0

    def datagrams(self, skip: int = 0) -> Iterator[bytes]:
        """Yield the datagrams received as they came, without the first ``skip`` BLOCK-sized ones."""
        raw = b"".join(self._buffers[: 2 * (self.size // BLOCK_DATAGRAM + 1)])
        at = skip * BLOCK_DATAGRAM
        while at < self.size:
            yield raw[at : min(at + self._segment, self.size)]
            at += self._segment
        if not self.size:
            yield b""


def split(datagrams: memoryview, control: list[tuple[int, int, bytes]]) -> Iterator[memoryview]:
    """Yield the single datagrams of what ``recvmsg`` gave on a socket with receive offload."""
    size = (control and _segment_size(control)) or len(datagrams)
    for at in range(0, len(datagrams), size or 1):
        yield datagrams[at : at + size]


def age(control: list[tuple[int, int, bytes]]) -> float:
    """Return how many seconds ago the kernel received what ``recvmsg`` gave; 0 when it does not say."""
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) == 16:
            stamp: tuple[int, int] = struct.unpack("=qq", data)
            return max(0.0, time.time() - stamp[0] - stamp[1] / 1e9)
    return 0.0


def _segment_size(control: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in control:
        if level == _SOL_UDP and kind == _UDP_GRO:
            return int.from_bytes(data[:2], "little") if len(data) < 4 else struct.unpack("=i", data[:4])[0]
    return 0


def _try_option(sock: socket.socket, option: int, value: int = 1) -> bool:
    try:
        sock.setsockopt(_SOL_UDP, option, value)
    except OSError:
        return False
    return True


def _set_buffer(sock: socket.socket, force: int, option: int, size: int) -> int:
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, size)
    except OSError:
        # Not root: the kernel silently gives what its limit allows.
        sock.setsockopt(socket.SOL_SOCKET, option, size)
    return sock.getsockopt(socket.SOL_SOCKET, option)


def _attach(sock: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
    code = array.array("B", b"".join(struct.pack("=HBBI", *step) for step in program))
    sock.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), code.buffer_info()[0])
    )


# Classic BPF. On a UDP socket offset 0 is the UDP header; words are loaded in network order.
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_EVERYTHING = 0xFFFFFFFF


def _refuse_blocks(sock: socket.socket) -> None:
    subtype = int.from_bytes(BLOCK.to_bytes(4, "little"), "big")
    _attach(
        sock,
        [
            (_LOAD_WORD, 0, 0, _UDP_HEADER + 4),
            (_JUMP_IF_EQUAL, 0, 1, subtype),
            (_RETURN, 0, 0, 0),
            (_RETURN, 0, 0, _EVERYTHING),
        ],
    )


def _deafen(sock: socket.socket) -> None:
    _attach(sock, [(_RETURN, 0, 0, 0)])
