# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest

from .guardkit import Playbook, Service, wait_until


@pytest.fixture
def service():
    service = Service()
    yield service
    service.close()


@pytest.fixture
def playbook(tmp_path, service):
    made = []

    def make(**config):
        made.append(Playbook(tmp_path, service, **config))
        return made[-1]

    yield make
    for one in made:
        one.close()
        wait_until(one.is_over, "the guard did not end")
