# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run says to people by itself."""

from __future__ import annotations

from ansible import constants
from ansible.utils.display import Display

# Callbacks whose output is read by programs: it must hold nothing else.
_FOR_PROGRAMS = ("json", "jsonl")


def say(line: str) -> None:
    """Show a line, on the standard output unless that belongs to a program."""
    callback = str(constants.config.get_config_value("DEFAULT_STDOUT_CALLBACK"))
    Display().display(line, stderr=callback.rpartition(".")[2] in _FOR_PROGRAMS)
