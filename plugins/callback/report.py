# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shows the report of a run as the last thing on the screen."""

from __future__ import annotations

DOCUMENTATION = r"""
name: report
type: aggregate
short_description: Show the report of an imaging run after the recap
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - Without this callback the table of M(orbit.imaging.image_report) appears where its task runs, above
    Ansible's own recap. With it, the table is the last thing that is shown.
requirements:
  - Enable it with C(callbacks_enabled = orbit.imaging.report) in the section C([defaults]) of
    C(ansible.cfg).
"""

import os
import typing as t

from ansible.plugins.callback import CallbackBase

from ansible_collections.orbit.imaging.plugins.plugin_utils.report import speech
from ansible_collections.orbit.imaging.plugins.plugin_utils.report.listener import Listener
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import events
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Event


class CallbackModule(CallbackBase):
    """Keeps the lines of the report until everything else has been said."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "orbit.imaging.report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._lines: list[str] = []
        self._listener: Listener | None = None

    def v2_playbook_on_start(self, playbook: t.Any) -> None:
        """Listen for reports, unless the callback live already does."""
        if events.shown_by(os.environ.get(events.ADDRESS, ""), os.getpid()):
            return
        listener = Listener("report", self._hear)
        try:
            listener.start()
        except OSError:
            # Nobody hears the report then, and its task prints it.
            return
        self._listener = listener

    def _hear(self, event: Event) -> None:
        if event["event"] == "report":
            self._lines += event["lines"]

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        """Show what was kept."""
        if self._listener is not None:
            self._listener.drain()
        lines, self._lines = self._lines, []
        for line in lines:
            speech.say(line)
