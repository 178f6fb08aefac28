# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Initramfs, kernel modules and disk images: what they hold, and that they come out the same each time."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from orbit_testbed.nodes import diskimage, tree
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.memoryimage import MARKER, RUNTIME_AT
from orbit_testbed.tiers.qemu import cpio as qemu_cpio, disk as qemu_disk, memory as qemu_memory
from orbit_testbed.tiers.qemu.packages import Packages

#: Size limit of the memory image in bytes, packed, without the kernel.
LIMIT = 12_000_000


def unpack(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Return name -> mode, content, device of a newc archive; fail when it is not sound."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    place = 0
    while True:
        assert archive[place : place + 6] == b"070701"
        fields = [int(archive[place + 6 + 8 * i : place + 14 + 8 * i], 16) for i in range(13)]
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, length, check = fields
        assert (uid, gid, mtime, check) == (0, 0, 0, 0)
        name = archive[place + 110 : place + 110 + length]
        assert name.endswith(b"\0")
        place += 110 + length
        place += -place % 4
        content = archive[place : place + size]
        assert len(content) == size
        place += size
        place += -place % 4
        if name == b"TRAILER!!!\0":
            assert place == len(archive)
            return found
        found[name[:-1].decode()] = (mode, content, (major, minor))


names = st.text(st.characters(categories=("Ll", "Nd")), min_size=1, max_size=9)


@settings(max_examples=40, deadline=None)
@given(
    files=st.dictionaries(names, st.binary(max_size=300), max_size=6), mode=st.sampled_from((0o600, 0o755))
)
def test_an_archive_holds_what_was_put_in(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], mode: int
) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "folder").mkdir()
    for name, content in files.items():
        path = root / "folder" / name
        path.write_bytes(content)
        path.chmod(mode)
    (root / "link").symlink_to("folder/target")
    archive = qemu_cpio.archive(root, {"console": (5, 1)})
    found = unpack(archive)
    assert list(found) == sorted(found)
    assert found.pop("console") == (stat.S_IFCHR | 0o600, b"", (5, 1))
    assert found.pop("link") == (stat.S_IFLNK | 0o777, b"folder/target", (0, 0))
    assert stat.S_ISDIR(found.pop("folder")[0])
    assert found == {
        f"folder/{name}": (stat.S_IFREG | mode, content, (0, 0)) for name, content in files.items()
    }
    for path in root.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert qemu_cpio.archive(root, {"console": (5, 1)}) == archive


def test_a_pipe_does_not_belong_into_an_archive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TestbedError, match="pipe: neither file, folder nor symbolic link"):
        qemu_cpio.archive(tmp_path)


def fake_module(folder: Path, name: str, depends: str) -> None:
    (folder / f"{name}.ko").write_bytes(b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0")


def test_modules_are_loaded_after_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "modules.builtin").write_text(
        "kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio-mmio.ko\n"
    )
    fake_module(tmp_path, "virtio_net", "net-failover,virtio,virtio_mmio")
    fake_module(tmp_path, "net_failover", "failover")
    fake_module(tmp_path, "failover", "")
    fake_module(tmp_path, "virtio", "")
    order = qemu_memory.module_order(tmp_path, ("virtio_net", "ext4", "virtio"))
    assert [path.name for path in order] == ["failover.ko", "net_failover.ko", "virtio.ko", "virtio_net.ko"]
    with pytest.raises(TestbedError, match="no kernel module virtio_blk"):
        qemu_memory.module_order(tmp_path, ("virtio_blk",))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("keys")
    return tree.make_hostkey(folder / "memory"), tree.make_login_key(folder / "id_ed25519")


def test_memory_image(packages: Packages, keys: tuple[Path, str], tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.append(
            qemu_memory.build(tmp_path / name, packages, hostkey=keys[0], authorized_key=keys[1]).initramfs
        )
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in made}
    assert len(digests) == 1, "the same input made different images"
    assert made[0].name == made[1].name
    assert made[0].stat().st_size < LIMIT


def test_what_is_in_the_memory_image(packages: Packages, keys: tuple[Path, str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    qemu_memory.make_memory_system(root, packages, hostkey=keys[0], authorized_key=keys[1])
    found = unpack(qemu_cpio.archive(root))
    assert found[".omf_imageid"][1].decode() == MARKER + "\n"
    assert found["root/.ssh/authorized_keys"] == (stat.S_IFREG | 0o600, f"{keys[1]}\n".encode(), (0, 0))
    assert found["etc/shadow"][1].startswith(b"root:*:"), "root has a password"
    assert found["usr/lib/modules/order"][1].split()[-1] == b"virtio_blk.ko"
    library = f"{RUNTIME_AT}/lib/{packages.interpreter.name}"
    # Imported when the client starts, and inside functions only.
    for name in ("orbit_frisbee/frisbee/client_cli.pyc", "socket.pyc", "hashlib.pyc", "json/__init__.pyc"):
        assert f"{library}/{name}" in found
    assert not [name for name in found if "libcrypto" in name or name.endswith(".py")]
    assert str(tmp_path).encode() not in b"".join(content for _, content, _ in found.values())


def test_disk_image(packages: Packages, keys: tuple[Path, str], tmp_path: Path) -> None:
    recipe = qemu_disk.RECIPES[0]
    one, two, back, packed = (tmp_path / name for name in ("one.raw", "two.raw", "back.raw", "image.ndz"))
    for disk in (one, two):
        qemu_disk.make_raw(disk, recipe, packages, hostkey=keys[0], authorized_key=keys[1])
    assert one.read_bytes() == two.read_bytes()
    sector = one.read_bytes()[:512]
    assert sector[446] == 0x80
    assert sector[510:] == b"\x55\xaa"
    tool = [sys.executable, "-m"]
    subprocess.run([*tool, "orbit_frisbee.ndz.zip_cli", str(one), str(packed)], check=True, timeout=60)
    back.write_bytes(b"")
    os.truncate(back, one.stat().st_size)
    subprocess.run(
        [*tool, "orbit_frisbee.ndz.unzip_cli", str(packed), str(back)],
        check=True,
        timeout=60,
        env={**os.environ, "ORBIT_TESTBED_DISK": "1"},
    )
    for name in (
        *("vmlinuz", "ldlinux.sys", "initrd", "syslinux.cfg", "ballast"),
        *("EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grub.cfg"),
    ):
        contents = [
            subprocess.run(
                ["mcopy", "-i", f"{disk}@@{qemu_disk.START * diskimage.SECTOR}", f"::{name}", "-"],
                check=True,
                capture_output=True,
                timeout=60,
                env={**os.environ, "MTOOLS_SKIP_CHECK": "1"},
            ).stdout
            for disk in (one, back)
        ]
        assert contents[0] == contents[1]
        assert contents[0]
    assert back.read_bytes()[:512] == sector
