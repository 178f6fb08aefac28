# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m orbit_testbed`` is ``orbit-testbed``."""

import sys


def main() -> int:
    """Run ``orbit-testbed``; without what it is made of, say how to get that (exit status 1)."""
    try:
        from orbit_testbed import cli
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("h11", "starlette", "uvicorn"):
            raise
        print(
            f"orbit-testbed: no Python package {missing}; pip install 'orbit-testbed[testbed]'",
            file=sys.stderr,
        )
        return 1
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
