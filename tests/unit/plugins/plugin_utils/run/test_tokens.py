# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.run import plan, tokens


def hosts(*secrets):
    return [
        plan.Host(f"node1-{y}", ["all"], {"orbit_domain": "sb1.orbit-lab.org", tokens.VARIABLE: secret})
        for y, secret in enumerate(secrets, 1)
    ]


def test_no_token_is_in_the_plan_and_who_asks_gets_his():
    made = plan.make(hosts("one", "two", None, "one"), image="x.ndz", limited=True)
    assert "one" not in json.dumps(made).replace(" one ", "")
    hostvars = {f"node1-{y}": {tokens.VARIABLE: text} for y, text in ((1, "one"), (2, "two"), (4, "one"))}
    for service in ("pxe", "frisbee", "cmc"):
        batches = plan.batches(made["nodes"].values(), service)
        told = [tokens.spend(batch, hostvars) for batch in batches]
        assert [[node["name"] for node in batch["nodes"]] for batch in told] == [
            ["node1-1", "node1-4"],
            ["node1-2"],
            ["node1-3"],
        ]
        assert [batch.get("token") for batch in told] == ["one", "two", None]
        assert not any("token_from" in batch for batch in told)


@pytest.mark.parametrize(
    "text", ["se cret", "secret\n", "secret\r\nX-Other: 1", "", "sécret", "s" * 2000, "=="]
)
def test_what_is_no_token_is_refused_and_not_shown(text):
    with pytest.raises(plan.PlanError, match="host node1-1: orbit_service_token is no token") as caught:
        plan.make(hosts(text), image="x.ndz", limited=True)
    assert not text or text not in str(caught.value)


def test_certificates_are_told_to_every_service():
    variables = {"orbit_service_ca": "/etc/lab.pem", "orbit_validate_certs": False}
    (host,) = hosts(None)
    host.variables.update(variables)
    nodes = plan.make([host], image="x.ndz", limited=True)["nodes"].values()
    for service in ("pxe", "frisbee", "cmc"):
        (batch,) = plan.batches(nodes, service)
        assert (batch["ca_path"], batch["validate_certs"], batch["token_from"]) == (
            "/etc/lab.pem",
            False,
            None,
        )
