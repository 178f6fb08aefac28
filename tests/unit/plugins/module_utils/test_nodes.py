# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from ansible_collections.orbit.imaging.plugins.module_utils.nodes import (
    Domain,
    Node,
    NodeSetError,
    check_domain,
    control_ip_of,
    domain_size,
    fill,
    format_coordinates,
    format_nodes,
    make_nodes,
    parse_node_file,
    parse_node_set,
    read_node_file,
)

GRID = "grid.orbit-lab.org"


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("[[1,1],[1..5,2]]", [(1, 1), (1, 2), (2, 2), (3, 2), (4, 2), (5, 2)]),
        ("1,1..2", [(1, 1), (1, 2)]),
        ("1,1", [(1, 1)]),
        ("[1,1]", [(1, 1)]),
        ("[1..2,1..2]", [(1, 1), (2, 1), (1, 2), (2, 2)]),
        ("[1,1],[2,1]", [(1, 1), (2, 1)]),
        ("[[2..3,1..2]]", [(2, 1), (3, 1), (2, 2), (3, 2)]),
        ("[[[1,1]],[2,2]]", [(1, 1), (2, 2)]),
        (" [ [ 1 , 1 ] , [ 2 .. 3 , 4 ] ] ", [(1, 1), (2, 4), (3, 4)]),
        ("[[1,1],[1..2,1]]", [(1, 1), (2, 1)]),
        ("node1-1,node2-3", [(1, 1), (2, 3)]),
        ("node1-1,[2,1]", [(1, 1), (2, 1)]),
        ("node1-1.sb1.orbit-lab.org", ["node1-1.sb1.orbit-lab.org"]),
        ("omf.nicta.node1", ["omf.nicta.node1"]),
        ("node300-1", ["node300-1"]),
        ("[]", []),
        ("", []),
        ("  ", []),
        ("[254,254]", [(254, 254)]),
    ],
)
def test_node_set(text, members):
    assert parse_node_set(text) == members


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("[[1,1],[1..5", 13, "expected ','"),
        ("[[1,1", 6, "expected ',' or ']' but found the end"),
        ("7", 1, "two coordinates, not 1"),
        ("[[1,1,1]]", 3, "two coordinates, not 3"),
        ("[[1,1],2]", 8, "mixed"),
        ("[1,[2,3]]", 4, "mixed"),
        ("[[1,1]]]", 8, "expected ',' or the end but found ']'"),
        ("[-1,1]", 2, "expected a pair or a name but found '-'"),
        ("[1.5,1]", 3, "expected ','"),
        ("[0,1]", 2, "coordinate 0 is outside 1..254"),
        ("[1,255]", 4, "coordinate 255 is outside"),
        ("[1,99999999999999999999]", 4, "coordinate 999999999999 is outside"),
        ("[5..1,1]", 2, "runs backwards"),
        ("[1...5,1]", 3, "'...' is not a range"),
        ("[1..,1]", 5, "expected a number"),
        ("[1,1],", 7, "expected a pair or a name but found the end"),
        ("[1,1] [2,2]", 7, "expected ',' or the end but found '['"),
        ("]", 1, "unexpected ']'"),
        ("node1-1;reboot", 1, "'node1-1;reboot' is not a node name"),
        ("system('reboot')", 1, "is not a node name"),
        ("[" * 20, 10, "nested too deeply"),
        ("[\u0661,1]", 2, "expected a pair"),
    ],
)
def test_malformed_node_set_names_the_place(text, column, message):
    with pytest.raises(NodeSetError) as caught:
        parse_node_set(text, source="my.nodes", line=3)
    assert message in caught.value.message
    assert (caught.value.source, caught.value.line, caught.value.column) == ("my.nodes", 3, column)
    assert str(caught.value).startswith(f"my.nodes, line 3, column {column}: ")
    assert caught.value.remedy


def test_node_set_of_a_size_that_is_no_node_set():
    with pytest.raises(NodeSetError, match="longer than"):
        parse_node_set("[1,1]," * 50_000)


def test_block_text_of_yaml():
    assert parse_node_set("[1,1],\n  [2,1]\n") == [(1, 1), (2, 1)]


coordinates = st.tuples(st.integers(1, 254), st.integers(1, 254))


@given(st.sets(coordinates, max_size=60))
def test_format_and_parse_are_inverse(places):
    text = format_coordinates(places)
    assert set(parse_node_set(text)) == places


@given(st.integers(1, 250), st.integers(0, 4), st.integers(1, 250), st.integers(0, 4))
def test_a_rectangle_is_one_pair(x, dx, y, dy):
    places = [(a, b) for a in range(x, x + dx + 1) for b in range(y, y + dy + 1)]
    text = format_coordinates(places)
    assert text.count("[") == 1
    assert set(parse_node_set(text)) == set(places)


KEYS = ["name", "domain", "x", "y", "hrn", "control_ip", "z"]


def refusal(work):
    """Return the error with which something is refused, None when it is not; others get through."""
    try:
        work()
    except NodeSetError as error:
        return error
    return None


@given(st.text() | st.text("[]0123456789., \t\n-node#\r"))
def test_any_text_is_a_node_set_or_refused(text):
    error = refusal(lambda: parse_node_set(text))
    assert error is None or str(error)


@given(st.text() | st.text("[]0123456789., \t\n-node#\r"))
def test_any_text_is_a_node_file_or_refused(text):
    error = refusal(lambda: parse_node_file(text, source="any.nodes"))
    assert error is None or error.source == "any.nodes"
    assert error is None or 1 <= error.line <= text.count("\n") + 1


@given(
    st.lists(
        st.text()
        | st.integers()
        | st.none()
        | st.dictionaries(st.sampled_from(KEYS), st.text() | st.integers())
    ),
    st.text(max_size=20),
)
def test_any_list_is_nodes_or_refused(items, domain):
    error = refusal(lambda: make_nodes(items, domain))
    assert error is None or str(error)


def test_node_file():
    text = (
        "# the inner grid\n[1..3,1..2]  # six\n\n-[2,2]\n  - [1,1]\r\n[18,18..19]\n-[9,9]\n[1,1]\nnode7-7\n"
    )
    assert parse_node_file(text) == [
        (2, 1),
        (3, 1),
        (1, 2),
        (3, 2),
        (18, 18),
        (18, 19),
        (1, 1),
        (7, 7),
    ]


def test_lines_of_a_node_file():
    file = read_node_file("[1..2,1]\n# none\n[1,1]\n-[5,5] # gone\n-[1..9,9]\n-[2,1]\n[4,4]\n")
    assert file.members == {(1, 1): 3, (4, 4): 7}
    assert file.idle == {4: "-[5,5]", 5: "-[1..9,9]"}


@pytest.mark.parametrize("char", ["\0", "\x1b", "\u2060"])
def test_a_character_that_cannot_be_shown_is_described(char):
    with pytest.raises(NodeSetError) as caught:
        read_node_file(f"[1,1]\n{char}\n", source="my.nodes")
    assert str(caught.value).isprintable()
    assert ascii(char) in str(caught.value)


@pytest.mark.parametrize("name", ["sb1.orbit-lab.org", "demo", "it7-100"])
def test_names_of_domains(name):
    assert check_domain(name) == name


@pytest.mark.parametrize("name", ["", "a b", "sb1.", "b\u00fchne", "a/b", "x" * 254, "a\nb"])
def test_what_is_no_name_of_a_domain(name):
    with pytest.raises(NodeSetError, match="is not a name of a domain"):
        check_domain(name)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("[1,1]\n  [2,x]\n", 2, 6),
        ("[1,1]\n[]\n", 2, 1),
        ("# all\n-\n", 2, 2),
        ("-[0,1]", 1, 3),
        ("[1,1]\f[2,2]", 1, 6),
    ],
)
def test_malformed_node_file_names_line_and_column(text, line, column):
    with pytest.raises(NodeSetError) as caught:
        parse_node_file(text, source="my.nodes")
    assert (caught.value.source, caught.value.line, caught.value.column) == ("my.nodes", line, column)


@pytest.mark.parametrize(
    ("domain", "address"),
    [
        ("grid.orbit-lab.org", "10.10.3.4"),
        ("GRID.orbit-lab.org", "10.10.3.4"),
        ("grid", "10.10.3.4"),
        ("sb1.orbit-lab.org", "10.11.3.4"),
        ("sb9.orbit-lab.org", "10.19.3.4"),
        ("sb0.orbit-lab.org", None),
        ("sb10.orbit-lab.org", None),
        ("sb1.cosmos-lab.org", None),
        ("demo", None),
        ("", None),
    ],
)
def test_control_address_by_the_rule(domain, address):
    assert control_ip_of(domain, 3, 4) == address


def test_size_of_the_grid():
    assert domain_size(GRID) == (20, 20)
    assert domain_size("sb1.orbit-lab.org") is None


def test_node_of_the_grid():
    assert Domain(GRID).node((1, 2)) == Node("node1-2", GRID, 1, 2, f"node1-2.{GRID}", "10.10.1.2")


@pytest.mark.parametrize("place", [(21, 1), (1, 21)])
def test_node_outside_the_grid(place):
    with pytest.raises(NodeSetError, match=r"outside the domain .* 1\.\.20"):
        Domain(GRID).node(place)


def test_node_outside_a_size_that_is_given():
    with pytest.raises(NodeSetError, match=r"columns are 1\.\.4, its rows 1\.\.2"):
        Domain("demo", (4, 2)).node((5, 1))


def test_templates():
    domain = Domain("demo", node_name="n{x}_{y}.{domain}", control_ip="10.77.{x}.{y}")
    node = domain.node((4, 2))
    assert (node.name, node.hrn, node.control_ip) == ("n4_2.demo", "n4_2.demo", "10.77.4.2")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("10.{z}.{x}.{y}", "unknown placeholder '{z}'"),
        ("10.{x.__class__}.1", "unknown placeholder"),
        ("10.{x}.{y", "brace without its partner"),
        ("10.{x}.{y}", "not a control address"),
        ("10.300.{x}.{y}", "not a control address"),
    ],
)
def test_bad_templates(template, message):
    with pytest.raises(NodeSetError, match=message):
        Domain("demo", control_ip=template).node((1, 1))


def test_fill_does_not_look_into_values():
    assert fill("{x}", {"x": "{y}", "y": 1}) == "{y}"


def test_nodes_in_all_forms():
    nodes = make_nodes(
        [
            "node1-1",
            f"node1-2.{GRID}",
            "1,3",
            "[[2..3,1]]",
            {"name": "node5-5"},
            {"x": "6", "y": 6},
            {
                "name": "spare",
                "domain": GRID,
                "x": 7,
                "y": 7,
                "hrn": "omf.spare",
                "control_ip": "10.10.200.7",
            },
        ],
        GRID,
    )
    assert [(node.name, node.hrn, node.control_ip) for node in nodes] == [
        ("node1-1", f"node1-1.{GRID}", "10.10.1.1"),
        ("node1-2", f"node1-2.{GRID}", "10.10.1.2"),
        ("node1-3", f"node1-3.{GRID}", "10.10.1.3"),
        ("node2-1", f"node2-1.{GRID}", "10.10.2.1"),
        ("node3-1", f"node3-1.{GRID}", "10.10.3.1"),
        ("node5-5", f"node5-5.{GRID}", "10.10.5.5"),
        ("node6-6", f"node6-6.{GRID}", "10.10.6.6"),
        ("spare", "omf.spare", "10.10.200.7"),
    ]


def test_a_record_is_its_own_node():
    node = Domain("demo", control_ip="10.77.{x}.{y}").node((1, 1))
    assert make_nodes([node.as_dict()]) == [node]


def test_the_domain_follows_from_one_full_name():
    nodes = make_nodes(
        ["node1-1", "node1-2.sb3.orbit-lab.org", {"name": "node1-3", "control_ip": "10.9.9.9"}]
    )
    assert [(node.hrn, node.control_ip) for node in nodes] == [
        ("node1-1.sb3.orbit-lab.org", "10.13.1.1"),
        ("node1-2.sb3.orbit-lab.org", "10.13.1.2"),
        ("node1-3.sb3.orbit-lab.org", "10.9.9.9"),
    ]


def test_a_name_of_another_lab_is_an_opaque_key():
    assert make_nodes(["omf.nicta.node1"], "norbit") == [
        Node("omf.nicta.node1", "norbit", None, None, "omf.nicta.node1", "")
    ]


@pytest.mark.parametrize("name", ["n\u0153ud-1", "\u30ce\u30fc\u30c91", "rack2/7", "caf\u00e9_x", "-x"])
@pytest.mark.parametrize("known", [{"x": 3, "y": 4}, {"hrn": f"node3-4.{GRID}", "control_ip": "10.10.3.4"}])
def test_what_the_inventory_calls_a_known_node_is_free(name, known):
    (node,) = make_nodes([{"name": name, "domain": GRID, **known}], GRID)
    assert (node.name, node.hrn, node.control_ip) == (name, f"node3-4.{GRID}", "10.10.3.4")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"name": "n\u0153ud-1"}, "'n\u0153ud-1' is not a node name. Say by coordinates"),
        ({"name": "n\u0153ud-1", "control_ip": "10.10.1.1"}, "'n\u0153ud-1' is not a node name"),
        ({"name": "node1-1", "hrn": "n\u0153ud"}, "'n\u0153ud' is not a name on the services"),
        ({"name": "a\nb", "x": 1, "y": 1}, r"'a\\nb' is not a node name"),
        ({"name": "a\x1b[2J", "x": 1, "y": 1}, r"'a\\x1b\[2J' is not a node name"),
        ({"name": "\u00e9" * 254, "x": 1, "y": 1}, ".* is not a node name"),
    ],
)
def test_only_the_node_with_an_impossible_name_is_refused(record, message):
    with pytest.raises(NodeSetError, match=f"nodes, item 2: {message}"):
        make_nodes(["node2-2", record], GRID)


@pytest.mark.parametrize(
    ("items", "domain", "message"),
    [
        (["node1-1", "1,1"], GRID, "'node1-1' is named twice"),
        (["node1-1", "NODE1-1.GRID.orbit-lab.org"], GRID, "named twice"),
        (["node1-1.sb1.orbit-lab.org", "node1-1.sb2.orbit-lab.org"], "", "several domains"),
        (["node1-1.sb2.orbit-lab.org"], GRID, "nodes, item 1: .* is not in the domain"),
        (["node1-1", "node30-1"], GRID, r"nodes, item 2: node \(30,1\) is outside"),
        (["node1-1", ""], GRID, "nodes, item 2: an empty node name"),
        ([7], GRID, "a node is a name or a record, not int"),
        ([{"name": "node1-1", "ip": "10.1.1.1"}], GRID, "unknown key 'ip'"),
        ([{"hrn": "x"}], GRID, "neither a name nor x and y"),
        ([{"x": True, "y": 1}], GRID, "'True' is not a coordinate x"),
        ([{"x": "1e1", "y": 1}], GRID, "'1e1' is not a coordinate x"),
        ([{"name": "node1-1", "control_ip": "10.1.1"}], GRID, "'10.1.1' of node1-1 is not an IPv4 address"),
        ([{"name": "a b", "x": 1, "y": 1}], GRID, "'a b' is not a node name"),
        ([{"name": "node1-1", "domain": "sb1"}], GRID, "is in the domain 'sb1'"),
        (
            [
                {"name": "node1-1", "control_ip": "10.10.9.9"},
                {"name": "node2-1", "control_ip": "10.10.9.9"},
            ],
            GRID,
            "'node1-1' and 'node2-1' have the same control address 10.10.9.9",
        ),
    ],
)
def test_bad_nodes(items, domain, message):
    with pytest.raises(NodeSetError, match=message):
        make_nodes(items, domain)


def test_nodes_in_messages():
    few = make_nodes(["1,1", "2,1"], GRID)
    assert format_nodes(few) == "node1-1, node2-1"
    assert format_nodes(make_nodes(["[1..20,1..20]"], GRID)) == "[1..20,1..20]"
    scattered = make_nodes([f"{x},{x % 3 * 2 + 1}" for x in range(1, 21)], GRID)
    assert len(format_nodes(scattered, limit=40)) == 40


def test_places_of_errors_are_kept():
    error = NodeSetError("wrong", column=3).at("a", 1).at("b", 2)
    assert str(error) == "a, line 1, column 3: wrong"
