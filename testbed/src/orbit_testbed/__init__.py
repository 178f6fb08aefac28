# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands on the other side of the collection's wires: image format, transport, services, nodes."""
