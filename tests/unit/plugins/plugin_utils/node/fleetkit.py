# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A node without a node: an ``ssh`` that runs the remote program in a shell of this machine.

The program, the shells and the client processes are real; only the network between is left out, and the
boot, which is in files: :func:`reboot` begins another one. One file per fact of the node lets a test change
what the next session finds.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import signal
import stat
import textwrap
import typing as t
import uuid

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import connection
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import settings as defaults

SSH = """\
#!/bin/sh
# Stands in for ssh: the last argument is the remote command.
for last in "$@"; do :; done
count=$(cat {state}/calls 2>/dev/null || echo 0); count=$((count + 1)); echo $count >{state}/calls
echo $$ >{state}/session
if [ -f {state}/refuse ] && [ "$count" -le "$(cat {state}/refuse)" ]; then
  echo "ssh: connect to host 127.0.0.1 port 22: Connection refused" >&2; exit 255
fi
if [ -f {state}/hang ] && [ "$count" -le "$(cat {state}/hang)" ]; then exec sleep 600; fi
# The boot of the node, not of this machine.
last=$(printf '%s\n.' "$last" | sed 's#/proc/sys/kernel/random/boot_id#{state}/boot_id#
s#/proc/uptime#{state}/uptime#
s#/proc/1/stat#{state}/init#')
exec {shell} -c "${{last%.}}"
"""


def executable(path: str, text: str) -> str:
    """Write an executable file."""
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(textwrap.dedent(text))
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    return path


def way(**parts: t.Any) -> dict[str, t.Any]:
    """Return the way to a node of which nobody has said anything but ``parts``."""
    return {**connection.resolve("node1-1", {}).ssh, **parts}


def make_node(
    folder: t.Any, name: str = "node1-1", *, shell: str = "/bin/sh", client: str = "", **settings: t.Any
) -> dict[str, t.Any]:
    """Return the record of a node that lives in ``folder``, ready for its client."""
    state = os.path.join(str(folder), name)
    os.makedirs(state)
    reboot(state)
    marker = os.path.join(state, "marker")
    with open(marker, "w", encoding="utf-8") as stream:
        stream.write("pxe-test\n")
    disk = os.path.join(state, "disk")
    with open(disk, "w", encoding="utf-8"):
        pass
    script = executable(os.path.join(state, "client"), client or GOOD)
    return {
        "name": name,
        "image": "x.ndz",
        "group": "all",
        "token": 0,
        "domain": "sb1.test",
        "x": 1,
        "y": int(name.rpartition("-")[2]),
        "hrn": f"{name}.sb1.test",
        "control_ip": "127.0.0.1",
        "settings": {
            **defaults.resolve({}),
            "orbit_memory_id": "pxe",
            "orbit_memory_markers": [marker],
            "orbit_identity_files": [os.path.join(state, "identity")],
            "orbit_identity": None,
            "orbit_disk": disk,
            "orbit_disk_type": "file",
            "orbit_client": script,
            "orbit_boot_timeout": 20,
            "orbit_gather": 5,
            "orbit_stall_timeout": 20,
            "orbit_retries": 0,
            "orbit_power_interval": 0.0,
            "orbit_cmc_url": "http://cmc.test:5012",
            "orbit_dialect": "E2",
            **settings,
        },
        "ssh": way(executable=executable(os.path.join(state, "ssh"), SSH.format(state=state, shell=shell))),
        "stream": {"address": "239.77.0.1", "port": 7000},
        # The machine of the test has not booted since: its age must not count.
        "power": {"before": 0.0, "after": 0.0},
        "steps": {},
        "state": state,
    }


def reboot(state: str, age: int = 0) -> None:
    """Let the node in ``state`` have booted ``age`` seconds before its next session."""
    for name, text in (
        ("boot_id", f"{uuid.uuid4()}"),
        ("uptime", f"{age + 10}.00 5.00"),
        # Of the fields after the name, the twentieth is when it started, in hundredths of a second.
        ("init", f"1 (init) S {'0 ' * 18}1000 0"),
    ):
        with open(os.path.join(state, name), "w", encoding="utf-8") as stream:
            stream.write(f"{text}\n")


def end_clients(pattern: str) -> None:
    """End what clients have left on this machine, as a power cycle or the end of a test does."""
    for folder in glob.glob(f"/tmp/orbit-{pattern}"):
        with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, "pid")) as stream:
            os.kill(int(stream.read()), signal.SIGKILL)
        shutil.rmtree(folder)


class Power:
    """Stands in for cmc_power: every node that is named reboots; ``before`` is called with its name first."""

    def __init__(self, *nodes: dict[str, t.Any], before: t.Callable[[str], None] | None = None) -> None:
        self._states = {node["name"]: node["state"] for node in nodes}
        self._before = before
        self.run = ""
        self.refused: dict[str, str] = {}
        self.calls: list[dict[str, t.Any]] = []

    def __call__(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        """Do what the module would do."""
        self.calls.append(options)
        said = []
        for node in options["nodes"]:
            name = node["name"]
            message = self.refused.get(name)
            if message is None:
                if self._before is not None:
                    self._before(name)
                end_clients(f"{self.run}-{name}")
                reboot(self._states[name])
            said.append({"name": name, "ok": message is None, "msg": message or "seen on"})
        return {"nodes": said, "failed": bool(self.refused)}

    @property
    def given(self) -> list[tuple[str, list[str]]]:
        """The actions, each with the nodes that got it."""
        return [(call["state"], [node["name"] for node in call["nodes"]]) for call in self.calls]


def no_power(_options: dict[str, t.Any]) -> dict[str, t.Any]:
    """Stand in for cmc_power where no node may be reset."""
    raise AssertionError("a node was reset")


GOOD = """\
#!/bin/sh
echo "$@" >"$(dirname "$0")/arguments"
echo "Progress: 10% 000000 000009"
echo "Progress: 90% 000001 000001"
echo "Wrote 1048576 bytes (65536 actual)" >&2
printf '\\nLeft the team after 1 seconds on the field!'
"""
