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

from ansible_collections.orbit.imaging.plugins.plugin_utils.report.table import AT_END


class CallbackModule(CallbackBase):
    """Keeps the lines of the report until everything else has been said."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "orbit.imaging.report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._lines: list[str] = []

    def v2_playbook_on_start(self, playbook: t.Any) -> None:
        """Tell the action, which runs in a child process, that its lines will be shown."""
        os.environ[AT_END] = "1"

    def v2_runner_on_ok(self, result: t.Any) -> None:
        """Keep the lines of a report."""
        # The public name came with ansible-core 2.19.
        said = result.result if hasattr(result, "result") else result._result
        self._lines += said.get("report_lines", [])

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        """Show what was kept."""
        for line in self._lines:
            self._display.display(line)
