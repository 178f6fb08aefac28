# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from orbit_testbed.nodes import host
from orbit_testbed.nodes.errors import TestbedError


def test_missing_programs_are_named_with_the_line_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in host.PROGRAMS:
        if name not in ("dropbear", "dropbearkey", "busybox"):
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(host, "search_path", lambda: str(tmp_path))
    with pytest.raises(TestbedError) as caught:
        host.require_programs()
    assert "busybox, dropbear, dropbearkey" in caught.value.message
    assert caught.value.remedy.endswith(
        "apt-get install -y --no-install-recommends busybox-static dropbear-bin"
    )


@pytest.mark.parametrize(
    ("sysctl", "value", "line"),
    [
        (
            "kernel.apparmor_restrict_unprivileged_userns",
            "1",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("kernel.unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user.max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
    ],
)
def test_refused_namespaces_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, sysctl: str, value: str, line: str
) -> None:
    monkeypatch.setattr(host, "_works", lambda isolation: "Operation not permitted")
    monkeypatch.setattr(host, "_sysctl", lambda name: value if name == sysctl else "")
    monkeypatch.setattr(host.os, "geteuid", lambda: 1000)
    with pytest.raises(TestbedError, match="Operation not permitted") as caught:
        host.find_isolation()
    assert caught.value.remedy.startswith(line)
    assert "\n" not in caught.value.remedy


def test_root_does_without_a_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_works", lambda isolation: "refused" if isolation.user_namespace else "")
    monkeypatch.setattr(host.os, "geteuid", lambda: 0)
    assert not host.find_isolation().user_namespace
    assert "--user" not in host.find_isolation().flags
