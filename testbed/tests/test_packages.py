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

from orbit_testbed.nodes.layout import TIERS

PROJECT = Path(__file__).parents[1]
SOURCES = PROJECT / "src"
#: Each may import those before it.
ORDER = ("orbit_frisbee", "orbit_services", "orbit_testbed")
#: Folders of orbit_testbed: each may import those before it, and none the command.
LAYERS = ("nodes", "tiers", "bed")
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


def wrong_in(folder: str, *names: str) -> set[str]:
    """Return which files below a folder of orbit_testbed import, or start by name, what bears these names."""
    named = re.compile(rf"\borbit_testbed\.({'|'.join(map(re.escape, names))})\b")
    files = sorted((SOURCES / "orbit_testbed" / folder).rglob("*.py"))
    assert files
    return {
        f"{path.relative_to(SOURCES)} names {match[0]}"
        for path in files
        for match in named.finditer("\n".join([*imported(path), path.read_text()]))
    }


@pytest.mark.parametrize("layer", LAYERS)
def test_the_folders_of_the_testbed_depend_one_way(layer: str) -> None:
    assert not wrong_in(layer, *LAYERS[LAYERS.index(layer) + 1 :], "cli", "__main__")


def test_the_folders_of_the_testbed_are_these() -> None:
    folders = [path.parent.name for path in (SOURCES / "orbit_testbed").glob("*/__init__.py")]
    assert sorted(folders) == sorted(LAYERS)


@pytest.mark.parametrize("kind", TIERS)
def test_kinds_of_nodes_do_not_know_each_other(kind: str) -> None:
    assert not wrong_in(f"tiers/{kind}", *(f"tiers.{other}" for other in TIERS if other != kind))


def test_nothing_but_a_tier_knows_which_there_are() -> None:
    for path in (*(SOURCES / "orbit_testbed/bed").glob("*.py"), *(SOURCES / "orbit_testbed").glob("*.py")):
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
