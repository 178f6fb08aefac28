# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One HTTP client for the services of a testbed, and the one error it raises.

The services are prefix-routed: a wrong method name answers 200 with a description of the service, a failure
may answer 200 with an empty body. So nothing here judges by the status alone; :class:`Reply` says what kind
of body came back and the clients built on it accept only the kinds they expect.
"""

from __future__ import annotations

import html
import ipaddress
import itertools
import json
import os
import re
import socket
import ssl
import threading
import time
import traceback
import typing as t
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode, urlsplit
from xml.parsers import expat

from ansible_collections.orbit.imaging.plugins.module_utils.names import is_host_name

try:
    import requests
    from requests.adapters import HTTPAdapter
except ImportError:
    REQUESTS_IMPORT_ERROR: t.Optional[str] = traceback.format_exc()
else:
    REQUESTS_IMPORT_ERROR = None

#: Largest reply that is read, in bytes. The status of 400 nodes is about 40 kB.
MAX_REPLY = 4 * 1024 * 1024
#: Longest request line sent as a plain GET; WEBrick of Ruby 1.9.1 refuses more than 1,024 bytes.
MAX_REQUEST_LINE = 1000
#: How often a question that failed in transport is asked again, and the first pause before that in seconds.
RETRIES = 2
RETRY_PAUSE = 0.2
#: Deepest nesting and largest number of elements accepted in an XML reply.
MAX_DEPTH = 32
MAX_ELEMENTS = 100_000
#: How much of a request or reply an error quotes, in characters; and of the longest message and address.
QUOTE = 300
MAX_MESSAGE = 600
#: How much of a page for people is looked at for its message, in characters.
MAX_PAGE = 100_000
#: Digits of the longest number that is read in JSON.
MAX_DIGITS = 20
#: Names of the services, which no base URL has in its path.
SERVICES = ("pxe", "frisbee", "cmc", "cmcw", "saveimage", "inventory")

#: Why something failed, for programs; the sentences are for people and may change.
#:
#: ``bad_argument``: what was asked for is not acceptable; nothing was sent.
#: ``unsupported``: this service has no way to do it; nothing was ordered.
#: ``not_sent``: nothing can have reached the service: refused, no route, unknown name, no TLS, no connection.
#: ``timeout``, ``no_reply``: no complete answer in time, or at all; an order may have been carried out.
#: ``http_error``: a status of 400 or more. ``refused``: the service says ERROR with status 200.
#: ``unexpected_reply``: an answer, but none that the method gives.
#: ``busy``: another process of this host has the right to start streams.
#: ``address_taken``: the address given is that of another image's stream.
#: ``not_sending``: an address was given, but the service does not list the stream there.
#: ``no_such_image``: the image does not exist or may not be read.
#: ``no_memory_image``: the service has no memory image of that name. ``wrong_memory_image``: it took another.
#: ``wrong_address``: the service knows the node under another address. ``unknown_node``: not at all.
#: ``not_linked``, ``still_linked``: what is read back is not what the service has confirmed.
#: ``wrong_state``: the state read back is not the one asked for.
Code = t.Literal[
    "bad_argument",
    "unsupported",
    "not_sent",
    "timeout",
    "no_reply",
    "http_error",
    "refused",
    "unexpected_reply",
    "busy",
    "address_taken",
    "not_sending",
    "no_such_image",
    "no_memory_image",
    "wrong_memory_image",
    "wrong_address",
    "unknown_node",
    "not_linked",
    "still_linked",
    "wrong_state",
]

#: Status codes of a gateway in front of the service that has lost it for a moment.
_GATEWAY_ERRORS = (502, 503, 504)

#: What helps against a service, or a gateway in front of it, that does not let us in.
_REMEDY_OF_STATUS = {
    401: "Give the token of this service: the variable orbit_service_token, the option token of a module",
    403: "Ask who runs the service to let this host change something there",
}

_T = t.TypeVar("_T")
_R = t.TypeVar("_R")


def shorten(text: str, limit: int = QUOTE) -> str:
    """Return one line of printable text of at most ``limit`` characters; a long text costs no more."""
    # Runs of blanks become one: of the start that is looked at, enough is left.
    text = text.strip()
    start = text[: 8 * limit + 1000]
    line = " ".join("".join(char if char.isprintable() else " " for char in start).split())
    whole = len(line) <= limit and len(start) == len(text)
    return line if whole else line[: limit - 3] + "..."


class ServiceError(Exception):
    """A service could not be asked, or did not give the answer asked for.

    ``str()`` is complete for a person; :meth:`as_dict` is the same for a result record.

    No part of it is longer than a person reads, whatever the service has sent.

    :param message: what went wrong, one sentence without a full stop.
    :param code: the same for programs, see :data:`Code`.
    :param service: name of the service, e.g. ``pxe``.
    :param method: method asked for, e.g. ``setBootImageNS``.
    :param url: address of the method, without arguments.
    :param asked: the arguments as sent.
    :param reply: what came back, shortened.
    :param status: the HTTP status, when there was one.
    :param remedy: what a person can do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        code: Code = "bad_argument",
        service: str = "",
        method: str = "",
        url: str = "",
        asked: t.Optional[t.Mapping[str, str]] = None,
        reply: t.Optional[str] = None,
        status: t.Optional[int] = None,
        remedy: str = "",
    ) -> None:
        self.message = shorten(message, MAX_MESSAGE)
        super().__init__(self.message)
        self.code: Code = code
        self.service = service
        self.method = method
        self.url = shorten(url, MAX_MESSAGE)
        self.asked = dict(asked or {})
        self.reply = None if reply is None else shorten(reply)
        self.status = status
        self.remedy = remedy

    def __str__(self) -> str:
        name = "/".join(part for part in (self.service, self.method) if part)
        text = f"{name}: {self.message}" if name else self.message
        if self.url:
            text += f" (asked {self.url}"
            if self.asked:
                text += " with " + shorten(
                    ", ".join(f"{key}={value}" for key, value in self.asked.items()), 120
                )
            if self.status is not None:
                text += f"; HTTP {self.status}"
            if self.reply is not None:
                text += f"; reply: {self.reply or '(empty)'}"
            text += ")"
        return f"{text}. {self.remedy}" if self.remedy else text

    @property
    def brief(self) -> str:
        """The error without where and what was asked, so that it is the same for all nodes that met it."""
        name = "/".join(part for part in (self.service, self.method) if part)
        text = f"{name}: {self.message}" if name else self.message
        if self.status is not None and self.status >= 400:
            text += f" (HTTP {self.status})"
        return f"{text}. {self.remedy}" if self.remedy else text

    def as_dict(self) -> t.Dict[str, t.Any]:
        """Return the error as plain data."""
        return {
            "message": self.message,
            "code": self.code,
            "service": self.service,
            "method": self.method,
            "url": self.url,
            "asked": {key: shorten(value) for key, value in self.asked.items()},
            "reply": self.reply,
            "status": self.status,
            "remedy": self.remedy,
        }


class XmlError(ValueError):
    """The text is not XML, or XML that a testbed service has no reason to send."""


def parse_xml(data: bytes) -> ET.Element:
    """Parse XML from an untrusted peer.

    Document types and entity declarations are refused before they can expand, nesting and element count are
    bounded.

    :raises XmlError: when the data is not well-formed or not harmless.
    """
    parser = expat.ParserCreate()
    builder = ET.TreeBuilder()
    depth = 0
    count = 0

    def start(name: str, attributes: t.Dict[str, str]) -> None:
        nonlocal depth, count
        depth += 1
        count += 1
        if depth > MAX_DEPTH or count > MAX_ELEMENTS:
            raise XmlError("the XML is nested too deeply or has too many elements")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*ignored: t.Any) -> t.Any:
        raise XmlError("the XML declares a document type or entities, which no service does")

    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.UnparsedEntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, AssertionError, LookupError, ValueError) as error:
        if isinstance(error, XmlError):
            raise
        raise XmlError(f"not well-formed XML: {error}") from error


# Looked for in the first 1,000 characters only.
_HTML = re.compile(r"<\s*(?:!doctype\s+html|html[\s>])", re.IGNORECASE)
#: Elements whose content is nothing for people.
_UNSEEN = ("script", "style", "head", "address")


def html_message(text: str) -> str:
    """Return the message of an HTML error page; the services up to OMF 5.2 wrap every error text in one."""

    def words(parts: t.Sequence[str]) -> str:
        # Short before the entities are resolved: a number of thousands of digits is none that Python takes.
        text = " ".join(part for part in parts if not part.isspace())
        return shorten(html.unescape(shorten(text, 4 * QUOTE)))

    # WEBrick's heading is the reason phrase of the status; it says something only when nothing else does.
    headings, others = _page_texts(text[:MAX_PAGE])
    return words(others) or words(headings)


def _page_texts(page: str) -> t.Tuple[t.List[str], t.List[str]]:
    """Return the texts of a page in its headings, and elsewhere up to the first rule.

    One pass, in which hardly anything is looked at twice: a tag that does not end ends the page. The parser
    of the standard library takes quadratic time for such tags, and gives up on half a declaration.
    """
    lower = page.lower()
    if len(lower) != len(page):
        # A few letters of other scripts are longer in lower case; tags have none of them.
        page = lower
    headings: t.List[str] = []
    others: t.List[str] = []
    texts = others
    unclosed: t.Set[str] = set()
    position = 0
    while True:
        tag = lower.find("<", position)
        texts.append(page[position:] if tag < 0 else page[position:tag])
        if tag < 0:
            break
        comment = lower.startswith("<!--", tag)
        end = lower.find("-->" if comment else ">", tag)
        if end < 0:
            break
        position = end + (3 if comment else 1)
        name = "" if comment else (lower[tag + 1 : min(end, tag + 20)].split() or [""])[0].rstrip("/")
        if name == "hr":
            break
        if name == "h1":
            texts = headings
        elif name == "/h1":
            texts = others
        elif name in _UNSEEN and name not in unclosed:
            closing = lower.find(f"</{name}", position)
            if closing < 0:
                unclosed.add(name)
            else:
                position = closing
    return headings, others


class Reply:
    """What came back from a service.

    :param status: the HTTP status.
    :param content_type: media type in lower case without parameters; the services write ``text`` for plain
        text.
    :param body: the bytes of the body.
    :param sent: what the header ``Orbit-Stream-Sent`` says, which only later services have.
    """

    def __init__(self, status: int, content_type: str, body: bytes, sent: str = "") -> None:
        self.status = status
        self.content_type = content_type.partition(";")[0].strip().lower()
        self.body = body
        self.sent = sent
        self.text = body.decode("utf-8-sig", "replace").strip()
        self._root: t.Optional[ET.Element] = None
        self.xml_error = ""
        self.kind = self._classify()

    def _classify(self) -> str:
        if not self.text:
            return "empty"
        if _HTML.search(self.text[:1000]):
            return "html"
        if not self.text.startswith("<"):
            return "text"
        try:
            self._root = parse_xml(self.body.strip())
        except XmlError as error:
            self.xml_error = str(error)
            return "broken_xml"
        if self._root.tag == "serviceGroups":
            return "service_list"
        if self._root.tag == "serviceGroup" or (
            self._root.tag == "services" and self._root.find("serviceGroup") is not None
        ):
            return "description"
        return "xml"

    @property
    def root(self) -> ET.Element:
        """Root element; only for the kinds ``xml``, ``description`` and ``service_list``."""
        if self._root is None:
            raise XmlError(f"the reply is {self.kind}, not XML")
        return self._root

    @property
    def is_error_page(self) -> bool:
        """Whether this is an HTTP error or a page for people."""
        return self.kind == "html" or not 200 <= self.status < 300

    @property
    def is_ok(self) -> bool:
        """Whether this is the ``OK`` of a command: that text up to OMF 5.3, an ``<OK>`` element in 5.4."""
        return not self.is_error_page and (
            self.text == "OK" or (self.kind == "xml" and self.root.tag == "OK")
        )

    def message(self) -> str:
        """Return what the reply says, for a person: tags stripped, one short line."""
        if self.kind == "html":
            return html_message(self.text)
        if self.kind in ("xml", "description", "service_list"):
            # Texts behind the first thousand would not be quoted.
            words = shorten(" ".join(part[:QUOTE] for part in itertools.islice(self.root.itertext(), 1000)))
            tag = f"<{shorten(self.root.tag, 60)}>"
            return f"{tag} {words}" if words else tag
        return shorten(self.text)


class Described(t.NamedTuple):
    """What a service says about itself.

    :ivar methods: argument names of each method.
    :ivar listed: paths in the list of services (``GET /``), or () when the list was not asked for.
    :ivar old_root: the root is the bare ``serviceGroup`` of 2005.
    :ivar pretty: the description is pretty-printed, as OMF 4.4 does.
    """

    methods: t.Dict[str, t.Tuple[str, ...]]
    listed: t.Tuple[str, ...] = ()
    old_root: bool = False
    pretty: bool = False


def parse_description(root: ET.Element) -> Described:
    """Read the self-description of a service; texts and order of attributes vary and are ignored."""
    group = root if root.tag == "serviceGroup" else root.find("serviceGroup")
    methods = {}
    if group is not None:
        for method in group.findall("service"):
            names = [
                arg.get("name", "").strip() for args in method.findall("args") for arg in args.findall("arg")
            ]
            methods[method.get("name", "").strip()] = tuple(dict.fromkeys(name for name in names if name))
    return Described(
        methods=methods,
        old_root=root.tag == "serviceGroup",
        pretty=bool(root.text and "\n" in root.text and not root.text.strip()),
    )


def parse_json(data: bytes) -> t.Any:
    """Parse JSON from an untrusted peer.

    :raises ValueError: when it is none, nested too deeply, or has a number that nobody means.
    """

    def whole(text: str) -> int:
        if len(text) > MAX_DIGITS:
            raise ValueError(f"a number of {len(text)} digits")
        return int(text)

    try:
        return json.loads(data.decode("utf-8"), parse_int=whole)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


_URL_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*", re.ASCII)
_URL_REMEDY = "Give the address of the gateway alone, such as http://pxe:5012"


def check_url(url: str) -> str:
    """Return a base URL in one spelling: without a trailing slash, host in small letters, no usual port.

    A path is taken: that of a gateway which has the services below a prefix. It must not have the name of a
    service in it, because that is added to each call.

    :raises ServiceError: when it is not an absolute http(s) URL without user, query and fragment.
    """
    url = url.strip()
    # What stands before an @ may be a password, and so may a query: neither is shown.
    shown = shorten(url.partition("?")[0].partition("#")[0], 100)
    if "@" in url:
        shown = f"{url.partition(':')[0][:10]}://...@{shorten(url.rpartition('@')[2].partition('?')[0], 80)}"

    def refused(why: str, remedy: str = _URL_REMEDY) -> ServiceError:
        return ServiceError(f"'{shown}' {why}", code="bad_argument", remedy=remedy)

    if len(url) > 2000 or not url.isascii() or not url.isprintable() or " " in url:
        raise refused(
            "is not a URL: it has blanks, or characters that are not ASCII, or is too long",
            f"{_URL_REMEDY}; a name in other letters in its xn-- form",
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refused(f"is not a URL: {shorten(str(error), 100)}") from error
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise refused("is not an http or https URL")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise refused("has a user, a query or a fragment, and the URL of a service has none")
    if port == 0 or parts.netloc.endswith(":"):
        raise refused("is not an http or https URL: its port is none")
    if not (is_host_name(host.rstrip(".")) or _is_ipv6(host)):
        raise refused("is not an http or https URL: its host is none")
    path = parts.path.rstrip("/")
    segments = path.split("/")
    if not _URL_PATH.fullmatch(path) or "." in segments or ".." in segments:
        raise refused("has a path that is none: it goes up, has empty parts or other characters than . _ ~ -")
    named = [segment for segment in segments if segment.lower() in SERVICES]
    if named:
        before = "/".join(segments[: segments.index(named[0])])
        raise refused(
            f"has the name of a service in its path, '{named[0]}', which is added to each call",
            f"Leave it out: {parts.scheme}://{parts.netloc}{before}",
        )
    place = parts.netloc.lower()
    usual = {"http": ":80", "https": ":443"}[parts.scheme]
    if place.endswith(usual):
        place = place[: -len(usual)]
    return f"{parts.scheme}://{place}{path}"


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text.partition("%")[0])
    except ValueError:
        return False
    return True


class Connection:
    """Speaks to the services below one base URL.

    Questions use kept connections and are repeated after a failure of transport. Orders use a connection
    each: the services close a connection they have promised to keep after an empty reply, and an order must
    not be sent twice to find that out.

    :param url: address of the gateway, e.g. ``http://pxe:5012``.
    :param timeout: seconds for one call in all, from the look-up of the name to the last byte.
    :param parallel: number of calls that may run at the same time.
    :param validate_certs: whether a certificate is checked (https).
    :param ca_path: file or folder of the certificates to trust.
    :param token: sent as a bearer token.
    :raises ServiceError: when the URL, the token or the path of the certificates is not usable.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30.0,
        parallel: int = 16,
        validate_certs: bool = True,
        ca_path: t.Optional[str] = None,
        token: t.Optional[str] = None,
    ) -> None:
        self.url = check_url(url)
        self.timeout = timeout
        self.parallel = max(1, parallel)
        self._verify: t.Union[bool, str] = (ca_path or True) if validate_certs else False
        self._token = token
        if ca_path and not os.path.exists(ca_path):
            raise ServiceError(
                f"there is no '{shorten(ca_path, 200)}' to take certificates from",
                remedy="Correct ca_path (for a run: orbit_service_ca)",
            )
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            # Not shown: it is a secret, also when it is a wrong one.
            raise ServiceError(
                "the token has blanks or characters that no header takes",
                remedy="Correct token (for a run: orbit_service_token)",
            )
        self._questions = self._session(keep=True)

    def _session(self, keep: bool) -> requests.Session:
        session = requests.Session()
        # No proxy and no .netrc of the environment: the services live on the control network.
        session.trust_env = False
        session.verify = self._verify
        session.headers.update(
            {
                "User-Agent": "orbit.imaging",
                "Accept": "text/xml, text/plain, */*",
                "Accept-Encoding": "identity",
                "Connection": "keep-alive" if keep else "close",
            }
        )
        if self._token:
            session.headers["Authorization"] = f"Bearer {self._token}"
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=self.parallel, max_retries=0)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        return session

    def close(self) -> None:
        """Close all connections."""
        self._questions.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *ignored: t.Any) -> None:
        self.close()

    def call(
        self,
        service: str,
        method: str,
        arguments: t.Mapping[str, str],
        *,
        question: bool = False,
        timeout: t.Optional[float] = None,
        limit: t.Optional[int] = None,
    ) -> Reply:
        """Call one method and return the reply whatever it is.

        Arguments are always encoded. A request line longer than :data:`MAX_REQUEST_LINE` goes as a POST form,
        which all recorded services read in the same way.

        :param question: the call changes nothing, so it may be repeated.
        :param timeout: seconds for this call in all, instead of the default.
        :param limit: bytes of the largest reply that is read, instead of :data:`MAX_REPLY`.
        :raises ServiceError: when there is no reply, or one which is too large, encoded or a redirection.
        """
        url = "/".join(part for part in (self.url, service, method) if part)
        fail = _Failure(service, method, url, arguments, limit)
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        pause = RETRY_PAUSE
        for attempt in range(RETRIES + 1):
            last = not question or attempt == RETRIES
            try:
                reply = self._once(url, arguments, question, deadline, fail)
            except _Transport as error:
                if last or time.monotonic() + pause >= deadline:
                    raise error.error from error.__cause__
            else:
                if last or reply.status not in _GATEWAY_ERRORS or time.monotonic() + pause >= deadline:
                    return reply
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    def describe(self, service: str, *, with_list: bool = False) -> Described:
        """Ask a service for its methods.

        :param with_list: also ask for the list of services; their paths tell old gateways from new ones.
        :raises ServiceError: when there is no such service, or the other side is something else.
        """
        reply = self.call(service, "", {}, question=True)
        fail = _Failure(service, "", f"{self.url}/{service}", {})
        if reply.kind == "service_list":
            found = ", ".join(sorted(name for name in _paths(reply.root) if name)) or "none"
            raise fail(
                f"there is no service '{service}' here; the services are: {found}",
                code="unsupported",
                reply=reply,
                remedy=f"Check the URL of the {service} service",
            )
        if reply.status in _REMEDY_OF_STATUS:
            raise unexpected(self, service, "", {}, reply)
        if reply.kind != "description" or reply.is_error_page:
            raise fail(
                "this is not a testbed service: it does not describe its methods",
                reply=reply,
                remedy=f"Check the URL of the {service} service, or name its dialect",
            )
        described = parse_description(reply.root)
        if with_list:
            listed = self.call("", "", {}, question=True)
            if listed.kind == "service_list":
                described = described._replace(listed=_paths(listed.root))
        return described

    def _once(
        self, url: str, arguments: t.Mapping[str, str], question: bool, deadline: float, fail: _Failure
    ) -> Reply:
        """Make one attempt, in a thread of its own.

        Neither a name look-up nor a peer that sends a byte now and then can be bounded in place; a thread can
        be left behind. It is a daemon, so it delays nobody's exit.
        """
        done = threading.Event()
        outcome: t.List[t.Union[Reply, BaseException]] = []

        def attempt() -> None:
            try:
                outcome.append(self._request(url, arguments, question, deadline, fail))
            except BaseException as error:  # handed to the caller's thread below
                outcome.append(error)
            done.set()

        threading.Thread(target=attempt, name=f"orbit {fail.service}", daemon=True).start()
        if not done.wait(max(0.0, deadline - time.monotonic())):
            raise fail.late()
        result = outcome[0]
        if isinstance(result, Reply):
            return result
        raise result

    def _request(
        self, url: str, arguments: t.Mapping[str, str], question: bool, deadline: float, fail: _Failure
    ) -> Reply:
        if question:
            return self._send(self._questions, url, arguments, deadline, fail)
        # Asking the server to close is not enough: those of the field keep a connection they then close.
        with self._session(keep=False) as session:
            return self._send(session, url, arguments, deadline, fail)

    def _send(
        self,
        session: requests.Session,
        url: str,
        arguments: t.Mapping[str, str],
        deadline: float,
        fail: _Failure,
    ) -> Reply:
        left = max(0.01, deadline - time.monotonic())
        query = urlencode(arguments)
        as_form = len(url) + len(query) + 1 > MAX_REQUEST_LINE
        try:
            # The context releases the connection whatever happens to the body.
            with session.request(
                "POST" if as_form else "GET",
                url,
                params=None if as_form else (query or None),
                data=query if as_form else None,
                headers={"Content-Type": "application/x-www-form-urlencoded"} if as_form else None,
                timeout=(min(10.0, left), left),
                allow_redirects=False,
                stream=True,
            ) as response:
                body = self._read(response, deadline, fail)
                if response.is_redirect:
                    target = shorten(response.headers.get("Location", ""), 100)
                    raise fail(
                        f"redirects to '{target}', which is not followed",
                        status=response.status_code,
                        remedy="Give the service's own URL",
                    )
                return Reply(
                    response.status_code,
                    response.headers.get("Content-Type") or "",
                    body,
                    response.headers.get("Orbit-Stream-Sent") or "",
                )
        except requests.exceptions.SSLError as error:
            raise fail(
                f"the certificate or the TLS of the service is not acceptable: {_reason(error)}",
                code="not_sent" if _nothing_sent(error) else "no_reply",
                remedy="Give the CA with ca_path (for a run: orbit_service_ca)",
            ) from error
        except (requests.exceptions.RequestException, OSError, ValueError) as error:
            # requests calls a peer that stops in the middle of a body an error of the connection.
            too_late = (requests.exceptions.Timeout, TimeoutError)
            if any(isinstance(cause, too_late) for cause in _causes(error)):
                began = not isinstance(error, requests.exceptions.Timeout)
                raise fail.late(
                    "no complete answer in time" if began else "no answer in time",
                    "not_sent" if _nothing_sent(error) else "timeout",
                ) from error
            reason = _reason(error)
            if "BadStatusLine" in repr(error) and "RemoteDisconnected" not in repr(error):
                raise fail(
                    f"the answer is not HTTP: {reason}",
                    remedy="The services up to OMF 5.3 answer so when they have no configuration for the "
                    "domain; check the domain and the URL",
                ) from error
            wrapped = fail(
                f"cannot be reached: {reason}",
                code="not_sent" if _nothing_sent(error) else "no_reply",
                remedy="Check that the service runs and its URL is right",
            )
            raise _Transport(wrapped) from error

    def _read(self, response: requests.Response, deadline: float, fail: _Failure) -> bytes:
        if (response.headers.get("Content-Encoding") or "identity").lower() != "identity":
            raise fail("the reply is compressed although that was not asked for", status=response.status_code)
        body = bytearray()
        for part in response.iter_content(65536):
            body += part
            if time.monotonic() > deadline:
                # Nobody waits any more; without this the thread would read as long as the peer sends.
                raise fail.late()
            if len(body) > fail.limit:
                raise fail(f"the reply is larger than {fail.limit} bytes", status=response.status_code)
        return bytes(body)


def _nothing_sent(error: BaseException) -> bool:
    """Whether the service cannot have seen anything of a call that failed so: there was no connection yet.

    What is not known for sure has been sent: whoever counts on it would do things twice.
    """
    before = (
        requests.exceptions.ConnectTimeout,
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.InvalidHeader,
        ConnectionRefusedError,
        ssl.SSLCertVerificationError,
        socket.gaierror,
    )
    # Those of urllib3, which the collection does not import: it may be bundled with requests.
    names = ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError")
    return any(isinstance(one, before) or type(one).__name__ in names for one in _causes(error))


def _causes(error: BaseException) -> t.Iterator[BaseException]:
    """Return an error of requests and those it wraps, the innermost last; each once."""
    seen: t.Set[int] = set()
    found: t.Optional[BaseException] = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        inner = getattr(found, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((arg for arg in found.args if isinstance(arg, BaseException)), None)
        found = inner or found.__cause__ or found.__context__


def _paths(root: ET.Element) -> t.Tuple[str, ...]:
    return tuple(group.get("path") or group.get("name") or "" for group in root.findall("serviceGroup"))


def _reason(error: BaseException) -> str:
    """Return the innermost reason of an error of requests, whose own texts are nested representations."""
    *_outer, innermost = _causes(error)
    text = getattr(innermost, "strerror", None) or str(innermost) or type(innermost).__name__
    return shorten(str(text), 160)


class _Transport(Exception):
    """A failure before there was a reply; wraps the error to raise when it is not tried again."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(str(error))
        self.error = error


class _Failure:
    """Makes errors which know what was asked, and how many bytes of a reply were."""

    def __init__(
        self,
        service: str,
        method: str,
        url: str,
        asked: t.Mapping[str, str],
        limit: t.Optional[int] = None,
    ) -> None:
        self.service = service
        self.method = method
        self.url = url
        self.asked = asked
        self.limit = MAX_REPLY if limit is None else limit

    def __call__(
        self,
        message: str,
        *,
        code: Code = "unexpected_reply",
        reply: t.Optional[Reply] = None,
        status: t.Optional[int] = None,
        remedy: str = "",
    ) -> ServiceError:
        return ServiceError(
            message,
            code=code,
            service=self.service,
            method=self.method,
            url=self.url,
            asked=self.asked,
            reply=None if reply is None else reply.message(),
            status=status if reply is None else reply.status,
            remedy=remedy,
        )

    def late(self, message: str = "no complete answer in time", code: Code = "timeout") -> ServiceError:
        """Return the error for a call whose time is over, whichever end of it notices first."""
        return self(
            message,
            code=code,
            remedy="See whether the service is alive, or give it more time (timeout)",
        )


def unexpected(
    connection: Connection,
    service: str,
    method: str,
    asked: t.Mapping[str, str],
    reply: Reply,
    remedy: str = "",
) -> ServiceError:
    """Return the error for a reply that is not of the shape its method answers, saying what it is instead."""
    fail = _Failure(service, method, f"{connection.url}/{service}/{method}", asked)
    if reply.kind in ("service_list", "description") and not reply.is_error_page:
        what = (
            f"this service has no method '{method}'"
            if reply.kind == "description"
            else f"no service '{service}'"
        )
        return fail(
            f"{what}: it answered with a description of itself",
            reply=reply,
            remedy=remedy or "Set the dialect to auto, or to the one this service speaks",
        )
    if not 200 <= reply.status < 300:
        words = reply.message() or "no reason given"
        remedy = remedy or _REMEDY_OF_STATUS.get(reply.status, "")
        if reply.status >= 500 and not remedy:
            remedy = "The services answer so, too, for nodes and domains they do not know"
        code: Code = "http_error" if reply.status >= 400 else "unexpected_reply"
        return fail(f"refused: {words}", code=code, reply=reply, remedy=remedy)
    if reply.kind == "html":
        return fail(
            f"a web page came back instead of a reply: {reply.message()}",
            reply=reply,
            remedy=remedy or "Something else answers at this URL",
        )
    if reply.kind == "empty":
        return fail(
            "an empty reply, which is how these services fail on an unknown node or domain",
            reply=reply,
            remedy=remedy or "Check node names and domain against the testbed's inventory",
        )
    if reply.kind == "broken_xml":
        return fail(f"the reply is {reply.xml_error}", reply=reply, remedy=remedy)
    if reply.kind == "xml" and reply.root.tag == "ERROR":
        words = shorten(reply.root.text or "") or "the service says ERROR"
        return fail(words, code="refused", reply=reply, remedy=remedy)
    return fail("the reply is not what this method answers", reply=reply, remedy=remedy)


def run_parallel(
    work: t.Callable[[_T], _R], items: t.Sequence[_T], parallel: int
) -> t.List[t.Union[_R, ServiceError]]:
    """Do ``work`` for all items, at most ``parallel`` at a time.

    Every item is tried. The list has, in the order of the items, what ``work`` returned or the
    :class:`ServiceError` it raised; any other exception is a bug and is raised when all items are through.
    """

    def guarded(item: _T) -> t.Union[_R, ServiceError]:
        try:
            return work(item)
        except ServiceError as error:
            return error

    if not items:
        return []
    with ThreadPoolExecutor(max_workers=min(max(1, parallel), len(items))) as pool:
        futures = [pool.submit(guarded, item) for item in items]
    return [future.result() for future in futures]
