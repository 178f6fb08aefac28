# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory image: the system that light nodes with a link run, a tree that any number of them share.

Two folders make one image. The *tree* has the operating system; the *runtime* has a Python for the imaging
tools alone, copied from the interpreter that runs the testbed. Nodes see both merged; the programs of the
runtime are on nobody's PATH, because the real image has no Python either.
"""

from __future__ import annotations

import compileall
import importlib.util
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from orbit_frisbee.ndz import libdeflate
from orbit_testbed.nodes import memoryimage, tree
from orbit_testbed.nodes.errors import TestbedError
from orbit_testbed.nodes.host import program
from orbit_testbed.nodes.memoryimage import MARKER, RUNTIME_AT, SOURCES, TOOLS, quick_help, tool_sources

#: Where nodes find the programs that end the boot.
LAUNCH_AT = "usr/lib/orbit-launch"
#: Parts of the standard library that no imaging tool can need.
_NOT_NEEDED = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "pydoc_data",
    "distutils",
    "curses",
    "dbm",
    "sqlite3",
    "venv",
    "unittest",
    "xmlrpc",
    "wsgiref",
    "asyncio",
    "multiprocessing",
    "html",
    "email",
    "zoneinfo",
    "tomllib",
    "__phello__",
}
_NOT_NEEDED_EXTENSIONS = (
    "_tkinter",
    "_test",
    "_ctypes_test",
    "xx",
    "_sqlite3",
    "_curses",
    "readline",
    "_dbm",
    "_gdbm",
    "nis",
    "ossaudiodev",
    "_ssl",
    "_crypt",
    "_codecs_",
    "_decimal",
    "_asyncio",
)

_WRAPPER = """\
#!/bin/sh
# The imaging tools are Python programs; their runtime is theirs alone.
{quick_help}ORBIT_TESTBED_DISK=1
module={module}
[ -r /etc/orbit-node.env ] && . /etc/orbit-node.env
[ "$module" != orbit_frisbee.frisbee.client_cli ] || [ "${{ORBIT_TESTBED_LOSS:-0}}" = 0 ] ||
    module=orbit_testbed.tiers.light.lossy
export ORBIT_TESTBED_DISK PYTHONHOME=/{runtime} PYTHONPATH=/{runtime}/site PYTHONDONTWRITEBYTECODE=1
exec /{runtime}/lib.so/{loader} --library-path /{runtime}/lib.so /{runtime}/bin/python -S -m "$module" "$@"
"""


@dataclass(frozen=True)
class MemoryImage:
    """The two folders of a memory image."""

    tree: Path
    runtime: Path


def _wrapper(module: str) -> str:
    return _WRAPPER.format(
        runtime=RUNTIME_AT,
        loader=_loader(Path(sys.executable)).name,
        module=module,
        quick_help=quick_help(module),
    )


def _loader(binary: Path) -> Path:
    for library in tree.shared_objects(binary.resolve()):
        if library.name.startswith("ld"):
            return library
    raise TestbedError(
        f"{binary} is not a dynamic program of the GNU C library", "run the testbed with such a Python"
    )


def _launchers() -> list[Path]:
    """Return the programs that start a system: in a nested user namespace, or short of privileges."""
    return [Path(program("unshare")), Path(program("setpriv"))]


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def _loaded_by_name() -> list[Path]:
    """Return the libraries that the tools use where they are; they lie beside the C library."""
    beside = {library.parent for library in tree.shared_objects(Path(sys.executable).resolve())}
    return [path for folder in sorted(beside) if (path := folder / libdeflate.LIBRARY).exists()]


def _own_sources() -> list[Path]:
    lossy = Path(__file__).with_name("lossy.py")
    above = lossy.relative_to(SOURCES).parents[:-1]
    return [*tool_sources(), *(SOURCES / folder / "__init__.py" for folder in above), lossy]


def _build_tree(root: Path, hostkey: Path, authorized_key: str) -> None:
    tree.make_base(root, hostkey=hostkey, authorized_key=authorized_key)
    tree.write_file(root / ".omf_imageid", MARKER + "\n")
    for name, module in TOOLS.items():
        tree.write_file(root / "usr/sbin" / name, _wrapper(module), 0o755)
        (root / "usr/bin" / name).symlink_to(f"../sbin/{name}")
    launch = root / LAUNCH_AT
    for binary in _launchers():
        tree.copy_file(binary, launch / binary.name, 0o755)
        for library in tree.shared_objects(binary):
            tree.copy_file(library, launch / library.name, 0o755)
    (launch / "ld.so").symlink_to(_loader(_launchers()[0]).name)
    (root / RUNTIME_AT).mkdir(parents=True)


def _build_runtime(root: Path) -> None:
    base = root / RUNTIME_AT
    binary = Path(sys.executable).resolve()
    tree.copy_file(binary, base / "bin/python", 0o755)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    home = base / sys.platlibdir / version
    cache_suffix = f".{sys.implementation.cache_tag}.pyc"

    def unneeded(folder: str, names: list[str]) -> set[str]:
        inside_cache = Path(folder).name == "__pycache__"
        return {
            name
            for name in names
            if name in _NOT_NEEDED
            or name.startswith("config-")
            or (inside_cache and not name.endswith(cache_suffix))
            or (name.endswith(".so") and name.startswith(_NOT_NEEDED_EXTENSIONS))
        }

    shutil.copytree(
        sysconfig.get_path("stdlib"), home, ignore=unneeded, symlinks=False, ignore_dangling_symlinks=True
    )
    site = base / "site"
    for source in _own_sources():
        tree.copy_file(source, site / source.relative_to(SOURCES))
    isal = _package("isal")
    if isal is not None:
        shutil.copytree(isal, site / "isal", ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(site, quiet=2)
    libraries = set(tree.shared_objects(binary))
    for extension in (*home.rglob("*.so"), *site.rglob("*.so")):
        libraries.update(tree.shared_objects(extension))
    libraries.update(_loaded_by_name())
    for library in sorted(libraries):
        tree.copy_file(library, base / "lib.so" / library.name, 0o755)


#: The programs that lay an image out: what they are is part of its name.
_TEXTS = tuple(Path(path).read_text() for path in (__file__, memoryimage.__file__))


def build(cache: Path, *, hostkey: Path, authorized_key: str) -> MemoryImage:
    """Return the memory image for these keys, from the cache when it has been made before."""
    tree_name = "memory-" + tree.digest(
        [*tree.base_inputs(), *_launchers(), hostkey],
        authorized_key,
        tree.INIT,
        *map(_wrapper, TOOLS.values()),
        *_TEXTS,
    )
    isal = _package("isal")
    runtime_name = "runtime-" + tree.digest(
        _own_sources(),
        sys.version,
        sys.executable,
        str(isal),
        *map(str, _loaded_by_name()),
        sysconfig.get_path("stdlib"),
        *_TEXTS,
    )
    return MemoryImage(
        tree.cached(cache, tree_name, lambda path: _build_tree(path, hostkey, authorized_key)),
        tree.cached(cache, runtime_name, _build_runtime),
    )


def kernel_text(image: MemoryImage) -> str:
    """Return what stands in for the kernel of a memory image on the TFTP server: the name of its tree."""
    return f"orbit-testbed-memory-image {image.tree.name} {image.runtime.name}\n"


def pxe_config(name: str) -> str:
    """Return the pxelinux configuration that boots the memory image ``name``."""
    return (
        f"SERIAL 0 115200\nDEFAULT {name}\nPROMPT 0\nLABEL {name}\n  KERNEL boot/{name}\n"
        f"  APPEND console=ttyS0 quiet\n  IPAPPEND 3\n"
    )


#: The pxelinux configuration of nodes without a link: the disk.
LOCAL_BOOT = "DEFAULT harddisk\nPROMPT 0\nLABEL harddisk\n  LOCALBOOT 0\n"
