# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for frisbeed that binds its port and sends nothing, for trying the services alone.

Run as a program: ``null_frisbeed.py -i IF -m GROUP -p PORT -W RATE --stats FILE --ready-fd FD IMAGE``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path


def _bind(sock: socket.socket, port: int, patient: bool) -> None:
    """Bind; when nobody waits to hear of it, wait for a busy port like the historic server."""
    while True:
        try:
            sock.bind(("", port))
        except OSError:
            if not patient:
                raise
            time.sleep(0.2)
        else:
            return


def main(argv: list[str] | None = None) -> int:
    """Bind, say so, and wait for SIGTERM."""
    parser = argparse.ArgumentParser(prog="null_frisbeed", description="Occupies a frisbeed's place.")
    parser.add_argument("-i", dest="interface", default="127.0.0.1")
    parser.add_argument("-m", dest="group", required=True)
    parser.add_argument("-p", dest="port", type=int, required=True)
    parser.add_argument("-W", dest="rate", type=int, default=0)
    parser.add_argument("--gather", type=float)
    parser.add_argument("--stats", type=Path)
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("image", type=Path)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with options.image.open("rb"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        _bind(sock, options.port, patient=options.ready_fd is None)
        if options.stats is not None:
            options.stats.write_text(json.dumps({"blocks_sent": 0, "clients": 0}), encoding="utf-8")
        if options.ready_fd is not None:
            os.write(options.ready_fd, f"{options.group}:{options.port}\n".encode())
            os.close(options.ready_fd)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
