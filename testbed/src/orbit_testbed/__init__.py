# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded testbed: nodes, their network, faults, and the command ``orbit-testbed``."""
