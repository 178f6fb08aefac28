# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The token of a service counts wherever it is said: in the inventory, in the play or at a task."""

from __future__ import annotations

import types

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play import Play
from ansible.vars.manager import VariableManager

from ansible_collections.orbit.imaging.plugins.plugin_utils.play import hosts
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import tokens


@pytest.mark.parametrize(
    ("of_play", "of_task", "said"),
    [
        ({tokens.VARIABLE: "abc"}, {}, "abc"),
        ({}, {tokens.VARIABLE: "def"}, "def"),
        ({tokens.VARIABLE: "abc"}, {tokens.VARIABLE: "def"}, "def"),
    ],
)
def test_the_token_of_a_play_and_of_a_task_counts(of_play, of_task, said):
    loader = DataLoader()
    manager = VariableManager(loader, InventoryManager(loader, sources=["node1-1,"]))
    play = Play.load(
        {
            "hosts": "all",
            "vars": of_play,
            "gather_facts": False,
            "tasks": [{"debug": {"msg": "x"}, "vars": of_task}],
        },
        variable_manager=manager,
        loader=loader,
    )
    task = play.tasks[0].block[0]
    found = hosts.Tokens(types.SimpleNamespace(_task=task, _loader=loader))
    batch = {"url": "http://pxe:5012", "token_from": "node1-1"}
    assert tokens.spend(batch, found) == {"url": "http://pxe:5012", "token": said}
