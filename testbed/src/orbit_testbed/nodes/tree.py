# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file systems made from this machine's busybox and dropbear: what memory and disk images share."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from orbit_frisbee.whole import drafted
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.host import program

#: First process of every system. busybox' halt, poweroff and reboot signal process 1 with USR1, USR2 and
#: TERM; the exit status tells the node's power supply what was meant: 0 switch off, 3 start again.
INIT = """\
#!/bin/sh
# Process 1: starts the SSH server and obeys halt, poweroff and reboot.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
trap 'sync; exit 0' USR1 USR2
trap 'sync; exit 3' TERM
read -r cmdline < /proc/cmdline
case " $cmdline " in
*" orbit.fault=ssh-refuse "*) ;;
*" orbit.fault=ssh-hang "*) nc -ll -p 22 -e sleep 2147483647 & ;;
*) dropbear -F -E -s -p 22 -r /etc/dropbear/hostkey & ;;
esac
for file in /.omf_imageid /etc/orbit-image; do
    [ ! -r "$file" ] || read -r name < "$file"
done
echo "$name: up"
wait
sleep 2147483647 &
wait
"""


@cache
def shared_objects(path: Path) -> tuple[Path, ...]:
    """Return the shared objects, interpreter included, that an ELF file needs; () when it is static."""
    result = subprocess.run(
        [program("ldd"), str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if result.returncode != 0:
        return ()
    found = []
    for line in result.stdout.splitlines():
        words = line.split()
        if "not found" in line:
            raise TestbedError(f"{path} needs {words[0]}, which this machine does not have")
        target = words[2] if len(words) > 2 and words[1] == "=>" else words[0] if words else ""
        if target.startswith("/"):
            found.append(Path(target))
    return tuple(found)


def copy_file(source: Path, target: Path, mode: int | None = None) -> None:
    """Copy a file with its time stamps, making folders as needed; ``mode`` replaces its permissions."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    if mode is not None:
        target.chmod(mode)


def write_file(target: Path, text: str, mode: int = 0o644) -> None:
    """Write a text file, making folders as needed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)


@cache
def applets() -> tuple[str, ...]:
    """Return the names busybox answers to."""
    result = subprocess.run(
        [program("busybox"), "--list"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return tuple(sorted(name for name in result.stdout.split() if name != "busybox"))


def base_inputs() -> list[Path]:
    """Return the files of this machine that :func:`make_base` copies."""
    busybox, dropbear = Path(program("busybox")), Path(program("dropbear"))
    return [busybox, *shared_objects(busybox), dropbear, *shared_objects(dropbear)]


def make_base(root: Path, *, hostkey: Path, authorized_key: str) -> None:
    """Lay out a system: busybox and its applets, dropbear with its libraries, accounts and keys.

    It lets in root by the given public key only. ``root`` is made when it does not exist.
    """
    for folder in (
        "bin",
        "sbin",
        "usr/bin",
        "usr/sbin",
        "etc/dropbear",
        "root/.ssh",
        "dev",
        "proc",
        "sys",
        "tmp",
        "run",
        "mnt",
        "var/log",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    busybox = Path(program("busybox"))
    dropbear = Path(program("dropbear"))
    copy_file(busybox, root / "bin/busybox", 0o755)
    copy_file(dropbear, root / "usr/sbin/dropbear", 0o755)
    for library in (*shared_objects(busybox), *shared_objects(dropbear)):
        copy_file(library, root / str(library).lstrip("/"), 0o755)
    for name in applets():
        (root / "bin" / name).symlink_to("busybox")
    write_file(root / "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    write_file(root / "etc/group", "root:x:0:\n")
    write_file(root / "etc/shadow", "root:*:19000:0:99999:7:::\n", 0o600)
    write_file(root / "etc/shells", "/bin/sh\n")
    write_file(root / "sbin/init", INIT, 0o755)
    copy_file(hostkey, root / "etc/dropbear/hostkey", 0o600)
    write_file(root / "root/.ssh/authorized_keys", authorized_key.strip() + "\n", 0o600)
    (root / "root/.ssh").chmod(0o700)
    (root / "root").chmod(0o700)
    (root / "tmp").chmod(0o1777)


def digest(files: Iterable[Path], *texts: str) -> str:
    """Return a short name for the content of files and texts."""
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file}\0".encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    for text in texts:
        total.update(hashlib.sha256(text.encode()).digest())
    return total.hexdigest()[:16]


def cached(folder: Path, name: str, build: Callable[[Path], None]) -> Path:
    """Return ``folder/name``; when it does not exist yet, have it built under another name first.

    So what bears the name is always complete, also when a build is interrupted or two run at once.
    """
    target = folder / name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{name}.{os.urandom(8).hex()}"
    try:
        build(draft)
        try:
            draft.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        remove(draft)
    return target


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds; nothing happens when it does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_hostkey(path: Path) -> Path:
    """Make a dropbear host key unless there is one; return its path."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with drafted(path) as draft:
            _make_key([program("dropbearkey"), "-t", "ed25519", "-f", str(draft)])
    return path


def make_login_key(path: Path) -> str:
    """Make the SSH key pair of a testbed unless there is one; return the public key's line."""
    public = path.with_name(path.name + ".pub")
    if not (path.exists() and public.exists()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        _make_key(
            [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "orbit-testbed", "-f", str(path)]
        )
    return public.read_text().strip()


def _make_key(command: list[str]) -> None:
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    if result.returncode != 0:
        raise TestbedError(f"{Path(command[0]).name} cannot make a key: {result.stderr.strip()}")
