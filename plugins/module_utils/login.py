# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who is at work on this host."""

from __future__ import annotations

import getpass


def login_name() -> str:
    """Return the login name; "" when there is none (bare containers)."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
