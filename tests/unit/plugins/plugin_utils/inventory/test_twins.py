# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils.nodes import Domain
from ansible_collections.orbit.imaging.plugins.plugin_utils.inventory.document import Mistake
from ansible_collections.orbit.imaging.plugins.plugin_utils.inventory.twins import Twins

NODE = Domain("demo", control_ip="10.77.{x}.{y}").node((1, 1))


def test_the_same_node_again():
    twins = Twins()
    twins.add(NODE)
    twins.add(NODE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": 2}, r"\[1,1\] with 10.77.1.1 and \[2,1\] with 10.77.1.1 are both the host 'node1-1'"),
        ({"domain": "other"}, "'node1-1' is already a node of the domain 'demo'"),
        ({"control_ip": "10.77.9.9"}, "both the host"),
        ({"name": "a", "hrn": "a.demo", "control_ip": "10.77.9.9"}, r"same coordinates \[1,1\] of demo"),
        ({"name": "a", "x": 2, "control_ip": "10.77.9.9"}, "same name on the services"),
        ({"name": "a", "x": 2, "hrn": "a.demo"}, "same control address 10.77.1.1"),
        ({"name": "a", "domain": "other", "hrn": "a.other"}, "same control address"),
    ],
)
def test_twins(change, message):
    twins = Twins()
    twins.add(NODE)
    with pytest.raises(Mistake, match=message) as caught:
        twins.add(NODE._replace(**change), ("nodes",), line=7)
    assert (caught.value.path, caught.value.line) == (("nodes",), 7)
