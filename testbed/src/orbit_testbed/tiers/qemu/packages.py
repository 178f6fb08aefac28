# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the qemu tier takes from Debian: installed programs and files, and packages that are only unpacked.

Kernel and Python of the virtual machines come out of Debian packages that are fetched with
``apt-get download`` and unpacked into a cache, which needs no root and changes nothing on this machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orbit_frisbee.whole import replace_file
from orbit_testbed.nodes import host, tree
from orbit_testbed.nodes.errors import TestbedError

#: Program -> Debian package, besides those of the light tier. ``syslinux`` is Debian's mtools build.
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mkfs.fat": "dosfstools",
    "mcopy": "mtools",
    "mmd": "mtools",
    "syslinux": "syslinux",
    "apt-get": "apt",
    "apt-cache": "apt",
    "dpkg-deb": "dpkg",
}

#: File -> Debian package.
FILES = {
    "/usr/lib/PXELINUX/pxelinux.0": "pxelinux",
    "/usr/lib/syslinux/modules/bios/ldlinux.c32": "syslinux-common",
    "/usr/lib/syslinux/mbr/mbr.bin": "syslinux-common",
    "/usr/lib/ipxe/qemu/efi-virtio.rom": "ipxe-qemu",
}

#: The PXE boot loader (it needs both) and the boot code of a disk.
PXELINUX, LDLINUX, MBR = map(Path, list(FILES)[:3])

_TUN = "/dev/net/tun"

#: Says which packages in the cache are in use.
_NOTE = "current.json"
#: Seconds that fetching the packages (about 42 MB) may take.
_FETCH_TIMEOUT = 600.0


def missing() -> dict[str, str]:
    """Return what the qemu tier lacks on this machine: program or file -> Debian package."""
    path = host.search_path()
    lacking = {name: package for name, package in PROGRAMS.items() if shutil.which(name, path=path) is None}
    lacking.update({file: package for file, package in FILES.items() if not Path(file).exists()})
    return lacking


def require() -> None:
    """Raise one error that names all that is missing, with the line that installs it."""
    lacking = missing()
    if lacking:
        raise TestbedError(
            f"the qemu tier lacks: {', '.join(lacking)}", host.apt_line(list(lacking.values()))
        )


def require_tun() -> None:
    """Raise an error with the remedy when no tap device can be made, by which machines are on the bridge."""
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        sudo = "" if os.geteuid() == 0 else "sudo "
        raise TestbedError(
            f"{_TUN}: {error.strerror}",
            f"{sudo}modprobe tun && {sudo}chmod 666 {_TUN}   (in a container: --device {_TUN})",
        ) from error


def program(name: str) -> str:
    """Return the path of a program from :data:`PROGRAMS`."""
    found = shutil.which(name, path=host.search_path())
    if found is None:
        raise TestbedError(f"program {name} is missing", f"install it: {host.apt_line([PROGRAMS[name]])}")
    return found


def home() -> Path:
    """Return the folder of the unpacked packages, shared by all testbeds of this user."""
    given = os.environ.get("ORBIT_TESTBED_PACKAGES")
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "orbit-testbed" / "packages"


def _ask(command: Sequence[str]) -> str:
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
        sudo = "" if os.geteuid() == 0 else "sudo "
        raise TestbedError(f"{' '.join(command)}: {reason}", f"{sudo}apt-get update")
    return result.stdout


def dependency(package: str, pattern: str) -> str:
    """Return the one direct dependency of a Debian package whose name matches ``pattern`` completely."""
    output = _ask([program("apt-cache"), "depends", "--important", package])
    names = re.findall(r"^ *\|?(?:Pre)?Depends: (\S+)$", output, re.MULTILINE)
    for name in names:
        if re.fullmatch(pattern, name):
            return str(name)
    raise TestbedError(f"Debian package {package} does not depend on any {pattern}: {', '.join(names)}")


def _deb_names(packages: Sequence[str]) -> dict[str, str]:
    """Return the file name, which has the version in it, of each package as apt would fetch it."""
    output = _ask([program("apt-get"), "download", "--print-uris", *packages])
    files = re.findall(r"^'[^']*' (\S+\.deb) [0-9]+ ", output, re.MULTILINE)
    names = {file.partition("_")[0]: file for file in files}
    lacking = [package for package in packages if package not in names]
    if lacking:
        raise TestbedError(f"apt knows no package {', '.join(lacking)}")
    return names


def fetch(packages: Sequence[str]) -> dict[str, Path]:
    """Return the folder that each package is unpacked in, fetching those that are not in the cache."""
    cache = home()
    cache.mkdir(parents=True, exist_ok=True)
    names = _deb_names(packages)
    folders = {package: cache / names[package].removesuffix(".deb") for package in packages}
    wanted = [package for package, folder in folders.items() if not folder.exists()]
    if not wanted:
        return folders
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as drafts:
        result = subprocess.run(
            [program("apt-get"), "-q", "download", *wanted],
            cwd=drafts,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FETCH_TIMEOUT,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        for package in wanted:
            deb = Path(drafts, names[package])
            if result.returncode != 0 or not deb.exists():
                reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise TestbedError(
                    f"apt-get cannot fetch {package}: {reason}", "run apt-get update, then again"
                )
            tree.cached(cache, folders[package].name, partial(_unpack, deb))
    return folders


def _unpack(deb: Path, target: Path) -> None:
    _ask([program("dpkg-deb"), "--extract", str(deb), str(target)])


@dataclass(frozen=True)
class Packages:
    """The folders of the unpacked packages of the qemu tier, of which none changes by itself."""

    kernel: Path
    python: Path
    library_minimal: Path
    library: Path
    grub: Path
    ovmf: Path

    @property
    def vmlinuz(self) -> Path:
        """The kernel."""
        return _only(self.kernel, "boot/vmlinuz-*")

    @property
    def modules(self) -> Path:
        """Folder of the kernel's modules."""
        return _only(self.kernel, "lib/modules/*")

    @property
    def interpreter(self) -> Path:
        """The Python program."""
        return _only(self.python, "usr/bin/python3.*")

    def grub_image(self, name: str) -> Path:
        """Return one of the ready-made GRUB programs for UEFI, such as ``grubx64.efi``."""
        return self.grub / "usr/lib/grub/x86_64-efi/monolithic" / name

    @property
    def uefi(self) -> tuple[Path, Path]:
        """UEFI firmware, and the empty variables of a new machine."""
        folder = self.ovmf / "usr/share/OVMF"
        return folder / "OVMF_CODE_4M.fd", folder / "OVMF_VARS_4M.fd"

    @property
    def libraries(self) -> tuple[Path, Path]:
        """The two folders that make up the standard library."""
        name = f"usr/lib/{self.interpreter.name}"
        return self.library_minimal / name, self.library / name


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise TestbedError(f"{folder}: {len(found)} files are called {pattern}, not one", f"remove {folder}")
    return found[0]


def _in_cache() -> Packages | None:
    try:
        names = json.loads((home() / _NOTE).read_text())
        folders = {part: home() / str(names[part]) for part in Packages.__dataclass_fields__}
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Packages(**folders) if all(folder.is_dir() for folder in folders.values()) else None


def packages() -> Packages:
    """Return the packages, from the cache when they have been fetched before.

    Which versions these are is noted in ``current.json`` of the cache: remove it to get newer ones.
    """
    cached = _in_cache()
    if cached is not None:
        return cached
    python = dependency("python3-minimal", r"python3\.[0-9]+-minimal")
    version = python.removesuffix("-minimal")
    wanted = {
        "kernel": dependency("linux-image-cloud-amd64", r"linux-image-[0-9].*-cloud-amd64"),
        "python": python,
        "library_minimal": f"lib{version}-minimal",
        "library": f"lib{version}-stdlib",
        "grub": "grub-efi-amd64-bin",
        "ovmf": "ovmf",
    }
    found = fetch(list(wanted.values()))
    folders = {part: found[name] for part, name in wanted.items()}
    names = {part: folder.name for part, folder in folders.items()}
    replace_file(home() / _NOTE, json.dumps(names, indent=1) + "\n")
    return Packages(**folders)


def main(arguments: Sequence[str]) -> int:
    """Fetch the packages unless they are there, and see that machines can be on a network.

    This is what `tools/setup` calls after installing programs. ``--check`` only tells, by the exit status,
    whether there is nothing to fetch.
    """
    if arguments == ["--check"]:
        return 0 if _in_cache() is not None else 1
    try:
        packages()
        require_tun()
    except TestbedError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
