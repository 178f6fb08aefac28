# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import types

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import pxe
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import make_nodes
from ansible_collections.orbit.imaging.plugins.module_utils.pxe import PxeClient, link_name
from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection, ServiceError

from .. import recorded
from ..httpkit import URL, Call, expected_calls
from ..recorded import DOMAIN, linked_hrn, linked_xy

THREE = make_nodes(["1,1", "2,1", "3,1"], DOMAIN)
HRNS = ",".join(node.hrn for node in THREE)
SET = "/pxe/setBootImageNS"
CLEAR = "/pxe/clearBootImageNS"


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Take the pauses away and return the list of those that would have been made."""
    made = []
    # A clock of its own, on which nothing takes any time, however busy the machine is.
    monkeypatch.setattr(pxe, "time", types.SimpleNamespace(sleep=made.append, monotonic=lambda: 1000.0))
    return made


def client(dialect):
    return PxeClient(Connection(URL), dialect, DOMAIN)


def hrn(x, y=1):
    return f"node{x}-{y}.{DOMAIN}"


@pytest.mark.parametrize(
    ("address", "name"),
    [("10.10.1.1", "0A0A0101"), ("10.18.1.2", "0A120102"), ("10.10.20.20", "0A0A1414"), ("", "")],
)
def test_link_name(address, name):
    assert link_name(address) == name


@pytest.mark.parametrize("dialect", ["D", "E1", "E2"])
def test_all_nodes_are_linked_by_one_call(dialect):
    reply = linked_hrn((1, 1), (2, 1), (3, 1), image="omf-5.4.1")
    with expected_calls(Call(SET, {"ns": HRNS, "domain": DOMAIN, "imgName": "omf-5.4.1"}, reply)):
        links = client(dialect).link(THREE, "omf-5.4.1")
    assert [(link.node, link.ok, link.link, link.image) for link in links] == [
        (node, True, f"0A0A0{node.x}01", "omf-5.4.1") for node in THREE
    ]


def test_names_are_compared_as_dns_does():
    with expected_calls(Call(SET, None, linked_hrn((1, 1)).replace("node1-1", "Node1-1"))):
        assert client("E2").link(THREE[:1])[0].ok


def test_coordinates_up_to_5_2():
    arguments = {"ns": "[[1,1],[2,1],[3,1]]", "domain": DOMAIN, "imgName": "m"}
    with expected_calls(Call(SET, arguments, linked_xy((1, 1), (2, 1), (3, 1), image="m"))):
        assert all(link.ok for link in client("C").link(THREE, "m"))


def test_4_4_cannot_choose_the_memory_image():
    with expected_calls(Call(SET, None, linked_xy((1, 1), (2, 1), (3, 1)))):
        links = client("B").link(THREE, "other")
    assert not any(link.ok for link in links)
    assert "linked to 'omf-5.4' instead of 'other'" in links[0].message
    with expected_calls(Call(SET, None, linked_xy((1, 1), (2, 1), (3, 1)))):
        assert all(link.ok for link in client("B").link(THREE))


def test_2006_says_ok_and_no_more():
    arguments = {"img": "orbit-2.0.0", "ip": "10.10.1.1,10.10.2.1,10.10.3.1", "domain": DOMAIN}
    with expected_calls(Call("/pxe/setBootImage", arguments, "OK")):
        links = client("A").link(THREE, "orbit-2.0.0")
    assert [(link.ok, link.link, link.image) for link in links] == [
        (True, f"0A0A0{x}01", "orbit-2.0.0") for x in (1, 2, 3)
    ]


def test_400_nodes_go_as_one_form():
    nodes = make_nodes(["[1..20,1..20]"], DOMAIN)
    reply = linked_hrn(*((node.x, node.y) for node in nodes))
    with expected_calls(Call(SET, None, reply, http_method="POST")) as calls:
        assert all(link.ok for link in client("E2").link(nodes))
    assert len(calls.seen[0][1]["ns"].split(",")) == 400


def test_a_node_that_is_missing_in_the_reply():
    with expected_calls(Call(SET, None, linked_hrn((1, 1), (3, 1)))):
        links = client("E2").link(THREE)
    assert [link.ok for link in links] == [True, False, True]
    assert "names 2 of 3 nodes" in links[1].message


def test_a_node_with_another_address():
    with expected_calls(Call(SET, None, linked_hrn((1, 1)).replace("10.10.1.1", "10.10.9.9"))):
        (link,) = client("E2").link(THREE[:1])
    assert not link.ok
    assert "the service knows this node as 10.10.9.9, the inventory as 10.10.1.1" in link.message


@pytest.mark.parametrize(
    ("dialect", "bad"),
    [
        ("E2", Call("", None, "", 200, "")),
        ("D", Call("", None, "internal error", 500)),
        ("C", Call("", None, recorded.HTML_ERROR.format(message="undefined method"), 500, "text/html")),
    ],
)
def test_an_unknown_node_is_told_from_the_others(dialect, bad, pauses):
    """The service stops half-way and leaves links without a timer; clearing finds the node."""
    if dialect == "C":
        text, good = "[[{x},1]]".format, linked_xy((1, 1), (3, 1))
        both = "[[1,1],[3,1]]"
    else:
        text, good = f"node{{x}}-1.{DOMAIN}".format, linked_hrn((1, 1), (3, 1))
        both = f"{hrn(1)},{hrn(3)}"
    with expected_calls(
        bad._replace(path=SET),
        Call(CLEAR, {"ns": text(x=1), "domain": DOMAIN}, recorded.CLEARED),
        bad._replace(path=CLEAR, arguments={"ns": text(x=2), "domain": DOMAIN}),
        Call(CLEAR, {"ns": text(x=3), "domain": DOMAIN}, recorded.CLEARED),
        Call(SET, {"ns": both, "domain": DOMAIN}, good),
    ) as calls:
        links = client(dialect).link(THREE)
    assert [link.ok for link in links] == [True, False, True]
    assert "clearBootImageNS" in links[1].message
    assert calls.paths() == [SET, CLEAR, CLEAR, CLEAR, SET]
    # Links of two calls in one second never expire.
    assert len(pauses) == 1
    assert 0.9 < pauses[0] <= pxe.SET_SPACING + 1e-9


def test_a_failure_that_is_no_nodes():
    with expected_calls(
        Call(SET, None, "internal error", 500), *(Call(CLEAR, None, recorded.CLEARED) for _node in THREE)
    ):
        links = client("E2").link(THREE)
    assert [link.ok for link in links] == [False] * 3
    assert {link.message for link in links} == {links[0].message}
    assert "internal error" in links[0].message


def test_a_2006_service_that_cannot_clear_is_searched_by_halves(pauses):
    def setting(*places, body="OK", status=200):
        return Call(
            "/pxe/setBootImage",
            {"ip": ",".join(f"10.10.{x}.1" for x in places), "domain": DOMAIN},
            body,
            status,
        )

    with expected_calls(
        setting(1, 2, 3, body="no such node", status=400),
        Call("/pxe", {}, recorded.describe("A", "pxe")),
        Call("/", {}, recorded.SERVICE_LIST),
        setting(1),
        setting(2, 3, body="no such node", status=400),
        setting(2, body="no such node", status=400),
        setting(3),
    ):
        links = client("A").link(THREE)
    assert [link.ok for link in links] == [True, False, True]
    assert links[1].message == "pxe/setBootImage: refused: no such node (HTTP 400)"
    assert len(pauses) == 4


def test_no_reply_is_not_searched_for_a_node():
    with expected_calls(Call(SET, None, ConnectionRefusedError("refused"))):
        links = client("E2").link(THREE)
    assert [link.ok for link in links] == [False] * 3
    assert "cannot be reached: refused" in links[0].message


def test_a_service_that_is_none_is_told_at_once():
    with (
        expected_calls(Call("/pxe", {}, "<html>It works!</html>")),
        pytest.raises(ServiceError, match="not a testbed"),
    ):
        client("auto").link(THREE)


def test_no_nodes_no_calls():
    with expected_calls():
        assert client("E2").link([]) == []
        assert client("E2").unlink([]) == []


def test_clear():
    with expected_calls(Call(CLEAR, {"ns": HRNS, "domain": DOMAIN}, recorded.CLEARED)):
        assert all(link.ok for link in client("E2").unlink(THREE))


def test_clear_goes_on_after_an_unknown_node():
    with expected_calls(
        Call(CLEAR, {"ns": HRNS, "domain": DOMAIN}, "", content_type=""),
        Call(CLEAR, {"ns": hrn(1), "domain": DOMAIN}, recorded.CLEARED),
        Call(CLEAR, {"ns": hrn(2), "domain": DOMAIN}, "", content_type=""),
        Call(CLEAR, {"ns": hrn(3), "domain": DOMAIN}, recorded.CLEARED),
    ):
        links = client("E2").unlink(THREE)
    assert [link.ok for link in links] == [True, False, True]
    assert "empty reply" in links[1].message


def test_clear_of_one_node_is_tried_once():
    with expected_calls(Call(CLEAR, None, "", content_type="")):
        (link,) = client("E2").unlink(THREE[:1])
    assert not link.ok


def test_2006_clear_is_an_extension():
    methods = recorded.METHODS["A"]["pxe"] + "; clearBootImage([node], [ip])"
    with expected_calls(
        Call("/pxe", {}, recorded.description("pxe", methods)),
        Call("/", {}, recorded.SERVICE_LIST),
        Call("/pxe/clearBootImage", {"ip": "10.10.1.1,10.10.2.1,10.10.3.1", "domain": DOMAIN}, "OK"),
    ):
        assert all(link.ok for link in client("auto").unlink(THREE))


def test_2006_services_cannot_clear():
    with (
        expected_calls(Call("/pxe", {}, recorded.describe("A", "pxe")), Call("/", {}, recorded.SERVICE_LIST)),
        pytest.raises(ServiceError, match="cannot clear links") as caught,
    ):
        client("A").unlink(THREE)
    assert "life time" in caught.value.remedy


def test_expected_asks_no_more_than_the_description():
    with expected_calls():
        assert [link.image for link in client("E2").expected(THREE, "m", True)] == ["m"] * 3
    with (
        expected_calls(Call("/pxe", {}, recorded.describe("A", "pxe")), Call("/", {}, recorded.SERVICE_LIST)),
        pytest.raises(ServiceError, match="cannot clear links"),
    ):
        client("A").expected(THREE, "", False)


def test_many_nodes_are_given_more_time():
    made = client("E2")
    assert made._timeout(THREE) == pytest.approx(30.5)
    assert made._timeout(make_nodes(["[1..20,1..20]"], DOMAIN)) > 120
