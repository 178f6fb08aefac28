# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""stub"""
from pathlib import Path
def build_all(cache: Path, images: Path, *, keys: Path, authorized_key: str) -> list[str]:
    return []
