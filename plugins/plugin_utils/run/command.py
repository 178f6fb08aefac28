# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command line of the ansible-playbook that is running."""

from __future__ import annotations

from ansible import context


def playbooks() -> list[str]:
    """Return the playbooks it was told to run."""
    return [str(name) for name in context.CLIARGS.get("args") or ()]
