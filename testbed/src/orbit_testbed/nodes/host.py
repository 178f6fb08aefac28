# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine offers: programs, namespaces; and the exact line that supplies what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from orbit_testbed.nodes.errors import TestbedError

#: Folders of system programs that an ordinary user's PATH may lack.
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"

#: Program -> Debian/Ubuntu package.
PROGRAMS = {
    "busybox": "busybox-static",
    "dropbear": "dropbear-bin",
    "dropbearkey": "dropbear-bin",
    "ip": "iproute2",
    "tc": "iproute2",
    "dnsmasq": "dnsmasq-base",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "ldd": "libc-bin",
}


def search_path() -> str:
    """Return PATH with the system folders added."""
    return os.environ.get("PATH", "") + ":" + _SYSTEM_PATH


def program(name: str) -> str:
    """Return the path of a program from :data:`PROGRAMS`."""
    found = shutil.which(name, path=search_path())
    if found is None:
        raise TestbedError(f"program {name} is missing", f"install it: {apt_line([PROGRAMS[name]])}")
    return found


def missing_programs() -> list[str]:
    """Return the programs this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]


def apt_line(packages: list[str]) -> str:
    """Return the command that installs Debian packages, as this user has to type it."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install -y --no-install-recommends {' '.join(sorted(set(packages)))}"


def require_programs() -> None:
    """Raise one error that names all missing programs and their packages."""
    missing = missing_programs()
    if missing:
        raise TestbedError(
            f"missing programs: {', '.join(missing)}", apt_line([PROGRAMS[name] for name in missing])
        )


def mount(*arguments: str) -> None:
    """Run mount(8); raises :class:`TestbedError` when it fails."""
    result = subprocess.run(
        [program("mount"), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if result.returncode != 0:
        raise TestbedError(f"mount {' '.join(arguments)}: {result.stderr.strip()}")


@dataclass(frozen=True)
class Isolation:
    """How to get namespaces here: with a user namespace (no privilege needed) or, as root, without one."""

    user_namespace: bool

    @property
    def flags(self) -> tuple[str, ...]:
        """Arguments of util-linux unshare that make the testbed's namespaces."""
        user = ("--user", "--map-root-user") if self.user_namespace else ()
        return (*user, "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")


def _works(isolation: Isolation) -> str:
    """Try the namespaces with a command that does nothing; return what went wrong or ''."""
    result = subprocess.run(
        [program("unshare"), *isolation.flags, "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return "" if result.returncode == 0 else result.stderr.strip() or f"exit status {result.returncode}"


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return ""


def _namespace_remedy() -> str:
    sudo = "" if os.geteuid() == 0 else "sudo "
    for name, bad, good in (
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "15000"),
    ):
        if _sysctl(name) == bad:
            return f"{sudo}sysctl -w {name}={good}" + ("" if os.geteuid() == 0 else "   (or run as root)")
    if os.geteuid() == 0:
        return "in a container, run it with --privileged (or seccomp and AppArmor unconfined)"
    return "run as root (sudo), or allow user namespaces: sudo sysctl -w user.max_user_namespaces=15000"


def find_isolation() -> Isolation:
    """Return the way that works here; raise one error with the remedy when none does."""
    with_user = Isolation(user_namespace=True)
    reason = _works(with_user)
    if not reason:
        return with_user
    if os.geteuid() == 0:
        without = Isolation(user_namespace=False)
        reason = _works(without)
        if not reason:
            return without
    raise TestbedError(f"this machine refuses the testbed's namespaces ({reason})", _namespace_remedy())
