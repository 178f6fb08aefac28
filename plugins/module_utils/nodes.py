# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nodes, node sets and control addresses.

A node set is text such as ``[[1,1],[1..5,2]]``, ``1,1..2``, ``[1..16,1..15]`` or a list of names. The
services of 2006 evaluated that text as a program; here it is parsed.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.orbit.imaging.plugins.module_utils.names import is_host_name, is_ipv4

#: Largest coordinate. Coordinates are octets of the control address.
MAX_COORDINATE = 254
#: Deepest nesting of brackets; the field's own texts use two.
MAX_NESTING = 8
#: Longest text of one node set, in characters.
MAX_TEXT = 100_000

_NODE_NAME = re.compile(r"node([0-9]{1,3})-([0-9]{1,3})", re.ASCII)
_DOMAIN_RULE = re.compile(r"(?:grid|sb([1-9]))(?:\.orbit-lab\.org)?", re.ASCII | re.IGNORECASE)

_T = t.TypeVar("_T")


class NodeSetError(ValueError):
    """A node, a node set or an address is not acceptable.

    :param message: what is wrong.
    :param source: file or option the text is from.
    :param line: line in it, from 1; 0 when it has no lines.
    :param column: column, from 1; 0 when unknown.
    :param remedy: what to write instead.
    """

    def __init__(
        self, message: str, *, source: str = "", line: int = 0, column: int = 0, remedy: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.source = source
        self.line = line
        self.column = column
        self.remedy = remedy

    def at(self, source: str, line: int = 0) -> NodeSetError:
        """Return the same error with its place filled in where it is not known yet."""
        return NodeSetError(
            self.message,
            source=self.source or source,
            line=self.line or line,
            column=self.column,
            remedy=self.remedy,
        )

    @property
    def place(self) -> str:
        """Where the text is, as far as known."""
        parts = [self.source] if self.source else []
        if self.line:
            parts.append(f"line {self.line}")
        if self.column:
            parts.append(f"column {self.column}")
        return ", ".join(parts)

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{text}. {self.remedy}" if self.remedy else text


class Node(t.NamedTuple):
    """One node of a testbed.

    :ivar name: short name, e.g. ``node1-1``; the inventory host.
    :ivar domain: testbed, e.g. ``sb1.orbit-lab.org``.
    :ivar x: column, from 1; None for a node that is known by name only.
    :ivar y: row, from 1; None like ``x``.
    :ivar hrn: human readable name, the key of the node in OMF 5.3 and later.
    :ivar control_ip: IPv4 address on the control network, "" when no rule gives it.
    """

    name: str
    domain: str
    x: t.Optional[int]
    y: t.Optional[int]
    hrn: str
    control_ip: str

    def as_dict(self) -> t.Dict[str, t.Any]:
        """Return the record of the node."""
        return dict(self._asdict())


class Pair(t.NamedTuple):
    """A rectangle of a node set: all nodes with x in x1..x2 and y in y1..y2."""

    x1: int
    x2: int
    y1: int
    y2: int

    def coordinates(self) -> t.Iterator[t.Tuple[int, int]]:
        """Yield (x, y), y outside and x inside, which is the order of the services."""
        for y in range(self.y1, self.y2 + 1):
            for x in range(self.x1, self.x2 + 1):
                yield x, y


Coordinates = t.Tuple[int, int]
#: An element of a parsed node set: coordinates, or a name.
Member = t.Union[Coordinates, str]

_SYNTAX = "Write pairs such as [[1,1],[1..5,2]], 1,1..2 or [1..16,1..15], or names such as node1-1,node2-1"


class _Parser:
    """Recursive descent over one text; knows the column of everything it complains about."""

    def __init__(self, text: str, offset: int = 0) -> None:
        self.text = text
        self.position = 0
        self.offset = offset

    def fail(self, message: str, position: t.Optional[int] = None, remedy: str = _SYNTAX) -> NodeSetError:
        column = (self.position if position is None else position) + self.offset + 1
        return NodeSetError(message, column=column, remedy=remedy)

    def parse(self) -> t.List[t.Union[Pair, str]]:
        """Return the pairs and names of the text in order."""
        found: t.List[t.Union[Pair, str]] = []
        self._list(found, 0)
        if self.position < len(self.text):
            raise self.fail(f"unexpected {self._here()}")
        return found

    def _here(self) -> str:
        if self.position >= len(self.text):
            return "the end"
        char = self.text[self.position]
        return f"'{char}'" if char.isprintable() else ascii(char)

    def _skip(self) -> str:
        while self.position < len(self.text) and self.text[self.position] in " \t":
            self.position += 1
        return self.text[self.position : self.position + 1]

    def _list(self, found: t.List[t.Union[Pair, str]], depth: int) -> None:
        """Parse items up to a closing bracket or the end.

        Two bare coordinates are a pair; otherwise all items are lists or names.
        """
        if depth > MAX_NESTING:
            raise self.fail("brackets are nested too deeply")
        start = self.position
        coordinates: t.List[t.Tuple[int, int]] = []
        others = 0
        if self._skip() in ("", "]"):
            return
        while True:
            char = self._skip()
            at = self.position
            if char == "[":
                self.position += 1
                self._list(found, depth + 1)
                if self._skip() != "]":
                    raise self.fail(f"expected ',' or ']' but found {self._here()}")
                self.position += 1
                others += 1
            elif char and char in "0123456789":
                coordinates.append(self._coordinate())
            elif char and (char.isalpha() and char.isascii()):
                found.append(self._name())
                others += 1
            else:
                raise self.fail(f"expected a pair or a name but found {self._here()}")
            if coordinates and others:
                raise self.fail("coordinates and pairs are mixed in one list", at)
            if self._skip() != ",":
                break
            self.position += 1
        if self._skip() != ("]" if depth else ""):
            ends = "']'" if depth else "the end"
            raise self.fail(f"expected ',' or {ends} but found {self._here()}")
        if coordinates:
            if len(coordinates) != 2:
                raise self.fail(f"a node has two coordinates, not {len(coordinates)}", start)
            (x1, x2), (y1, y2) = coordinates
            found.append(Pair(x1, x2, y1, y2))

    def _number(self) -> int:
        start = self.position
        while self.position < len(self.text) and self.text[self.position] in "0123456789":
            self.position += 1
        digits = self.text[start : self.position]
        if not digits:
            raise self.fail(f"expected a number but found {self._here()}")
        if len(digits) > 3 or not 1 <= int(digits) <= MAX_COORDINATE:
            raise self.fail(
                f"coordinate {digits[:12]} is outside 1..{MAX_COORDINATE}",
                start,
                remedy="Coordinates count from 1",
            )
        return int(digits)

    def _coordinate(self) -> t.Tuple[int, int]:
        start = self.position
        first = self._number()
        self._skip()
        if self.text.startswith("...", self.position):
            raise self.fail("'...' is not a range", remedy="Write 1..5, which includes both ends")
        if not self.text.startswith("..", self.position):
            return first, first
        self.position += 2
        self._skip()
        last = self._number()
        if last < first:
            raise self.fail(
                f"the range {first}..{last} runs backwards", start, remedy=f"Write {last}..{first}"
            )
        return first, last

    def _name(self) -> str:
        start = self.position
        while self.position < len(self.text) and self.text[self.position] not in ",[] \t":
            self.position += 1
        name = self.text[start : self.position]
        if not is_host_name(name):
            raise self.fail(f"'{name[:60]}' is not a node name", start)
        return name


def parse_node_set(text: str, *, source: str = "", line: int = 0, column: int = 1) -> t.List[Member]:
    """Parse a node set into coordinates and names, in order, each once.

    Names of the form ``nodeX-Y`` without a domain become coordinates. An empty text, ``[]`` and blanks are
    the empty set; whether that makes sense is for the caller to say.

    :param source: file or option, for errors.
    :param line: line of the text in it, for errors.
    :param column: column where the text starts in its line, for errors.
    :raises NodeSetError: for anything else than a node set.
    """
    if len(text) > MAX_TEXT:
        raise NodeSetError(f"the node set is longer than {MAX_TEXT} characters", source=source, line=line)
    if "\n" in text or "\r" in text:
        # Only a YAML block text has lines here; columns would lie, so they are counted in the joined text.
        text = re.sub(r"[\r\n]", " ", text)
    try:
        parsed = _Parser(text, column - 1).parse()
    except NodeSetError as error:
        raise error.at(source, line) from None
    members: t.Dict[Member, None] = {}
    for part in parsed:
        if isinstance(part, Pair):
            members.update(dict.fromkeys(part.coordinates()))
        else:
            match = _NODE_NAME.fullmatch(part)
            known = match is not None and _in_range(int(match[1])) and _in_range(int(match[2]))
            members[(int(match[1]), int(match[2])) if match is not None and known else part] = None
    return list(members)


def _in_range(value: int) -> bool:
    return 1 <= value <= MAX_COORDINATE


class NodeFile(t.NamedTuple):
    """What a text file of nodes says.

    :ivar members: members of the set, in order, each with the line that named it last, from 1.
    :ivar idle: lines that remove nodes of which none was there, each with its text.
    """

    members: t.Dict[Member, int]
    idle: t.Dict[int, str]


def read_node_file(text: str, *, source: str = "") -> NodeFile:
    """Parse the text file of nodes which imageNodes5 took.

    ``#`` starts a comment, each line has one node set, a leading ``-`` removes its nodes; lines apply in
    order.

    :raises NodeSetError: naming line and column.
    """
    file = NodeFile({}, {})
    # Not splitlines(): a form feed or a Unicode separator does not end a line for any editor.
    for number, raw in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        content = raw.partition("#")[0]
        bare = content.strip()
        if not bare:
            continue
        removes = bare.startswith("-")
        start = len(content) - len(content.lstrip()) + (1 if removes else 0)
        found = parse_node_set(content[start:], source=source, line=number, column=start + 1)
        if not found:
            what = "nothing to remove after '-'" if removes else "the node set is empty"
            raise NodeSetError(what, source=source, line=number, column=start + 1, remedy=_SYNTAX)
        if not removes:
            file.members.update(dict.fromkeys(found, number))
        elif not [member for member in found if file.members.pop(member, None)]:
            file.idle[number] = bare
    return file


def parse_node_file(text: str, *, source: str = "") -> t.List[Member]:
    """Return the members of the text file of nodes which imageNodes5 took, as :func:`read_node_file` does."""
    return list(read_node_file(text, source=source).members)


def domain_size(domain: str) -> t.Optional[t.Tuple[int, int]]:
    """Return columns and rows of a domain whose size is known: the ORBIT grid is 20x20. Else None."""
    match = _DOMAIN_RULE.fullmatch(domain)
    return (20, 20) if match is not None and match[1] is None else None


def control_ip_of(domain: str, x: int, y: int) -> t.Optional[str]:
    """Return the control address by the addressing rule of ORBIT, None for a domain that has no rule.

    The grid is 10.10.x.y, sandbox N (1 to 9) is 10.(10+N).x.y.
    """
    match = _DOMAIN_RULE.fullmatch(domain)
    if match is None:
        return None
    return f"10.{10 + int(match[1] or 0)}.{x}.{y}"


_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def fill(template: str, values: t.Mapping[str, object]) -> str:
    """Replace ``{x}`` and the like in a template of this collection. Nothing but plain names is looked up.

    :raises NodeSetError: for a placeholder that is not among the values, or a stray brace.
    """
    known = ", ".join("{" + name + "}" for name in values)

    def replace(match: t.Match[str]) -> str:
        if match[1] not in values:
            raise NodeSetError(
                f"'{template}' has the unknown placeholder '{match[0]}'", remedy=f"Use {known}"
            )
        return str(values[match[1]])

    rest = _PLACEHOLDER.sub("", template)
    if "{" in rest or "}" in rest:
        raise NodeSetError(f"'{template}' has a brace without its partner", remedy=f"Use {known}")
    return _PLACEHOLDER.sub(replace, template)


def check_domain(name: str) -> str:
    """Return the name of a domain if it is one: what a host name in an HRN may end with.

    :raises NodeSetError: when it is not.
    """
    if is_host_name(name):
        return name
    raise NodeSetError(
        f"'{_shown(name)}' is not a name of a domain",
        remedy="Use letters, digits, '-' and '.', for example sb1.orbit-lab.org",
    )


def _shown(text: str) -> str:
    """Return the beginning of a text from outside, without characters that a terminal would act on."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:60])


class Domain(t.NamedTuple):
    """A testbed: how its nodes are named and addressed.

    :ivar name: e.g. ``sb1.orbit-lab.org``; "" when unknown.
    :ivar size: (columns, rows), None when unknown.
    :ivar node_name: template of the short name.
    :ivar control_ip: template of the control address, "" for the rule of the domain.
    """

    name: str
    size: t.Optional[t.Tuple[int, int]] = None
    node_name: str = "node{x}-{y}"
    control_ip: str = ""

    def node(self, member: Member) -> Node:
        """Return the node of one member of a node set.

        :raises NodeSetError: when it is outside the domain or its address is not one.
        """
        if isinstance(member, str):
            return self._named(member)
        x, y = member
        self.check(x, y)
        values: t.Dict[str, object] = {"x": x, "y": y, "domain": self.name}
        name = fill(self.node_name, values)
        if not is_host_name(name):
            raise NodeSetError(f"'{name}' is not a host name", remedy="Check the template of the node names")
        address = fill(self.control_ip, values) if self.control_ip else control_ip_of(self.name, x, y) or ""
        if address and not is_ipv4(address):
            raise NodeSetError(
                f"'{address}' is not a control address", remedy="Check the template of the control addresses"
            )
        # Host names may carry the domain already, to tell the nodes of two domains apart.
        full = not self.name or name.lower().endswith("." + self.name.lower())
        hrn = name if full else f"{name}.{self.name}"
        return Node(name, self.name, x, y, hrn, address)

    def _named(self, text: str) -> Node:
        name, dot, domain = text.partition(".")
        match = _NODE_NAME.fullmatch(name)
        if match is not None and (not dot or not self.name or domain.lower() == self.name.lower()):
            owner = self if not dot or self.name else self._replace(name=domain, size=domain_size(domain))
            return owner.node((int(match[1]), int(match[2])))
        if match is not None:
            raise NodeSetError(
                f"'{text}' is not in the domain '{self.name}'", remedy="Name nodes of one domain in one call"
            )
        # Names of other labs, such as omf.nicta.node1, are opaque keys; they tell neither domain nor
        # coordinates.
        return Node(text, self.name, None, None, text, "")

    def check(self, x: int, y: int) -> None:
        """Refuse coordinates outside the domain.

        :raises NodeSetError: naming the node and the domain's size.
        """
        columns, rows = self.size or domain_size(self.name) or (MAX_COORDINATE, MAX_COORDINATE)
        if not (1 <= x <= columns and 1 <= y <= rows):
            raise NodeSetError(
                f"node ({x},{y}) is outside the domain '{self.name or 'unnamed'}'",
                remedy=f"Its columns are 1..{columns}, its rows 1..{rows}",
            )


_RECORD_KEYS = frozenset(Node._fields)


def _from_record(record: t.Mapping[str, t.Any], domain: Domain) -> Node:
    """Return the node of a record, completing what it leaves out by the rules of the domain."""
    unknown = sorted(str(key) for key in record if key not in _RECORD_KEYS)
    if unknown:
        raise NodeSetError(
            f"a node record has the unknown key '{unknown[0]}'",
            remedy=f"Its keys are {', '.join(Node._fields)}",
        )
    name = str(record.get("name") or "")
    given = str(record.get("domain") or "")
    if given and domain.name and given.lower() != domain.name.lower():
        raise NodeSetError(
            f"'{name or record}' is in the domain '{given}', not in '{domain.name}'",
            remedy="Name nodes of one domain in one call",
        )
    own = domain if domain.name or not given else domain._replace(name=given)
    x, y = _coordinate(record, "x"), _coordinate(record, "y")
    if x is not None and y is not None:
        node = own.node((x, y))
    elif name:
        node = own.node(name)
    else:
        raise NodeSetError(f"the node record {dict(record)} has neither a name nor x and y", remedy=_SYNTAX)
    address = str(record.get("control_ip") or "") or node.control_ip
    if address and not is_ipv4(address):
        raise NodeSetError(f"the control address '{address}' of {name or node.name} is not an IPv4 address")
    hrn = str(record.get("hrn") or "")
    if hrn and not is_host_name(hrn):
        raise NodeSetError(f"'{_shown(hrn)}' is not a name on the services (HRN)", remedy=_SYNTAX)
    if name:
        _check_label(name, known=node.x is not None or bool(hrn))
    return node._replace(
        name=name or node.name,
        domain=own.name,
        hrn=hrn or node.hrn,
        control_ip=address,
    )


def _check_label(name: str, known: bool) -> None:
    """Refuse the name of a record that can be no host of an inventory, or that no service could know.

    Where coordinates or an HRN say which node it is (``known``), the name is only what it is called in
    results, and may have the letters of any language.
    """
    if known and name.isprintable() and " " not in name and len(name) <= 253:
        return
    if not is_host_name(name):
        remedy = _SYNTAX if known else "Say by coordinates (x and y) or by HRN which node it is, or rename it"
        raise NodeSetError(f"'{_shown(name)}' is not a node name", remedy=remedy)


def _coordinate(record: t.Mapping[str, t.Any], key: str) -> t.Optional[int]:
    value = record.get(key)
    if value is None or value == "":
        return None
    # Jinja and extra variables make texts of numbers.
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) <= 3):
        raise NodeSetError(
            f"'{text[:20]}' is not a coordinate {key}", remedy="Coordinates are whole numbers from 1"
        )
    return int(text)


def make_nodes(
    items: t.Sequence[t.Union[str, t.Mapping[str, t.Any]]], domain: str = "", *, source: str = "nodes"
) -> t.List[Node]:
    """Return the nodes of a list of names, coordinates, node sets and records, in order.

    All must be of one domain, which may be left to the records or full names to say.

    :param items: e.g. ``["node1-1", "node1-2.sb1.orbit-lab.org", "1,3", {"name": "node1-4", ...}]``.
    :param domain: the testbed, "" to take it from the nodes.
    :raises NodeSetError: naming the item, also when a node is named twice.
    """
    rules = Domain(domain)
    nodes: t.List[Node] = []
    for number, item in enumerate(items, 1):
        place = f"{source}, item {number}"
        try:
            if isinstance(item, str):
                members = parse_node_set(item)
                if not members:
                    raise NodeSetError("an empty node name", remedy=_SYNTAX)
                nodes.extend(rules.node(member) for member in members)
            elif isinstance(item, t.Mapping):
                nodes.append(_from_record(item, rules))
            else:
                raise NodeSetError(f"a node is a name or a record, not {type(item).__name__}", remedy=_SYNTAX)
        except NodeSetError as error:
            raise error.at(place) from None
    domains = {node.domain.lower(): node.domain for node in nodes if node.domain}
    if len(domains) > 1:
        raise NodeSetError(
            f"the nodes are of several domains: {', '.join(sorted(domains.values()))}",
            source=source,
            remedy="Make one call for each domain",
        )
    if domains and not domain:
        # Now it is known, also for the nodes that are named without it.
        return make_nodes(items, next(iter(domains.values())), source=source)
    seen: t.Dict[str, Node] = {}
    for node in nodes:
        for key in (node.hrn.lower(), node.control_ip):
            other = seen.setdefault(key, node) if key else node
            if other is node:
                continue
            if other.hrn.lower() == node.hrn.lower():
                what = f"'{node.name}' is named twice"
            else:
                what = f"'{other.name}' and '{node.name}' have the same control address {node.control_ip}"
            raise NodeSetError(what, source=source, remedy="Name each node once")
    return nodes


def format_range(first: int, last: int) -> str:
    """Return ``3`` or ``1..5``."""
    return str(first) if first == last else f"{first}..{last}"


def format_coordinates(coordinates: t.Iterable[Coordinates]) -> str:
    """Return coordinates as a compact node set, e.g. ``[[1..5,1..2],[7,1]]``."""
    rows: t.Dict[int, t.List[int]] = {}
    for x, y in sorted(set(coordinates)):
        rows.setdefault(y, []).append(x)
    # Runs of each row, then equal runs of neighbouring rows joined to rectangles.
    open_runs: t.Dict[t.Tuple[int, int], int] = {}
    pairs: t.List[Pair] = []
    previous = 0
    for y in sorted(rows):
        runs = _runs(rows[y])
        if y != previous + 1:
            pairs.extend(Pair(x1, x2, y1, previous) for (x1, x2), y1 in open_runs.items())
            open_runs = {}
        for run in [run for run in open_runs if run not in runs]:
            pairs.append(Pair(run[0], run[1], open_runs.pop(run), previous))
        for run in runs:
            open_runs.setdefault(run, y)
        previous = y
    pairs.extend(Pair(x1, x2, y1, previous) for (x1, x2), y1 in open_runs.items())
    pairs.sort(key=lambda pair: (pair.y1, pair.x1))
    texts = [f"[{format_range(pair.x1, pair.x2)},{format_range(pair.y1, pair.y2)}]" for pair in pairs]
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


def _runs(values: t.Sequence[int]) -> t.List[t.Tuple[int, int]]:
    """Return (first, last) of each run of neighbours in sorted values."""
    runs: t.List[t.Tuple[int, int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], value)
        else:
            runs.append((value, value))
    return runs


def format_nodes(nodes: t.Iterable[Node], limit: int = 120) -> str:
    """Return nodes for a message: a few by name, many as a node set, cut at ``limit`` characters."""
    listed = list(nodes)
    if len(listed) > 4 and all(node.x and node.y for node in listed):
        text = format_coordinates((node.x, node.y) for node in listed if node.x and node.y)
    else:
        text = ", ".join(node.name for node in listed)
    return text if len(text) <= limit else text[: limit - 3] + "..."
