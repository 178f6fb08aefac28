# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside ``unshare``: a bridge, one network namespace per client behind a veth, a server on the bridge.

Arguments: image, number of clients, folder. Writes disk<N> and stats.json into the folder and prints the
exit statuses of the clients as JSON. Everything ends with the process namespace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

GROUP = "239.77.9.9"


def main() -> None:
    image, clients, folder, size = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    holders = [
        subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(clients)
    ]
    for holder in holders:
        assert holder.stdout is not None
        holder.stdout.readline()  # its namespace exists
    lines = [
        "link set lo up",
        "link add br0 type bridge mcast_snooping 0",
        "link set br0 up",
        "addr add 10.77.0.1/16 dev br0",
        "route add 239.0.0.0/8 dev br0",
    ]
    for i, holder in enumerate(holders):
        lines.append(f"link add v{i} type veth peer name eth0 netns {holder.pid}")
        lines.append(f"link set v{i} master br0 up")
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    for i, holder in enumerate(holders):
        inside = f"link set lo up\nlink set eth0 up\naddr add 10.77.1.{i + 1}/16 dev eth0\n"
        subprocess.run(
            ["nsenter", "-t", str(holder.pid), "-n", "ip", "-batch", "-"], input=inside, text=True, check=True
        )
    end, ready = os.pipe()
    server = subprocess.Popen(
        [sys.executable, "-m", "orbit_frisbee.frisbee.server_cli", "-i", "10.77.0.1",
         "-m", GROUP, "-p", "7000",
         "-W", "400000000", "--gather", "60", "--expect", str(clients), "--stats", str(folder / "stats.json"),
         "--ready-fd", str(ready), image],
        pass_fds=(ready,),
    )  # fmt: skip
    os.close(ready)
    assert os.read(end, 100) == b"239.77.9.9:7000\n"
    programs = []
    for i, holder in enumerate(holders):
        disk = folder / f"disk{i}"
        with disk.open("wb") as file:
            file.truncate(size)
        programs.append(
            subprocess.Popen(
                ["nsenter", "-t", str(holder.pid), "-n", sys.executable, "-m",
                 "orbit_frisbee.frisbee.client_cli", "-i", f"10.77.1.{i + 1}", "-m", GROUP, "-p", "7000",
                 "-q", str(disk)],
                stdout=subprocess.DEVNULL,
            )
        )  # fmt: skip
    statuses = [program.wait(60) for program in programs]
    server.terminate()
    statuses.append(server.wait(180))
    print(json.dumps(statuses))


if __name__ == "__main__":
    main()
