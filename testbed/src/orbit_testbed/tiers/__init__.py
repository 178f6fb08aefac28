# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds of nodes, a folder each behind one interface (``base``); ``layout.TIERS`` lists them."""

from __future__ import annotations

from importlib import import_module

from orbit_testbed.tiers.base import Tier


def tier(name: str) -> Tier:
    """Return the tier of that name: ``TIER`` of the module ``tier`` in its folder."""
    found: Tier = import_module(f"orbit_testbed.tiers.{name}.tier").TIER
    return found
