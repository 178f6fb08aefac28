# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may use the services: an allow list for what changes something, and optionally a token and TLS.

The historic services knew none of this: who reached their port could switch every node off, and so could any
web page that somebody looked at who could reach it. A browser asks from a friendly address, so what changes
something is also refused when a browser says that another site wants it, and when the service is called by a
name that is not its own: a page whose name has come to mean our address (DNS rebinding) is of our own site.
Historic clients send nothing of what browsers do.
"""

from __future__ import annotations

import argparse
import hmac
import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Clients that may change something unless told otherwise: this machine.
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

#: What labs call the machines of the services, besides their own names.
SERVICE_NAMES = ("pxe", "frisbee", "cmc")
#: How historic clients ask for a change.
CHANGING = ("GET", "POST")
#: What browsers say when the service's own page asks, or nobody but their user.
_OWN_SITES = ("same-origin", "none")
_PORTS = {"http": "80", "https": "443"}
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?", re.ASCII)

#: What RFC 6750 allows in a bearer token; a reasonable length, so that it cannot be guessed.
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]{16,1024}=*", re.ASCII)
_BEARER = re.compile(rb"bearer +([^ ]+) *", re.IGNORECASE)


class AccessError(Exception):
    """Access cannot be limited as asked; the text names the option, the place and the remedy."""


@dataclass(frozen=True)
class Access:
    """Who may use the services.

    ``allow``: networks of the clients that may change something; everybody who reaches the port may ask.
    ``token``: what every request must bear, None for no token. ``tls``: context of the server, None for HTTP.
    ``names``: names and addresses by which clients know the services, besides those that the machine knows
    itself: its host name, ``localhost``, loopback, its addresses, and the one a client has connected to.
    """

    allow: tuple[Network, ...] = LOOPBACK
    token: bytes | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    names: tuple[str, ...] = SERVICE_NAMES

    @classmethod
    def load(
        cls,
        allow: Iterable[str] = (),
        token_file: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        names: Iterable[str] = (),
    ) -> Access:
        """Read what the options name.

        ``allow``: networks besides loopback. ``names``: besides :data:`SERVICE_NAMES`. ``key`` may be left
        out when the certificate's file has it. Raises :class:`AccessError`.
        """
        return cls(
            (*LOOPBACK, *(_network(text) for text in allow)),
            None if token_file is None else _token(token_file),
            _context(certificate, key),
            (*SERVICE_NAMES, *(_name(text) for text in names)),
        )

    def objection(self, scope: Scope) -> str | None:
        """Return why a request may not change anything, with the remedy; None when it may."""
        client = (scope.get("client") or (None,))[0]
        if not self.may_change(client):
            return (
                f"{client or 'a client without an address'} may ask, but not change anything here; the "
                "service has a list of those who may (--allow)"
            )
        if scope["method"] not in CHANGING:
            return f"{scope['method']} changes nothing here; send {' or '.join(CHANGING)}"
        own = (scope.get("server") or (None,))[0]
        hosts, origins, sites = (
            [value.decode("latin-1").strip() for name, value in scope["headers"] if name == wanted]
            for wanted in (b"host", b"origin", b"sec-fetch-site")
        )
        for host in hosts:
            if host and not self._is_known(_split_host(host)[0], own):
                return (
                    f"this service is not known as {host!r} (header Host), so nothing is changed; call it by "
                    "its own name or address, or start it with --known-as"
                )
        for site in sites:
            if site.lower() not in _OWN_SITES:
                return (
                    f"a browser asks for a page of another site (header Sec-Fetch-Site: {site}), so nothing "
                    "is changed; send the request yourself"
                )
        for origin in origins:
            if not hosts or not _same_place(origin, hosts[0]):
                return (
                    f"a page of {origin!r} asks (header Origin), not one of this service, so nothing is "
                    "changed; send the request yourself"
                )
        return None

    def _is_known(self, host: str, own: str | None) -> bool:
        """Whether the service is known by a name or an address."""
        address = _address(host)
        if address is not None:
            known = (_address(name) for name in (own or "", *self.names))
            return address.is_loopback or address in known or _is_of_this_machine(address)
        name = host.lower().removesuffix(".")
        return name in {"localhost", *_host_names(), *(known.lower() for known in self.names)}

    def may_change(self, client: str | None) -> bool:
        """Whether a client (its IP address) may change something; one without an address may not."""
        try:
            address = ipaddress.ip_address(client or "")
        except ValueError:
            return False
        # What a socket for both families calls an IPv4 client.
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self.allow)

    def knows(self, authorization: bytes | None) -> bool:
        """Whether the value of an ``Authorization`` header bears the token; always when there is none."""
        if self.token is None:
            return True
        match = _BEARER.fullmatch(authorization or b"")
        # In constant time: how long a wrong guess takes tells nothing of the token.
        return hmac.compare_digest(match[1] if match else b"", self.token)

    def guard(self, app: ASGIApp) -> ASGIApp:
        """Return ``app`` behind the token; itself when there is none."""
        if self.token is None:
            return app

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            given = [value for name, value in scope["headers"] if name == b"authorization"]
            if len(given) == 1 and self.knows(given[0]):
                await app(scope, receive, send)
                return
            said = "a wrong one" if given else "none"
            text = f"this service wants a token, and the request has {said} (Authorization: Bearer)\n"
            await _refuse(send, text.encode())

        return guarded


def add_access_options(parser: argparse._ActionsContainer) -> None:
    """Give a command the options that :func:`access_of` reads."""
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="NETWORK",
        help="clients that may change something besides those of this machine; repeat for more",
    )
    parser.add_argument(
        "--known-as",
        action="append",
        default=[],
        metavar="NAME",
        help="name or address by which clients know this machine, besides its own and "
        f"{', '.join(SERVICE_NAMES)}; repeat for more",
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="every request must bear the token in this file"
    )
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate (PEM)"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, if it is in another file")


def access_of(options: argparse.Namespace) -> Access:
    """Return what the options of :func:`add_access_options` say. Raises :class:`AccessError`."""
    return Access.load(options.allow, options.token_file, options.tls_cert, options.tls_key, options.known_as)


async def _refuse(send: Send, text: bytes) -> None:
    headers = (
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        (b"www-authenticate", b"Bearer"),
        (b"connection", b"close"),
    )
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise AccessError(
            f"--allow {text}: {error}; give an address or a network, such as 10.77.0.0/16"
        ) from None


def _name(text: str) -> str:
    if _address(text) is None and not _NAME.fullmatch(text):
        raise AccessError(
            f"--known-as {text}: no host name and no address; give it without scheme and port, such as "
            "console.grid.orbit-lab.org"
        )
    return text.removesuffix(".")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address, an IPv4 one also where it is written as an IPv6 one; None for a name."""
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _split_host(text: str) -> tuple[str, str]:
    """Return host and port (empty: none) of a Host header."""
    host, colon, port = text.rpartition(":")
    if not colon or not ((port.isascii() and port.isdigit()) or not port) or text.endswith("]"):
        return text, ""
    return host, port


def _same_place(origin: str, host: str) -> bool:
    """Return whether an origin (``scheme://host:port``) is the place that a request was sent to."""
    scheme, separator, place = origin.lower().partition("://")
    if not separator or scheme not in _PORTS:
        return False
    asked, port = _split_host(place)
    here, our_port = _split_host(host.lower())
    return (asked, port or _PORTS[scheme]) == (here, our_port or _PORTS[scheme])


def _is_of_this_machine(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether this machine has an address: only then something can be bound to it."""
    if address.is_unspecified or address.is_multicast:
        return False
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _host_names() -> set[str]:
    """Return the names that this machine has itself, in full and short."""
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0]}


def _token(path: Path) -> bytes:
    try:
        text = path.read_bytes().strip()
        others = path.stat().st_mode & 0o077
    except OSError as error:
        raise AccessError(f"--token-file {path}: {error.strerror}") from None
    if others:
        raise AccessError(f"--token-file {path}: others may read it; chmod 600 {path}")
    if not _TOKEN.fullmatch(text):
        raise AccessError(
            f"--token-file {path}: not one token of 16 or more letters, digits and -._~+/; "
            f"make one: openssl rand -hex 32 > {path}"
        )
    return text


def _context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        if key is not None:
            raise AccessError(f"--tls-key {key}: there is no certificate for it; give --tls-cert, too")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Never asks for a passphrase: nobody may be there to answer.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise AccessError(f"--tls-cert {certificate}, --tls-key {key or certificate}: {what}") from None
    return context
