# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m orbit_testbed`` is ``orbit-testbed``."""

import sys

from orbit_testbed.cli import main

sys.exit(main())
