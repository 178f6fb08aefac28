# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import contextlib
import io
import threading
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

import requests

from ansible_collections.orbit.imaging.plugins.module_utils.cmc import CmcClient
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import make_nodes
from ansible_collections.orbit.imaging.plugins.module_utils.power import CYCLE, Power
from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection

from .. import recorded
from ..clock import Clock
from ..httpkit import URL
from ..recorded import DOMAIN, node_status

NODES = make_nodes(["1,1", "2,1"], DOMAIN)
AFTER = {"on": "POWERON", "offHard": "POWEROFF", "reset": "POWERON"}


class Cards:
    """The power of nodes behind a service of dialect E2; ``deaf`` says which commands do nothing."""

    def __init__(self, state="POWERON", deaf=(), refuses=(), readable=True):
        self.states = dict.fromkeys([node.hrn for node in NODES], state)
        self.deaf = list(deaf)
        self.refuses = list(refuses)
        self.readable = readable
        self.commands = {hrn: [] for hrn in self.states}
        self._lock = threading.Lock()

    def request(self, _session, _method, url, **options):
        method = urlsplit(url).path.rpartition("/")[2]
        hrn = dict(parse_qsl(options["params"] or "")).get("hrn")
        with self._lock:
            body, status = self.answer(method, hrn)
        response = requests.Response()
        response.status_code = status
        response.headers["Content-Type"] = "text/xml"
        response.raw = io.BytesIO(body.encode())
        return response

    def answer(self, method, hrn):
        if method == "cmc":
            methods = recorded.METHODS["E2"]["cmc"]
            if not self.readable:
                methods = "; ".join(m for m in methods.split("; ") if not m.startswith("status"))
            return recorded.description("cmc", methods), 200
        if not method:
            return recorded.SERVICE_LIST, 200
        if method == "status":
            return node_status(hrn, self.states[hrn]), 200
        self.commands[hrn].append(method)
        if (hrn, method) in self.refuses:
            self.refuses.remove((hrn, method))
            return "<ERROR>the card is silent</ERROR>", 200
        if (hrn, method) in self.deaf:
            self.deaf.remove((hrn, method))
        else:
            self.states[hrn] = AFTER[method]
        return "<OK/>", 200


FIRST, SECOND = (node.hrn for node in NODES)


@contextlib.contextmanager
def service(*arguments, **options):
    cards = Cards(*arguments, **options)

    def request(session, method, url, **more):
        return cards.request(session, method, url, **more)

    with mock.patch.object(requests.Session, "request", request):
        yield cards


def bring(action, *, dialect="E2", timeout=8.0, verify=True, escalate=True):
    clock = Clock()
    with Connection(URL) as connection:
        power = Power(CmcClient(connection, dialect, DOMAIN), timeout=timeout, sleep=clock.sleep, clock=clock)
        return power.bring(NODES, action, verify=verify, escalate=escalate), clock.now


def test_a_node_that_follows_gets_one_command():
    with service() as cards:
        results, waited = bring("reset")
    assert [(result.ok, result.state, result.message, result.steps) for result in results] == [
        (True, "on", "seen on", ("reset",))
    ] * 2
    assert cards.commands == {FIRST: ["reset"], SECOND: ["reset"]}
    assert waited == 0


def test_a_node_found_off_is_switched_on_not_reset():
    with service("POWEROFF") as cards:
        results, _waited = bring("reset")
    assert all(result.ok for result in results)
    assert cards.commands[FIRST] == ["on"]


def test_one_that_does_not_follow_gets_harder_commands_and_the_other_is_left_alone():
    # Each command is lost once: on, the on that stands for a reset of a node that is off, and the cycle's.
    with service("POWEROFF", deaf=[(FIRST, "on"), (FIRST, "on")]) as cards:
        results, waited = bring("reset")
    assert [result.ok for result in results] == [True, True]
    assert cards.commands == {FIRST: ["on", "on", "on"], SECOND: ["on"]}
    assert results[0].steps == ("on", "on", "on")
    assert results[0].message == "seen on after on, on, on"
    assert 4 <= waited <= 8


def test_a_node_that_never_follows_fails_within_the_time_and_tells_what_was_tried():
    with service("POWEROFF", deaf=[(FIRST, "on")] * 9) as cards:
        results, waited = bring("on")
    assert [result.ok for result in results] == [False, True]
    assert "still off" in results[0].message
    assert results[0].message.endswith("; given were on, on, on")
    assert cards.commands[SECOND] == ["on"]
    assert waited <= 9


def test_a_refused_command_is_no_success_because_the_node_was_on_before():
    with service(refuses=[(FIRST, "reset"), (FIRST, "reset"), (FIRST, "offHard")]) as cards:
        results, _waited = bring("reset")
    assert cards.states[FIRST] == "POWERON"
    assert [result.ok for result in results] == [False, True]
    assert "the card is silent" in results[0].message
    with service(refuses=[(FIRST, "reset")]) as cards:
        results, _waited = bring("reset")
    assert [result.ok for result in results] == [True, True]
    assert cards.commands[FIRST] == ["reset", "reset"]


def test_an_off_that_is_lost_is_given_again():
    with service(deaf=[(FIRST, "offHard")]) as cards:
        results, _waited = bring("off")
    assert [result.state for result in results] == ["off", "off"]
    assert cards.commands[FIRST] == ["offHard", "offHard"]


def test_a_node_out_of_service_is_left_alone():
    with service("NODE NOT AVAILABLE", deaf=[(FIRST, "reset"), (SECOND, "reset")]) as cards:
        results, _waited = bring("reset")
    assert [(result.ok, result.state) for result in results] == [(False, "not_available")] * 2
    assert cards.commands[FIRST] == ["reset"]


def test_without_time_nothing_more_is_tried():
    with service("POWEROFF", deaf=[(FIRST, "on")]) as cards:
        results, _waited = bring("on", timeout=0)
    assert [result.ok for result in results] == [False, True]
    assert cards.commands[FIRST] == ["on"]


def test_a_cycle_is_off_seen_off_and_on():
    with service() as cards:
        results, _waited = bring(CYCLE)
    assert [(result.ok, result.state, result.steps) for result in results] == [
        (True, "on", ("off", "on"))
    ] * 2
    assert cards.commands[FIRST] == ["offHard", "on"]


def test_a_cycle_of_a_node_that_is_off_is_on():
    with service("POWEROFF") as cards:
        results, _waited = bring(CYCLE, escalate=False, verify=False)
    assert all(result.ok for result in results)
    assert cards.commands[FIRST] == ["on"]


def test_a_node_that_is_not_seen_off_has_not_been_cycled():
    with service(deaf=[(FIRST, "offHard")] * 9) as cards:
        results, _waited = bring(CYCLE, escalate=False)
    assert [result.ok for result in results] == [False, True]
    assert "still on" in results[0].message
    assert cards.commands[FIRST] == ["offHard"]


def test_a_service_that_does_not_tell_states_gets_the_plain_commands():
    with service(readable=False) as cards:
        results, _waited = bring(CYCLE, dialect="auto", verify=False)
        assert all(result.ok for result in results)
        bring("reset", dialect="auto", verify=False)
    assert cards.commands[FIRST] == ["reset", "reset"]
