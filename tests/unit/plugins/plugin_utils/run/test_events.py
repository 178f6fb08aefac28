# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What happens is told, as the document says, and telling never fails or waits."""

from __future__ import annotations

import json
import os
import pathlib
import re
import socket
import stat
import typing as t

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.run import events, types

DOCUMENT = pathlib.Path(__file__).parents[5] / "docs" / "events.md"


@pytest.fixture
def listener(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.setblocking(False)
        monkeypatch.setenv(events.ADDRESS, str(tmp_path / "socket"))
        yield sock


def heard(sock):
    found = []
    while True:
        try:
            found.append(json.loads(sock.recv(1 << 20)))
        except BlockingIOError:
            return found


def kept(folder):
    return [json.loads(line) for line in (folder / events.FILE).read_text().splitlines()]


def test_file_and_listener_get_the_same(tmp_path, listener):
    told = events.Events("r1", str(tmp_path))
    told.emit("node", node="node1-1", state="failed", cause="no_boot", msg="x" * 1000, group=None)
    told.emit("step", step="link", state="began")
    told.close()
    assert kept(tmp_path) == heard(listener)
    first, second = kept(tmp_path)
    assert (first["v"], first["run"], first["event"]) == (events.VERSION, "r1", "node")
    assert "group" not in first
    assert len(first["msg"]) == 500
    assert second["step"] == "link"
    assert stat.S_IMODE((tmp_path / events.FILE).stat().st_mode) == 0o600


def test_words_of_nodes_are_one_line_of_text(tmp_path):
    """They are shown on terminals, which must not obey them."""
    told = events.Events("r1", str(tmp_path))
    event = told.emit("node", node="node1-1", state="failed", cause="no_boot", msg="a\x1b[2Jb\nc\x9bd é")
    told.close()
    assert event["msg"] == "a [2Jb c d é"
    assert kept(tmp_path)[0]["msg"] == event["msg"]


@pytest.mark.parametrize(
    "address", ["", "/nonexistent/socket", "@nobody-listens-here", "a\x7fb" * 100, "/dev/null"]
)
def test_nobody_there_is_no_error(tmp_path, monkeypatch, address):
    monkeypatch.setenv(events.ADDRESS, address)
    told = events.Events("r1", str(tmp_path))
    told.emit("step", step="link", state="began")
    assert not told.report(["a"], {})
    told.close()
    assert [event["event"] for event in kept(tmp_path)] == ["step", "report"]


def test_a_listener_that_is_slow_gets_all_in_the_end(tmp_path, listener):
    told = events.Events("r1", str(tmp_path))
    for number in range(1000):
        told.emit("progress", node=f"node{number}", percent=number % 100)
    found = heard(listener)
    assert len(found) < 1000
    # A report that would wait behind them is not taken for heard.
    while len(found) < 1000:
        told.flush()
        found += heard(listener)
    told.close()
    assert [event["node"] for event in found] == [f"node{number}" for number in range(1000)]
    assert len(kept(tmp_path)) == 1000


def test_a_disk_that_is_full_ends_nothing_and_leaves_no_half_line(tmp_path, monkeypatch):
    told = events.Events("r1", str(tmp_path))
    told.emit("step", step="link", state="began")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    told.emit("step", step="link", state="ended")
    monkeypatch.setattr(os, "write", write)
    told.emit("step", step="serve", state="began")
    told.close()
    assert [(event["step"], event["state"]) for event in kept(tmp_path)] == [
        ("link", "began"),
        ("serve", "began"),
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_device_ends_nothing(tmp_path):
    (tmp_path / events.FILE).symlink_to("/dev/full")
    told = events.Events("r1", str(tmp_path))
    told.emit("step", step="link", state="began")
    told.close()


def test_a_folder_that_is_gone_ends_nothing(tmp_path):
    told = events.Events("r1", str(tmp_path / "gone"))
    told.emit("step", step="link", state="began")
    told.close()
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(("shows", "live"), [("live", True), ("report", False)])
def test_a_callback_of_the_parent_shows_the_report(tmp_path, monkeypatch, shows, live):
    address = f"@orbit-imaging-{shows}-{os.getppid()}-{os.getpid()}{tmp_path.name}"
    monkeypatch.setenv(events.ADDRESS, address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(events.kernel_address(address))
        told = events.Events("r1", str(tmp_path))
        assert told.live is live
        assert told.report(["a line"], {"node1-1": "imaged"})
        assert json.loads(sock.recv(1 << 20))["lines"] == ["a line"]
        # One that does not fit is not heard, and what comes after it is.
        assert not told.report(["x" * (1 << 21)], {})
        assert told.live is live
    # The callback is gone: who tells must show it.
    told.emit("step", step="link", state="began")
    assert not told.live
    told.close()


def test_anybody_else_who_listens_shows_nothing(tmp_path, listener):
    told = events.Events("r1", str(tmp_path))
    assert not told.live
    assert not told.report(["a line"], {})
    told.close()
    assert heard(listener)[0]["lines"] == ["a line"]


def test_many_nodes_fit_into_datagrams(tmp_path, listener):
    nodes = {f"node{n}.grid.orbit-lab.org": {"group": "all", "x": n, "y": None} for n in range(1200)}
    record = {"dir": str(tmp_path), "groups": [{"label": "all", "image": "a.ndz"}], "nodes": nodes}
    told = events.Events("r1", str(tmp_path))
    events.introduce(told, record, check=True)
    found = heard(listener)
    told.close()
    assert [len(event["nodes"]) for event in found] == [500, 500, 200]
    assert found[0]["groups"] == [{"group": "all", "image": "a.ndz"}]
    assert found[0]["check"] is True
    assert found[0]["nodes"][3] == {"node": "node3.grid.orbit-lab.org", "group": "all", "x": 3, "y": None}


# -- the document


def rows(heading):
    text = DOCUMENT.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)` \|.*$", text, re.MULTILINE)}


def test_the_document_has_every_field_and_no_other():
    assert set(rows("Fields")) == set(types.Event.__annotations__)
    for row, kind in (("nodes", types.EventNode), ("groups", types.EventGroup)):
        said = set(re.findall(r"`(\w+)`", rows("Fields")[row].split("|", 3)[3]))
        assert said == set(kind.__annotations__)


def test_the_document_has_every_event_and_state():
    found = rows("Events")
    assert set(found) == set(t.get_args(types.EventName))
    said = {name for row in found.values() for name in re.findall(r"`(\w+)`", row.rsplit("|", 2)[1])}
    assert said | {"v", "at", "run", "event"} == set(types.Event.__annotations__)
    states = re.findall(r"`(\w+)`", rows("Fields")["state"].split(";")[0].split("|")[3])
    assert tuple(states) == t.get_args(types.NodeState)
    assert f"this format, {events.VERSION};" in rows("Fields")["v"]
