# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the two commands' option parsers share, and the exit statuses of both."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_USAGE = 1
"""Bad usage; for the client also: target or image cannot be used."""
EXIT_DIGEST = 3
"""A chunk came that is not the one of the manifest."""
EXIT_VERIFY = 4
"""The disk does not give back what was written to it."""
EXIT_MANIFEST = 5
"""The manifest cannot be had, is damaged, or belongs to another image."""
EXIT_PORT = 98
"""The port is taken."""
EXIT_SILENCE = 110
"""The server has been silent for too long."""
EXIT_FATAL = 255
"""The network, or the server's file, cannot be used."""


class Parser(argparse.ArgumentParser):
    """Ends with status 1 on bad usage, as the programs in the field do."""

    def error(self, message: str) -> NoReturn:
        """Print usage and the message, and exit."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from ``low`` to ``high`` for argparse."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
        return value

    return number


def seconds(low: float, high: float) -> Callable[[str], float]:
    """Return a parser of seconds from ``low`` to ``high`` for argparse."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
        return value

    return number
