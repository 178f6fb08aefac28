# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
import yaml

from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import plain


class Marked(str):
    """A text as Ansible marks some: converting it gives another marked one."""

    def __str__(self):  # pylint: disable=invalid-str-returned
        return self


@pytest.mark.parametrize("value", ["", "x", "text", "é\ud7ff", 7, 2.5, True, None])
def test_what_comes_out_is_exactly_of_a_built_in_type(value):
    given = Marked(value) if isinstance(value, str) else value
    made = plain({Marked("key"): [given, (given,)]})
    assert made == {"key": [value, [value]]}
    assert type(made["key"][0]) is type(value)
    assert [type(key) for key in made] == [str]
    assert yaml.safe_load(yaml.safe_dump(made)) == made
