# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tasks of the collection are quiet, all else looks as usual; by a real ansible-playbook."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

from ansible_collections.orbit.imaging.plugins.callback import live

COLLECTIONS = next(
    parent.parent for parent in pathlib.Path(live.__file__).parents if parent.name == "ansible_collections"
)

OURS = """\
- name: A play of ours
  hosts: all
  gather_facts: false
  tasks:
    - name: Quiet
      orbit.imaging.playbook_check:
      run_once: true
"""

OTHERS = """\
- name: A play of others
  hosts: all
  gather_facts: false
  tasks:
    - name: Speaks
      ansible.builtin.debug: {msg: hello}
      loop: [1, 2]
      loop_control: {label: here}
    - name: Is skipped
      ansible.builtin.debug: {msg: hello}
      when: false
    - name: Fails
      ansible.builtin.fail: {msg: so it is}
      ignore_errors: true
    - name: Changes
      ansible.builtin.command: "true"
      notify: A handler
  handlers:
    - name: A handler
      ansible.builtin.debug: {msg: handled}
"""

FAILS = """\
- name: A play of ours that fails
  hosts: all
  gather_facts: false
  tasks:
    - name: Is quiet until then
      orbit.imaging.image_report: {run: /nonexistent}
      run_once: true
"""


@pytest.fixture
def play(tmp_path):
    def _play(text, *arguments, callback="orbit.imaging.live", **environment):
        (tmp_path / "play.yml").write_text(text)
        (tmp_path / "hosts").write_text(
            f"node1 ansible_connection=local ansible_python_interpreter={sys.executable}\n"
        )
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        done = subprocess.run(
            [
                str(pathlib.Path(sys.executable).parent / "ansible-playbook"),
                "-i",
                "hosts",
                "play.yml",
                *arguments,
            ],
            cwd=tmp_path,
            env={
                **kept,
                "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
                "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
                "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
                "ANSIBLE_STDOUT_CALLBACK": callback,
                **environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return _play


def same(text):
    """What two runs of one play have in common: not the times of commands."""
    return re.sub(r"[0-9:.-]{8,}", "", text)


def test_plays_of_others_look_as_by_default(play):
    usual, ours = (play(OTHERS, callback=name)[:2] for name in ("default", "orbit.imaging.live"))
    assert same(usual[1]) == same(ours[1])
    assert usual[0] == ours[0] == 0


def test_ours_that_go_well_say_nothing(play):
    assert play(OURS)[:2] == (0, "")


def test_ansible_checks_the_arguments_of_our_role_without_a_word(play, tmp_path):
    """The task is Ansible's own, and stands where the role is named."""
    named = "\n".join(
        f"- {{hosts: all, gather_facts: false, {how}}}"
        for how in (
            "roles: [{role: orbit.imaging.testbed, when: false}]",
            "tasks: [{import_role: {name: orbit.imaging.testbed}, when: false}]",
        )
    )
    assert play(named)[:2] == (0, "")
    (tmp_path / "roles" / "theirs" / "tasks").mkdir(parents=True)
    (tmp_path / "roles" / "theirs" / "tasks" / "main.yml").write_text("[]")
    (tmp_path / "roles" / "theirs" / "meta").mkdir()
    specs = "argument_specs: {main: {short_description: Theirs, options: {}}}"
    (tmp_path / "roles" / "theirs" / "meta" / "argument_specs.yml").write_text(specs)
    assert "Validating arguments" in play("- {hosts: all, gather_facts: false, roles: [theirs]}")[1]


def test_ours_beside_those_of_others(play):
    status, said, _errors = play(OURS + OTHERS)
    assert status == 0
    assert "A play of ours" not in said
    assert "Quiet" not in said
    assert "PLAY [A play of others]" in said
    assert "TASK [Speaks]" in said
    assert "PLAY RECAP" in said


def test_ours_that_fail_look_as_by_default(play):
    (status, ours, _none), (usual_status, usual, _none) = (
        play(FAILS, callback=name) for name in ("orbit.imaging.live", "default")
    )
    assert status == usual_status == 2
    assert same(ours) == same(usual)
    assert "TASK [Is quiet until then]" in ours


def test_verbose_brings_all_back(play):
    status, said, _errors = play(OURS, "-v")
    assert status == 0
    for words in ("PLAY [A play of ours]", "TASK [Quiet]", "ok: [node1]", "PLAY RECAP"):
        assert words in said


@pytest.mark.parametrize("callback", ["default", "minimal", "oneline"])
def test_other_callbacks_work_beside_the_report(play, callback):
    status, _said, errors = play(OURS, callback=callback, ANSIBLE_CALLBACKS_ENABLED="orbit.imaging.report")
    assert status == 0, errors


def test_nothing_is_drawn_over_a_question():
    """A run that did not come to its report would be shown for ever."""

    class View:
        left = 0

        def leave(self):
            self.left += 1

    callback = live.CallbackModule()
    callback._view = View()
    callback.v2_playbook_on_vars_prompt("name", prompt="Which one?")
    assert callback._view.left == 1


@pytest.mark.parametrize(
    ("variables", "drawn"),
    [
        ({}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": ""}, False),
        ({"CI": "true"}, False),
        ({"CI": "1"}, False),
        ({"CI": "False"}, True),
        ({"CI": ""}, True),
        ({"AWX_ISOLATED_DATA_DIR": "/nowhere"}, False),
    ],
)
def test_a_table_is_drawn_where_somebody_looks(monkeypatch, variables, drawn):
    for name in ("CI", "AWX_ISOLATED_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(live.os, "isatty", lambda descriptor: True)
    monkeypatch.setattr(live.context, "CLIARGS", {})
    assert live._is_terminal() is drawn
