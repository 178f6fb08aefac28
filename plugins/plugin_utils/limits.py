# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How many files a process may have open: what a run needs, and seeing that it may."""

from __future__ import annotations

import resource

# What the process has open for other things: logs, sockets, the files of Ansible.
_SPARE = 100
# Of one session: its input, output and words, the process it waits for, and one that is just being opened.
_OF_A_SESSION = 5


class LimitError(Exception):
    """The host allows too little; the text says what, how much is needed, and the remedy."""


def needed_files(sessions: int) -> int:
    """Return how many files a process must be able to open that leads so many sessions at once."""
    return sessions * _OF_A_SESSION + _SPARE


def allow(files: int, what: str) -> None:
    """See that this process may have so many files open, raising its own limit where the host lets it.

    :param what: what they are for, for people, as in "400 sessions".
    :raises LimitError: when the host's limit is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= files:
        return
    if hard != resource.RLIM_INFINITY and hard < files:
        raise LimitError(
            f"{what} need {files} open files, but a process may have {hard} here. "
            "Raise the limit (ulimit -Hn), or image fewer nodes at once."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
