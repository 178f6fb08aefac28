# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m orbit_testbed`` is ``orbit-testbed``."""

import sys
from importlib.util import find_spec


def main() -> int:
    """Run ``orbit-testbed``; without what it is made of, say how to get that (exit status 1)."""
    missing = [name for name in ("h11", "starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        print(
            f"orbit-testbed: no Python package {', '.join(missing)}; pip install 'orbit-testbed[testbed]'",
            file=sys.stderr,
        )
        return 1
    from orbit_testbed import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
