# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power of nodes: the interface (``base``), who stands behind it (``drivers``), one driver without nodes."""
