#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: ping
short_description: Ping nodes, at once or while something else happens
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - Runs the system's C(ping) for each node, all at the same time, on the host that the task runs on (the
    console, by C(delegate_to)), and returns packets, loss and round-trip times.
  - With O(state=measured), sends O(count) packets to each node and waits for their answers.
  - With O(state=started), begins and returns at once; with O(state=stopped), ends what was begun and returns
    what came of it. Of each node only those packets count that were sent within its window in O(windows).
  - A node that does not answer is no failure; it has lost all packets.
  - Besides its own options, the task may name a run with O(run), from which the nodes, or their windows,
    are taken.
  - What was started ends by itself after O(limit) seconds.
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    support: full
    details: Nothing is sent.
  diff_mode:
    support: none
  platform:
    platforms: linux
options:
  state:
    description: What to do.
    type: str
    choices: [measured, started, stopped]
    default: measured
  run:
    description:
      - Folder of a run. With O(state=stopped), the windows are those in which the nodes' clients wrote in
        this run, as its C(result.json) has them; otherwise the nodes are those of the run, as
        M(orbit.imaging.image_plan) chose them.
    type: path
  nodes:
    description: The nodes; not needed with O(run) nor with O(state=stopped).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the node.
        type: str
        required: true
      address:
        description: Address that is pinged.
        type: str
        required: true
  command:
    description:
      - The program, and what comes before its options. With O(state=started) it must be C(ping) of
        iputils, as others cannot tell when a packet was sent.
    type: list
    elements: str
    default: [ping]
  interval:
    description: Seconds from packet to packet. Less than 0.2 needs root with some versions of C(ping).
    type: float
    default: 0.2
  count:
    description: Packets for each node with O(state=measured).
    type: int
    default: 25
  limit:
    description: Seconds after which pings that were started end by themselves.
    type: int
    default: 3600
  folder:
    description: What O(state=started) has returned; needed with O(state=stopped), which removes it.
    type: path
  windows:
    description: For each node, the first and the last moment that count, in seconds since 1970.
    type: dict
    default: {}
notes:
  - The windows of a run are by the clock of the control host, the packets by that of the console.
"""

EXAMPLES = r"""
- name: Ping the nodes of the run
  orbit.imaging.ping:
    run: "{{ orbit_run.dir }}"
    count: 50
  delegate_to: console
  run_once: true

- name: Begin to ping two nodes
  orbit.imaging.ping:
    state: started
    nodes:
      - {name: node1-1, address: 10.10.1.1}
      - {name: node1-2, address: 10.10.1.2}
  register: pings
"""

RETURN = r"""
folder:
  description: Where the pings that were started write.
  returned: with state started
  type: str
  sample: /tmp/orbit-ping-8sk2
nodes:
  description: What came of each node.
  returned: with state measured or stopped
  type: list
  elements: dict
  contains:
    name:
      description: Name of the node.
      type: str
    packets:
      description: Packets sent.
      type: int
    received:
      description: Packets answered.
      type: int
    duplicates:
      description: Answers beyond the first of a packet.
      type: int
    lost_percent:
      description: Per cent of the packets without an answer; null when there were no packets.
      type: float
    min:
      description: Shortest round trip in milliseconds; null when nothing came back, as are the next three.
      type: float
    avg:
      description: Mean round trip in milliseconds.
      type: float
    max:
      description: Longest round trip in milliseconds.
      type: float
    mdev:
      description: Standard deviation of the round trips in milliseconds; null when C(ping) does not tell it.
      type: float
    msg:
      description: Why there are no numbers, or empty.
      type: str
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.orbit.imaging.plugins.module_utils.ping import (
    PingError,
    Statistics,
    parse,
    within,
)

# Seconds for the last answers, and for a ping to end when it is told to.
_PATIENCE = 30.0
_STOP_PATIENCE = 5.0
_STARTED = "started.json"


def _entry(name: str, found: Statistics, msg: str = "") -> t.Dict[str, t.Any]:
    return {"name": name, **found.as_dict(), "msg": msg}


def _program(module: AnsibleModule) -> t.List[str]:
    command = list(module.params["command"])
    if not command:
        module.fail_json(msg="command is empty. Name the program, usually ping.")
    if shutil.which(command[0]) is None:
        module.fail_json(
            msg=f"command: there is no program {command[0]} here. "
            "On Debian, ping is in the package iputils-ping."
        )
    return command


def measure(module: AnsibleModule) -> t.List[t.Dict[str, t.Any]]:
    """Ping all nodes at the same time; return an entry for each."""
    params = module.params
    command = [*_program(module), "-n", "-q", "-c", str(params["count"]), "-i", f"{params['interval']:g}"]
    environment = dict(os.environ, LC_ALL="C")
    end = time.monotonic() + params["count"] * params["interval"] + _PATIENCE
    running = [
        (
            node["name"],
            subprocess.Popen(
                [*command, node["address"]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                universal_newlines=True,
            ),
        )
        for node in params["nodes"]
    ]
    entries = []
    for name, process in running:
        try:
            text, _none = process.communicate(timeout=max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            try:
                text, _none = process.communicate(timeout=_STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                text, _none = process.communicate()
        try:
            entries.append(_entry(name, parse(text)))
        except PingError as error:
            entries.append(_entry(name, Statistics(), str(error)))
    return entries


def start(module: AnsibleModule) -> str:
    """Begin to ping all nodes; return the folder in which they are looked after."""
    params = module.params
    # Not -w: with it, ping ends when it hears that a node cannot be reached, which a booting one cannot.
    most = str(max(1, int(params["limit"] / params["interval"])))
    command = [*_program(module), "-D", "-O", "-n", "-i", f"{params['interval']:g}", "-c", most]
    folder = tempfile.mkdtemp(prefix="orbit-ping-")
    # Every ping holds this lock, so that it tells whether any of them is left.
    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    pids = {}
    try:
        for number, node in enumerate(params["nodes"]):
            with open(os.path.join(folder, str(number)), "wb") as output:
                process = subprocess.Popen(
                    [*command, node["address"]],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(os.environ, LC_ALL="C"),
                    start_new_session=True,
                    pass_fds=(lock,),
                )
            pids[node["name"]] = process.pid
        with open(os.path.join(folder, _STARTED), "w", encoding="utf-8") as file:
            json.dump({"pids": pids, "interval": params["interval"]}, file)
    except BaseException:
        for pid in pids.values():
            os.killpg(pid, signal.SIGKILL)
        shutil.rmtree(folder)
        raise
    finally:
        os.close(lock)
    return folder


def stop(module: AnsibleModule) -> t.List[t.Dict[str, t.Any]]:
    """End the pings of a folder and remove it; return an entry for each node."""
    folder, windows = module.params["folder"], module.params["windows"]
    try:
        with open(os.path.join(folder, _STARTED), encoding="utf-8") as file:
            started = json.load(file)
        lock = os.open(os.path.join(folder, "lock"), os.O_RDWR)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"folder: {folder} is none that state=started has returned: {error}")
    try:
        _end(lock, started["pids"].values())
    finally:
        os.close(lock)
    entries = []
    for number, name in enumerate(started["pids"]):
        with open(os.path.join(folder, str(number)), encoding="utf-8", errors="replace") as file:
            text = file.read()
        try:
            parse(text)
            problem = ""
        except PingError as error:
            problem = str(error)
        found = Statistics()
        if not problem and name in windows:
            began, ended = windows[name]
            found = within(text, float(began), float(ended), started["interval"])
        entries.append(_entry(name, found, problem or ("" if name in windows else "no window to sample")))
    shutil.rmtree(folder)
    return entries


def _end(lock: int, pids: t.Iterable[int]) -> None:
    """Let pings end, so that they print their summaries; those that do not are killed."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if _is_free(lock):
            return
        for pid in pids:
            # The group: what stands before ping (nsenter, ssh) does not hand signals on.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
        end = time.monotonic() + _STOP_PATIENCE
        while not _is_free(lock) and time.monotonic() < end:
            time.sleep(0.02)


def _is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["measured", "started", "stopped"], "default": "measured"},
            "run": {"type": "path"},
            "nodes": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                },
            },
            "command": {"type": "list", "elements": "str", "default": ["ping"]},
            "interval": {"type": "float", "default": 0.2},
            "count": {"type": "int", "default": 25},
            "limit": {"type": "int", "default": 3600},
            "folder": {"type": "path"},
            "windows": {"type": "dict", "default": {}},
        },
        required_if=[("state", "stopped", ["folder"])],
        supports_check_mode=True,
    )
    state = module.params["state"]
    for name, least in (("interval", 0.002), ("count", 1), ("limit", 1)):
        if not module.params[name] >= least:
            module.fail_json(msg=f"{name} is {module.params[name]}, but must be at least {least}")
    odd = [node["address"] for node in module.params["nodes"] if node["address"].startswith("-")]
    if odd:
        module.fail_json(msg=f"nodes: {odd[0]!r} is no address")
    if module.check_mode:
        module.exit_json(changed=False, nodes=[], folder="")
    try:
        if state == "started":
            module.exit_json(changed=True, folder=start(module))
        entries = measure(module) if state == "measured" else stop(module)
    except OSError as error:
        module.fail_json(msg=f"ping cannot be run: {error}")
    module.exit_json(changed=state == "stopped", nodes=entries)


if __name__ == "__main__":
    main()
