# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several runs on one page."""

from __future__ import annotations

import json
import os
import unicodedata

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.report import page, runs

from ..runkit import ended_run
from .test_page import EVIL, Parsed, many


def put(folder, name, document):
    (folder / name).mkdir()
    (folder / name / "result.json").write_text(
        document if isinstance(document, str) else json.dumps(document)
    )


def test_flaky_nodes_stand_first_those_that_never_work_next(tmp_path):
    from ansible_collections.orbit.imaging.plugins.plugin_utils.report import result

    for number, causes in enumerate(
        ({"node2-1": "no_boot"}, {"node2-1": "no_boot", "node1-2": "stalled"}, {"node2-1": "no_boot"})
    ):
        document = result.make(ended_run(tmp_path, causes=causes))
        document["started_at"] += number
        put(tmp_path, f"r{number}", document)
    path = runs.write(str(tmp_path), runs.read(str(tmp_path)))
    assert os.path.basename(path) == page.FILE
    assert os.stat(path).st_mode & 0o77 == 0
    with open(path, "rb") as stream:
        found = Parsed(stream.read())
    rows = [a["data-name"] for a in found.all("tr", "data-name")]
    assert rows == ["node1-2", "node2-1", "node1-1", "node2-2"]
    assert "node1-2 flaky2 of 367 %02.0 s2.0 s✓T✓" in found.text
    assert "node2-10 of 30 %0BBB" in found.text


def test_what_is_no_result_is_named_and_the_rest_is_shown(tmp_path):
    put(tmp_path, "good", many(2))
    good = many(2)
    (name, node), *_rest = good["nodes"].items()
    others = {
        "empty": "",
        "list": "[]",
        "odd": '{"nodes": {"a": 3}}',
        "cut": '{"run',
        "deep": "[" * 100_000,
        "no schema": {key: value for key, value in good.items() if key != "schema"},
        "no time": {**good, "started_at": float("nan")},
        "text": {**good, "started_at": "1.5"},
        "never": {**good, "ended_at": float("inf")},
        "late": {**good, "ended_at": 10**400},
        "step": {**good, "nodes": {name: {**node, "steps": {"client": {"ended_at": 10**400}}}}},
        "tries": {**good, "nodes": {name: {**node, "attempts": None}}},
        "outcome": {**good, "nodes": {name: {**node, "outcome": ["imaged"]}}},
    }
    for what, text in others.items():
        put(tmp_path, what, text)
    put(tmp_path, "newer", {**good, "schema": 2})
    (tmp_path / "no run").mkdir()
    found = runs.read(str(tmp_path))
    assert [name for name, _run in found.results] == ["good"]
    newer = ("newer", "its schema is not 1, the one that this version of the collection reads")
    assert sorted(found.damaged) == sorted(
        [newer, *((name, "result.json is no result of a run") for name in others)]
    )
    assert "not counted: cut: result.json is no result of a run" in Parsed(runs.make(found)).text


def test_what_is_not_shown_is_counted():
    damaged = [(f"r{number}", "broken") for number in range(23)]
    text = Parsed(runs.make(runs.Runs([], damaged))).text
    assert text.count("not counted: r") == 20
    assert "3 more are not counted" in text
    document = many(1, groups=1)
    document["left_behind"] = [f"link {number}" for number in range(21)]
    text = Parsed(page.make(document)).text
    assert text.count("left behind: link") == 20
    assert "1 more left behind" in text


def test_names_of_runs_and_nodes_are_text(tmp_path):
    document = many(2)
    document["run"] = EVIL
    document["nodes"] = {f"{name}{EVIL}": node for name, node in document["nodes"].items()}
    put(tmp_path, "a 'b\"<c", document)
    put(tmp_path, "<i>", "")
    data = runs.make(runs.read(str(tmp_path)))
    found = Parsed(data)
    assert not [tag for tag, _a in found.tags if tag in ("img", "i")]
    assert found.all("a", "href") == []
    assert not any(unicodedata.category(c) in page._SPELT for c in data.decode() if c not in "\n\t")
    (link,) = Parsed(runs.make(runs.read(str(tmp_path)), {"a 'b\"<c"})).all("a", "href")
    assert link["href"] == "a%20%27b%22%3Cc/report.html"


def test_only_the_newest_runs_count(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_MOST", 2)
    for number in range(3):
        document = many(1, groups=1)
        document["started_at"] += number
        put(tmp_path, f"r{number}", document)
        os.utime(tmp_path / f"r{number}" / "result.json", (number, number))
    found = runs.read(str(tmp_path))
    assert [name for name, _run in found.results] == ["r1", "r2"]
    assert "1 older runs are not counted" in Parsed(runs.make(found)).text


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        runs.read(str(tmp_path / "none"))
    assert runs.read(str(tmp_path)) == runs.Runs([], [])
