# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is made of what a system says of itself."""

from __future__ import annotations

import pytest

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
