# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception of the embedded testbed."""

from __future__ import annotations


class TestbedError(Exception):
    """Something a user can act on: what went wrong, where, and what to do about it."""

    __test__ = False  # pytest: not a test class

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message
