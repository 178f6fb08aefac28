# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Light nodes: they PXE boot, take an image and boot from their disk like hundreds of machines."""
