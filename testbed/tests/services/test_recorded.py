# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorded replies, request by request, over real sockets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orbit_services.describe import service_description, service_list
from orbit_services.dialects import DIALECTS

from .stand import DOMAIN, World


@dataclasses.dataclass
class Scenario:
    name: str
    dialect: str
    faithful: bool
    steps: list[tuple[int, str, str]]

    def __str__(self) -> str:
        return f"{self.dialect}-{'faithful' if self.faithful else 'plain'}-{self.name.replace(' ', '_')}"


def scenarios() -> Iterator[Scenario]:
    steps: list[tuple[int, str, str]] = []
    request = ""
    for number, line in enumerate(Path(__file__).with_name("recorded.txt").read_text().splitlines(), 1):
        if line.startswith("@"):
            name, dialects, modes = (part.strip() for part in line[1:].split("|"))
            steps = []
            for dialect in dialects.split():
                for faithful in (False, True):
                    if modes in ("both", "faithful" if faithful else "plain"):
                        yield Scenario(name, dialect, faithful, steps)
        elif line.startswith("  "):
            steps.append((number, request, line.strip()))
        elif line.startswith("links"):
            steps.append((number, "", line))
        elif line and not line.startswith("#"):
            request = line


def expand(text: str) -> str:
    """Write out the domain: G where no other letter or digit touches it."""
    return re.sub(r"(?<![A-Za-z0-9])G(?![A-Za-z0-9])", DOMAIN, text)


def normal(world: World, text: str) -> str:
    """Put the recording's signs for what differs from run to run."""
    text = text.replace(str(world.config.image_dir), "<imageDir>")
    text = text.replace(str(world.config.tftp_dir), "<linkDir>")
    text = re.sub(r"(<daemon img='[^']*') mc_address='[^']*'", r"\1", text)
    text = re.sub(r"(<daemon [^>]*) server='[^']*'", r"\1", text)
    text = re.sub(r" (blocks_sent|blocks_repeated|bandwidth)='[^']*'", "", text)
    text = re.sub(r"239\.77\.\d+\.\d+", "MC", text)
    text = re.sub(r"timeLeft='\d+\.\d{6}'", "timeLeft='T'", text)
    for offset in range(8):
        text = re.sub(rf"\b{world.config.port_base + offset}\b", str(7000 + offset), text)
    return text


def page_text(html: str) -> str:
    match = re.search(r"<H1>([^<]*)</H1>\n    (.*)\n    <HR>", html, re.DOTALL)
    assert match is not None, html
    assert f"<TITLE>{match[1]}</TITLE>" in html
    return match[2]


def matches(expected: str, found: str) -> bool:
    expected, found = " ".join(expected.split()), " ".join(found.split())
    return found.startswith(expected[:-1]) if expected.endswith("*") else found == expected


def check(world: World, scenario: Scenario, request: str, expected: str) -> None:
    method, target, *form = expand(request).split(" ")
    body = form[0] if form else ("" if method == "POST" else None)
    reply = world.send(scenario.dialect, target, method, body)
    head, _, wanted = (part.strip() for part in expand(expected).partition("|"))
    status, _, content_type = head.partition(" ")
    text = normal(world, reply.text)
    assert reply.status == int(status), text
    assert reply.content_type == (None if content_type == "-" else content_type)
    assert reply.headers["connection"] == ("close" if reply.status >= 400 else "Keep-Alive")
    dialect = DIALECTS[scenario.dialect]
    if wanted == "{list}":
        wanted = service_list(dialect)
    elif wanted.startswith("{"):
        wanted = service_description(dialect, dialect.services[wanted.strip("{}")])
        assert reply.headers["contenttype"] == "text/xml"
    elif wanted.startswith("page "):
        wanted, text = wanted.removeprefix("page "), page_text(text)
    assert matches(wanted, text), f"{text!r} is not {wanted!r}"


@pytest.mark.parametrize("scenario", list(scenarios()), ids=str)
def test_recorded(scenario: Scenario, make_world: Callable[..., World]) -> None:
    world = make_world(faithful=scenario.faithful)
    for number, request, expected in scenario.steps:
        try:
            if request:
                check(world, scenario, request, expected)
            else:
                wanted = dict(part.split("=") for part in expected.split()[1:])
                assert world.links() == wanted
        except AssertionError as error:
            raise AssertionError(f"recorded.txt:{number}: {request} -> {expected}\n{error}") from None
