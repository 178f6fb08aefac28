# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all kinds of nodes share: names and addresses, faults, power, and what their images are made of."""
