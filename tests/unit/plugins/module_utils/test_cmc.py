# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import cmc
from ansible_collections.orbit.imaging.plugins.module_utils.cmc import CmcClient, normalise_state
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import make_nodes
from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection, ServiceError

from .. import recorded
from ..clock import Clock
from ..httpkit import URL, Call, expected_calls
from ..recorded import DOMAIN, node_status, testbed_status

TWO = make_nodes(["1,1", "2,1"], DOMAIN)
ALL = {"domain": DOMAIN}


def client(dialect):
    return CmcClient(Connection(URL), dialect, DOMAIN)


def hrn(x):
    return f"node{x}-1.{DOMAIN}"


def one(method, x, body="<OK/>", code=200):
    return Call(f"/cmc/{method}", {"hrn": hrn(x), "domain": DOMAIN}, body, code)


def xy(method, x, body="OK", code=200):
    return Call(f"/cmc/{method}", {"x": str(x), "y": "1", "domain": DOMAIN}, body, code)


def state(x, word):
    return one("status", x, node_status(hrn(x), word))


def states_xy(first, second):
    return Call(
        "/cmc/allStatus",
        ALL,
        testbed_status(
            f"name='n_1_1' state='{first}' x='1' y='1'", f"name='n_2_1' state='{second}' x='2' y='1'"
        ),
    )


@pytest.mark.parametrize(
    ("word", "normal"),
    [
        ("POWERON", "on"),
        ("POWEROFF", "off"),
        ("PowerOn", "on"),
        ("power off", "off"),
        ("UNKNOWN", "unknown"),
        ("", "unknown"),
        ("POWERING", "unknown"),
        ("NODE NOT AVAILABLE", "not_available"),
        ("NODE NOT ACTIVE", "not_available"),
        ("NODE_NOT_AVAILABLE", "not_available"),
        ("UNREACHABLE", "not_available"),
    ],
)
def test_states_have_one_vocabulary(word, normal):
    assert normalise_state(word) == normal


# Reading


def test_states_one_by_one():
    with expected_calls(state(1, "POWERON"), state(2, "POWEROFF"), *describes("E2")):
        found = client("E2").states(TWO)
    assert [(item.name, item.state, item.raw) for item in found] == [
        ("node1-1", "on", "POWERON"),
        ("node2-1", "off", "POWEROFF"),
    ]


def describes(dialect):
    """Return the calls that ask a cmc service for its description."""
    return [
        Call("/cmc", {}, recorded.describe(dialect, "cmc")),
        Call("/", {}, recorded.service_list(dialect)),
    ]


def test_one_state_of_5_4_needs_no_description():
    with expected_calls(state(1, "POWERON")):
        assert client("E2").states(TWO[:1])[0].state == "on"


def test_a_5_4_service_that_lists_is_asked_once():
    methods = recorded.METHODS["E2"]["cmc"] + "; allStatus(domain)"
    listing = testbed_status(f"hrn='{hrn(1)}' state='POWERON'", f"hrn='{hrn(2)}' state='POWEROFF'")
    with expected_calls(
        Call("/cmc", {}, recorded.description("cmc", methods)),
        Call("/", {}, recorded.SERVICE_LIST),
        Call("/cmc/allStatus", ALL, listing),
    ):
        assert [item.state for item in client("auto").states(TWO)] == ["on", "off"]


@pytest.mark.parametrize(
    ("dialect", "first", "second"),
    [
        (
            "C",
            "name='n_1_1' state='POWERON' x='1' y='1'",
            "name='n_2_1' x='2' y='1' state='NODE NOT AVAILABLE'",
        ),
        ("D", f"name='{hrn(1)}' state='POWERON'", f"name='{hrn(2)}' state='NODE NOT AVAILABLE'"),
        ("D", f"hrn='{hrn(1)}' state='POWERON'", f"hrn='{hrn(2).upper()}' state='NODE NOT AVAILABLE'"),
        ("B", "name='n_1_1' state='POWERON'", "name='n_2_1' state='NODE NOT AVAILABLE'"),
        ("B", "name='node1-1' state='POWERON'", "name='node2-1' state='NODE NOT AVAILABLE'"),
    ],
)
def test_states_of_all_in_one_call(dialect, first, second):
    with expected_calls(Call("/cmc/allStatus", ALL, testbed_status(first, second))):
        found = client(dialect).states(TWO)
    assert [(item.name, item.state) for item in found] == [("node1-1", "on"), ("node2-1", "not_available")]


def test_the_root_of_the_oldest_reply_does_not_matter():
    # Built by the back end of WINLAB's CMC; quoted with blanks around the equals signs.
    body = (
        "<x><nodeCount>400</nodeCount><detail>\n"
        "<node name = 'n_1_1' x='1' y='1' state='POWERON' Temperature='71 F'/>\n"
        "<node name = 'n_2_1' x='2' y='1' state='NODE NOT ACTIVE' /></detail></x>"
    )
    with expected_calls(*describes("A"), Call("/cmc/status", ALL, body)):
        assert [item.state for item in client("A").states(TWO)] == ["on", "not_available"]


def test_a_node_that_is_not_listed():
    with expected_calls(
        Call("/cmc/allStatus", ALL, testbed_status("name='n_1_1' state='POWERON' x='1' y='1'"))
    ):
        found = client("C").states(TWO)
    assert (found[1].state, found[1].raw) == ("unknown", None)
    assert "does not list this node" in found[1].message


@pytest.mark.parametrize("body", ["", "OK", "<TESTBED_STATUS/>", recorded.SERVICE_LIST, "<OK/>"])
def test_no_list(body):
    with expected_calls(Call("/cmc/allStatus", ALL, body)), pytest.raises(ServiceError):
        client("C").states(TWO)


def test_a_node_that_cannot_be_asked_keeps_no_other_from_being():
    with expected_calls(one("status", 1, ""), state(2, "POWERON"), *describes("E2")):
        found = client("E2").states(TWO)
    assert (found[0].state, found[0].raw) == ("unknown", None)
    assert "empty reply" in found[0].message
    assert found[1].state == "on"


@pytest.mark.parametrize(
    "body",
    [
        f"<NODE_STATUS><detail><node hrn='{hrn(1)}'/></detail></NODE_STATUS>",
        node_status(hrn(2), "POWERON"),
        testbed_status("name='n_1_1' state='POWERON'", "name='n_2_1' state='POWERON'"),
        testbed_status(),
    ],
)
def test_a_status_that_is_not_of_the_node(body):
    with expected_calls(one("status", 1, body)):
        assert client("E2").states(TWO[:1])[0].raw is None


def test_listed_nodes_have_their_short_names():
    body = testbed_status(
        "name='n_1_1' state='POWERON' x='1' y='1'", "name='omf.nicta.node1' state='POWEROFF'"
    )
    with expected_calls(Call("/cmc/allStatus", ALL, body)):
        assert [(item.name, item.state) for item in client("C").listed()] == [
            ("node1-1", "on"),
            ("omf.nicta.node1", "off"),
        ]


def test_5_4_cannot_list():
    with expected_calls(*describes("E2")), pytest.raises(ServiceError, match="does not list its nodes"):
        client("E2").listed()


def test_no_nodes_no_calls():
    with expected_calls():
        assert client("E2").states([]) == []


# Switching


@pytest.mark.parametrize(("action", "method"), [("reset", "reset"), ("reboot", "reboot")])
def test_reset_and_reboot_always_act(action, method):
    with expected_calls(one(method, 1), one(method, 2)):
        results = client("E2").switch(TWO, action)
    assert [(result.ok, result.changed, result.state, result.message) for result in results] == [
        (True, True, "unknown", "accepted")
    ] * 2


@pytest.mark.parametrize(("action", "method"), [("off", "offHard"), ("off_soft", "offSoft")])
def test_only_nodes_in_another_state_are_switched(action, method):
    with expected_calls(state(1, "POWEROFF"), state(2, "POWERON"), one(method, 2), *describes("E2")):
        results = client("E2").switch(TWO, action)
    assert [(result.ok, result.changed, result.state) for result in results] == [
        (True, False, "off"),
        (True, True, "unknown"),
    ]
    assert results[0].message == "already off"


@pytest.mark.parametrize("dialect", ["B", "C"])
def test_a_reset_that_would_leave_a_node_off_is_an_on(dialect):
    with expected_calls(states_xy("POWEROFF", "POWERON"), xy("on", 1), xy("reset", 2)):
        assert all(result.changed for result in client(dialect).switch(TWO, "reset"))


def test_states_that_cannot_be_read_do_not_hinder():
    with expected_calls(Call("/cmc/allStatus", ALL, "", 200), xy("on", 1), xy("on", 2)):
        assert all(result.changed for result in client("C").switch(TWO, "on"))


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("", 200, "an empty reply"),
        ("<ERROR/>", 200, "the service says ERROR"),
        ("internal error", 500, "internal error"),
        ("WEBrick::HTTPStatus::Unauthorized", 401, "Unauthorized"),
        (recorded.describe("A", "cmc"), 200, "no method 'reset'"),
        ("<OK>half", 200, "not well-formed"),
        ("accepted", 200, "not what this method answers"),
    ],
)
def test_every_node_is_tried(body, code, message):
    with expected_calls(one("reset", 1, body, code), one("reset", 2)):
        results = client("E2").switch(TWO, "reset")
    assert [(result.ok, result.changed) for result in results] == [(False, False), (True, True)]
    assert message in results[0].message
    assert results[0].message.startswith("cmc/reset: ")


def test_an_action_the_service_does_not_have_touches_nothing():
    with expected_calls(*describes("C")), pytest.raises(ServiceError, match="cannot reboot") as caught:
        client("C").switch(TWO, "reboot")
    assert caught.value.remedy == "Use reset"
    with expected_calls(*describes("A")), pytest.raises(ServiceError, match="cannot off soft") as caught:
        client("A").switch(TWO, "off_soft")
    assert "without soft" in caught.value.remedy


def test_there_is_no_other_action():
    with pytest.raises(ValueError, match="no action 'explode'"):
        client("E2").check_action("explode")


@pytest.mark.parametrize(
    ("window", "interval", "pauses"), [(2, 10.0, 2), (5, 10.0, 0), (1, 0.0, 0), (1, 10.0, 4), (0, 10.0, 4)]
)
def test_bursts(window, interval, pauses):
    nodes = make_nodes(["[1..5,1]"], DOMAIN)
    made = []
    with expected_calls(*(one("reset", x) for x in range(1, 6))) as calls:
        client("E2").switch(nodes, "reset", window=window, interval=interval, sleep=made.append)
    assert len(made) == pauses
    assert all(9 < pause <= 10 for pause in made)
    size = max(1, window)
    order = [arguments["hrn"] for _path, arguments in calls.seen]
    for first in range(0, 5, size):
        assert set(order[first : first + size]) == {node.hrn for node in nodes[first : first + size]}


# Reading back


def verify(results, action, timeout=2.0):
    clock = Clock()
    return client("E2").verify(results, action, timeout, sleep=clock.sleep, clock=clock), clock.now


def accepted(*nodes):
    return [cmc.PowerResult(node, True, True, "unknown", "accepted") for node in nodes]


def test_the_state_is_read_until_it_agrees():
    with expected_calls(
        *describes("E2"),
        state(1, "POWEROFF"),
        state(2, "POWERON"),
        state(1, "UNKNOWN"),
        state(1, "POWERON"),
    ):
        results, waited = verify(accepted(*TWO), "reset")
    assert [(result.ok, result.state, result.message) for result in results] == [(True, "on", "seen on")] * 2
    assert waited == pytest.approx(2 * cmc.POLL)


def test_a_state_that_never_agrees_is_a_failure():
    with expected_calls(*(state(1, "POWEROFF") for _time in range(5))):
        (result,), _waited = verify(accepted(TWO[0]), "on")
    assert (result.ok, result.changed, result.state) == (False, True, "off")
    assert "accepted, but still off after 2 s instead of on" in result.message


def test_a_node_that_cannot_be_read_is_a_failure():
    with expected_calls(*(one("status", 1, "", 200) for _time in range(5))):
        (result,), _waited = verify(accepted(TWO[0]), "on")
    assert not result.ok
    assert "empty reply" in result.message


def test_only_accepted_commands_are_read_back():
    failed = cmc.PowerResult(TWO[0], False, False, "unknown", "refused")
    already = cmc.PowerResult(TWO[1], True, False, "on", "already on")
    with expected_calls():
        assert verify([failed, already], "on")[0] == [failed, already]


@pytest.mark.parametrize("x", ["9" * 5000, "255", "-1", "\u0663", "1e1", ""])
def test_coordinates_that_are_none_leave_the_name(x):
    body = testbed_status(f"name='n_2_1' state='POWERON' x='{x}' y='1'", f"name='n_{'9' * 5000}_1' state='x'")
    with expected_calls(Call("/cmc/allStatus", ALL, body)):
        known, other = client("C").listed()
    assert (known.name, known.state) == ("node2-1", "on")
    assert other.name.startswith("n_999")
    assert len(other.name) <= 253


def test_the_words_of_a_service_are_kept_short():
    body = testbed_status(f"name='{'n' * 100_000}' state='{'s' * 100_000}'")
    with expected_calls(Call("/cmc/allStatus", ALL, body)):
        (only,) = client("C").listed()
    assert len(only.name) <= 253
    assert len(only.raw) <= 60
