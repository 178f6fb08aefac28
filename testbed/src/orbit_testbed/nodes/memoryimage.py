# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the memory images of all kinds of nodes have in common: their mark and their imaging tools."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from orbit_frisbee.frisbee import client_cli

#: Content of /.omf_imageid, by which a run tells the memory image from a system on disk.
MARKER = "pxe-orbit-testbed"
#: Where nodes find the runtime.
RUNTIME_AT = "usr/lib/orbit-python"
#: Folder in which our packages lie.
SOURCES = Path(__file__).parents[2]
#: Name of an imaging tool -> module that is its command line.
TOOLS = {
    "frisbee": "orbit_frisbee.frisbee.client_cli",
    "imagezip": "orbit_frisbee.ndz.zip_cli",
    "imageunzip": "orbit_frisbee.ndz.unzip_cli",
}


def quick_help(module: str) -> str:
    """Return shell lines that answer ``--help`` without a Python, "" for tools that are not asked.

    A run asks the client of every node what it can, of all nodes at about the same time.
    """
    if module != TOOLS["frisbee"]:
        return ""
    parser = client_cli.build_parser()
    parser.formatter_class = functools.partial(argparse.HelpFormatter, width=80)
    return f"[ \"$*\" != --help ] || exec cat <<'END'\n{parser.format_help()}END\n"


def tool_sources() -> list[Path]:
    """Return the files of the imaging tools; they lie below :data:`SOURCES` as they do on a node."""
    return sorted((SOURCES / "orbit_frisbee").rglob("*.py"))
