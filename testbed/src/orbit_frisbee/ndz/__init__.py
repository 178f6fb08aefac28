# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk images in the frisbee format (``.ndz``): read, write, inspect.

:mod:`format`, :mod:`codec`, :mod:`relocate` and :mod:`unpack` run inside a memory image: they use the
standard library alone and import little. Nothing here imports :mod:`orbit_frisbee.frisbee`.
"""
