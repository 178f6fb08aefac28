# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three packages depend on each other one way, and each on what it declares."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
SOURCES = PROJECT / "src"
#: Each may import those before it.
ORDER = ("orbit_frisbee", "orbit_services", "orbit_testbed")
#: The extras whose packages each may import.
EXTRAS = {"orbit_frisbee": {"fast"}, "orbit_services": {"services"}, "orbit_testbed": {"services", "fast"}}


def imported(path: Path) -> Iterator[str]:
    """Yield the names of all modules that a file imports, wherever in it."""
    package = ".".join(path.relative_to(SOURCES).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def declared(extras: set[str]) -> set[str]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == [], "the transport and the images need the standard library alone"
    found: list[str] = []
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return {re.split(r"[^A-Za-z0-9_-]", requirement)[0] for requirement in found}


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_one_way(package: str) -> None:
    allowed = {*sys.stdlib_module_names, *ORDER[: ORDER.index(package) + 1], *declared(EXTRAS[package])}
    files = sorted((SOURCES / package).rglob("*.py"))
    assert files
    wrong = {
        f"{path.relative_to(SOURCES)} imports {name}"
        for path in files
        for name in imported(path)
        if name.partition(".")[0] not in allowed
    }
    assert not wrong


@pytest.mark.parametrize("package", ORDER[:2])
def test_no_text_names_a_module_above(package: str) -> None:
    """Programs are also started by name, with ``python -m``."""
    above = "|".join(ORDER[ORDER.index(package) + 1 :])
    wrong = [
        str(path.relative_to(SOURCES))
        for path in sorted((SOURCES / package).rglob("*.py"))
        if re.search(rf"\b({above})\b", path.read_text())
    ]
    assert not wrong


def modules() -> dict[str, Path]:
    """Return all our modules by name, with their files."""
    found = {}
    for path in SOURCES.rglob("*.py"):
        parts = path.relative_to(SOURCES).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_no_module_depends_on_itself() -> None:
    ours = modules()
    needs = {name: {*imported(path)} & ours.keys() - {name} for name, path in ours.items()}
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"each imports the next: {' <- '.join(error.args[1])}")


#: The rooms of the testbed, each may import those before it; a kind of node is a room of its own.
ROOMS = ("nodes", "tiers", "bed")


def test_the_rooms_of_the_testbed_depend_one_way() -> None:
    home = SOURCES / "orbit_testbed"
    assert {path.name for path in home.iterdir() if (path / "__init__.py").exists()} == set(ROOMS)
    wrong = {
        f"{path.relative_to(home)} imports {name}"
        for number, room in enumerate(ROOMS)
        for path in sorted((home / room).rglob("*.py"))
        for name in imported(path)
        for above in (*ROOMS[number + 1 :], "cli")
        if re.match(rf"orbit_testbed\.{above}\b", name)
    }
    assert not wrong
    kinds = [path.name for path in (home / "tiers").iterdir() if (path / "__init__.py").exists()]
    wrong = {
        f"{path.relative_to(home)} imports {name}"
        for kind in kinds
        for path in sorted((home / "tiers" / kind).rglob("*.py"))
        for name in imported(path)
        for other in kinds
        if other != kind and re.match(rf"orbit_testbed\.tiers\.{other}\b", name)
    }
    assert not wrong


def test_what_is_not_of_a_kind_of_node_knows_none_of_them() -> None:
    home = SOURCES / "orbit_testbed"
    for path in (*(home / "nodes").glob("*.py"), *(home / "bed").glob("*.py"), home / "cli.py"):
        assert not [name for name in imported(path) if re.match(r"orbit_testbed\.tiers\.(light|qemu)", name)]
        assert not re.search(r"[!=]= *[\"'](qemu|light)[\"']", path.read_text())


def test_the_packages_are_these_three() -> None:
    assert sorted(path.name for path in SOURCES.iterdir() if (path / "__init__.py").exists()) == sorted(ORDER)


@pytest.mark.parametrize("missing", ["h11", "starlette", "uvicorn"])
def test_the_command_says_what_it_needs(missing: str) -> None:
    """A base installation has the command, but not what it is made of."""
    code = f"""
import sys
sys.modules[{missing!r}] = None
from orbit_testbed.__main__ import main
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"orbit-testbed: no Python package {missing}; pip install 'orbit-testbed[testbed]'"
    ]
