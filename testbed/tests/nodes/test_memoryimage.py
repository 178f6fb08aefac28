# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the memory image answers without starting a Python."""

from __future__ import annotations

import subprocess

import pytest

from orbit_testbed.nodes import memoryimage
from orbit_testbed.nodes.host import program

CLIENT = memoryimage.TOOLS["frisbee"]


def run(*arguments: str) -> str:
    text = memoryimage.quick_help(CLIENT) + "echo started\n"
    shell = [program("busybox"), "sh", "-c", text, "frisbee", *arguments]
    return subprocess.run(shell, capture_output=True, text=True, timeout=180, check=True).stdout


def test_the_client_says_what_it_can() -> None:
    told = run("--help")
    assert told.startswith("usage: frisbee [-h] -p PORT")
    for option in ("--manifest FILE", "--resume", "--verify"):
        assert option in told
    assert "started" not in told


@pytest.mark.parametrize("arguments", [[], ["--help", "-p"], ["-p", "--help"], ["-m", "239.1.1.1"]])
def test_anything_else_starts_it(arguments: list[str]) -> None:
    assert run(*arguments) == "started\n"


def test_the_other_tools_are_not_asked() -> None:
    others = [module for module in memoryimage.TOOLS.values() if module != CLIENT]
    assert {memoryimage.quick_help(module) for module in others} == {""}
