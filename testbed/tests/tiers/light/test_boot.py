# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes of a real testbed: what they boot, and what power does to them. Each test has nodes of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from beds import Bed, eventually, make_raw

from orbit_frisbee.ndz import manifest
from orbit_testbed.bed import lifecycle
from orbit_testbed.nodes.layout import DISK_SIZE
from orbit_testbed.nodes.memoryimage import MARKER


@pytest.fixture(scope="session")
def sender_raw(store: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The first 64 MiB of a disk that has the image sender.ndz."""
    disk = tmp_path_factory.mktemp("sender") / "disk.raw"
    make_raw(store, disk)
    return disk.read_bytes()


def put_on_disk(bed: Bed, node: str, content: bytes) -> None:
    with bed.state.disk(bed.settings.node(node)).open("r+b") as disk:
        disk.write(content)


def host_key(bed: Bed, node_name: str) -> str:
    address = bed.settings.node(node_name).outside_ip
    result = subprocess.run(
        ["ssh-keyscan", "-p", "2222", "-t", "ed25519", address],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return result.stdout.split()[-1]


def test_a_link_leads_to_the_memory_image(bed: Bed) -> None:
    bed.link("node1-1")
    bed.power("on", "node1-1")
    out = bed.wait_ssh(
        "node1-1", "cat /.omf_imageid; hostname; id -un; cat /sys/block/sda/size; cat /proc/cmdline"
    )
    marker, name, user, sectors, cmdline = out.splitlines()
    assert (marker, name, user) == (MARKER, "node1-1", "root")
    assert int(sectors) * 512 == DISK_SIZE
    assert f"ip={bed.settings.node('node1-1').control_ip}:{bed.settings.server_ip}:" in cmdline
    assert f"PXE: TFTP pxelinux.cfg/{bed.settings.node('node1-1').hex_ip}" in bed.console("node1-1")
    assert bed.node_status("node1-1")["link"] == "memory"
    assert bed.run("ssh", "node1-1", "--", "hostname").stdout == "node1-1\n"
    assert bed.run("console", "node1-1").stdout == bed.console("node1-1")
    without_python = bed.ssh("node1-1", "command -v python || command -v python3 || command -v perl")
    assert without_python.returncode == 127 or without_python.returncode == 1
    assert without_python.stdout == ""
    assert (
        bed.ssh(
            "node1-1", "ls -l /dev/pts && echo x > /dev/null && echo x > /tmp/f && touch /etc/f"
        ).returncode
        == 0
    )


def test_every_boot_is_another_one(bed: Bed) -> None:
    bed.link("node2-1")
    bed.power("reset", "node2-1")  # off: a reset switches it on
    boots = []
    for _ in range(3):
        boots.append(bed.wait_ssh("node2-1", "cat /proc/sys/kernel/random/boot_id").strip())
        assert (
            bed.ssh(
                "node2-1", "cat /proc/sys/kernel/random/boot_id; test ! -e /tmp/trace && touch /tmp/trace"
            ).stdout.strip()
            == boots[-1]
        ), "the boot id changes within one boot"
        bed.power("reset", "node2-1")
    assert len(set(boots)) == 3
    assert all(len(boot) == 36 for boot in boots)


def test_a_blank_disk_hangs(bed: Bed) -> None:
    bed.power("on", "node3-1")
    console = bed.wait_console("node3-1", "halted")
    assert "PXE: TFTP pxelinux.cfg/default" in console
    assert "no boot signature" in console
    assert bed.ssh("node3-1", "true").returncode == 255
    status = bed.node_status("node3-1")
    assert (status["power"], status["running"], status["link"]) == ("on", True, None)


@pytest.mark.parametrize(
    ("what", "damage", "reason"),
    [
        ("signature", {510: b"\0\0"}, "no boot signature"),
        ("active", {446: b"\0"}, "no active partition"),
        ("status", {446: b"\x37"}, "Invalid partition table"),
        ("two active", {462: b"\x80"}, "two active partitions"),
        ("type", {450: b"\x82"}, "has type 82"),
        ("start", {454: b"\xff\xff\xff\xff"}, "Invalid partition table: start"),
        ("superblock", {2048 * 512 + 1024: bytes(1024)}, "Bad magic number"),
    ],
)
def test_a_damaged_disk_hangs_and_says_why(
    bed: Bed, sender_raw: bytes, what: str, damage: dict[int, bytes], reason: str
) -> None:
    content = bytearray(sender_raw[:4_000_000])
    for place, data in damage.items():
        content[place : place + len(data)] = data
    before = len(bed.console("node4-1"))
    put_on_disk(bed, "node4-1", bytes(content))
    bed.power("reset", "node4-1")
    console = eventually(
        lambda: bed.console("node4-1")[before:] if "halted" in bed.console("node4-1")[before:] else None,
        f"node4-1 halts with a bad {what}",
    )
    assert reason in console


def check_the_disk_by_its_manifest(bed: Bed, node: str, image: str) -> None:
    """In the memory image: everything is there, nothing is asked for, and an image can be made of it."""
    tools = f"""
        cat > /tmp/manifest
        frisbee -i {bed.settings.node(node).control_ip} -m 239.1.2.3 -p 7999 \
            --manifest /tmp/manifest --resume --verify -q /dev/sda &&
        imagezip /dev/sda - > /tmp/again.ndz && imagezip --manifest /tmp/again.ndz - > /tmp/again &&
        imageunzip /tmp/again.ndz /dev/null
        status=$?; rm /tmp/again.ndz; exit $status"""
    with manifest.path_of(bed.state.images / image).open("rb") as known:
        done = subprocess.run(
            [*lifecycle.ssh_command(bed.state, node), tools],
            stdin=known,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    chunks = (bed.state.images / image).stat().st_size >> 20
    assert f"Kept {chunks} of {chunks} chunks\n" in done.stderr
    assert "(0 actual)\n" in done.stderr


def test_an_image_is_written_by_multicast_and_booted(bed: Bed) -> None:
    nodes = {"node1-2": "sender.ndz", "node2-2": "receiver.ndz"}
    bed.link(*nodes)
    clients = {}
    for node, image in nodes.items():
        bed.power("on", node)
        address, port = bed.call("frisbee/getAddress", img=image).split(":")
        bed.wait_ssh(node)
        control_ip = bed.settings.node(node).control_ip
        clients[node] = subprocess.Popen(
            [
                *lifecycle.ssh_command(bed.state, node),
                f"frisbee -i {control_ip} -m {address} -p {port} /dev/sda",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    keys = {host_key(bed, "node1-2")}
    for node, client in clients.items():
        out, _ = client.communicate(timeout=60)
        assert client.returncode == 0, out
        assert "Wrote " in out, f"{node}: {out}"
    for node, image in nodes.items():
        check_the_disk_by_its_manifest(bed, node, image)
    bed.unlink(*nodes)
    for node, image in nodes.items():
        assert bed.call("frisbee/stop", img=image) == "OK"
        bed.power("reset", node)
    for node, image in nodes.items():
        assert bed.wait_ssh(node, "cat /etc/orbit-image; test ! -e /.omf_imageid").strip() == image
        assert "Booting from local disk" in bed.console(node)
        keys.add(host_key(bed, node))
    assert len(keys) == 3, "each system has a host key of its own"


def test_power_off_is_silence(bed: Bed, sender_raw: bytes) -> None:
    put_on_disk(bed, "node3-2", sender_raw)
    bed.power("on", "node3-2")
    bed.wait_ssh("node3-2")
    ssh, *options = lifecycle.ssh_command(bed.state, "node3-2")
    impatient = [
        ssh,
        "-o",
        "LogLevel=INFO",
        "-o",
        "ServerAliveInterval=1",
        "-o",
        "ServerAliveCountMax=2",
        "-o",
        "ConnectTimeout=1",
        *options,
    ]
    session = subprocess.Popen(
        [*impatient, "echo started; sleep 1000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert session.stdout is not None
        assert session.stdout.readline() == "started\n"
        bed.power("offHard", "node3-2")
        assert bed.node_status("node3-2")["power"] == "off"
        _, errors = session.communicate(timeout=180)
        assert session.returncode == 255
        assert "not responding" in errors, "the connection was closed, not silent"
    finally:
        session.kill()
        session.wait()
    assert (
        subprocess.run([*impatient, "true"], capture_output=True, timeout=30, check=False).returncode == 255
    )
    bed.power("on", "node3-2")
    assert bed.wait_ssh("node3-2", "cat /etc/orbit-image") == "sender.ndz\n"


def test_systems_switch_off_and_restart_by_themselves(bed: Bed, sender_raw: bytes) -> None:
    put_on_disk(bed, "node4-2", sender_raw)
    bed.power("on", "node4-2")
    boot = bed.wait_ssh("node4-2", "cat /proc/sys/kernel/random/boot_id")
    bed.ssh("node4-2", "reboot")
    eventually(lambda: bed.node_status("node4-2")["boots"] == 2, "node4-2 has started again")
    assert bed.wait_ssh("node4-2", "cat /proc/sys/kernel/random/boot_id") != boot
    bed.power("offSoft", "node4-2")
    assert bed.node_status("node4-2")["power"] == "off"
    bed.power("on", "node4-2")
    bed.wait_ssh("node4-2")
    bed.ssh("node4-2", "poweroff")
    eventually(lambda: bed.node_status("node4-2")["power"] == "off", "node4-2 is off")


def test_pxelinux_rules(new_bed: object, bed: Bed) -> None:
    """A dangling link is no configuration; shorter names catch whole networks; a kernel must exist."""
    node = bed.settings.node("node3-1")
    config = bed.state.pxe / "other"
    config.write_text("default b\nlabel a\n  localboot 0\nlabel b\n  kernel boot/none\n")
    link = bed.state.pxe / node.hex_ip
    try:
        link.symlink_to("./nothing")
        before = bed.console("node3-1")
        bed.power("reset", "node3-1")
        eventually(
            lambda: "PXE: TFTP pxelinux.cfg/default" in bed.console("node3-1")[len(before) :],
            "default is read",
        )
        link.unlink()
        link = bed.state.pxe / node.hex_ip[:6]
        link.symlink_to("./other")
        bed.power("reset", "node3-1")
        console = bed.wait_console("node3-1", "Could not find kernel image: boot/none")
        assert f"PXE: TFTP pxelinux.cfg/{node.hex_ip[:6]}" in console
    finally:
        link.unlink(missing_ok=True)
        config.unlink()


def test_faults(bed: Bed) -> None:
    """All in turn on one node; each is effective from the next power on."""
    node = "node3-1"
    bed.link(node)

    def order(fault: str) -> int:
        result = bed.run("fault", node, fault)
        assert result.returncode == 0, result.stderr
        before = len(bed.console(node))
        bed.power("reset", node)
        return before

    def console_since(before: int, text: str) -> None:
        eventually(lambda: text in bed.console(node)[before:], f"{text} on the console of {node}")

    console_since(order("never-boot"), "self test failed")
    assert bed.node_status(node)["fault"] == "never-boot"
    console_since(order("boot-disk"), "no boot signature")
    before = order("ssh-refuse")
    console_since(before, f"{MARKER}: up")
    assert bed.ssh(node, "true").returncode == 255
    order("slow-boot=1.5")
    bed.wait_ssh(node)
    order("slow-boot=3600")
    in_self_test = re.compile(r"sleep 360\d")
    eventually(lambda: any(map(in_self_test.match, bed.processes())), "a self test that takes an hour more")
    order("none")
    bed.wait_ssh(node)
    bed.unlink(node)
    assert bed.run("fault", node, "explode").returncode == 1
    assert "node9-9" in bed.run("fault", "node9-9", "none").stderr


def test_forty_nodes_boot(new_bed: object, bed: Bed) -> None:
    import asyncio

    assert callable(new_bed)
    big: Bed = new_bed("forty")
    big.up("8x5", "--boot-delay", "0-0.3")
    assert big.call("pxe/allSetBootImage", img="memory") == "OK"
    assert big.call("cmc/allOn") == "OK"

    async def banner(address: str) -> bytes:
        while True:
            try:
                reader, writer = await asyncio.open_connection(address, 2222)
                line = await reader.readline()
                writer.close()
            except OSError:
                line = b""
            if line:
                return line
            await asyncio.sleep(0.05)

    async def all_banners() -> list[bytes]:
        return await asyncio.gather(*(banner(node.outside_ip) for node in big.settings.nodes))

    banners = asyncio.run(asyncio.wait_for(all_banners(), 60))
    assert len(banners) == 40
    assert all(line.startswith(b"SSH-2.0-dropbear") for line in banners)
    assert {node["boots"] for node in big.status()["nodes"]} == {1}


def test_losses_are_asked_for_again(new_bed: object) -> None:
    """Every node loses one datagram in twenty and still ends with the image."""
    assert callable(new_bed)
    bed: Bed = new_bed("lossy")
    bed.up("1x1", "--loss", "5")
    bed.link("node1-1")
    bed.power("on", "node1-1")
    address, port = bed.call("frisbee/getAddress", img="sender.ndz").split(":")
    control_ip = bed.settings.node("node1-1").control_ip
    out = bed.wait_ssh("node1-1", f"frisbee -i {control_ip} -m {address} -p {port} /dev/sda 2>&1", timeout=60)
    assert "Wrote " in out
    blocks = (bed.state.images / "sender.ndz").stat().st_size // 1024

    def sent_again() -> bool:
        """Whether the server's numbers show more blocks than the file has."""
        for path in bed.state.logs.glob("frisbeed-*.json"):
            if json.loads(path.read_text())["blocks_sent"] > blocks * 1.02:
                return True
        return False

    eventually(sent_again, "lost blocks are sent again")
    bed.unlink("node1-1")
    bed.power("reset", "node1-1")
    assert bed.wait_ssh("node1-1", "cat /etc/orbit-image") == "sender.ndz\n"


def test_nodes_do_without_overlayfs(new_bed: object) -> None:
    """Kernels before 5.11 refuse it in a user namespace; nodes then run a copy."""
    assert callable(new_bed)
    bed: Bed = new_bed("plain")
    bed.up("1x1")
    changed = bed.run(
        "exec", "--", "sed", "-i", "s/mount -t overlay/mount -t missing/", "/run/orbit/firmware.sh"
    )
    assert changed.returncode == 0, changed.stderr
    bed.link("node1-1")
    bed.power("on", "node1-1")
    mounts = bed.wait_ssh("node1-1", "cat /proc/mounts; frisbee -h >&2")
    assert "overlay" not in mounts
    assert bed.ssh("node1-1", "cat /.omf_imageid; touch /etc/mine").stdout == f"{MARKER}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can do without a user namespace")
def test_root_without_user_namespaces(new_bed: object, sender_raw: bytes) -> None:
    assert callable(new_bed)
    bed: Bed = new_bed("rooted")
    bed.module = [
        "-c",
        "import sys; from orbit_testbed.nodes import host\n"
        "host.find_isolation = lambda: host.Isolation(user_namespace=False)\n"
        "from orbit_testbed import cli; sys.exit(cli.main())",
    ]
    bed.up("2x1")
    bed.link("node1-1")
    put_on_disk(bed, "node2-1", sender_raw)
    for node, file in (("node1-1", "/.omf_imageid"), ("node2-1", "/etc/orbit-image")):
        bed.power("on", node)
        out = bed.wait_ssh(node, f"cat {file}; id -u; mount -t tmpfs none /mnt 2>/dev/null || echo refused")
        assert out.splitlines() == [MARKER if node == "node1-1" else "sender.ndz", "0", "refused"]
    inside = bed.run("exec", "--", "ip", "-brief", "address", "show", "orbit0")
    assert f"{bed.settings.server_ip}/16" in inside.stdout, inside.stderr
