# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The web layer that all services of a dialect share: routing, parameters, reply shapes.

Routing goes by the longest mounted prefix, as in the historic web server: a method name that does not exist
answers 200 with the description of the service, an unknown service 200 with the list of services. Parameters
come from the query of a GET or HEAD and from the form of any other request, whose query is then ignored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from .call import Call, Fault, Outcome, Text, Xml
from .config import ServicesConfig
from .describe import service_description, service_list
from .dialects import Dialect, DomainRule, ErrorPage, Form, Method, Problem, ServiceTable
from .query import normalize_path, parse_query
from .state import StateError
from .xml import element, escape

#: Bytes of a request body; a set of 65,536 long node names does not need more.
MAX_BODY = 4 * 1024 * 1024
#: Seconds for a request body to come.
BODY_TIME = 30.0
_FORM = "application/x-www-form-urlencoded"
_METHODS = ("GET", "HEAD", "POST", "PUT")
#: Turns of the event loop in which the end of a connection that has ended gets through to here.
_TURNS = 5
_HTML_TYPE = "text/html; charset=ISO-8859-1"

log = logging.getLogger(__name__)

Handler = Callable[[Call], Awaitable[Outcome]]


class _Reply:
    """Status, headers and body on their way out. ``abandon``: drop the connection after the headers."""

    def __init__(
        self,
        status: int,
        body: str = "",
        content_type: str | None = None,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        abandon: bool = False,
    ) -> None:
        self.status = status
        self.body = body.encode("latin-1" if content_type == _HTML_TYPE else "utf-8", "replace")
        self.headers = headers if content_type is None else (("content-type", content_type), *headers)
        self.abandon = abandon

    async def send(self, scope: Scope, send: Send) -> None:
        keep = self.status < 400 and (b"connection", b"close") not in scope["headers"]
        headers = (
            *self.headers,
            ("content-length", str(len(self.body))),
            ("connection", "Keep-Alive" if keep else "close"),
        )
        await send(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
            }
        )
        if self.abandon:
            # Leaving a reply unfinished makes the server close a connection that was announced as kept.
            return
        await send({"type": "http.response.body", "body": self.body})


class DialectApp:
    """ASGI application of one dialect; ``handlers`` maps ``service/action`` to what does the work."""

    def __init__(self, dialect: Dialect, config: ServicesConfig, handlers: dict[str, Handler]) -> None:
        self.dialect = dialect
        self._config = config
        self._handlers = {
            (service.name, method.name): handlers[f"{service.name}/{method.action}"]
            for service in dialect.services.values()
            for method in service.methods
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Whatever goes wrong, the caller gets a reply of the dialect's shape."""
        request = Request(scope, receive)
        try:
            reply = await self._answer(request)
        except ClientDisconnect:
            return
        except Exception:
            log.exception("%s %s %s failed", self.dialect.name, scope["method"], scope["path"])
            reply = self._problem(request, Fault(Problem.INTERNAL, "internal error"))
        await reply.send(scope, send)

    async def _answer(self, request: Request) -> _Reply:
        scope = request.scope
        raw = scope.get("raw_path") or scope["path"].encode()
        query: bytes = scope["query_string"]
        if self.dialect.request_line is not None:
            line = len(scope["method"]) + len(raw) + len(query) + bool(query) + len("  HTTP/1.1\r\n")
            if line > self.dialect.request_line:
                return self._error(request, 414, "WEBrick::HTTPStatus::RequestURITooLarge")
        parts = normalize_path(scope["path"])
        if parts is None:
            return self._error(request, 400, "bad URI")
        if parts == ["favicon.ico"]:
            return self._error(request, 404, "`/favicon.ico' not found.")
        if scope["method"] not in _METHODS:
            return self._error(request, 405, f"unsupported method `{scope['method']}'.")
        service = self.dialect.services.get(parts[0]) if parts else None
        if service is None:
            return _Reply(200, service_list(self.dialect), "text/xml")
        method = service.method(parts[1]) if len(parts) > 1 else None
        if method is None:
            # The header's name was misspelt, so these replies have no content type at all.
            return _Reply(
                200, service_description(self.dialect, service), headers=(("contenttype", "text/xml"),)
            )
        try:
            parameters = await self._parameters(request)
        except TimeoutError:
            return self._error(request, 408, f"the request body did not come within {BODY_TIME:.0f} s")
        if parameters is None:
            return self._error(request, 413, f"request body of more than {MAX_BODY} bytes")
        return await self._call(request, service, method, parameters)

    async def _parameters(self, request: Request) -> dict[str, str] | None:
        if request.method in ("GET", "HEAD"):
            return parse_query(request.scope["query_string"].decode("latin-1"))
        body = bytearray()
        async with asyncio.timeout(BODY_TIME):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    return None
        if not request.headers.get("content-type", "").lower().startswith(_FORM):
            return {}
        return parse_query(body.decode("latin-1"))

    async def _call(
        self, request: Request, service: ServiceTable, method: Method, parameters: dict[str, str]
    ) -> _Reply:
        if self.dialect.domain_rule is DomainRule.DEFAULT:
            parameters.setdefault("domain", "default")
        call = Call(self.dialect, service, method, parameters, self._config)
        what = f"{self.dialect.name} {service.name}/{method.name}"
        objection = self._config.access.objection(request.scope) if method.changes else None
        if objection is not None:
            log.warning("%s: refused: %s", what, objection)
            return self._error(request, 403, objection)
        try:
            self._check_arguments(call, parameters)
            outcome = await self._heard(request, call)
        except Fault as fault:
            log.info("%s: %s: %s", what, fault.problem.name, fault.text)
            return self._problem(request, fault)
        except StateError as error:
            log.error("%s: %s", what, error)
            return self._problem(request, Fault(Problem.INTERNAL, str(error)))
        log.debug("%s: done", what)
        more = tuple(call.headers)
        if isinstance(outcome, Xml):
            return _Reply(200, outcome.xml, "text/xml", headers=more)
        if outcome is None and self.dialect.xml_ok:
            return _Reply(200, element("OK"), "text/xml", headers=more)
        text = outcome.text if isinstance(outcome, Text) else "OK"
        return _Reply(200, text, service.text_type or self.dialect.text_type, headers=more)

    async def _heard(self, request: Request, call: Call) -> Outcome:
        """Do a call. When the caller's connection ends before, what it was lent is taken back.

        Nothing is broken off half-way: links and power change whether somebody waits for the reply or not.
        """
        gone = asyncio.create_task(_gone(request))
        try:
            outcome = await self._handlers[call.service.name, call.method.name](call)
            if call.when_unheard and not call.faithful:
                for _ in range(_TURNS):
                    await asyncio.sleep(0)
                if gone.done():
                    log.info("%s: the caller is gone, nothing is counted", call.method.name)
                    for take_back in call.when_unheard:
                        await take_back()
                    raise ClientDisconnect
            return outcome
        finally:
            gone.cancel()

    def _check_arguments(self, call: Call, parameters: dict[str, str]) -> None:
        if call.faithful and call.method.blind:
            return
        for arg in call.method.args:
            if arg.other_name in parameters and not call.faithful:
                parameters.setdefault(arg.name, parameters[arg.other_name])
            if arg.enforced and arg.name not in parameters:
                raise Fault(Problem.MISSING_ARGUMENT, f"Missing parameter '{arg.name}'")

    # -- replies to problems -------------------------------------------------------------------------------

    def _problem(self, request: Request, fault: Fault) -> _Reply:
        status, form = self.dialect.problems[fault.problem]
        if form is Form.EMPTY:
            return _Reply(200, abandon=self._config.faithful)
        if form is Form.ELEMENT:
            return _Reply(status, element("ERROR", escape(fault.text)), "text/xml")
        text = "internal error" if form is Form.INTERNAL else fault.text
        if status >= 400:
            return self._error(request, status, text)
        return _Reply(status, text, self.dialect.text_type)

    def _error(self, request: Request, status: int, text: str) -> _Reply:
        if self.dialect.error_page is ErrorPage.TEXT:
            return _Reply(status, text, self.dialect.text_type)
        host, port = request.scope.get("server") or ("localhost", self.dialect.port)
        return _Reply(status, _html_page(HTTPStatus(status).phrase, text, f"{host}:{port}"), _HTML_TYPE)


async def _gone(request: Request) -> None:
    """Return when the caller's connection has ended."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _html_page(title: str, text: str, place: str) -> str:
    """The error page of 4.4 and 5.2: what a client has to find the message in."""
    for plain, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(plain, escaped)
    return (
        '<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.0//EN">\n'
        "<HTML>\n"
        f"  <HEAD><TITLE>{title}</TITLE></HEAD>\n"
        "  <BODY>\n"
        f"    <H1>{title}</H1>\n"
        f"    {text}\n"
        "    <HR>\n"
        "    <ADDRESS>\n"
        "     orbit-testbed at\n"
        f"     {place}\n"
        "    </ADDRESS>\n"
        "  </BODY>\n"
        "</HTML>\n"
    )
