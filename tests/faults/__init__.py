# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import sys

from ..integration.kit import ROOT

# The collection under the name that Python knows it by; tools/setup makes the link.
sys.path.append(str(ROOT / ".venv" / "collections"))
