# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import asyncio
import collections
import threading
import time
import types

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import resets as resets_module
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.boot_wait import Failed
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.resets import Resets

from . import fleetkit


@pytest.fixture
def nodes(tmp_path):
    return [fleetkit.make_node(tmp_path, f"node1-{y}") for y in range(1, 5)]


class Service:
    """Stands in for the module: notes its calls, and that no service has more than one at a time."""

    def __init__(self, seconds=0.0, clock=time.monotonic):
        self.calls = []
        self._clock = clock
        self._seconds = seconds
        self._busy = collections.defaultdict(threading.Lock)

    def __call__(self, options):
        busy = self._busy[options["url"]]
        assert busy.acquire(blocking=False), "two calls at a time"
        try:
            self.calls.append((self._clock(), options))
            time.sleep(self._seconds)
            return {"nodes": [{"name": node["name"], "ok": True} for node in options["nodes"]]}
        finally:
            busy.release()

    @property
    def given(self):
        return [(o["state"], [node["name"] for node in o["nodes"]]) for _moment, o in self.calls]


def act(service, *wishes):
    async def all_at_once():
        resets = Resets(service)
        return await asyncio.gather(
            *(resets.act(node, action) for node, action in wishes), return_exceptions=True
        )

    return asyncio.run(all_at_once())


def test_wishes_of_a_moment_share_a_call_for_each_action(nodes):
    service = Service()
    began = time.monotonic()
    moments = act(service, (nodes[0], "reset"), (nodes[1], "cycle"), (nodes[2], "reset"), (nodes[3], "reset"))
    assert service.given == [("reset", ["node1-1", "node1-3", "node1-4"]), ("cycle", ["node1-2"])]
    assert all(began <= before <= after <= time.monotonic() for before, after in moments)
    options = service.calls[0][1]
    assert (options["url"], options["dialect"], options["domain"]) == (
        "http://cmc.test:5012",
        "E2",
        "sb1.test",
    )
    assert "images" not in options


def test_nodes_of_two_services_do_not_share_a_call(nodes):
    nodes[1]["settings"]["orbit_cmc_url"] = "http://other.test:5012"
    service = Service()
    act(service, (nodes[0], "reset"), (nodes[1], "reset"))
    # Side by side: either may be first.
    assert sorted(service.given) == [("reset", ["node1-1"]), ("reset", ["node1-2"])]


def test_a_wish_during_a_call_has_the_next_one(nodes):
    service = Service(0.5)

    async def one_after_the_other():
        resets = Resets(service)
        first = asyncio.create_task(resets.act(nodes[0], "reset"))
        while not service.calls:
            await asyncio.sleep(0.01)
        await asyncio.gather(first, resets.act(nodes[1], "reset"), resets.act(nodes[2], "reset"))
        await resets.act(nodes[3], "reset")

    asyncio.run(one_after_the_other())
    assert service.given == [("reset", [f"node1-{y}" for y in ys]) for ys in ((1,), (2, 3), (4,))]


def test_calls_keep_to_the_window_of_the_service(nodes, monkeypatch):
    now = [1000.0]
    really_sleep = asyncio.sleep

    async def sleep(seconds):
        now[0] += seconds
        await really_sleep(0)

    clock = types.SimpleNamespace(monotonic=lambda: now[0], time=time.time)
    monkeypatch.setattr(resets_module, "time", clock)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    for node in nodes:
        node["settings"].update(orbit_power_window=2, orbit_power_interval=1.5)
    service = Service(clock=clock.monotonic)

    async def two_and_then_one():
        resets = Resets(service)
        await asyncio.gather(*(resets.act(node, "reset") for node in nodes[:2]))
        await resets.act(nodes[2], "reset")

    asyncio.run(two_and_then_one())
    first, second = (moment for moment, _options in service.calls)
    assert second - first >= 1.5


def test_a_silent_service_keeps_nobody_else_waiting(nodes):
    nodes[0]["settings"]["orbit_cmc_url"] = "http://silent.test:5012"
    answers = threading.Event()

    def call(options):
        if options["url"] == "http://silent.test:5012":
            assert answers.wait(60)
        return {"nodes": [{"name": node["name"], "ok": True} for node in options["nodes"]]}

    async def both():
        resets = Resets(call)
        silent = asyncio.create_task(resets.act(nodes[0], "reset"))
        for node in nodes[1:]:
            await resets.act(node, "reset")
        assert not silent.done()
        answers.set()
        await silent

    asyncio.run(asyncio.wait_for(both(), 60))


def test_a_mistake_of_ours_leaves_nobody_waiting(nodes):
    del nodes[0]["settings"]["orbit_cmc_url"]
    assert [type(failure) for failure in act(Service(), (nodes[0], "reset"))] == [KeyError]


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (
            {"msg": "cmc at x: 1 of 1 not reset", "nodes": [{"name": "node1-1", "ok": False, "msg": "no"}]},
            "no",
        ),
        ({"msg": "cmc at x: not reachable", "failed": True}, "cmc at x: not reachable"),
        ({"nodes": [{"name": "node9-9", "ok": True}]}, "did not answer for this node"),
    ],
)
def test_only_what_the_service_says_yes_to_is_done(nodes, results, words):
    (failure,) = act(lambda _options: results, (nodes[0], "reset"))
    assert isinstance(failure, Failed)
    assert failure.cause == "power_failed"
    assert words in str(failure)
