# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every module has its test, its place in the action group and its documentation."""

from __future__ import annotations

import ast
import pathlib

import pytest
import yaml

from ansible_collections.orbit.imaging.plugins.module_utils.service import ServiceError

ROOT = pathlib.Path(__file__).parents[3]
TESTS = pathlib.Path(__file__).parent
FRAGMENT = "orbit.imaging.services"


def constants(path):
    """Return the texts a plugin assigns to names, without running it."""
    found = {}
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            found[statement.targets[0].id] = statement.value.value
    return found


def documentation(path):
    return yaml.safe_load(constants(path)["DOCUMENTATION"])


MODULES = sorted((ROOT / "plugins" / "modules").glob("*.py"))
SERVICE_MODULES = [
    path for path in MODULES if FRAGMENT in documentation(path).get("extends_documentation_fragment", [])
]


def test_there_are_modules():
    assert {path.stem for path in SERVICE_MODULES} >= {
        "pxe_link",
        "frisbee_server",
        "frisbee_info",
        "cmc_power",
        "cmc_info",
    }


def test_the_action_group_has_the_modules_that_speak_to_services():
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())
    assert sorted(runtime["action_groups"]["services"]) == [path.stem for path in SERVICE_MODULES]


#: What Ansible itself puts into a task's result, or takes from it for its own ends. Those from 2.20 on
#: believe a `skipped` of ours.
ANSIBLES_OWN = {
    *("_ansible_verbose_always", "ansible_facts", "ansible_job_id", "ansible_loop_var", "ansible_stats"),
    *(
        "ansible_index_var",
        "add_group",
        "add_host",
        "attempts",
        "censored",
        "changed",
        "deprecations",
        "diff",
    ),
    *("exception", "failed", "failed_when_result", "failed_when_suppressed_exception", "false_condition"),
    *("finished", "include", "include_args", "invocation", "item", "results", "results_file", "retries"),
    *("skip_reason", "skipped", "started", "unreachable", "warnings"),
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_result_is_named_as_one_of_ansibles_own(path):
    documented = yaml.safe_load(constants(path).get("RETURN", "")) or {}
    assert not ANSIBLES_OWN & set(documented)
    assert not [name for name in documented if name.startswith("_ansible")]


@pytest.mark.parametrize("path", SERVICE_MODULES, ids=lambda path: path.stem)
def test_module(path):
    assert (TESTS / "modules" / f"test_{path.name}").is_file()
    texts = constants(path)
    doc = documentation(path)
    assert doc["module"] == path.stem
    assert doc["version_added"]
    assert doc["short_description"]
    assert "orbit.imaging.attributes" in doc["extends_documentation_fragment"]
    info = "orbit.imaging.attributes.info" in doc["extends_documentation_fragment"]
    assert info == path.stem.endswith("_info")
    if not info:
        assert {"check_mode", "diff_mode", "idempotent"} <= set(doc["attributes"])
    examples = yaml.safe_load(texts["EXAMPLES"])
    assert any(f"orbit.imaging.{path.stem}" in task for task in examples)
    returned = yaml.safe_load(texts["RETURN"])
    assert returned["dialect"]
    assert set(returned["error"]["contains"]) == set(ServiceError("").as_dict())


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("module_utils", "inventory")
        for path in sorted((ROOT / "plugins" / folder).glob("*.py"))
        if path.name != "__init__.py"
    ],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_plugin_has_a_test_of_the_same_name(path):
    assert (TESTS / path.parent.name / f"test_{path.name}").is_file()
