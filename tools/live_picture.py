# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draw the live view of a run from its events, as docs/pictures/live.svg was.

. .venv/bin/activate; python tools/live_picture.py RUN/events.jsonl SECONDS > docs/pictures/live.svg
With "200 50" behind it, columns and lines of the terminal, docs/pictures/live-wide.svg.
"""

import io
import json
import pathlib
import re
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / ".venv" / "collections"))

from rich.console import Console

from ansible_collections.orbit.imaging.plugins.plugin_utils.report import board as boards, screen

TITLES = {"client": "Write the images", "proof": "See every node run its new disk"}
HEAD = """<!-- SPDX-FileCopyrightText: 2026 The orbit.imaging authors -->
<!-- SPDX-License-Identifier: GPL-3.0-or-later -->
"""


def main() -> None:
    path, seconds = sys.argv[1], float(sys.argv[2])
    columns, lines = map(int, sys.argv[3:5] or (80, 24))
    events = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    board = boards.Board()
    now = events[0]["at"] + seconds
    for event in events:
        if event["at"] <= now:
            board.hear(event)
            if event["event"] == "step" and event["state"] == "began":
                board.entitle(TITLES.get(event["step"], event["step"]), event["at"])
    console = Console(record=True, width=columns, height=lines - 1, force_terminal=True, file=io.StringIO())
    console.print(screen.picture(board, columns - 1, lines - 1, now))
    svg = console.export_svg(title="ansible-playbook -i lab.orbit.yml orbit.imaging.image")
    # No font from outside, and no other reference.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    print(HEAD + re.sub(r"\s*<!--.*?-->", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
