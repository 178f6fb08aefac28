# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from xml.etree import ElementTree

from ansible_collections.orbit.imaging.plugins.module_utils.ping import Statistics
from ansible_collections.orbit.imaging.plugins.plugin_utils.report import ping


def _result(*names, image="x.ndz"):
    steps = {"client": {"started_at": 10.0, "ended_at": 12.5}}
    return {"run": "<run>", "nodes": {name: {"image": image, "steps": dict(steps)} for name in names}}


def _entry(name, *numbers, msg=""):
    return {"name": name, **Statistics(*numbers).as_dict(), "msg": msg}


PHASES = {
    "idle": [_entry("a", 5, 0), _entry("b", 0, 0, msg="ping gave no summary: it printed nothing")],
    "imaging": [_entry("a", 10, 9, 0, 0.1, 0.2, 0.3, 0.05), _entry("b", 10, 10, 1, 0.2, 0.4, 50.0, 0.1)],
    "after": [],
}


def test_windows_are_those_of_clients_that_ended():
    result = _result("a", "b")
    result["nodes"]["b"]["steps"] = {"client": {"started_at": 1.0}}
    assert ping.windows(result) == {"a": [10.0, 12.5]}


def test_the_document():
    document = ping.make(_result("a", "b"), PHASES, 0.2)
    assert (document["nodes"], document["images"], document["imaging_seconds"]) == (2, 1, 2.5)
    imaging = document["phases"]["imaging"]
    assert (imaging["all"]["packets"], imaging["all"]["lost_percent"]) == (20, 5.0)
    assert (imaging["all"]["min"], imaging["all"]["max"]) == (0.1, 50.0)
    assert imaging["nodes"]["a"]["avg"] == 0.2
    assert document["phases"]["after"]["all"]["lost_percent"] is None
    assert [figure["title"] for figure in document["figures_of_2006"]] == ["sandbox 1, 2 nodes, 2 images"]


def test_the_table_names_what_is_missing():
    said = "\n".join(ping.lines(ping.make(_result("a", "b"), PHASES, 0.2)))
    assert "idle: a: no answer" in said
    assert "idle: b: ping gave no summary" in said
    assert "2006: sandbox 1" in said


def test_nothing_imaged_is_said():
    document = ping.make({"run": "r", "nodes": {}}, {}, 1.0)
    assert document["imaging_seconds"] is None
    assert "nothing was imaged" in ping.lines(document)[0]


def test_the_plot_is_xml_and_escaped():
    text = ping.svg(ping.make(_result("a", "b"), PHASES, 0.2))
    root = ElementTree.fromstring(text)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 2
    assert "&lt;run&gt;" in text


def test_figures_of_the_nearest_set_up():
    assert {figure.nodes for figure in ping.nearest(120, 2)} == {100}
    assert {figure.images for figure in ping.nearest(120, 2)} == {2}
    assert len(ping.nearest(100, 1)) == 4
    assert len(ping.FIGURES) == 14
