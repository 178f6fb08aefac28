# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What check mode promises is what is done then: all service modules, in all dialects, over real sockets."""

from __future__ import annotations

import contextlib
import getpass

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import pxe as pxe_module
from ansible_collections.orbit.imaging.plugins.module_utils.dialects import DIALECTS
from ansible_collections.orbit.imaging.plugins.modules import cmc_power, frisbee_server, pxe_link
from ansible_collections.orbit.imaging.tests.unit.plugins.httpkit import run_module

from .test_clients_against_services import Services

NODES = [{"name": f"node{x}-1", "x": x, "y": 1, "control_ip": f"10.77.{x}.1"} for x in (1, 2)]

#: What is asked of which module, in an order in which each can be done.
TASKS = [
    ("pxe_link", {"image": "memory"}),
    ("pxe_link", {}),
    ("pxe_link", {"state": "absent"}),
    ("pxe_link", {"image": "nosuch"}),
    ("pxe_link", {"state": "absent"}),
    ("frisbee_server", {"images": ["nosuch.ndz"]}),
    ("frisbee_server", {"images": ["baseline.ndz", "other.ndz"]}),
    ("frisbee_server", {"images": ["baseline.ndz"]}),
    ("frisbee_server", {"images": ["baseline.ndz"], "state": "stopped"}),
    ("frisbee_server", {"images": ["other.ndz"], "state": "stopped"}),
    ("frisbee_server", {"images": ["other.ndz"], "state": "stopped"}),
    *(
        ("cmc_power", {"state": state, "verify": verify, **more})
        for verify in (False, True)
        for state, more in (
            ("on", {}),
            ("on", {}),
            ("reset", {}),
            ("cycle", {}),
            ("reboot", {}),
            ("off", {"soft": True}),
            ("off", {}),
            ("reset", {"soft": True}),
        )
    ),
    ("cmc_power", {"state": "reset", "verify": False, "escalate": True}),
    ("cmc_power", {"state": "off"}),
]
MODULES = {"pxe_link": pxe_link, "frisbee_server": frisbee_server, "cmc_power": cmc_power}


@pytest.fixture(scope="module", params=["kind", "faithful"])
def services(request, tmp_path_factory):
    options = ["--faithful"] if request.param == "faithful" else []
    with contextlib.closing(Services(tmp_path_factory.mktemp(request.param), *options)) as found:
        yield found


def promised(results):
    """Return what a result says of each node or stream."""
    items = results.get("nodes", results.get("streams", []))
    return [(item.get("name", item.get("image")), item["ok"], item["changed"]) for item in items]


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_what_is_promised_is_done(services, dialect, monkeypatch):
    monkeypatch.setattr(pxe_module, "SET_SPACING", 0)
    where = {"url": services.urls[dialect], "dialect": dialect, "domain": "demo", "user": getpass.getuser()}
    broken = []
    for name, options in TASKS:
        if dialect == "A" and options.get("images") == ["nosuch.ndz"]:
            continue  # Only a start would tell, so check mode leaves that open.
        arguments = {**where, **options, **({} if name == "frisbee_server" else {"nodes": NODES})}
        check, done = (run_module(MODULES[name].main, arguments, check=mode) for mode in (True, False))
        if (check.failed, promised(check.results)) != (done.failed, promised(done.results)):
            broken.append((name, options, check.results.get("msg"), done.results.get("msg")))
    assert broken == []
