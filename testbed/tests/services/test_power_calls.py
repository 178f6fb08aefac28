# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cmc service asks of the power back end, dialect by dialect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import fromstring

from orbit_services.power.base import Action, PowerState

from .stand import DOMAIN, World

MakeWorld = Callable[..., World]
_HRN = f"domain={DOMAIN}&hrn=node2-1.{DOMAIN}"
_NAME = f"domain={DOMAIN}&name=node2-1.{DOMAIN}"
_XY = f"domain={DOMAIN}&x=2&y=1"
_ALL = 400


@pytest.mark.parametrize(
    ("dialect", "call", "asked"),
    [
        ("A", "on?x=2&y=1", [("on", "node2-1")]),
        ("A", "off?x=2&y=1", [("off", "node2-1")]),
        ("A", "offHard?x=2&y=1", [("off", "node2-1")]),
        ("A", "offSoft?x=2&y=1", [("off_soft", "node2-1")]),
        ("A", "reset?x=2&y=1", [("reset", "node2-1")]),
        (
            "A",
            "nodeSetReset?nodes=[[1,1],[1..2,2]]",
            [("reset", "node1-1"), ("reset", "node1-2"), ("reset", "node2-2")],
        ),
        ("A", "nodeSetOffSoft?nodes=[20,19..20]", [("off_soft", "node20-19"), ("off_soft", "node20-20")]),
        ("B", f"on?{_XY}", [("on", "node2-1")]),
        ("C", f"offSoft?{_XY}", [("off_soft", "node2-1")]),
        ("C", "nodeSetOn?nodes=[1,1]", [("on", "node1-1")]),
        ("D", f"reset?{_NAME}", [("reset", "node2-1")]),
        ("D", f"reset?{_HRN}", [("reset", "node2-1")]),
        ("D", f"nodeSetOn?nodes=node1-1.{DOMAIN},node2-1.{DOMAIN}", [("on", "node1-1"), ("on", "node2-1")]),
        ("D", "nodeSetOn?nodes=[[1,1]]", [("on", "node1-1")]),
        ("E1", f"on?{_HRN}", [("on", "node2-1")]),
        ("E2", f"offHard?{_HRN}", [("off", "node2-1")]),
        ("E2", f"offSoft?{_HRN}", [("off_soft", "node2-1")]),
        ("E2", f"reset?{_HRN}", [("reset", "node2-1")]),
        ("E2", f"reboot?{_HRN}", [("reset", "node2-1")]),
    ],
)
def test_commands(dialect: str, call: str, asked: list[tuple[str, str]], make_world: MakeWorld) -> None:
    world = make_world()
    reply = world.send(dialect, f"/cmc/{call}")
    assert reply.text in ("OK", "<OK/>")
    assert world.power.log == asked


@pytest.mark.parametrize(
    ("dialect", "call", "command"),
    [
        ("A", "allOn", "on"),
        ("A", "allOff", "off"),
        ("A", "allReset", "reset"),
        ("A", "allOffSoft", "off_soft"),
        ("B", "allOffHard", "off"),
        ("C", "allOffSoft", "off_soft"),
        ("D", "allOffHard", "off"),
    ],
)
def test_commands_to_all(dialect: str, call: str, command: str, make_world: MakeWorld) -> None:
    world = make_world()
    assert world.send(dialect, f"/cmc/{call}").text == "OK"
    assert len(world.power.log) == _ALL
    assert {name for name, _ in world.power.log} == {command}
    assert world.power.log[:2] == [(command, "node1-1"), (command, "node2-1")]


def test_a_set_with_an_unknown_node_touches_none(make_world: MakeWorld) -> None:
    world = make_world()
    assert world.send("A", "/cmc/nodeSetOn?nodes=[[1,1],[77,1]]").text == "internal error"
    assert world.send("C", "/cmc/nodeSetOn?nodes=[[1,1],[77,1]]").status == 500
    assert world.power.log == []


def test_faithful_sets_skip_unknown_nodes(make_world: MakeWorld) -> None:
    world = make_world(faithful=True)
    assert world.send("A", "/cmc/nodeSetOn?nodes=[[1,1],[77,1]]").text == "OK"
    assert world.power.log == [("on", "node1-1")]


def states(root: Element) -> dict[str | None, str | None]:
    return {node.get("name"): node.get("state") for node in root.findall("detail/node")}


@pytest.mark.parametrize(
    ("dialect", "name", "lost"),
    [
        ("A", "n_{x}_{y}", "NODE NOT AVAILABLE"),
        ("B", "n_{x}_{y}", "NODE NOT AVAILABLE"),
        ("C", "n_{x}_{y}", "NODE NOT AVAILABLE"),
        ("D", f"node{{x}}-{{y}}.{DOMAIN}", "UNKNOWN"),
    ],
)
def test_status_of_all(
    dialect: str, name: str, lost: str, make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    world.send("A", "/cmc/nodeSetOn?nodes=[1..3,1]")
    known = world.power.states

    async def all_but_one(nodes: Sequence[str]) -> dict[str, PowerState]:
        return {node: state for node, state in (await known(nodes)).items() if node != "node5-5"}

    monkeypatch.setattr(world.power, "states", all_but_one)
    reply = world.send(dialect, f"/cmc/allStatus?domain={DOMAIN}")
    root = fromstring(reply.text)
    assert root.tag == "TESTBED_STATUS"
    found = states(root)
    assert len(found) == _ALL
    assert list(found)[:2] == [name.format(x=1, y=1), name.format(x=2, y=1)]
    assert found[name.format(x=3, y=1)] == "POWERON"
    assert found[name.format(x=1, y=2)] == "POWEROFF"
    assert found[name.format(x=5, y=5)] == lost
    if dialect != "D":
        node = root.find("detail/node")
        assert node is not None
        assert (node.get("x"), node.get("y")) == ("1", "1")


def test_2006_status_has_the_numbers(make_world: MakeWorld) -> None:
    world = make_world()
    world.send("A", "/cmc/nodeSetOn?nodes=[1..3,1]")
    root = fromstring(world.send("A", "/cmc/status").text)
    assert [root.findtext(tag) for tag in ("nodeCount", "activeNodeCount", "poweredOnNodeCount")] == [
        "400",
        "400",
        "3",
    ]


@pytest.mark.parametrize(
    ("dialect", "call", "status", "said"),
    [
        ("A", "on?x=1&y=1", 500, "internal error"),
        ("B", f"on?{_XY}", 500, "card of node &lt;2-1&gt; is silent"),
        ("D", f"on?{_NAME}", 500, "internal error"),
        ("E1", f"on?{_HRN}", 200, "<ERROR>node2-1: card of node &lt;2-1&gt; is silent</ERROR>"),
        ("E2", f"reset?{_HRN}", 200, "<ERROR>node2-1: card of node &lt;2-1&gt; is silent</ERROR>"),
    ],
)
def test_a_failing_back_end(
    dialect: str, call: str, status: int, said: str, make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(action: Action, nodes: Sequence[str]) -> dict[str, str | None]:
        return dict.fromkeys(nodes, "card of node <2-1> is silent")

    world = make_world()
    monkeypatch.setattr(world.power, "switch", fail)
    reply = world.send(dialect, f"/cmc/{call}")
    assert reply.status == status
    assert said in reply.text


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("B", "[[1, 1], [2, 1], "),
        ("C", "[[1, 1], [2, 1], "),
        ("D", f'["node1-1.{DOMAIN}", "node2-1.{DOMAIN}", '),
    ],
)
def test_all_nodes(dialect: str, text: str, make_world: MakeWorld) -> None:
    assert make_world().send(dialect, f"/cmc/getAllNodes?domain={DOMAIN}").text.startswith(text)
