# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shows a run while it goes on, in place of the lines of its tasks."""

from __future__ import annotations

DOCUMENTATION = r"""
name: live
type: stdout
short_description: Show imaging runs while they go on
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - On a terminal, a table of the image groups with bars, rates and times, the nodes as cells (in the grid of
    the testbed when all have coordinates), and by name the nodes that failed or are slow. At the end, the
    table of M(orbit.imaging.image_report).
  - Without a terminal, with C(TERM=dumb), in CI and under ansible-runner, a line for each group every ten
    seconds, when a step begins, and when a node fails or is tried again.
  - While tasks of others run there is no table, and there are no such lines.
  - Tasks of this collection that go well print nothing else. C(-v) shows them as usual. All other tasks, and
    all failures, look as with Ansible's default callback.
  - When nobody reads the output any more, the run is ended.
requirements:
  - C(stdout_callback = orbit.imaging.live) in the section C([defaults]) of C(ansible.cfg).
  - rich (Python library) for the table on a terminal. Without it there is a warning, and the output is
    Ansible's default one.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

import atexit
import os
import pathlib
import sys
import typing as t

from ansible import constants, context
from ansible.plugins.callback.default import CallbackModule as Default

from ansible_collections.orbit.imaging.plugins.plugin_utils.report.listener import Listener
from ansible_collections.orbit.imaging.plugins.plugin_utils.report.view import View

# The folders whose tasks and plays are ours.
_COLLECTION = pathlib.Path(__file__).resolve().parents[2]
_FOLDERS = tuple(f"{_COLLECTION / name}{os.sep}" for name in ("playbooks", "roles"))
_ACTIONS = "orbit.imaging."
# What people set CI to when they mean that there is none.
_NO = ("", "0", "false", "no")


class CallbackModule(Default):
    """Ansible's default output, but for tasks of this collection that go well."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "orbit.imaging.live"

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._listener: Listener | None = None
        self._view: View | None = None
        self._quiet = False
        # What the default callback is told only when something of it is shown.
        self._waiting_play: t.Any = None
        self._waiting_task: t.Any = None
        self._quiet_tasks = 0
        # Whether something of ours, and of others, was shown.
        self._shown = self._shown_others = False

    # -- beginning and end

    def v2_playbook_on_start(self, playbook: t.Any) -> None:
        """Begin to listen."""
        if self._listener is None:
            self._listen()
        super().v2_playbook_on_start(playbook)

    def _listen(self) -> None:
        screen, lacks = None, False
        if _is_terminal():
            # Here, as a run that nobody looks at needs no rich.
            from ansible_collections.orbit.imaging.plugins.plugin_utils.report import screen as screens

            lacks = not screens.HAS_RICH
            if not lacks:
                screen = screens.Screen(color=not constants.config.get_config_value("ANSIBLE_NOCOLOR"))
        if lacks:
            self._display.warning(
                "orbit.imaging.live: the Python library rich is not installed, so the output is Ansible's "
                "default one. Install it (pip install rich), or set stdout_callback = default."
            )
        view = View(self._say, screen)
        # Without rich, tasks speak for themselves, and only the report is shown here.
        listener = Listener(
            "report" if lacks else "live", view.hear, (lambda: None) if lacks else view.tick, 0.1
        )
        try:
            listener.start()
        except OSError as error:
            self._display.warning(f"orbit.imaging.live: no socket for the events of runs: {error}.")
            return
        self._listener, self._view = listener, view
        self._quiet = not lacks and self._display.verbosity == 0
        if screen is not None:
            atexit.register(view.end)
            _print_aside(self._display, view)

    def _say(self, line: str) -> None:
        """Show a line, by what Ansible's display is by then."""
        self._display.display(line)

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        """Show the recap, if there is more to it than what the report says, and the report."""
        report: list[str] = []
        if self._listener is not None and self._view is not None:
            self._listener.drain()
            report = self._view.take_report()
        self._show_empty_play()
        # The report counts the nodes and names those that failed: a recap of each of hundreds is no news.
        if not self._quiet or self._shown_others or (self._shown and not report):
            super().v2_playbook_on_stats(stats)
        for line in report:
            self._display.display(line)

    # -- plays and tasks

    def _is_quiet(self, task: t.Any) -> bool:
        """Whether a task shows nothing as long as it goes well."""
        return self._quiet and _is_ours(task)

    def _show_play(self, *, ours: bool = False) -> None:
        play, self._waiting_play = self._waiting_play, None
        self._shown = True
        self._shown_others = self._shown_others or not ours
        if play is not None:
            super().v2_playbook_on_play_start(play)

    def _show_empty_play(self) -> None:
        """A play is over: its heading is shown when it was not ours, and had no quiet tasks either."""
        if (
            self._waiting_play is not None
            and not self._quiet_tasks
            and not _stands_in_ours(self._waiting_play)
        ):
            self._show_play()

    def _show_task(self, task: t.Any) -> None:
        """Something of ``task`` is shown: what stands above it must be shown before."""
        self._show_play(ours=_is_ours(task))
        waiting, self._waiting_task = self._waiting_task, None
        if waiting is not None and waiting is task:
            super().v2_playbook_on_task_start(task, False)

    def v2_playbook_on_vars_prompt(self, *args: t.Any, **kwargs: t.Any) -> None:
        """Draw no table, such as that of a run which did not come to its report, over a question."""
        if self._view is not None:
            self._view.leave()
        super().v2_playbook_on_vars_prompt(*args, **kwargs)

    def v2_playbook_on_play_start(self, play: t.Any) -> None:
        """Keep the heading until there is something below it."""
        if self._view is not None:
            self._view.leave()
        if not self._quiet:
            super().v2_playbook_on_play_start(play)
            return
        self._show_empty_play()
        self._waiting_play, self._quiet_tasks = play, 0

    def v2_playbook_on_task_start(self, task: t.Any, is_conditional: t.Any) -> None:
        """Show the heading of a task that is not ours."""
        self._tell_view(task)
        if self._is_quiet(task):
            self._quiet_tasks += 1
            self._waiting_task = task
            return
        self._show_play()
        super().v2_playbook_on_task_start(task, is_conditional)

    def _tell_view(self, task: t.Any) -> None:
        if self._view is None:
            return
        if _is_ours(task):
            self._view.entitle(task.get_name().rpartition(" : ")[2].strip())
        else:
            self._view.leave()

    def v2_playbook_on_handler_task_start(self, task: t.Any) -> None:
        """Show the heading of a handler."""
        self._tell_view(task)
        self._show_play()
        super().v2_playbook_on_handler_task_start(task)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Show that there is no host; the play that looks at the inventory may be limited away."""
        play = self._waiting_play
        if play is not None and _stands_in_ours(play) and list(play.hosts) == ["localhost"]:
            return
        self._show_play()
        super().v2_playbook_on_no_hosts_matched()

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        """Show that there is no host any more."""
        self._show_play()
        super().v2_playbook_on_no_hosts_remaining()

    def v2_playbook_on_include(self, included_file: t.Any) -> None:
        """Show what is included."""
        self._show_play()
        super().v2_playbook_on_include(included_file)

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        """Show that a task begins on a host, if that is asked for."""
        if not self._is_quiet(task):
            super().v2_runner_on_start(host, task)

    # -- results

    def _goes_well(self, result: t.Any, show: t.Callable[[t.Any], None]) -> None:
        """Show a result, unless it is one of a task of ours that has nothing to say."""
        task = _of(result, "task")
        said = _of(result, "result")
        if self._is_quiet(task) and not (said.get("warnings") or said.get("deprecations")):
            return
        self._show_task(task)
        show(result)

    def v2_runner_on_ok(self, result: t.Any) -> None:
        """Show that a task has succeeded."""
        self._goes_well(result, super().v2_runner_on_ok)

    def v2_runner_on_skipped(self, result: t.Any) -> None:
        """Show that a task is skipped."""
        self._goes_well(result, super().v2_runner_on_skipped)

    def v2_runner_item_on_ok(self, result: t.Any) -> None:
        """Show that an item has succeeded."""
        self._goes_well(result, super().v2_runner_item_on_ok)

    def v2_runner_item_on_skipped(self, result: t.Any) -> None:
        """Show that an item is skipped."""
        self._goes_well(result, super().v2_runner_item_on_skipped)

    def v2_runner_retry(self, result: t.Any) -> None:
        """Show that a task is tried again."""
        self._goes_well(result, super().v2_runner_retry)

    def v2_on_file_diff(self, result: t.Any) -> None:
        """Show what a task changes in a file."""
        self._goes_well(result, super().v2_on_file_diff)

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        """Show that a task has failed."""
        self._show_task(_of(result, "task"))
        super().v2_runner_on_failed(result, ignore_errors)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        """Show that a host cannot be reached."""
        self._show_task(_of(result, "task"))
        super().v2_runner_on_unreachable(result)

    def v2_runner_item_on_failed(self, result: t.Any) -> None:
        """Show that an item has failed."""
        self._show_task(_of(result, "task"))
        super().v2_runner_item_on_failed(result)


def _of(result: t.Any, name: str) -> t.Any:
    """Return a part of a result; the public names came with ansible-core 2.19."""
    return getattr(result, name) if hasattr(result, name) else getattr(result, f"_{name}")


def _is_ours(task: t.Any) -> bool:
    """Whether a task is one of an action of this collection, or stands in its roles or playbooks."""
    if str(getattr(task, "resolved_action", None) or task.action).startswith(_ACTIONS):
        return True
    # The task by which Ansible checks the arguments of a role stands where the role is named.
    checked = (task.args or {}).get("validate_args_context")
    if isinstance(checked, dict) and os.path.realpath(str(checked.get("path"))).startswith(_FOLDERS):
        return True
    return _stands_in_ours(task)


def _stands_in_ours(thing: t.Any) -> bool:
    """Whether a task or a play stands in a file of this collection."""
    path = str(thing.get_path() or "").rpartition(":")[0]
    return bool(path) and os.path.realpath(path).startswith(_FOLDERS)


def _is_terminal() -> bool:
    """Whether a table can be drawn: where somebody looks at it, and nobody is asked questions meanwhile."""
    if os.environ.get("TERM", "dumb") in ("", "dumb") or context.CLIARGS.get("step"):
        return False
    if os.environ.get("CI", "").lower() not in _NO:
        return False
    # ansible-runner, and AWX with it, gives a terminal at which nobody looks.
    if "AWX_ISOLATED_DATA_DIR" in os.environ:
        return False
    try:
        return os.isatty(1) and sys.stdout is not None
    except OSError:
        return False


def _print_aside(display: t.Any, view: View) -> None:
    """Have no table while Ansible prints something, from whichever thread that is."""
    show, process = display.display, os.getpid()

    def show_aside(*args: t.Any, **kwargs: t.Any) -> t.Any:
        # Workers hand what they have to say to this process.
        if os.getpid() != process:
            return show(*args, **kwargs)
        with view.aside():
            return show(*args, **kwargs)

    display.display = show_aside
