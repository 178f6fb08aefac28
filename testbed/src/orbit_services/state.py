# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services' memory on disk: one JSON document, replaced as a whole."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from orbit_frisbee.whole import replace_file

VERSION = 1
log = logging.getLogger(__name__)


class StateError(Exception):
    """The state cannot be read or saved; the text names the file, the reason and the remedy."""


class StateFile:
    """Reads and writes the state document.

    A document that is none is moved aside (suffix ``.bad``) and the services start empty: links and streams
    that exist are found again on disk and stay visible, a crash loop would help nobody. One that cannot be
    read now may be sound: it is left alone, and nothing starts without it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, Any]:
        """Return the last saved document, or an empty one. Raises :class:`StateError`."""
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StateError(
                f"state file {self.path} cannot be read: {error.strerror or error}; mend that and start "
                "again, or move the file away to start without it"
            ) from error
        except (ValueError, RecursionError) as error:
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
        """Replace the document; a reader sees the old one or the new one, never a part.

        Raises :class:`StateError`; the old one is still there then.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, json.dumps({"version": VERSION, **document}, indent=1))
        except OSError as error:
            raise StateError(
                f"state file {self.path} cannot be written: {error.strerror or error}; make room or mend "
                "the folder, and ask again"
            ) from error

    def _set_aside(self, reason: str) -> None:
        log.error("state file %s is unusable (%s); starting without it", self.path, reason)
        bad = self.path.with_name(self.path.name + ".bad")
        try:
            os.replace(self.path, bad)
        except OSError as error:
            # The next save would replace it, and with it all traces of what went wrong.
            raise StateError(
                f"state file {self.path} is unusable and cannot be moved to {bad}: {error.strerror}"
            ) from error
