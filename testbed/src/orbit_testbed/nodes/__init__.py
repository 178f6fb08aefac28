# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every kind of node is made of: its layout, images, network, faults and supply of power."""
