# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory image of virtual machines, and what it shares with the systems on their disks: a kernel and an
initramfs of busybox, dropbear and the kernel's modules, made from Debian packages without root.

The memory image also has the imaging tools with a Python that holds only what they import. It is not on PATH:
the real image has no Python either.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from orbit_testbed.nodes import tree
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.memoryimage import MARKER, RUNTIME_AT, SOURCES, TOOLS, quick_help, tool_sources
from orbit_testbed.tiers.qemu import cpio as qemu_cpio, packages as qemu_packages
from orbit_testbed.tiers.qemu.packages import Packages

#: Kernel modules a machine cannot do without; what they depend on is found in the modules.
MODULES = ("virtio_pci", "virtio_rng", "virtio_net", "virtio_blk")
#: What the tools import only in some cases (help, errors, names of encodings), besides what they always do.
_IMPORTED_LATER = (
    "traceback",
    "textwrap",
    "shutil",
    "locale",
    "signal",
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.idna",
    "mmap",
)
#: Extensions that the standard library does without: OpenSSL would be a quarter of the image.
_LEFT_OUT = ("_hashlib.", "_ssl.")
#: The kernel's command line. The options in the middle save a quarter of the boot time under emulation.
KERNEL_OPTIONS = (
    "console=ttyS0 quiet panic=5 nokaslr mitigations=off tsc=reliable no_timer_check cryptomgr.notests "
    "apparmor=0 audit=0 8250.nr_uarts=1 rcupdate.rcu_expedited=1"
)

#: First process of both kinds of systems. pxelinux says by ip= what the firmware's DHCP client was told; a
#: system that was loaded from the disk asks by itself.
_INIT = """\
#!/bin/sh
# Process 1: finds the machine's devices, brings the network up and starts the SSH server.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ TERM=linux
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=0620,ptmxmode=0666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
exec <>/dev/console >&0 2>&1
while read -r module; do
    insmod "/usr/lib/modules/$module" || echo "module $module failed"
done </usr/lib/modules/order
read -r cmdline </proc/cmdline
ip=
for word in $cmdline; do
    case "$word" in ip=*) ip=${word#ip=} ;; esac
done
waited=0
while [ ! -e /sys/class/net/eth0 ] && [ $waited -lt 200 ]; do
    usleep 50000
    waited=$((waited + 1))
done
ip link set lo up
ip link set eth0 up
if [ -n "$ip" ]; then
    # address:server:gateway:netmask
    IFS=:
    set -- $ip
    unset IFS
    ip addr add "$1/$4" dev eth0
    hostname "node-$1"
else
    udhcpc -i eth0 -q -n -t 10 -T 1 -s /usr/share/udhcpc.sh || echo "no address: DHCP does not answer"
fi
ip route add 239.0.0.0/8 dev eth0
tag=
read -r tag </sys/class/dmi/id/chassis_asset_tag
[ "$tag" = orbit-no-ssh ] || dropbear -r /etc/dropbear/hostkey -s -p 22 -E
for file in /.omf_imageid /etc/orbit-image; do
    [ ! -r "$file" ] || read -r name <"$file"
done
read -r uptime _ </proc/uptime
echo "READY $name after $uptime s"
while :; do
    sleep 2147483647 &
    wait
done
"""

_DHCP = """\
#!/bin/sh
# Called by udhcpc with what the server said.
if [ "$1" = bound ]; then
    ip addr flush dev "$interface"
    ip addr add "$ip/$mask" dev "$interface"
    [ -z "$hostname" ] || hostname "$hostname"
fi
"""

_WRAPPER = """\
#!/bin/sh
# The imaging tools are Python programs; their runtime is theirs alone.
{quick_help}exec /{runtime}/bin/python -I -S -c 'import sys; from {module} import main; sys.exit(main())' "$@"
"""

#: Run by the Python of the image: prints which files the modules given as arguments consist of. What our
#: modules import inside functions only counts, too.
_TRACE = """\
import ast, importlib, json, sys
def load(name):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
for name in sys.argv[1:]:
    importlib.import_module(name)
seen = set()
while todo := {name for name in sys.modules if name.partition(".")[0] == "orbit_frisbee"} - seen:
    seen |= todo
    for name in sorted(todo):
        with open(sys.modules[name].__file__) as source:
            tree = ast.parse(source.read())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    load(alias.name)
            elif isinstance(node, ast.ImportFrom):
                load(node.module)
                for alias in node.names:
                    load(node.module + "." + alias.name)
files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
print(json.dumps(sorted(file for file in files if file)))
"""

#: Compiles what stands in for a module: no path or time of this machine gets into the result.
_COMPILE = """\
import py_compile, sys
for line in sys.stdin.read().splitlines():
    source, target, shown = line.split("\\t")
    py_compile.compile(source, target, shown, doraise=True, optimize=2,
                       invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


@dataclass(frozen=True)
class MemoryImage:
    """The two files of a memory image."""

    kernel: Path
    initramfs: Path


def module_order(folder: Path, names: tuple[str, ...] = MODULES) -> list[Path]:
    """Return the files of kernel modules below ``folder`` in an order in which they can be loaded.

    A package that is only unpacked has no ``modules.dep``; each module says itself what it depends on.
    Modules that are built into the kernel are left out.
    """
    built_in = {
        _plain(Path(line).name) for line in (folder / "modules.builtin").read_text().splitlines() if line
    }
    files = {_plain(path.name): path for path in folder.rglob("*.ko")}
    order: list[Path] = []

    def add(name: str) -> None:
        plain = _plain(name)
        if plain in built_in:
            return
        if plain not in files:
            raise TestbedError(f"{folder} has no kernel module {name}")
        if files[plain] in order:
            return
        for needed in module_dependencies(files[plain].read_bytes()):
            add(needed)
        order.append(files[plain])

    for name in names:
        add(name)
    return order


def _plain(name: str) -> str:
    return name.removesuffix(".ko").replace("-", "_")


def module_dependencies(content: bytes) -> list[str]:
    """Return the modules that a kernel module (the content of its file) says it depends on."""
    match = re.search(rb"\0depends=([^\0]*)\0", content)
    return match[1].decode().split(",") if match and match[1] else []


def make_system(root: Path, packages: Packages, *, hostkey: Path, authorized_key: str) -> None:
    """Lay out a system for a virtual machine: busybox, dropbear, kernel modules and process 1."""
    tree.make_base(root, hostkey=hostkey, authorized_key=authorized_key)
    tree.write_file(root / "sbin/init", _INIT, 0o755)
    (root / "init").symlink_to("sbin/init")
    tree.write_file(root / "usr/share/udhcpc.sh", _DHCP, 0o755)
    modules = root / "usr/lib/modules"
    order = module_order(packages.modules)
    for path in order:
        tree.copy_file(path, modules / path.name, 0o644)
    tree.write_file(modules / "order", "".join(f"{path.name}\n" for path in order))


def pack(root: Path) -> bytes:
    """Return the initramfs of a system."""
    devices = {"dev/console": (5, 1), "dev/null": (1, 3)}
    return qemu_cpio.compress(qemu_cpio.archive(root, devices))


def system_inputs(packages: Packages, hostkey: Path) -> list[Path]:
    """Return the files that :func:`make_system` copies."""
    return [*tree.base_inputs(), *module_order(packages.modules), hostkey]


def system_texts() -> tuple[str, ...]:
    """Return the texts that decide what :func:`make_system` and :func:`pack` make."""
    return (_INIT, _DHCP, Path(__file__).read_text(), Path(qemu_cpio.__file__).read_text())


# -- the imaging tools and their Python ----------------------------------------------------------------------


def _python(interpreter: Path, *arguments: str, text: str = "") -> str:
    result = subprocess.run(
        [str(interpreter), "-s", "-P", "-S", "-B", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        # Without the seed, sets among a program's constants have another order each time.
        env={"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"},
    )
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["without a word"])[-1]
        raise TestbedError(f"Debian's Python does not work here: {reason}", f"remove {qemu_packages.home()}")
    return result.stdout


def _add_tools(root: Path, packages: Packages) -> None:
    """Add the tools and exactly those parts of Python's standard library that they import."""
    version = packages.interpreter.name
    with tempfile.TemporaryDirectory(prefix=".python-", dir=root.parent) as folder:
        # A Python that can run here, to ask what the tools import and to compile it.
        whole = Path(folder).resolve()
        tree.copy_file(packages.interpreter, whole / "bin/python", 0o755)
        library = whole / "lib" / version
        for part in packages.libraries:
            for path in filter(Path.is_file, sorted(part.rglob("*"))):
                if not path.name.startswith(_LEFT_OUT):
                    tree.copy_file(path, library / path.relative_to(part))
        (library / "lib-dynload").mkdir(parents=True, exist_ok=True)
        for source in tool_sources():
            tree.copy_file(source, library / source.relative_to(SOURCES))
        modules = [*TOOLS.values(), *_IMPORTED_LATER]
        files = json.loads(_python(whole / "bin/python", "-c", _TRACE, *modules))
        base = root / RUNTIME_AT
        (base / "lib" / version / "lib-dynload").mkdir(parents=True)
        tree.copy_file(packages.interpreter, base / "bin/python", 0o755)
        needed = {packages.interpreter}
        lines = []
        for file in map(Path, files):
            relative = file.relative_to(library)
            target = base / "lib" / version / relative
            if file.suffix == ".py":
                lines.append(f"{file}\t{target.with_suffix('.pyc')}\t{relative}")
            else:
                needed.add(file)
                tree.copy_file(file, target, 0o644)
        _python(whole / "bin/python", "-c", _COMPILE, text="\n".join(lines))
        for binary in needed:
            for shared in tree.shared_objects(binary):
                tree.copy_file(shared, root / str(shared).lstrip("/"), 0o755)
    for name, module in TOOLS.items():
        text = _WRAPPER.format(runtime=RUNTIME_AT, module=module, quick_help=quick_help(module))
        tree.write_file(root / "usr/sbin" / name, text, 0o755)


# -- the memory image ----------------------------------------------------------------------------------------


def make_memory_system(root: Path, packages: Packages, *, hostkey: Path, authorized_key: str) -> None:
    """Lay out the memory image: a system with marker and imaging tools."""
    make_system(root, packages, hostkey=hostkey, authorized_key=authorized_key)
    tree.write_file(root / ".omf_imageid", MARKER + "\n")
    _add_tools(root, packages)


def _build(target: Path, packages: Packages, hostkey: Path, authorized_key: str) -> None:
    with tempfile.TemporaryDirectory(prefix=".memory-", dir=target.parent) as folder:
        root = Path(folder, "root")
        make_memory_system(root, packages, hostkey=hostkey, authorized_key=authorized_key)
        target.write_bytes(pack(root))


def build(cache: Path, packages: Packages, *, hostkey: Path, authorized_key: str) -> MemoryImage:
    """Return the memory image for these keys, from the cache when it has been made before."""
    key = tree.digest(
        [*system_inputs(packages, hostkey), *tool_sources(), packages.interpreter],
        authorized_key,
        *system_texts(),
        *(str(path) for path in packages.libraries),
        *map(quick_help, TOOLS.values()),
    )
    initramfs = tree.cached(
        cache, f"memory-{key}.img", lambda target: _build(target, packages, hostkey, authorized_key)
    )
    return MemoryImage(packages.vmlinuz, initramfs)


def pxe_config(name: str, url: str) -> str:
    """Return the pxelinux configuration that boots the memory image ``name`` from files below ``url``.

    Kernel and initramfs come by HTTP, which the firmware of the network card speaks: it is faster than TFTP
    when several machines boot at once. The link itself was read by TFTP.
    """
    return (
        f"DEFAULT {name}\nPROMPT 0\nLABEL {name}\n  KERNEL {url}/{name}.vmlinuz\n"
        f"  INITRD {url}/{name}.img\n  APPEND {KERNEL_OPTIONS}\n  IPAPPEND 3\n"
    )


def grub_config(name: str, server: str, folder: str) -> str:
    """Return the GRUB configuration that boots the memory image ``name`` from ``folder`` of the TFTP server.

    GRUB reads by TFTP as fast as by HTTP. The kernel is told the address as pxelinux tells it.
    """
    return (
        f"echo 'Booting {name}...'\n"
        f"linux /{folder}/{name}.vmlinuz {KERNEL_OPTIONS} ip=$net_default_ip:{server}::255.255.0.0\n"
        f"initrd /{folder}/{name}.img\nboot\n"
    )


#: GRUB's own configuration: from now on it looks where the links are, for grub.cfg-01-<MAC>, then for
#: grub.cfg- and the control IP in hex, and so on to grub.cfg.
GRUB_BOOTSTRAP = "set prefix=$prefix/nodes\nnormal\n"

#: The GRUB configuration of machines without a link. Firmware that a boot program returns to may show a menu
#: instead of trying the disk next, so the disk's loader is started from here; ``root`` tells it where it
#: comes from.
GRUB_LOCAL_BOOT = """\
echo 'Booting from local disk...'
if search --no-floppy --file --set=root /EFI/BOOT/BOOTX64.EFI; then
    chainloader /EFI/BOOT/BOOTX64.EFI
    boot
fi
echo 'No bootable device.'
exit
"""

#: The pxelinux configuration of machines without a link: back to the firmware, which tries the disk next.
LOCAL_BOOT = "DEFAULT harddisk\nPROMPT 0\nLABEL harddisk\n  LOCALBOOT -1\n"
