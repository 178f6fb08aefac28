# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may use the services: an allow list for what changes something, and optionally a token and TLS.

The historic services knew none of this: who reached their port could switch every node off.
"""

from __future__ import annotations

import argparse
import hmac
import ipaddress
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Clients that may change something unless told otherwise: this machine.
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

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
    """

    allow: tuple[Network, ...] = LOOPBACK
    token: bytes | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)

    @classmethod
    def load(
        cls,
        allow: Iterable[str] = (),
        token_file: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> Access:
        """Read what the options name.

        ``allow``: networks besides loopback. ``key`` may be left out when the certificate's file has it.
        Raises :class:`AccessError`.
        """
        return cls(
            (*LOOPBACK, *(_network(text) for text in allow)),
            None if token_file is None else _token(token_file),
            _context(certificate, key),
        )

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
        "--token-file", type=Path, metavar="FILE", help="every request must bear the token in this file"
    )
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate (PEM)"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, if it is in another file")


def access_of(options: argparse.Namespace) -> Access:
    """Return what the options of :func:`add_access_options` say. Raises :class:`AccessError`."""
    return Access.load(options.allow, options.token_file, options.tls_cert, options.tls_key)


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
