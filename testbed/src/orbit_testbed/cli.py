# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``orbit-testbed``: the embedded testbed on the command line."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from orbit_frisbee.ndz import manifest
from orbit_services.access import add_access_options
from orbit_testbed import servicefaults as service_faults
from orbit_testbed.bed import control, lifecycle
from orbit_testbed.faultkinds import describe
from orbit_testbed.nodes import faults, host
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.layout import (
    SERVICE_PORTS,
    SSH_PORT,
    TIERS,
    Settings,
    State,
    default_home,
    parse_delay,
    parse_grid,
)
from orbit_testbed.tiers.base import tier as tier_of


def _say(line: str) -> None:
    print(line, flush=True)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orbit-testbed",
        description="Run a testbed on this machine: nodes that PXE boot, and their services.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument(
            "--name", default="demo", help="the testbed's name, and domain of its nodes (demo)"
        )
        command.add_argument(
            "--dir",
            type=Path,
            metavar="D",
            help="its state folder (default: below ORBIT_TESTBED_HOME or the XDG state folder)",
        )
        return command

    up = add("up", "bring a testbed up, replacing one of the same name")
    up.add_argument(
        "--number", type=int, default=77, metavar="N", help="second octet of all its addresses (77)"
    )
    up.add_argument(
        "--tier",
        choices=TIERS,
        default=Settings.tier,
        help="what nodes are: containers, or virtual machines that boot by real PXE (light)",
    )
    up.add_argument("--nodes", default="4x2", metavar="COLUMNSxROWS", help="its nodes (4x2)")
    up.add_argument(
        "--bandwidth",
        type=int,
        default=Settings.bandwidth,
        metavar="BIT/S",
        help=f"rate of one image stream, 0: as fast as its clients can ({Settings.bandwidth})",
    )
    up.add_argument(
        "--link",
        type=int,
        default=Settings.link,
        metavar="BIT/S",
        help="rate of each node's cable, both ways, 0: no limit; a stream goes to its own clients then (0)",
    )
    up.add_argument(
        "--boot-delay", default="0", metavar="A-B", help="seconds of a node's power-on self test (0)"
    )
    up.add_argument(
        "--loss", type=float, default=0.0, metavar="PERCENT", help="datagrams that nodes lose (0)"
    )
    up.add_argument(
        "--firmware",
        default="bios",
        metavar="KIND[,KIND]",
        help="what virtual machines start by: bios, uefi, or both in turn (bios)",
    )
    add_access_options(up)
    up.add_argument("--keep", action="store_true", help="keep one that is up already, if it is the same")
    down = add("down", "stop everything; fine when it is down already")
    down.add_argument(
        "--purge", action="store_true", help="also remove the state folder with images and logs"
    )
    status = add("status", "show the nodes: power, link, boots, fault")
    status.add_argument("--json", action="store_true", help="as one JSON document")
    run = add("exec", "run a command inside the testbed's namespaces")
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD")
    inventory = add("inventory", "print the path of the Ansible inventory")
    inventory.add_argument("--show", action="store_true", help="print the inventory itself")
    ssh = add("ssh", "log in to a node")
    ssh.add_argument("node", metavar="NODE")
    ssh.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD")
    console = add("console", "print a node's console log")
    console.add_argument("node", metavar="NODE")
    console.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    add("images", "list the disk images")
    fault = add("fault", "order a fault for nodes, from their next power on, or for a service")
    fault.formatter_class = argparse.RawDescriptionHelpFormatter
    fault.epilog = (
        f"faults of nodes, KIND[=VALUE][,once]:\n{describe(faults.KINDS)}\n\n"
        f"faults of services, KIND[=VALUE]:\n{describe(service_faults.KINDS)}\n\n"
        "What dies, hangs, is unplugged or killed at so many MB does so when the node has written as much,\n"
        "also on a node that runs already, and with once, one time. Others hold from the next power on,\n"
        "with once for one power cycle."
    )
    fault.add_argument("nodes", nargs="*", metavar="NODE", help="nodes to hit, or all (none with --service)")
    fault.add_argument("fault", metavar="FAULT", help="the fault; none ends it")
    fault.add_argument("--service", choices=(*service_faults.SERVICES, "all"), help="the service to hit")
    fault.add_argument("--method", metavar="NAME", help="hit only calls of this method of the service")
    fault.add_argument("--count", type=int, metavar="N", help="hit only so many calls (or streams)")
    memory = add("memory-image", "make the memory image of virtual machines: kernel and initramfs")
    memory.add_argument(
        "--output", type=Path, metavar="D", help="put both files into this folder, too (default: cache alone)"
    )
    summary = "say what this machine lacks, and the line that installs it"
    doctor = commands.add_parser("doctor", help=summary, description=summary)
    doctor.add_argument("--tier", choices=TIERS, default=Settings.tier, help="for nodes of this kind (light)")
    return parser


def _up(options: argparse.Namespace, state: State) -> int:
    columns, rows = parse_grid(options.nodes)
    settings = Settings(
        name=options.name,
        number=options.number,
        columns=columns,
        rows=rows,
        bandwidth=options.bandwidth,
        link=options.link,
        boot_delay=parse_delay(options.boot_delay),
        loss=options.loss,
        tier=options.tier,
        firmware=tuple(options.firmware.split(",")),
        allow=tuple(options.allow),
        known_as=tuple(options.known_as),
        **{
            name: None if path is None else str(path.absolute())
            for name, path in (
                ("token_file", options.token_file),
                ("tls_cert", options.tls_cert),
                ("tls_key", options.tls_key),
            )
        },
    )
    lifecycle.up(settings, state, _say, keep=options.keep)
    _say(
        f"services  {settings.service_url()} (and ports "
        f"{', '.join(str(port) for name, port in SERVICE_PORTS.items() if name != 'A')} for other dialects)"
    )
    _say(
        f"ssh       orbit-testbed ssh --name {settings.name} {settings.nodes[0].name}   "
        f"({settings.nodes[0].outside_ip} port {SSH_PORT})"
    )
    _say(f"inventory {state.inventory}")
    return 0


def _status(options: argparse.Namespace, state: State) -> int:
    hub = lifecycle.running_hub(state)
    if hub is None:
        if options.json:
            print(json.dumps({"up": False, "name": options.name, "state": str(state.root)}))
        else:
            print(f"testbed {options.name}: down")
        return 3
    settings = lifecycle.running_settings(state)
    answer = control.ask(state.root, {"do": "status"})
    if options.json:
        print(
            json.dumps(
                {
                    "up": True,
                    "name": settings.name,
                    "domain": settings.domain,
                    "number": settings.number,
                    "state": str(state.root),
                    "hub": hub.pid,
                    "services": {name: settings.service_url(name) for name in SERVICE_PORTS},
                    **answer,
                },
                indent=1,
            )
        )
        return 0
    nodes = answer["nodes"]
    on = sum(node["power"] == "on" for node in nodes)
    url = settings.service_url()
    print(f"testbed {settings.name}: up, {len(nodes)} nodes, {on} on, services {url}")
    print(f"{'NODE':<12} {'ADDRESS':<16} {'POWER':<6} {'LINK':<16} {'BOOTS':>5}  FAULT")
    for node in nodes:
        fault = "-" if node["fault"] == "none" else node["fault"]
        link = node["link"] or "-"
        print(
            f"{node['name']:<12} {node['ssh']:<16} {node['power']:<6} {link:<16} {node['boots']:>5}  {fault}"
        )
    for service, words in answer["service_faults"].items():
        print(f"{service}: {words}")
    return 0


def _without_dashes(argv: list[str]) -> list[str]:
    return argv[1:] if argv[:1] == ["--"] else argv


def _exec(options: argparse.Namespace, state: State) -> int:
    command = _without_dashes(options.argv)
    if not command:
        raise TestbedError("exec: no command given", "orbit-testbed exec -- ip -brief address")
    return _become([*lifecycle.command_prefix(state), *command])


def _ssh(options: argparse.Namespace, state: State) -> int:
    return _become([*lifecycle.ssh_command(state, options.node), *_without_dashes(options.argv)])


def _become(command: list[str]) -> int:
    sys.stdout.flush()
    os.execv(command[0], command)


def _console(options: argparse.Namespace, state: State) -> int:
    if not state.settings.exists():
        raise TestbedError(f"there is no testbed in {state.root}", "orbit-testbed up")
    path = state.console(Settings.from_json(state.settings.read_text()).node(options.node))
    if options.follow:
        return _become(["/usr/bin/tail", "-n", "+1", "-F", str(path)])
    sys.stdout.write(_plain(path.read_text(errors="replace")))
    return 0


def _plain(text: str) -> str:
    """Return a console's text without what firmware sends to terminals: colours, clearing, overwriting."""
    # To the start of a line, or of an empty screen: this is where lines end that end in no other way.
    text = re.sub(r"\x1b(?:c|\[2J|\[[0-9]+;0*1H)", "\n", text)
    text = re.sub(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[A-Za-z])|\r", "", text)
    text = re.sub(r" *\x08[ \x08]*", "\n", text)
    return re.sub(r"\n(?: *\n){2,}", "\n\n", text)


def _memory_image(options: argparse.Namespace, state: State) -> int:
    for name, path in tier_of("qemu").memory_files(state).items():
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if options.output is not None:
            options.output.mkdir(parents=True, exist_ok=True)
            path = Path(shutil.copyfile(path, options.output / name))
        print(f"{name:<10} {path.stat().st_size:>10} bytes  sha256 {digest}  {path}")
    return 0


def _inventory(options: argparse.Namespace, state: State) -> int:
    if not state.inventory.exists():
        raise TestbedError(f"there is no testbed in {state.root}", "orbit-testbed up")
    print(state.inventory.read_text().rstrip() if options.show else state.inventory)
    return 0


def _images(options: argparse.Namespace, state: State) -> int:
    found = sorted(state.images.glob("*")) if state.images.exists() else []
    found = [path for path in found if path.suffix != manifest.SUFFIX]
    for path in found:
        print(f"{path.name:<24} {path.stat().st_size:>12} bytes")
    if not found:
        print(f"no images in {state.images}")
    return 0


def _fault(options: argparse.Namespace, state: State) -> int:
    lifecycle.running_settings(state)
    request: dict[str, object] = {"do": "fault", "fault": options.fault}
    if options.service is not None:
        if options.nodes:
            raise TestbedError("fault: both nodes and --service", "order one after the other")
        request.update(service=options.service, method=options.method, count=options.count)
    else:
        if not options.nodes:
            raise TestbedError("fault: no node named", "fault NODE... FAULT, or fault --service S FAULT")
        if options.method is not None or options.count is not None:
            raise TestbedError("fault: --method and --count belong to --service")
        request.update(nodes=options.nodes)
    answer = control.ask(state.root, request)
    for name in answer["hit"]:
        print(f"{name}: {answer['fault']}")
    return 0


def _down(options: argparse.Namespace, state: State) -> int:
    lifecycle.down(state, _say, purge=options.purge)
    return 0


def _doctor(tier: str) -> int:
    missing = {name: host.PROGRAMS[name] for name in host.missing_programs()}
    missing.update(tier_of(tier).missing())
    if missing:
        print(f"missing programs: {', '.join(missing)}")
        print(f"  install them: {host.apt_line(list(missing.values()))}")
        return 1
    try:
        tier_of(tier).require()
        isolation = host.find_isolation()
    except TestbedError as error:
        print(error)
        return 1
    print("programs: complete")
    print(f"namespaces: {'with' if isolation.user_namespace else 'without'} a user namespace")
    words = tier_of(tier).describe()
    if words is not None:
        print(words)
    return 0


_COMMANDS = {
    "up": _up,
    "down": _down,
    "status": _status,
    "exec": _exec,
    "inventory": _inventory,
    "ssh": _ssh,
    "console": _console,
    "images": _images,
    "fault": _fault,
    "memory-image": _memory_image,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``orbit-testbed``; returns 0 done, 1 failed, 2 usage, 3 ``status`` of a testbed that is down."""
    options = _build_parser().parse_args(argv)
    try:
        if options.command == "doctor":
            return _doctor(options.tier)
        state = lifecycle.state_of(Settings(name=options.name).name, options.dir, default_home())
        return _COMMANDS[options.command](options, state)
    except TestbedError as error:
        print(f"orbit-testbed: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("orbit-testbed: interrupted", file=sys.stderr)
    return 1
