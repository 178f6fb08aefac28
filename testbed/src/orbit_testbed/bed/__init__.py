# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A testbed as a whole, whatever its nodes are: up and down, the hub that runs it, the ways into it."""
