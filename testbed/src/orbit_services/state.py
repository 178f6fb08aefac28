# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services' memory on disk: one JSON document, replaced as a whole."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

VERSION = 1
log = logging.getLogger(__name__)


class StateFile:
    """Reads and writes the state document.

    A document that cannot be read is moved aside (suffix ``.bad``) and the services start empty: links and
    streams that exist are found again on disk and stay visible, a crash loop would help nobody.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, Any]:
        """Return the last saved document, or an empty one."""
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            self._set_aside(str(error))
            return {}
        if (
            not isinstance(document, dict)
            or document.get("version") != VERSION
            or any(not isinstance(document.get(part, {}), dict) for part in ("links", "streams"))
        ):
            self._set_aside("not a state document of this version")
            return {}
        return document

    def save(self, document: dict[str, Any]) -> None:
        """Replace the document; a reader sees the old one or the new one, never a part."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(self.path.name + ".new")
        temporary.write_text(json.dumps({"version": VERSION, **document}, indent=1), encoding="utf-8")
        os.replace(temporary, self.path)

    def _set_aside(self, reason: str) -> None:
        log.error("state file %s is unusable (%s); starting without it", self.path, reason)
        with contextlib.suppress(OSError):
            os.replace(self.path, self.path.with_name(self.path.name + ".bad"))
