# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest
import yaml

from ansible_collections.orbit.imaging.plugins.doc_fragments import services
from ansible_collections.orbit.imaging.plugins.module_utils import module
from ansible_collections.orbit.imaging.plugins.module_utils.nodes import make_nodes


class Params:
    """As much of a module as its options."""

    def __init__(self, **params):
        self.params = params


def test_options_and_their_documentation_agree():
    documented = yaml.safe_load(services.ModuleDocFragment.DOCUMENTATION)["options"]
    specified = module.argument_spec()
    assert set(documented) == set(specified)
    for name, option in specified.items():
        for key in ("type", "default", "choices", "required"):
            assert documented[name].get(key) == option.get(key), (name, key)
    assert specified["token"]["no_log"] is True


def test_own_options_are_added():
    assert module.argument_spec(state={"type": "str"})["state"] == {"type": "str"}


def test_the_domain_follows_from_the_nodes():
    nodes, domain = module.nodes_of(Params(nodes=["node1-1.sb2.orbit-lab.org"], domain=None))
    assert domain == "sb2.orbit-lab.org"
    assert nodes[0].control_ip == "10.12.1.1"


@pytest.mark.parametrize("error", [KeyError("no such uid"), OSError("no such user")])
def test_no_login_name(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr("getpass.getuser", fail)
    assert module.user_of(Params(user=None)) == ""
    assert module.user_of(Params(user="alice")) == "alice"


def test_failures_with_one_reason_are_named_together():
    nodes = make_nodes(["[1..6,1]"], "d")
    failed = [(node, "why" if node.x != 3 else "other") for node in nodes]
    text = module.describe_failures("pxe at http://x", "linked", failed, 10)
    assert text == "pxe at http://x: 6 of 10 not linked: [[1..2,1],[4..6,1]]: why; node3-1: other"


def test_many_reasons_are_cut():
    text = module.describe_failures(
        "x", "done", [(str(number), f"reason {number}") for number in range(20)], 20
    )
    assert "reason 7" in text
    assert "reason 8" not in text
    assert text.endswith("; and 12 more reasons")
