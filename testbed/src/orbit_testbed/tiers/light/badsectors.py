# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a command whose writes from a certain byte of a file on fail with EIO: a disk with bad sectors.

``badsectors.py BYTE COMMAND...``. A disk that really fails needs a block device (device mapper) or a file
system in user space, and both need root or access to /dev/fuse. A seccomp filter needs neither: it is the
kernel that answers the client's own pwrite(2) with EIO, before anything reaches the disk. The filter sees the
place of a write, not the file; the command should write nothing but the disk that far out. It holds for all
descendants, for ever, and runs without the package so that a node's start does not wait for imports.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

#: pwrite64, pwritev, pwritev2 (the numbers of linux/unistd.h); they have the place as their fourth argument.
CALLS = {"x86_64": (18, 296, 328), "aarch64": (68, 70, 287)}

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# Classic BPF: load a word, jump if equal, if greater, if greater or equal, return.
_LOAD, _EQUAL, _GREATER, _NOT_LESS, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x06
_NUMBER, _PLACE_LOW, _PLACE_HIGH = 0, 40, 44


def program(first: int, calls: tuple[int, ...]) -> bytes:
    """Return the filter: EIO for ``calls`` at or behind byte ``first``, everything else passes."""
    high, low = first >> 32, first & 0xFFFFFFFF
    steps = [(_LOAD, 0, 0, _NUMBER)]
    for index, number in enumerate(calls):
        # A hit jumps over the other comparisons and the way out.
        steps.append((_EQUAL, len(calls) - index, 0, number))
    steps += [
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _PLACE_HIGH),
        (_GREATER, 3, 0, high),
        (_EQUAL, 0, 3, high),
        (_LOAD, 0, 0, _PLACE_LOW),
        (_NOT_LESS, 0, 1, low),
        (_RETURN, 0, 0, _ERRNO | errno.EIO),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def install(first: int) -> None:
    """Let writes from byte ``first`` on fail, for this process and its descendants."""
    calls = CALLS.get(platform.machine())
    if calls is None:
        raise OSError(errno.ENOSYS, f"bad sectors are not known for {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    code = program(first, calls)
    steps = ctypes.create_string_buffer(code, len(code))
    filter_ = _Program(len(code) // 8, ctypes.cast(steps, ctypes.c_void_p))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")


def main() -> None:
    """Become the command."""
    install(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
