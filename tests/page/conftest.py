# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pathlib
import sys

import pytest

from .browser import Browser, program

# The collection under the name that Python knows it by; tools/setup makes the link.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / ".venv" / "collections"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if program() is None:
        pytest.skip("no Chromium here; tools/setup page installs it")
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()
