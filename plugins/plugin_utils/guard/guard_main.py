# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program of the run guard: ``python guard_main.py RUN``, started by :func:`guard.start` alone.

A program of its own instead of a fork of ansible-playbook, so that it is small, has none of its files open,
and has a name of its own: a killall of ansible-playbook does not end it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import types

COLLECTION = "ansible_collections.orbit.imaging"


def adopt(folder: str) -> None:
    """Make the collection in ``folder`` importable under its name, as Ansible's own loader is not here."""
    # This file's folder must not hide modules of the same name.
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != os.path.dirname(__file__)]
    name = ""
    for part in COLLECTION.split("."):
        name = f"{name}.{part}" if name else part
        package = types.ModuleType(name)
        package.__path__ = [folder] if name == COLLECTION else []
        sys.modules[name] = package


def main() -> None:
    """Leave everything that could end the guard with the playbook, then guard."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    # The session is new already; without being its leader the guard can never get a terminal again.
    if os.fork():
        os._exit(0)
    adopt(os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "..")))
    importlib.import_module(f"{COLLECTION}.plugins.plugin_utils.guard.guard").run()


if __name__ == "__main__":
    main()
