# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Self-description: what is declared, and the layouts by which dialects are told apart."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import fromstring

from orbit_services.describe import service_description, service_list
from orbit_services.dialects import DIALECTS
from orbit_services.xml import element, escape

from .stand import World

_PXE_5_4 = "clearBootImageNS(domain, ns); setBootImageNS(domain, ns, [imgName])"
_CMC_5_4 = (
    "offHard(hrn, domain); offSoft(hrn, domain); on(hrn, domain); reboot(hrn, domain); "
    "reset(hrn, domain); status(hrn, domain)"
)
_PXE_5_2 = (
    "clearBootImageAll(domain); clearBootImageNS(ns, domain); setBootImageAll(domain, [imgName]); "
    "setBootImageNS(ns, domain, [imgName])"
)
_FRISBEE_5_2 = (
    "checkImage([img]); getAddress([img], [domain]); status([img], [domain]); stop([img], [domain])"
)

#: Methods and arguments as the recorded services declare them; brackets: isRequired='false'.
DECLARED = {
    ("E2", "pxe"): _PXE_5_4,
    ("E2", "frisbee"): "checkImage([domain], [img], [user]); getAddress([domain], [img], [user]); "
    "status([domain], [img]); stop([domain], [img])",
    ("E2", "cmc"): _CMC_5_4,
    ("E1", "pxe"): _PXE_5_4,
    ("E1", "frisbee"): "checkImage([domain], [img]); getAddress([domain], [img]); status([domain], [img]); "
    "stop([domain], [img])",
    ("E1", "cmc"): _CMC_5_4,
    ("D", "pxe"): _PXE_5_2,
    ("D", "frisbee"): _FRISBEE_5_2,
    ("D", "cmc"): "allOffHard(); allOffSoft([domain]); allStatus([domain]); getAllNodes([domain]); "
    "nodeSetOn(nodes); offHard(name, domain); offSoft(name, domain); on(name); "
    "reset(name, domain)",
    ("C", "pxe"): _PXE_5_2,
    ("C", "frisbee"): _FRISBEE_5_2,
    ("C", "cmc"): "allOffHard(); allOffSoft([domain]); allStatus([domain]); getAllNodes([domain]); "
    "nodeSetOn(nodes); offHard(x, y, domain); offSoft(x, y, domain); on(x, y); "
    "reset(x, y, domain)",
    ("B", "pxe"): "clearBootImageAll(domain); clearBootImageNS(ns, domain); setBootImageAll(domain); "
    "setBootImageNS(ns, domain)",
    ("B", "frisbee"): _FRISBEE_5_2,
    ("B", "cmc"): "allOffHard(); allOffSoft(); allStatus([domain]); getAllNodes(); nodeSetOn(nodes); "
    "offHard(x, y); offSoft(x, y); on(x, y); reset(x, y)",
}


def declared(group: Element) -> str:
    methods = []
    for service in group.findall("service"):
        args = [
            arg.get("name") if arg.get("isRequired") == "true" else f"[{arg.get('name')}]"
            for arg in service.findall("args/arg")
        ]
        methods.append(f"{service.get('name')}({', '.join(str(arg) for arg in args)})")
    return "; ".join(methods)


@pytest.mark.parametrize(("dialect", "service"), DECLARED)
def test_methods_and_arguments_are_those_recorded(dialect: str, service: str) -> None:
    table = DIALECTS[dialect]
    root = fromstring(service_description(table, table.services[service]))
    group = root.find("serviceGroup")
    assert root.tag == "services"
    assert group is not None
    assert (group.get("name"), group.get("prefix")) == (service, f"/{service}")
    assert declared(group) == DECLARED[dialect, service]


def test_2005_form_has_the_group_as_root_and_one_args_per_argument() -> None:
    table = DIALECTS["A"]
    root = fromstring(service_description(table, table.services["cmc"]))
    assert (root.tag, root.get("name")) == ("serviceGroup", "cmc")
    methods = {service.get("name"): service for service in root.findall("service")}
    values = [arg.get("value") for arg in methods["on"].findall("args/arg")]
    assert values == ["x_coord", "y_coord", "[domain]"]
    assert len(methods["on"].findall("args")) == 3
    commands = {"on", "off", "offHard", "offSoft", "reset"}
    titled = {name[0].upper() + name[1:] for name in commands}
    sets = {f"all{name}" for name in titled} | {f"nodeSet{name}" for name in titled}
    assert methods.keys() == commands | sets | {"status", "allStatus", "getAllNodes"}


def test_extensions_of_2006_are_declared() -> None:
    pxe = DIALECTS["A"].services["pxe"]
    assert {method.name: method.extension for method in pxe.methods} == {
        "setBootImage": False,
        "allSetBootImage": False,
        "clearBootImage": True,
        "allClearBootImage": True,
    }
    described = service_description(DIALECTS["A"], pxe)
    for method in pxe.methods:
        assert f'<service name="{method.name}">' in described
        assert ("extension" in method.info) == method.extension


def test_layouts() -> None:
    lists = {name: service_list(dialect) for name, dialect in DIALECTS.items()}
    assert "path='/cmc' name='cmc'" in lists["B"]
    assert lists["C"].startswith("<?xml version='1.0'?><serviceGroups><serviceGroup path='/cmc'")
    group = "<serviceGroup name='cmc' path='cmc'>"
    assert lists["E2"].startswith(f"<?xml version='1.0'?>\n<serviceGroups>{group}")
    described = {
        name: service_description(dialect, dialect.services["pxe"]) for name, dialect in DIALECTS.items()
    }
    assert described["B"].count("\n") > 50
    arg = "\n        <arg name='domain' value='domain' isRequired='true'>\n          <info>\n"
    assert arg in described["B"]
    assert described["C"].count("\n") == described["E2"].count("\n") == 1
    assert "<arg isRequired='true' name='domain' value='domain'>" in described["E2"]
    assert "<arg isRequired='false' name='imgName' value='[imageName]'>" in described["E2"]


def test_escapes() -> None:
    assert escape("a'<>&\"\0\x1b\udc80\r") == "a&apos;&lt;&gt;&amp;&quot;????"
    assert element("a", attributes={"b": "'", "c": None}) == "<a b='&apos;'/>"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_reply_tells_the_dialects_apart(dialect: str, make_world: Callable[..., World]) -> None:
    """The rules a client goes by: argument names of cmc, user in checkImage, names of the pxe methods."""
    world = make_world()
    cmc = world.send(dialect, "/cmc").text
    frisbee = world.send(dialect, "/frisbee").text
    pxe = world.send(dialect, "/pxe").text
    slashed = "path='/cmc'" in world.send(dialect, "/").text
    quotes = pxe.replace('"', "'")
    seen = (
        "A"
        if "name='setBootImage'" in quotes
        else "E2"
        if "name='user'" in frisbee
        else "E1"
        if "name='hrn'" in cmc
        else "D"
        if "<arg isRequired='true' name='name'" in cmc and not slashed
        else "B"
        if pxe.count("\n") > 1
        else "C"
    )
    assert seen == dialect
