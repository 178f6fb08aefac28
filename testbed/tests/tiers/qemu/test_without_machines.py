# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""QMP, QEMU's command line, and where the packages come from: without a machine."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from orbit_services.power.base import Action, PowerState
from orbit_testbed.bed.power import MachinePower
from orbit_testbed.nodes import host
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.faults import Fault
from orbit_testbed.nodes.layout import Settings, State
from orbit_testbed.tiers.qemu import (
    machine as qemu_machine,
    network as qemu_network,
    packages as qemu_packages,
)
from orbit_testbed.tiers.qemu.qmp import Qmp, QmpError

GREETING = {"QMP": {"version": {}, "capabilities": []}}


def talk(script: Callable[[str], list[object]], use: Callable[[Qmp], Awaitable[None]]) -> None:
    """Connect to something that greets like QEMU and answers each command as ``script`` says; [] hangs up."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)

        async def serve() -> None:
            writer.write(json.dumps(GREETING).encode() + b"\r\n")
            while line := await reader.readline():
                answers = script(json.loads(line)["execute"])
                if not answers:
                    break
                for answer in answers:
                    writer.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")
            writer.close()

        task = asyncio.get_running_loop().create_task(serve())
        monitor = await Qmp.open(ours)
        try:
            await use(monitor)
        finally:
            monitor.close()
            await task

    asyncio.run(asyncio.wait_for(main(), 30))


def test_events_are_no_answers() -> None:
    def script(command: str) -> list[object]:
        return [{"event": "RESET"}, {"return": {"done": command}}]

    async def use(monitor: Qmp) -> None:
        assert await monitor.execute("query-status") == {"done": "query-status"}
        both = await asyncio.gather(monitor.execute("one"), monitor.execute("two"))
        assert both == [{"done": "one"}, {"done": "two"}]

    talk(script, use)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([{"error": {"class": "GenericError", "desc": "no such thing"}}], "cont: no such thing"),
        ([], "QEMU is gone"),
        ([b"what?\n"], "does not speak QMP"),
    ],
)
def test_no_answer_and_bad_answers(answers: list[object], reason: str) -> None:
    def script(command: str) -> list[object]:
        return [{"return": {}}] if command == "qmp_capabilities" else answers

    async def use(monitor: Qmp) -> None:
        with pytest.raises(QmpError, match=reason):
            await monitor.execute("cont")

    talk(script, use)


def test_the_command_line_takes_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_machine, "program", lambda name: f"/usr/bin/{name}")
    settings = Settings(tier="qemu", columns=1, rows=1)
    node = settings.nodes[0]
    chassis = qemu_machine.Chassis(settings, State(tmp_path / "a,b=c"), "tcg")

    def line(fault: str) -> str:
        return " ".join(qemu_machine.command_line(node, chassis, Fault.parse(fault), 7))

    sound = line("none")
    assert f"file={tmp_path}/a,,b=c/nodes/node1-1/disk.raw,format=raw" in sound
    assert f"mac={node.mac},bootindex=1 " in sound
    assert "romfile" not in sound
    assert f"mac={node.mac},romfile= " in line("boot-disk")
    assert qemu_machine.NO_SSH_TAG in line("ssh-refuse")
    assert qemu_machine.NO_SSH_TAG not in sound
    assert "pflash" not in sound


def test_machines_have_their_firmware_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_machine, "program", lambda name: f"/usr/bin/{name}")
    settings = Settings(tier="qemu", columns=3, rows=1, firmware=("bios", "uefi"))
    chassis = qemu_machine.Chassis(settings, State(tmp_path), "tcg")
    lines = [" ".join(qemu_machine.command_line(node, chassis, Fault(), 7)) for node in settings.nodes]
    assert [line.count("if=pflash") for line in lines] == [0, 2, 0]
    program, variables = chassis.state.uefi(settings.nodes[1])
    assert f"unit=0,format=raw,readonly=on,file={program} " in lines[1]
    assert f"unit=1,format=raw,file={variables} " in lines[1]
    assert Settings.from_json(settings.to_json()) == settings


def test_a_boot_loader_for_each_firmware(tmp_path: Path) -> None:
    settings = Settings(tier="qemu", columns=1, rows=1)
    options = qemu_network.dnsmasq_options(settings, State(tmp_path))
    assert "--dhcp-match=set:uefi,option:client-arch,7" in options
    assert "--dhcp-boot=tag:uefi,grubnetx64.efi" in options
    assert "--dhcp-boot=tag:!uefi,pxelinux.0" in options


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tier": "cloud"}, "'cloud': not one of light, qemu"),
        ({"tier": "qemu", "loss": 1.0}, "only light nodes can lose datagrams"),
        ({"tier": "qemu", "columns": 17, "rows": 1}, "17 virtual machines"),
        ({"tier": "qemu", "firmware": ("bios", "coreboot")}, "'bios,coreboot': not bios or uefi"),
        ({"firmware": ("uefi",)}, "only virtual machines have a choice"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, object], reason: str) -> None:
    with pytest.raises(TestbedError, match=reason):
        Settings(**change)  # type: ignore[arg-type]


def test_settings_of_before_the_tiers_are_light() -> None:
    document = json.loads(Settings().to_json())
    del document["tier"]
    del document["firmware"]
    assert Settings.from_json(json.dumps(document)) == Settings()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole search path, with an empty package cache beside it."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setattr(host, "search_path", lambda: str(folder))
    monkeypatch.setenv("ORBIT_TESTBED_PACKAGES", str(tmp_path / "packages"))
    return folder


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_what_is_missing_is_named_with_the_line_that_installs_it(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_packages, "FILES", {"/nonexistent/pxelinux.0": "pxelinux"})
    for name in ("apt-get", "apt-cache", "dpkg-deb", "mcopy", "mmd", "mkfs.fat"):
        script(tools / name, "exit 1")
    with pytest.raises(TestbedError) as caught:
        qemu_packages.require()
    assert caught.value.message.endswith("qemu-system-x86_64, syslinux, /nonexistent/pxelinux.0")
    assert caught.value.remedy.endswith("--no-install-recommends pxelinux qemu-system-x86 syslinux")


def test_a_dependency_is_found_by_its_name(tools: Path) -> None:
    script(
        tools / "apt-cache",
        "echo python3-minimal; echo '  PreDepends: python3.11-minimal'; echo '  Depends: dpkg'",
    )
    assert qemu_packages.dependency("python3-minimal", r"python3\.[0-9]+-minimal") == "python3.11-minimal"
    with pytest.raises(TestbedError, match="does not depend on any linux"):
        qemu_packages.dependency("python3-minimal", "linux.*")


def test_packages_are_fetched_once(tools: Path, tmp_path: Path) -> None:
    script(
        tools / "apt-get",
        """case "$*" in
*--print-uris*) echo "'http://host/pool/thing_1.0-1_amd64.deb' thing_1.0-1_amd64.deb 123 SHA256:00" ;;
*) echo again >> "$0.log"; echo content > thing_1.0-1_amd64.deb ;;
esac""",
    )
    script(tools / "dpkg-deb", 'mkdir "$3" && cp "$2" "$3/file"')
    for _ in range(2):
        found = qemu_packages.fetch(["thing"])
        assert (found["thing"] / "file").read_text() == "content\n"
    assert found["thing"] == tmp_path / "packages/thing_1.0-1_amd64"
    assert (tools / "apt-get.log").read_text() == "again\n"
    with pytest.raises(TestbedError, match="apt knows no package other"):
        qemu_packages.fetch(["other"])


def test_apt_that_does_not_work_says_why(tools: Path) -> None:
    script(tools / "apt-get", "echo 'E: Unable to locate package thing' >&2; exit 100")
    with pytest.raises(TestbedError, match="Unable to locate package thing") as caught:
        qemu_packages.fetch(["thing"])
    assert "apt-get update" in caught.value.remedy


def test_a_machine_that_cannot_be_started_stays_off_and_says_why(
    packages: qemu_packages.Packages, tmp_path: Path
) -> None:
    settings = Settings(tier="qemu", columns=1, rows=1)
    state = State(tmp_path)
    chassis = qemu_machine.Chassis(settings, state, "tcg")
    state.disk(settings.nodes[0]).parent.mkdir(parents=True)  # but no disk

    async def main() -> None:
        machine = qemu_machine.QemuMachine(settings.nodes[0], chassis)
        power = MachinePower({"node1-1": machine})
        reason = (await power.switch(Action.ON, ["node1-1"]))["node1-1"]
        assert reason is not None
        assert re.match(r"QEMU does not start: .*disk\.raw", reason)
        assert not machine.powered
        assert not machine.running
        assert await power.states(["node1-1"]) == {"node1-1": PowerState.OFF}
        assert await power.switch(Action.OFF, ["node1-1", "node9-9"]) == {
            "node1-1": None,
            "node9-9": "no such node",
        }

    asyncio.run(asyncio.wait_for(main(), 60))
