# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs called ping: nodes on the loopback interface for the real one, and scripts in its place."""

from __future__ import annotations

import shutil

import pytest

HOME = "127.0.0.1"
NODES = [{"name": "node1-1", "address": HOME}, {"name": "node1-2", "address": "127.0.0.2"}]


def needs_ping():
    if shutil.which("ping") is None:
        pytest.skip("there is no ping here (Debian: iputils-ping)")


def script(folder, text):
    path = folder / "ping"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return [str(path)]
