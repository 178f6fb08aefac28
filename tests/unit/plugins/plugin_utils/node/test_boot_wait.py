# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is made of what a system says of itself."""

from __future__ import annotations

import asyncio
from unittest import mock

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import boot_wait
from ansible_collections.orbit.imaging.plugins.plugin_utils.node.boot_wait import Facts, Failed

MARKERS = ["/.omf_imageid", "/.orbit_image"]


def node(disk_bytes=0, **settings):
    return {
        "image": "x.ndz",
        "manifest": {"disk_bytes": disk_bytes},
        "settings": {
            "orbit_disk": "/dev/sda",
            "orbit_disk_type": "block",
            "orbit_disk_serial": None,
            "orbit_disk_min_size": None,
            "orbit_client": "frisbee",
            "orbit_memory_id": "pxe",
            "orbit_memory_markers": MARKERS,
            "orbit_identity_files": ["/etc/orbit-image", *MARKERS],
            **settings,
        },
    }


def facts(**known):
    return Facts(**{"disk": "block", "client": "found", "size": 64 << 20, **known})


def test_the_right_disk_is_written():
    wanted = node(64 << 20, orbit_disk_serial="S1", orbit_disk_min_size="64M")
    facts(serial="S1").check_disk(wanted)
    facts(size=None).check_disk(node(64 << 20))


@pytest.mark.parametrize(
    ("known", "settings", "words"),
    [
        ({"disk": "file"}, {}, "/dev/sda is file on this node, expected block"),
        ({"disk": ""}, {}, "/dev/sda is unknown on this node"),
        (
            {"used": ["mounted on /", "mounted on /", "/dev/sda2 is swap"]},
            {},
            "/dev/sda is in use on this node: mounted on /, /dev/sda2 is swap",
        ),
        ({"serial": "S2"}, {"orbit_disk_serial": "S1"}, "the serial number of /dev/sda is S2, expected S1"),
        ({}, {"orbit_disk_serial": "S1"}, "is unknown, expected S1"),
        ({}, {"orbit_disk_min_size": "65M"}, "size of /dev/sda is 67108864 bytes, expected at least 65M"),
        (
            {"size": None},
            {"orbit_disk_min_size": "1"},
            "the size of /dev/sda is unknown, expected at least 1",
        ),
        (
            {"size": (64 << 20) - 512},
            {"disk_bytes": 64 << 20},
            "/dev/sda has 67108352 bytes, but x.ndz has data up to byte 67108864",
        ),
    ],
)
def test_another_disk_is_not_written(known, settings, words):
    with pytest.raises(Failed, match=words) as failed:
        facts(**known).check_disk(node(**settings))
    assert failed.value.cause == "wrong_disk"


@pytest.mark.parametrize(
    ("files", "memory", "other"),
    [
        ({"/.omf_imageid": "pxe-5"}, True, ""),
        ({"/.orbit_image": "pxe-5", "/.omf_imageid": "x"}, True, ""),
        ({"/.omf_imageid": "diagnostics"}, False, "/.omf_imageid says 'diagnostics'"),
        ({"/.omf_imageid": "baseline", "/etc/orbit-image": "baseline"}, False, ""),
        ({"/etc/orbit-image": "baseline"}, False, ""),
        ({"/.omf_imageid": ""}, False, ""),
        ({}, False, ""),
    ],
)
def test_which_system_it_is(files, memory, other):
    known = facts(files=files)
    assert known.is_memory_image(node()) is memory
    if not memory:
        assert known.other_marker(node()) == other


def test_facts_are_bounded_and_never_a_mistake_of_ours():
    numbers = ["9" * 5000, str(2**63), "-1", "1e3", "\u0663", "\u00b2"]
    said = [f"@orbit {word} {text}" for word in ("age", "bytes", "sectors") for text in numbers]
    said += [f"@orbit file /{n} text" for n in range(10_000)]
    said += [f"@orbit used {'x' * 4000}\x1b[2J"] * 10_000
    said += [f"@orbit can {n}" for n in range(10_000)]
    said += ["@orbit age 7", f"@orbit boot {'b' * 4000}", "@orbit ready"]

    class Talking:
        line = mock.AsyncMock(side_effect=said)

    known = asyncio.run(boot_wait.read_facts(Talking()))
    assert (known.age, known.size) == (7, None)
    assert len(known.files) == len(known.used) == len(known.can) == 64
    assert len(repr(known)) < 100_000
    assert "\x1b" not in "".join(known.used)


def test_a_boot_is_waited_for_by_a_clock_that_nobody_sets(monkeypatch):
    monkeypatch.setattr(boot_wait.time, "time", lambda: 1000.0)
    monkeypatch.setattr(boot_wait.time, "monotonic", lambda: 50.0)
    boot = boot_wait.Boot.since(970.0, 980.0, 60)
    assert (boot.before, boot.after) == (20.0, 30.0)
    # The clock was set back, or forth: what it says is not believed, and nobody is given up for it.
    for after in (5000.0, -5000.0):
        boot = boot_wait.Boot.since(after - 10, after, 60)
        assert (boot.before, boot.after) == (-20.0, 50.0)
    assert boot.again(60.0, 61.0).after == 61.0


@pytest.mark.parametrize(
    ("words", "cause", "first"),
    [
        (
            "@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@\n"
            "IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\n"
            "The fingerprint for the ED25519 key sent by the remote host is\nSHA256:abc.\n"
            "Add correct host key in /x to get rid of this message.\n"
            "Host key for [10.0.0.1]:22 has changed and you have requested strict checking.\n"
            "Host key verification failed.",
            "ssh_refused",
            "Host key for [10.0.0.1]:22 has changed and you have requested strict checking.",
        ),
        (
            "WARNING: no matching account: every permission denied is logged with your host key\n"
            "Unable to negotiate with 10.0.0.1 port 22: no matching host key type found. "
            "Their offer: ssh-dss",
            "ssh_refused",
            "Unable to negotiate with 10.0.0.1 port 22: no matching host key type found. "
            "Their offer: ssh-dss",
        ),
        (
            "debug1: Connection refused was expected\n"
            "Unable to negotiate with x port 1: no matching key exchange method found. Their offer: y",
            "ssh_refused",
            "Unable to negotiate with x port 1: no matching key exchange method found. Their offer: y",
        ),
        (
            'Load key "/k": error in libcrypto\r\nroot@10.0.0.1: Permission denied (publickey).',
            "ssh_refused",
            "root@10.0.0.1: Permission denied (publickey).",
        ),
        (
            "command-line: line 0: Bad configuration option: sendmoney",
            "ssh_refused",
            "command-line: line 0: Bad configuration option: sendmoney",
        ),
        ("Connection closed by 10.0.0.1 port 22", "ssh_refused", "Connection closed by 10.0.0.1 port 22"),
        (
            "Unauthorised use: host key logged.\nssh: connect to host x port 22: Connection timed out",
            "no_boot",
            "ssh: connect to host x port 22: Connection timed out",
        ),
        (
            "Connection timed out during banner exchange\nConnection to 10.0.0.1 port 22 timed out",
            "no_boot",
            "Connection to 10.0.0.1 port 22 timed out",
        ),
        ("", "no_boot", "no answer"),
        ("** WARNING: connection is not using a post-quantum key exchange", "no_boot", "no answer"),
    ],
)
def test_the_line_that_says_why_is_the_evidence(words, cause, first):
    failure = boot_wait._no_session(255, words)
    assert (failure.cause, str(failure).splitlines()[0]) == (cause, first)
    assert "@@@" not in str(failure)


def test_evidence_is_bounded_wherever_it_comes_from():
    assert len(str(Failed("no_boot", "\n".join(["x" * 900_000] * 100)))) < 41 * 450
