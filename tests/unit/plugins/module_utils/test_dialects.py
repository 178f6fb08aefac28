# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils.dialects import (
    CHOICES,
    DIALECTS,
    Request,
    Speaker,
    detect,
)
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import Node, make_nodes
from ansible_collections.orbit.imaging.plugins.module_utils.service import (
    Connection,
    ServiceError,
    parse_description,
    parse_xml,
)

from .. import recorded
from ..httpkit import URL, Call, expected_calls

NODES = make_nodes(["1,1", "2,1"], recorded.DOMAIN)


def described(text, services=recorded.SERVICE_LIST):
    listed = tuple(group.get("path") for group in parse_xml(services.encode()))
    return parse_description(parse_xml(text.encode()))._replace(listed=listed)


#: Where a service did not change, the newest dialect that speaks like it.
SAME = {("E1", "pxe"): "E2", ("E1", "cmc"): "E2"}


@pytest.mark.parametrize("dialect", list(DIALECTS))
@pytest.mark.parametrize("service", ["pxe", "frisbee", "cmc"])
def test_detection(dialect, service):
    found = detect(service, described(recorded.describe(dialect, service), recorded.service_list(dialect)))
    assert found == SAME.get((dialect, service), dialect)


@pytest.mark.parametrize(
    ("service", "methods", "old_root", "dialect"),
    [
        # The skeleton that shipped with 5.3 and 5.4 takes coordinates, whatever pxe and frisbee do.
        ("cmc", recorded.CMC_SKELETON, False, "C"),
        ("cmc", "on(x, y); off(x, y)", True, "A"),
        # WINLAB's cmc of the time of 5.3.
        ("cmc", "on(hrn, domain); reset(hrn, domain); allStatus(domain)", False, "D"),
        ("cmc", "on(x, y); identify(x, y); reset(x, y)", False, "A"),
        ("frisbee", "getAddress(img); status()", False, "A"),
        ("frisbee", "checkImage([img], [domain]); getAddress([img], [domain]); status()", False, "E1"),
    ],
)
def test_detection_of_odd_services(service, methods, old_root, dialect):
    assert detect(service, described(recorded.description(service, methods, old_root=old_root))) == dialect


@pytest.mark.parametrize("service", ["pxe", "frisbee", "cmc"])
def test_a_description_that_fits_no_dialect(service):
    with pytest.raises(ServiceError, match="its methods are: moo") as caught:
        detect(service, described(recorded.description(service, "moo()")))
    assert "Set the dialect" in caught.value.remedy


def speaker(service, dialect):
    return Speaker(Connection(URL), service, dialect)


@pytest.mark.parametrize(
    ("dialect", "what", "method", "arguments"),
    [
        ("B", "pxe.set", "setBootImageNS", {"ns": "[[1,1],[2,1]]"}),
        ("C", "pxe.set", "setBootImageNS", {"ns": "[[1,1],[2,1]]", "imgName": "m"}),
        ("D", "pxe.set", "setBootImageNS", {"ns": "HRNS", "imgName": "m"}),
        ("E1", "pxe.set", "setBootImageNS", {"ns": "HRNS", "imgName": "m"}),
        ("E2", "pxe.set", "setBootImageNS", {"ns": "HRNS", "imgName": "m"}),
        ("B", "pxe.clear", "clearBootImageNS", {"ns": "[[1,1],[2,1]]"}),
        ("E2", "pxe.clear", "clearBootImageNS", {"ns": "HRNS"}),
        ("A", "frisbee.start", "getAddress", {"img": "m"}),
        ("D", "frisbee.start", "getAddress", {"img": "m"}),
        ("E1", "frisbee.start", "getAddress", {"img": "m"}),
        ("E2", "frisbee.start", "getAddress", {"img": "m", "user": "alice"}),
        ("E2", "frisbee.check", "checkImage", {"img": "m", "user": "alice"}),
        ("E2", "frisbee.stop", "stop", {"img": "m"}),
        ("C", "frisbee.status", "status", {}),
        ("C", "cmc.all_status", "allStatus", {}),
    ],
)
def test_calls_for_many(dialect, what, method, arguments):
    service, _dot, action = what.partition(".")
    expected = {"domain": recorded.DOMAIN, **arguments}
    if expected.get("ns") == "HRNS":
        expected["ns"] = ",".join(node.hrn for node in NODES)
    found, made = speaker(service, dialect).request(action, Request(NODES, "m", recorded.DOMAIN, "alice"))
    assert (found.name, made) == (method, expected)


@pytest.mark.parametrize(
    ("dialect", "action", "method", "arguments"),
    [
        ("B", "off", "offHard", {"x": "1", "y": "1"}),
        ("C", "reset", "reset", {"x": "1", "y": "1"}),
        ("D", "reset", "reset", {"name": "node1-1.d", "hrn": "node1-1.d"}),
        ("E2", "reset", "reset", {"hrn": "node1-1.d"}),
        ("E2", "off_soft", "offSoft", {"hrn": "node1-1.d"}),
        ("E1", "reboot", "reboot", {"hrn": "node1-1.d"}),
        ("E1", "status", "status", {"hrn": "node1-1.d"}),
    ],
)
def test_calls_for_one(dialect, action, method, arguments):
    request = Request(make_nodes(["1,1"], "d"), domain="d")
    found, made = speaker("cmc", dialect).request(action, request)
    assert (found.name, made) == (method, {"domain": "d", **arguments})


def test_2006_calls_follow_the_description():
    methods = recorded.METHODS["A"]["cmc"] + "; offHard(x, y); offSoft(x, y); allStatus()"
    page = recorded.description("cmc", methods)
    one = Request(make_nodes(["1,1"], "d"))
    with expected_calls(Call("/cmc", {}, page), Call("/", {}, recorded.SERVICE_LIST)):
        modern = speaker("cmc", "auto")
        assert modern.dialect.name == "A"
        assert [modern.request(what, one)[0].name for what in ("off", "off_soft", "all_status")] == [
            "offHard",
            "offSoft",
            "allStatus",
        ]
    with expected_calls(
        Call("/cmc", {}, recorded.describe("A", "cmc")), Call("/", {}, recorded.SERVICE_LIST)
    ):
        old = speaker("cmc", "auto")
        assert [old.request(what, one)[0].name for what in ("off", "all_status")] == ["off", "status"]
        assert not old.can("off_soft")


def test_2006_service_that_does_not_describe_itself_is_asked_once():
    one = Request(make_nodes(["1,1"], "d"))
    with expected_calls(Call("/cmc", {}, "OK")):
        plain = speaker("cmc", "A")
        for _time in range(3):
            assert plain.request("off", one)[0].name == "off"
        assert not plain.can("off_soft")


def test_2006_links_go_by_address_else_by_name():
    with_address = speaker("pxe", "A").request("set", Request(NODES, "m", recorded.DOMAIN))
    assert with_address[1] == {"img": "m", "ip": "10.10.1.1,10.10.2.1", "domain": recorded.DOMAIN}
    without = speaker("pxe", "A").request("set", Request(make_nodes(["1,1", "node2-1.demo"], "demo"), "m"))
    assert without[1] == {"img": "m", "node": "node1-1,node2-1"}


def test_a_node_known_by_name_only():
    node = Node("spare", "d", None, None, "spare.d", "")
    with pytest.raises(ServiceError, match="setBootImageNS needs 'ns'"):
        speaker("pxe", "C").request("set", Request((node,)))
    assert speaker("pxe", "E2").request("set", Request((node,)))[1] == {"ns": "spare.d"}


def test_the_user_is_needed_by_the_last_dialect_only():
    with pytest.raises(ServiceError, match="Give the user"):
        speaker("frisbee", "E2").request("start", Request((), "m", "d"))
    assert speaker("frisbee", "E1").request("start", Request((), "m", "d"))


def test_what_a_dialect_cannot_do():
    with (
        expected_calls(Call("/cmc", {}, recorded.describe("C", "cmc")), Call("/", {}, recorded.SERVICE_LIST)),
        pytest.raises(ServiceError, match=r"cannot reboot: dialect C \(OMF 5.2\) has no such method"),
    ):
        speaker("cmc", "C").request("reboot", Request(make_nodes(["1,1"], "d")))


def test_choices():
    assert CHOICES == ["auto", "A", "B", "C", "D", "E1", "E2"]


@pytest.mark.parametrize("dialect", list(DIALECTS.values()), ids=list(DIALECTS))
def test_every_dialect_can_do_the_job(dialect):
    needed = {"pxe.set", "frisbee.start", "frisbee.status", "cmc.on", "cmc.off", "cmc.reset"}
    firm = {
        what for what, methods in dialect.methods.items() if any(not method.extension for method in methods)
    }
    assert needed <= firm
    assert firm & {"cmc.status", "cmc.all_status"}


def test_the_historic_methods_are_called_as_they_describe_themselves():
    for name, services in recorded.METHODS.items():
        for service, text in services.items():
            known = {}
            for entry in text.split("; "):
                method, _bracket, arguments = entry.partition("(")
                known[method] = arguments
            for what, methods in DIALECTS[name].methods.items():
                for method in methods:
                    if what.startswith(service + ".") and not method.extension:
                        assert method.name in known, (name, what)
