# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of a method, its outcome, and what keeps it from being done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from .config import NodeRecord, ServicesConfig
from .dialects import Dialect, DomainRule, Identity, Method, Problem, ServiceTable
from .nodeset import NodeSetError, parse_node_set
from .xml import element


class Fault(Exception):
    """The call cannot be done; the dialect decides what of the text the caller gets to see."""

    def __init__(self, problem: Problem, text: str = "") -> None:
        super().__init__(text)
        self.problem = problem
        self.text = text


@dataclass(frozen=True)
class Text:
    """Success with a text."""

    text: str


@dataclass(frozen=True)
class Xml:
    """Success with an XML element."""

    xml: str


#: What a method returns. None is success with nothing to say: ``OK`` in the dialect's spelling.
Outcome = Text | Xml | None


@dataclass(frozen=True)
class Call:
    """A method with the parameters it was called with."""

    dialect: Dialect
    service: ServiceTable
    method: Method
    parameters: Mapping[str, str]
    config: ServicesConfig
    when_unheard: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """What is to be taken back when the caller is gone before the reply."""
    headers: list[tuple[str, str]] = field(default_factory=list)
    """Headers of the reply, for what the historic services did not say."""

    @property
    def faithful(self) -> bool:
        """Whether historic traps are wanted."""
        return self.config.faithful

    def get(self, name: str) -> str | None:
        """Return a parameter, or None when it was not given."""
        return self.parameters.get(name)

    def say(self, text: str) -> Outcome:
        """Return success with a message: the text itself, or an ``OK`` element around it."""
        return Xml(element("OK", text)) if self.dialect.xml_ok else Text(text)

    # -- domain --------------------------------------------------------------------------------------------

    def knows_domain(self, missing_is_ours: bool) -> bool:
        """Return whether the call is about our domain.

        ``missing_is_ours`` says what a call without ``domain`` means in the dialects where that depends on
        the method.
        """
        given = self.get("domain")
        rule = self.dialect.domain_rule
        if given is None:
            return missing_is_ours or rule is not DomainRule.METHOD
        if rule is DomainRule.DEFAULT and given == "default":
            return True
        return given.casefold() == self.config.domain.casefold()

    def need_domain(self, missing_is_ours: bool = False) -> None:
        """Raise unless the call is about our domain."""
        if not self.knows_domain(missing_is_ours):
            raise Fault(
                Problem.UNKNOWN_DOMAIN,
                f"Missing 'testbed' config for '{self.get('domain') or ''}' or 'default'",
            )

    # -- nodes ---------------------------------------------------------------------------------------------

    def find_nodes(self, text: str, always_coordinates: bool = False) -> list[tuple[str, NodeRecord | None]]:
        """Return the nodes of a set in the dialect's notation, each with the name it was asked for by.

        Names that the domain does not have come with None. ``always_coordinates``: a bracket begins a set of
        coordinates in every dialect.
        """
        coordinates = always_coordinates and text.startswith("[")
        if self.dialect.identity is Identity.HRN and not coordinates:
            return [(name, self.config.by_hrn.get(name)) for name in text.split(",")] if text else []
        try:
            pairs = parse_node_set(text)
        except NodeSetError as error:
            raise Fault(Problem.BAD_NODE_SET, str(error)) from None
        return [(f"[{x},{y}]", self.config.by_position.get((x, y))) for x, y in pairs]

    def find_node(self) -> tuple[str, NodeRecord | None]:
        """Return the node of a call about one node."""
        if self.dialect.identity is Identity.HRN:
            name = self.get(self.method.args[0].name) or ""
            return name, self.config.by_hrn.get(name)
        x, y = self.get("x") or "", self.get("y") or ""
        number = x.isascii() and y.isascii() and x.isdigit() and y.isdigit() and len(x + y) < 12
        return f"[{x},{y}]", self.config.by_position.get((int(x), int(y))) if number else None
