# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tokens of services: how they get to those who ask, and to nobody else.

The record of a run is registered, shown with ``-v`` and written to files. So no token is in it: it says only
which host's variable has the token of a batch, and who asks a service fetches it from there.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import plain

#: The variable; it is not among the settings of the record.
VARIABLE = "orbit_service_token"

# What RFC 6750 allows in a bearer token; anything else could end the header it stands in.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,1024}=*\Z")


def mistake(token: str | None) -> str:
    """Return why ``token`` cannot be sent, without telling it; "" when it can, or when there is none."""
    if token is None or _TOKEN.match(token):
        return ""
    return (
        f"{VARIABLE} is no token (its value is not shown). "
        "Give one line of letters, digits and -._~+/, as the service has it."
    )


def spend(asked: t.Mapping[str, t.Any], hostvars: t.Mapping[str, t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """Return ``asked`` (a batch) with ``token`` instead of ``token_from``, the host whose variable has it."""
    rest = {key: value for key, value in asked.items() if key != "token_from"}
    host = asked.get("token_from")
    if host is not None:
        rest["token"] = plain(hostvars[host][VARIABLE])
    return rest
