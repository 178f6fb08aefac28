# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Light nodes: what stands in for hundreds of machines that PXE boot, take an image and boot from their disk."""
