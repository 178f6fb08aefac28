# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import contextlib
import errno
import socket
import threading

import pytest
from hypothesis import given, strategies as st

from ansible_collections.orbit.imaging.plugins.module_utils import service
from ansible_collections.orbit.imaging.plugins.module_utils.dialects import detect
from ansible_collections.orbit.imaging.plugins.module_utils.service import (
    Connection,
    Reply,
    ServiceError,
    XmlError,
    check_url,
    html_message,
    parse_description,
    parse_json,
    parse_xml,
    run_parallel,
    shorten,
    unexpected,
)

from .. import recorded
from ..httpkit import URL, peer, reply, sender

OK = reply(b"<OK/>", "200 OK", "Content-Type: text/xml")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(service, "RETRY_PAUSE", 0.001)


def call(url, *, question=False, timeout=5.0, arguments=None):
    with Connection(url, timeout=timeout) as connection:
        return connection.call("cmc", "status", arguments or {"hrn": "node1-1.demo"}, question=question)


def refused(url, **options):
    with pytest.raises(ServiceError) as caught:
        call(url, **options)
    return caught.value


# Replies over a real socket


def test_arguments_are_encoded():
    with peer(sender(OK)) as server:
        call(server.url, arguments={"ns": "[[1,1],[2,1]]", "img": "a b&c=d#e/../;f"})
    line = server.requests[0].split(b"\r\n")[0]
    assert (
        line == b"GET /cmc/status?ns=%5B%5B1%2C1%5D%2C%5B2%2C1%5D%5D&img=a+b%26c%3Dd%23e%2F..%2F%3Bf HTTP/1.1"
    )


def test_nothing_of_the_environment_is_used(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with peer(sender(OK)) as server:
        assert call(server.url).is_ok
    assert b"authorization" not in server.requests[0].lower()


def test_token_is_sent():
    with peer(sender(OK)) as server, Connection(server.url, token="abc") as connection:
        connection.call("cmc", "status", {})
    assert b"Authorization: Bearer abc" in server.requests[0]


@pytest.mark.parametrize(("length", "method"), [(300, b"GET"), (1200, b"POST")])
def test_long_request_lines_go_as_a_form(length, method):
    with peer(sender(OK)) as server:
        assert call(server.url, arguments={"ns": "n" * length}).is_ok
    head, _blank, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(method + b" /cmc/status")
    if method == b"POST":
        assert b"application/x-www-form-urlencoded" in head
        assert b"?" not in head.split(b"\r\n")[0]
        assert body == b"ns=" + b"n" * length


def test_questions_share_a_connection_and_orders_do_not():
    with peer(sender(OK)) as server, Connection(server.url) as connection:
        for _time in range(3):
            connection.call("cmc", "status", {}, question=True)
        assert server.connections == 1
    # A server that closes a connection without having said so, as those of the field do.
    with peer(sender(OK, close=True)) as server, Connection(server.url) as connection:
        for _time in range(3):
            connection.call("cmc", "reset", {})
    assert server.connections == 3
    assert all(b"Connection: close" in request for request in server.requests)


def test_empty_reply_on_a_connection_that_then_closes():
    empty = reply(b"", "200 OK", "Connection: Keep-Alive")
    with peer(sender(empty, close=True)) as server, Connection(server.url) as connection:
        for question in (True, False, True):
            assert connection.call("cmc", "reset", {}, question=question).kind == "empty"
    assert len(server.requests) == 3


def fails_first(times, data):
    """Return what a peer does that closes the first connections without an answer."""
    count = iter(range(1000))

    def serve(connection, request):
        if next(count) < times:
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.sendall(data)

    return serve


def test_a_question_is_asked_again():
    with peer(fails_first(2, OK)) as server:
        assert call(server.url, question=True).is_ok
    assert len(server.requests) == 3


def test_a_question_is_not_asked_for_ever():
    with peer(fails_first(100, OK)) as server:
        error = refused(server.url, question=True)
    assert "cannot be reached" in error.message
    assert len(server.requests) == 1 + service.RETRIES


def test_an_order_is_given_once():
    with peer(fails_first(1, OK)) as server:
        error = refused(server.url)
    assert "cannot be reached" in error.message
    assert len(server.requests) == 1


def test_a_gateway_that_has_lost_its_service_is_asked_again():
    replies = iter([reply(b"down", "503 Service Unavailable"), OK])
    with peer(lambda connection, request: connection.sendall(next(replies))) as server:
        assert call(server.url, question=True).is_ok


def test_nobody_listens():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = refused(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert "cannot be reached: " in error.message
    assert "refused" in error.message
    assert "object at" not in str(error)


@pytest.fixture(params=["who waits", "who reads"])
def whoever_is_first(request, monkeypatch):
    """Both ends of a call give up at the same moment; the one that reads may be the first to say so."""
    if request.param == "who reads":
        monkeypatch.setattr(Connection, "_once", Connection._request)


@pytest.mark.usefixtures("whoever_is_first")
@pytest.mark.parametrize(
    "parts", [[], [b"HTTP/1.1 200 OK\r\n"], [OK[:-2]]], ids=["silence", "header", "body"]
)
def test_a_peer_that_stops_sending(parts):
    released = threading.Event()

    def serve(connection, request):
        for part in parts:
            connection.sendall(part)
        released.wait()

    with peer(serve) as server:
        error = refused(server.url, timeout=0.3)
        released.set()
    assert "in time" in error.message
    assert "timeout" in error.remedy


def test_a_peer_that_drips_cannot_outlast_the_time():
    stop = threading.Event()

    def serve(connection, request):
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not stop.wait(0.05):
            connection.sendall(b"x")

    with peer(serve) as server:
        error = refused(server.url, timeout=0.4)
        stop.set()
    assert "no complete answer in time" in error.message


@pytest.mark.usefixtures("whoever_is_first")
def test_a_peer_that_drips_its_body():
    stop = threading.Event()

    def serve(connection, request):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n")
        with contextlib.suppress(OSError):
            while not stop.wait(0.05):
                connection.sendall(b"x" * 70_000)

    with peer(serve) as server:
        error = refused(server.url, timeout=0.4)
        stop.set()
    assert (error.message, error.code) == ("no complete answer in time", "timeout")
    assert "timeout" in error.remedy


def test_a_connection_that_the_network_gives_up_was_not_made(monkeypatch):
    """The system may lose patience before we do: nothing was sent, so nothing can have been done."""

    def give_up(*_arguments, **_options):
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(socket.socket, "connect", give_up)
    error = refused("http://127.0.0.1:9")
    assert error.code == "not_sent"
    assert "timeout" in error.remedy


def test_a_status_line_without_a_code():
    # OMF up to 5.3 without a configuration for the domain.
    data = b"HTTP/1.1 \r\nContent-Length: 4\r\nConnection: Keep-Alive\r\n\r\nMiss"
    with peer(sender(data)) as server:
        error = refused(server.url, question=True)
    assert "not HTTP" in error.message
    assert "domain" in error.remedy
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\x01\x02\x03" * 10, b"HTTP/1.1 abc OK\r\n\r\n"]
)
def test_something_else_listens(data):
    with peer(sender(data, close=True)) as server:
        error = refused(server.url)
    assert error.status is None
    assert "not HTTP" in error.message or "cannot be reached" in error.message


@pytest.mark.parametrize("length", [10, None], ids=["length", "no length"])
def test_a_reply_that_is_too_large(monkeypatch, length):
    monkeypatch.setattr(service, "MAX_REPLY", 100_000)
    head = b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 200000\r\n" if length else b"") + b"\r\n"
    with peer(sender(head + b"x" * 200_000, close=True)) as server:
        error = refused(server.url)
    assert "larger than 100000 bytes" in error.message


def test_a_reply_that_breaks_off():
    with peer(sender(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<OK/>", close=True)) as server:
        # Half an answer is none, whatever it says.
        assert "cannot be reached" in refused(server.url).message


def test_a_compressed_reply_is_not_unpacked():
    with peer(sender(reply(b"\x1f\x8b" + b"x" * 50, "200 OK", "Content-Encoding: gzip"))) as server:
        assert "compressed" in refused(server.url).message


def test_redirections_are_not_followed():
    data = reply(b"", "302 Found", "Location: http://127.0.0.1:1/elsewhere")
    with peer(sender(data)) as server:
        error = refused(server.url)
    assert "redirects to 'http://127.0.0.1:1/elsewhere'" in error.message
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "remedy"), [("401 No", "orbit_service_token"), ("403 No", "let this host")]
)
def test_who_is_not_let_in_is_told_what_helps_and_not_that_this_is_no_service(status, remedy):
    with (
        peer(sender(reply(b"not for you", status))) as server,
        Connection(server.url, token="s3cret") as there,
        pytest.raises(ServiceError) as caught,
    ):
        there.describe("pxe")
    assert "refused: not for you" in str(caught.value)
    assert remedy in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert b"Authorization: Bearer s3cret" in server.requests[0]


@pytest.mark.parametrize("token", ["s3cret\nX: y", "s3cret word", "s3cret\u00fc", " s3cret"])
def test_a_token_that_is_none_is_refused_and_not_shown(token):
    with pytest.raises(ServiceError, match="the token has") as caught:
        Connection(URL, token=token)
    assert "s3cret" not in str(caught.value)
    assert caught.value.code == "bad_argument"


def test_certificates_that_are_not_there(tmp_path):
    with pytest.raises(ServiceError, match="to take certificates from") as caught:
        Connection(URL, ca_path=str(tmp_path / "nosuch"))
    assert "orbit_service_ca" in caught.value.remedy


# URLs


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://pxe:5012", "http://pxe:5012"),
        ("http://pxe:5012/", "http://pxe:5012"),
        (" https://am1/omf/ ", "https://am1/omf"),
        ("http://[::1]:5012", "http://[::1]:5012"),
        ("HTTP://Pxe.sb1.orbit-lab.org.:5012", "http://pxe.sb1.orbit-lab.org.:5012"),
        # A gateway that has the services below a prefix.
        ("https://am1/omf/v5.4/", "https://am1/omf/v5.4"),
        ("http://xn--mnchen-3ya.example:1", "http://xn--mnchen-3ya.example:1"),
    ],
)
def test_url(url, base):
    assert check_url(url) == base


@pytest.mark.parametrize(
    "url",
    [
        "",
        "pxe:5012",
        "pxe",
        "file:///etc/passwd",
        "http://",
        "http://pxe:99999",
        "http://pxe:0",
        "http://me:secret@pxe",
        "http://pxe?x=1",
        "http://pxe#x",
        "http://a b",
        "http://[::1",
        "http://[zz]:5012",
        "http://pxe:70000",
        "http://pxe:-1",
        "http://pxe:",
        "http://pxe:x",
        "http://pxe?",
        "http://pxe#",
        "http://@pxe",
        "http://me:secret@pxe:99999",
        "http://pxe:99999?password=secret",
        "ftp://me:secret@pxe",
        "http://m\u00fcnchen.example:5012",
        "http://pxe:5012/\u00fc",
        "http://p\u200bxe",
        "http://pxe:5012/a b",
        "http://pxe:5012/a%20b",
        "http://pxe:5012/a/../b",
        "http://pxe:5012/./b",
        "http://pxe:5012//b",
        "http://pxe:5012/a;b",
        "http://pxe\\@evil",
        "http://pxe..orbit-lab.org",
        "http://-pxe",
        "http://" + "a" * 300,
        "http://pxe/" + "a" * 3000,
    ],
)
def test_bad_url(url):
    with pytest.raises(ServiceError) as caught:
        check_url(url)
    assert "http://pxe:5012" in caught.value.remedy
    assert "secret" not in str(caught.value)
    assert caught.value.code == "bad_argument"
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", service.SERVICES)
@pytest.mark.parametrize("path", ["/{}", "/{}/", "/omf/{}", "/{}/setBootImageNS"])
def test_the_name_of_a_service_is_no_part_of_its_url(name, path):
    with pytest.raises(ServiceError, match=f"name of a service in its path, '{name}'") as caught:
        check_url("http://H:5012" + path.format(name))
    prefix = "/omf" if path.startswith("/omf") else ""
    assert caught.value.remedy == f"Leave it out: http://H:5012{prefix}"


# Bodies


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("OK", "text"),
        ("224.0.0.5:7000", "text"),
        ("<OK/>", "xml"),
        ("\ufeff<OK/>", "xml"),
        ("<?xml version='1.0'?>\n<OK>x</OK>", "xml"),
        (recorded.SERVICE_LIST, "service_list"),
        (recorded.describe("E2", "pxe"), "description"),
        (recorded.describe("B", "pxe"), "description"),
        (recorded.description("cmc", "on(x, y)", old_root=True), "description"),
        (recorded.HTML_ERROR, "html"),
        ("<html><body>It works!</body></html>", "html"),
        ("<response status='OK'><action", "broken_xml"),
        ("<OK/><OK/>", "broken_xml"),
        ("<OK>\x00</OK>", "broken_xml"),
        ("{}", "text"),
    ],
)
def test_kind_of_body(body, kind):
    assert Reply(200, "text/plain", body.encode()).kind == kind


@given(
    st.binary() | st.text().map(str.encode) | st.text("<>/OKa='\"&;![]? ").map(str.encode),
    st.integers(100, 599),
)
def test_any_body_is_some_reply(body, status):
    answer = Reply(status, "text", body)
    assert answer.kind in {"empty", "text", "xml", "html", "broken_xml", "description", "service_list"}
    assert len(answer.message()) <= service.QUOTE
    with Connection(URL) as connection:
        error = unexpected(connection, "pxe", "on", {}, answer)
    assert str(error)
    assert error.brief
    assert error.as_dict()["status"] == status


BOMB = (
    "<!DOCTYPE a [<!ENTITY b 'ha'>"
    + "".join(f"<!ENTITY b{n} '{f'&b{n - 1 or str()};' * 10}'>" for n in range(1, 10))
    + "]><a>&b9;</a>"
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>",
        "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
        "<a>" * 200 + "</a>" * 200,
        "<a>" + "<b/>" * 100_001 + "</a>",
        "<a>&undefined;</a>",
        "<?xml version='1.0' encoding='no-such'?><a/>",
        "",
        "<a",
    ],
    ids=["bomb", "dtd", "entity", "deep", "many", "undefined", "encoding", "empty", "half"],
)
def test_xml_that_is_refused(text):
    with pytest.raises(XmlError):
        parse_xml(text.encode())


def test_xml_in_other_encodings():
    assert parse_xml("<?xml version='1.0' encoding='utf-16'?><a>\u00fc</a>".encode("utf-16")).text == "\u00fc"


def test_html_page_says_its_message():
    page = recorded.HTML_ERROR.format(message="Missing parameter &#39;ns&#39; &lt;x&gt;")
    assert html_message(page) == "Missing parameter 'ns' <x>"
    assert (
        html_message("<html><head><title>T</title></head><body><h1>Bad Gateway</h1></body></html>")
        == "Bad Gateway"
    )


def error_of(reply_body, status=200, content_type="text/xml"):
    with Connection(URL) as connection:
        return unexpected(
            connection, "cmc", "reset", {"x": "1", "y": "2"}, Reply(status, content_type, reply_body.encode())
        )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (recorded.describe("E2", "cmc"), 200, "this service has no method 'reset'"),
        (recorded.SERVICE_LIST, 200, "no service 'cmc'"),
        ("Missing parameter 'x'", 400, "refused: Missing parameter 'x'"),
        (
            recorded.HTML_ERROR.format(message="undefined method `value'"),
            500,
            "refused: undefined method `value'",
        ),
        ("internal error", 500, "refused: internal error"),
        ("", 401, "refused: no reason given"),
        ("<html><body>It works!</body></html>", 200, "a web page came back instead of a reply: It works!"),
        ("", 200, "an empty reply"),
        ("<OK>half", 200, "not well-formed XML"),
        ("<ERROR/>", 200, "the service says ERROR"),
        ("<ERROR>Found unsafe characters in parameter &apos;x y&apos;</ERROR>", 200, "parameter 'x y'"),
        ("something", 200, "not what this method answers"),
    ],
)
def test_what_came_instead_of_a_reply(body, status, message):
    error = error_of(body, status)
    assert message in error.message
    assert error.status == status
    assert error.asked == {"x": "1", "y": "2"}
    assert str(error).startswith("cmc/reset: ")
    assert f"{URL}/cmc/reset with x=1, y=2" in str(error)
    assert f"HTTP {status}" in str(error)


# Codes


def code_of(url, **options):
    return refused(url, **options).code


def test_codes_tell_what_can_have_reached_the_service():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert code_of(url) == "not_sent"
        assert code_of(url.replace("http", "https")) == "not_sent"
    assert code_of("http://nosuch.invalid") == "not_sent"
    with peer(sender(b"", close=True)) as server:
        assert code_of(server.url) == "no_reply"
    released = threading.Event()
    with peer(lambda connection, request: released.wait(180)) as server:
        assert code_of(server.url, timeout=0.3) == "timeout"
        released.set()
    with peer(sender(b"SSH-2.0-OpenSSH_9.2\r\n", close=True)) as server:
        assert code_of(server.url) == "unexpected_reply"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("internal error", 500, "http_error"),
        ("Missing parameter 'x'", 400, "http_error"),
        ("<ERROR>no</ERROR>", 200, "refused"),
        ("", 200, "unexpected_reply"),
        (recorded.SERVICE_LIST, 200, "unexpected_reply"),
    ],
)
def test_code_of_a_reply(body, status, code):
    assert error_of(body, status).code == code
    assert error_of(body, status).as_dict()["code"] == code


# Strangers: whatever is sent, it is bounded, and its size alone makes the work


class Watched(str):
    """A text that counts the characters its searches go over."""

    looked = 0

    def lower(self):
        return self

    def find(self, sub, start=0, end=None):
        found = str.find(self, sub, start)
        Watched.looked += (len(self) if found < 0 else found) - start
        return found


@pytest.mark.parametrize(
    "part",
    ["<h1 ", "<h1>", "<", "<!--", "<!-- >", "<![", "<!", "</", "<script>", "<style", "<head><address>",
     "&#", "<a b='", "<?", "<hr", "<h1></h1", "<script></", "a<b>"],
)  # fmt: skip
def test_a_page_is_read_once(part):
    page = Watched("<html>" + part * (100_000 // len(part)))
    Watched.looked = 0
    service._page_texts(page)
    # Once for all tags, and once for the end of each kind of element that has none.
    assert Watched.looked <= (3 + len(service._UNSEEN)) * len(page)
    assert len(html_message(str(page))) <= service.QUOTE


@pytest.mark.parametrize("text", ["&#" + "9" * 5000 + ";", "&#x" + "f" * 90_000 + ";", "<p>&#" + "1" * 4500])
def test_a_number_in_a_page_that_python_does_not_convert(text):
    assert len(html_message("<html>" + text)) <= service.QUOTE


def test_the_message_of_a_page_is_found_behind_what_is_not_for_people():
    page = "<html><script>" + "x" * 50_000 + "</script><style>a<b</style>" + " <br>" * 5000 + "gone</html>"
    assert html_message(page) == "gone"
    assert html_message("<html><head>never closed<p>what it says") == "never closed what it says"


def test_nothing_that_a_service_sends_is_quoted_whole():
    methods = "; ".join(f"{'m' * 100}{number}(x)" for number in range(1000))
    pages = {
        b"/pxe": recorded.description("pxe", methods),
        b"/": recorded.SERVICE_LIST,
        b"/cmc": "<serviceGroups>" + "".join(f"<serviceGroup path='s{n}'/>" for n in range(9999))
        + "</serviceGroups>",
        b"/frisbee/on?x=1": f"<{'t' * 100_000}>{'w ' * 100_000}</{'t' * 100_000}>",
        b"/frisbee/off?x=1": f"<ERROR>{'e' * 100_000}</ERROR>",
    }  # fmt: skip

    def serve(connection, request):
        connection.sendall(reply(pages[request.split()[1]].encode()))

    errors = []
    with peer(serve) as server, Connection(server.url) as connection:
        for ask in (lambda: detect("pxe", connection.describe("pxe")), lambda: connection.describe("cmc")):
            with pytest.raises(ServiceError) as caught:
                ask()
            errors.append(caught.value)
        for method in ("on", "off"):
            answer = connection.call("frisbee", method, {"x": "1"})
            errors.append(unexpected(connection, "frisbee", method, {"x": "1"}, answer))
    for error in errors:
        assert len(str(error)) < 2000
        assert len(error.brief) < 1500
        assert all(len(str(value)) <= service.MAX_MESSAGE for value in error.as_dict().values())


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "9" * 5000, '{"a": -' + "9" * 30 + "}", "\xff", "nul"]
)
def test_json_of_strangers(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text.encode("latin-1"))
    assert parse_json(b'{"a": [1, 2.5, "x"]}') == {"a": [1, 2.5, "x"]}


def test_errors_quote_little():
    error = ServiceError("wrong", asked={"ns": "n" * 10_000}, url="http://x", reply="r" * 10_000)
    assert len(str(error)) < 600
    assert len(error.as_dict()["asked"]["ns"]) <= service.QUOTE


@given(st.text(), st.integers(4, 50))
def test_shorten_gives_one_printable_line(text, limit):
    line = shorten(text, limit)
    assert len(line) <= limit
    assert line.isprintable()


# Descriptions


@pytest.mark.parametrize("dialect", list(recorded.METHODS))
@pytest.mark.parametrize("name", ["pxe", "frisbee", "cmc"])
def test_description(dialect, name):
    described = parse_description(parse_xml(recorded.describe(dialect, name).encode()))
    text = "; ".join(f"{method}({', '.join(args)})" for method, args in described.methods.items())
    assert text == recorded.METHODS[dialect][name].replace("[", "").replace("]", "")
    assert described.pretty == (dialect == "B")


def test_two_blocks_of_arguments_for_one_method():
    # The form of 2005.
    text = (
        "<serviceGroup name='cmc'><service name='on'><args><arg name='x'/></args>"
        "<args><arg name='y'/><arg name='x'/></args></service></serviceGroup>"
    )
    described = parse_description(parse_xml(text.encode()))
    assert described.old_root
    assert described.methods == {"on": ("x", "y")}


def test_describe_asks_the_service():
    pages = {
        b"/pxe": recorded.describe("C", "pxe"),
        b"/": recorded.OLD_SERVICE_LIST,
        b"/nosuch": recorded.SERVICE_LIST,
        b"/page": "<html>hello</html>",
    }

    def serve(connection, request):
        connection.sendall(reply(pages[request.split()[1]].encode()))

    with peer(serve) as server, Connection(server.url) as connection:
        described = connection.describe("pxe", with_list=True)
        assert described.listed == ("/cmc", "/frisbee", "/pxe")
        assert "setBootImageAll" in described.methods
        with pytest.raises(
            ServiceError, match="no service 'nosuch' here; the services are: cmc, frisbee, pxe"
        ):
            connection.describe("nosuch")
        with pytest.raises(ServiceError, match="not a testbed service"):
            connection.describe("page")


# Many at a time


def test_run_parallel_keeps_order_and_tries_all():
    def work(number):
        if number % 3 == 0:
            raise ServiceError(f"no {number}")
        return number * 10

    results = run_parallel(work, range(10), 4)
    assert [str(result) for result in results] == [
        f"no {number}" if number % 3 == 0 else str(number * 10) for number in range(10)
    ]


def test_run_parallel_is_bounded_and_parallel():
    barrier = threading.Barrier(3, timeout=180)
    inside, most, lock = 0, 0, threading.Lock()

    def work(_number):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        barrier.wait()
        with lock:
            inside -= 1

    run_parallel(work, range(9), 3)
    assert most == 3


def test_run_parallel_raises_bugs_when_all_are_through():
    done = []

    def work(number):
        if number == 0:
            raise KeyError("bug")
        done.append(number)

    with pytest.raises(KeyError):
        run_parallel(work, range(5), 2)
    assert sorted(done) == [1, 2, 3, 4]


def test_run_parallel_with_nothing_to_do():
    assert run_parallel(str, [], 4) == []
