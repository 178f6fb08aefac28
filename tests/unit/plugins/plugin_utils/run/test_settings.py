# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each variable: what is taken, in one spelling, and what is refused by its name."""

from __future__ import annotations

import os

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.run import settings

NUMBERS = [name for name, spec in settings.specification().items() if spec.get("type") in ("int", "float")]
URLS = ("orbit_pxe_url", "orbit_frisbee_url", "orbit_cmc_url")


def test_every_variable_has_a_rule():
    assert set(settings.RULES) == set(settings.specification())


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), "nan", "inf", -1, "-1", 10**400, "9" * 400, True],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_number_in_range_is_refused(name, value):
    with pytest.raises(settings.SettingsError) as caught:
        settings.resolve({name: value})
    (mistake,) = caught.value.mistakes
    assert mistake.startswith(f"{name} is ")
    assert caught.value.resolved[name] is None


@pytest.mark.parametrize("name", ["orbit_disk_serial", "orbit_identity", "orbit_memory_id", "orbit_user"])
@pytest.mark.parametrize("value", [0o123456, False, 1.20], ids=["octal", "no", "float"])
def test_what_yaml_has_made_of_a_text_is_refused(name, value):
    with pytest.raises(settings.SettingsError, match=f"{name} is {value}, which YAML reads as .*quotes"):
        settings.resolve({name: value})


@pytest.mark.parametrize("name", URLS)
def test_the_url_of_a_service(name):
    assert settings.resolve({name: " HTTP://Pxe:80/ "})[name] == "http://pxe"
    with pytest.raises(settings.SettingsError, match=f"{name} is .* has the path /lab"):
        settings.resolve({name: "http://pxe:5012/lab"})


@pytest.mark.parametrize("name", ["orbit_run_dir", "orbit_claim_dir"])
def test_folders_are_whole_paths(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings.resolve({name: "runs"})[name] == str(tmp_path / "runs")
    assert os.path.isabs(settings.resolve({})[name])
    for unknown in ("~nobody-of-this-name/runs", "$NOT_IN_THIS_ENVIRONMENT/runs"):
        with pytest.raises(settings.SettingsError, match=f"{name} is .* is unknown"):
            settings.resolve({name: unknown})


def test_certificates_have_a_whole_path():
    with pytest.raises(settings.SettingsError, match=r"orbit_service_ca is 'ca\.pem', which is no whole"):
        settings.resolve({"orbit_service_ca": "ca.pem"})


@pytest.mark.parametrize("value", [7, 7.0, "7", " 7", "7.0", "+7", "7e0"])
def test_whole_numbers_count_as_such_on_every_ansible_core(value):
    assert settings.resolve({"orbit_x": value})["orbit_x"] == 7


@pytest.mark.parametrize("value", [7.5, "7.5", "seven", "", "0x7"])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(settings.SettingsError, match=f"orbit_x is {value!r}"):
        settings.resolve({"orbit_x": value})
