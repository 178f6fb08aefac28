# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are replaced as a whole: a reader sees the old one or the new one, never a part.

The new one has a name until then that nobody can know before, and is made only where nothing is: in a folder
that others may write to, nobody can lay a link in its way that leads to another file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Give a name in the folder of ``path`` at which nothing is; what is made there becomes ``path``.

    When the block fails, what it has made is removed and ``path`` stays as it was. The name begins with a
    dot. Raises :class:`OSError`.
    """
    # A name has 255 bytes at most.
    start = os.fsdecode(os.fsencode(path.name)[:200])
    draft = path.with_name(f".{start}.{os.urandom(8).hex()}")
    try:
        yield draft
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def replace_file(path: Path, content: bytes | str) -> None:
    """Make ``path`` a file of this content, a text in UTF-8. Raises :class:`OSError` and leaves it."""
    with drafted(path) as draft, draft.open("xb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
