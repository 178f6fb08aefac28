# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in for get-pip.py, which ansible-test would otherwise download.

For some sanity tests ansible-test makes an environment without pip and gets pip by a script from a server of
its own. A machine that reaches nothing but its package index then ends with an error. Python brings a pip
along; this script uses it to install the version asked for from the index that the machine is set up for.

Called as ``get-pip.py [PIP OPTION...] pip==VERSION --no-setuptools --no-wheel``.
"""

import runpy
import subprocess
import sys

# In a child: ensurepip switches pip's configuration off for its own process, and with it index and
# certificates.
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)

arguments = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.argv = ["pip", "install", *arguments]
runpy.run_module("pip", run_name="__main__")
