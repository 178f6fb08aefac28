# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, strategies as st

from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.faults import KINDS, Fault
from orbit_testbed.nodes.layout import MOST_NODES, Node, Settings, parse_delay, parse_grid

octet = st.integers(1, 254)


def test_hex_name_of_a_known_address() -> None:
    assert Node(10, 1, 1).hex_ip == "0A0A0101"
    assert Node(18, 1, 2).hex_ip == "0A120102"
    assert Node(77, 20, 254).hex_ip == "0A4D14FE"


@given(octet, octet, octet)
def test_hex_name_is_the_address(number: int, x: int, y: int) -> None:
    node = Node(number, x, y)
    assert int(node.hex_ip, 16) == int(ipaddress.IPv4Address(node.control_ip))
    assert node.hex_ip == node.hex_ip.upper()
    assert len(node.hex_ip) == 8


@given(octet, octet, octet)
def test_addresses_outside_are_loopback_and_names_fit_the_kernel(number: int, x: int, y: int) -> None:
    node = Node(number, x, y)
    assert ipaddress.IPv4Address(node.outside_ip).is_loopback
    assert len(node.port) < 16
    assert int(node.mac.split(":")[0], 16) & 3 == 2  # locally administered, not a group


@given(st.integers(1, 31), st.integers(1, 33))
def test_grid(columns: int, rows: int) -> None:
    assert parse_grid(f"{columns}x{rows}") == (columns, rows)
    nodes = Settings(columns=columns, rows=rows).nodes
    assert len({node.name for node in nodes}) == columns * rows
    assert {(node.x, node.y) for node in nodes} == {
        (x, y) for x in range(1, columns + 1) for y in range(1, rows + 1)
    }


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "4",
        "x",
        "4x",
        "0x4",
        "4x0",
        "255x1",
        "1x255",
        "4*2",
        "4x2x1",
        " 4x2",
        "٤x٢",
        f"1x{MOST_NODES + 1}",
        "32x32",
    ],
)
def test_bad_grids_are_refused_by_name(bad: str) -> None:
    with pytest.raises(TestbedError, match="--nodes"):
        parse_grid(bad)


def test_delay() -> None:
    assert parse_delay("0.5-3") == (0.5, 3.0)
    assert parse_delay("2") == (2.0, 2.0)


@pytest.mark.parametrize("bad", ["", "a", "3-1", "-1", "1-2-3", "1-4000", "nan", "inf-inf"])
def test_bad_delays_are_refused(bad: str) -> None:
    with pytest.raises(TestbedError, match="--boot-delay"):
        parse_delay(bad)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "Demo"},
        {"name": "../x"},
        {"name": "a b"},
        {"name": "-a"},
        {"name": "x" * 40},
        {"number": 0},
        {"number": 255},
        {"columns": 0},
        {"bandwidth": -1},
        {"bandwidth": 99_999},
        {"link": -1},
        {"link": 99_999},
        {"link": 100_000_000, "tier": "qemu"},
        {"loss": -1.0},
        {"loss": 100.0},
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(TestbedError, match="--"):
        Settings(**change)  # type: ignore[arg-type]


@given(
    st.builds(
        Settings,
        name=st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True),
        number=octet,
        columns=st.integers(1, 31),
        rows=st.integers(1, 33),
        bandwidth=st.integers(100_000, 10**11),
        boot_delay=st.tuples(st.floats(0, 10), st.floats(10, 20)),
        loss=st.floats(0, 90),
    )
)
def test_settings_survive_json(settings: Settings) -> None:
    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    "document", ["", "[]", "{}", "null", '{"name": "demo"}', '{"boot_delay": [0, 0], "x": 1}']
)
def test_foreign_settings_are_refused(document: str) -> None:
    with pytest.raises(TestbedError, match="settings"):
        Settings.from_json(document)


def test_node_by_name() -> None:
    settings = Settings()
    assert settings.node("node4-2") == settings.node("node4-2.demo") == Node(77, 4, 2)
    with pytest.raises(TestbedError, match="node5-1"):
        settings.node("node5-1")


@st.composite
def some_fault(draw: st.DrawFn) -> Fault:
    name = draw(st.sampled_from(sorted(KINDS)))
    kind = KINDS[name]
    value = float(f"{draw(st.floats(0, kind.most)):g}") if kind.unit else 0.0
    return Fault(name, value, draw(st.booleans()) and not kind.power and name != "none")


@given(some_fault())
def test_faults_survive_their_text(fault: Fault) -> None:
    assert Fault.parse(str(fault)) == fault


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "explode",
        "none=1",
        "slow-boot",
        "slow-boot=",
        "slow-boot=-1",
        "slow-boot=nan",
        "never-boot=3",
        "dies=1,twice",
        "none,once",
        "power-lost=1,once",
        "loss=91",
    ],
)
def test_bad_faults_are_refused(bad: str) -> None:
    with pytest.raises(TestbedError, match="fault"):
        Fault.parse(bad)
