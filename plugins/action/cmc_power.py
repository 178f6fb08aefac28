# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module cmc_power, or with the option run a step of a run; see its documentation."""

from __future__ import annotations

from ansible_collections.orbit.imaging.plugins.plugin_utils.play.action import StepAction


class ActionModule(StepAction):
    """Does the steps of cmc_power."""

    module = "cmc_power"
