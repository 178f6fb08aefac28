# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The run's variables: their types and defaults, taken from the role's own specification."""

from __future__ import annotations

import functools
import os
import typing as t

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

_SPECIFICATION = os.path.join(
    os.path.dirname(__file__), "..", "..", "..", "roles", "image", "meta", "argument_specs.yml"
)


class SettingsError(Exception):
    """A variable has a value of the wrong type or outside its choices; the text names the variable."""


@functools.lru_cache(maxsize=1)
def specification() -> dict[str, dict[str, t.Any]]:
    """Return the options of the role ``image`` as its argument specification has them."""
    with open(_SPECIFICATION, encoding="utf-8") as stream:
        options: dict[str, dict[str, t.Any]] = yaml.safe_load(stream)["argument_specs"]["main"]["options"]
    return options


@functools.lru_cache(maxsize=1)
def _validator() -> ArgumentSpecValidator:
    # Only what a validator needs: the specification also holds documentation.
    keys = ("type", "elements", "choices", "default")
    return ArgumentSpecValidator(
        {name: {k: spec[k] for k in keys if k in spec} for name, spec in specification().items()}
    )


def resolve(values: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Give every ``orbit_`` variable its type, and its default where ``values`` has none.

    Raises :class:`SettingsError` with one sentence for each variable that is wrong.
    """
    given = {name: values[name] for name in specification() if values.get(name) is not None}
    result = _validator().validate(given)
    if result.error_messages:
        raise SettingsError("; ".join(result.error_messages))
    return dict(result.validated_parameters)
