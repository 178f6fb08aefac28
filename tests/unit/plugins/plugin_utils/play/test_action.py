# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules that an action runs side by side, by a real ansible-playbook."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

from ansible_collections.orbit.imaging.plugins.plugin_utils.play import action

ACTION = """\
import json
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.orbit.imaging.plugins.plugin_utils.play.action import Edge, StepAction


class ActionModule(StepAction):
    def run(self, tmp=None, task_vars=None):
        def ask(number):
            node = {"name": f"node1-{number}", "domain": "sb1.test", "x": 1, "y": number,
                    "hrn": f"node1-{number}.sb1.test", "control_ip": f"10.0.0.{number}"}
            options = {"url": f"http://127.0.0.1:{number}", "dialect": "E2", "domain": "sb1.test",
                       "timeout": 2, "nodes": [node], "state": "reset"}
            return Edge(self, task_vars, "r1").run_module("cmc_power", options)

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(ask, range(1, 5)))
        json.dumps(answers)  # as a record keeps them, failures too
        return {"said": [answer.get("msg", "") for answer in answers]}
"""

PLAY = """\
- hosts: localhost
  gather_facts: false
  tasks:
    - side_by_side:
      register: asked
    - ansible.builtin.copy: {content: "{{ asked.said | to_json }}", dest: "{{ playbook_dir }}/said.json"}
"""


def test_modules_side_by_side_get_their_own_arguments(tmp_path):
    collections = next(
        parent.parent
        for parent in pathlib.Path(action.__file__).parents
        if parent.name == "ansible_collections"
    )
    for folder, name, text in (("action_plugins", "side_by_side.py", ACTION), ("", "play.yml", PLAY)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(text)
    (tmp_path / "hosts").write_text(
        f"localhost ansible_connection=local ansible_python_interpreter={sys.executable}\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), "-i", "hosts", "play.yml"],
        cwd=tmp_path,
        env={
            **kept,
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
            "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    said = json.loads((tmp_path / "said.json").read_text())
    for number, words in enumerate(said, 1):
        assert f"http://127.0.0.1:{number}" in words
    # Nothing stays behind of any of them.
    assert list((tmp_path / "remote").glob("*")) == []
