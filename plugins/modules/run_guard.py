#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_guard
short_description: Claim the nodes of a run and clean up when ansible-playbook dies
version_added: 0.1.0
author:
  - The orbit.imaging authors (@orbit-imaging)
description:
  - V(started) claims the nodes for this run, all or none, and starts the guard. That is a process of its own
    on the control host. It holds the claims, hears what the run is about to do, and waits for the end of
    C(ansible-playbook).
  - When C(ansible-playbook) ends without V(released), whether by Ctrl-C, a signal or a crash, the guard ends
    modules of the run that are still at work, removes the links, takes back the uses of streams and writes
    what it did to C(guard.log) in the run's folder. It repeats that for up to five minutes while a service is
    down. Then it writes the result files of the run, in which a node whose last step was not seen is
    V(interrupted). The claims end with the guard.
  - Frisbee clients that are writing are left to finish, as a half-written disk is worse than a node that is
    busy.
  - A use of a stream whose request was cut off between question and answer is taken back only if nobody else
    can be receiving the image; otherwise the log says that it may be left.
  - The guard survives the end of the terminal, but not of the host or of the container in which
    C(ansible-playbook) runs. The playbook C(orbit.imaging.clean) mends what is left then.
  - Links and streams are undone from the control host, also when the modules run on another one.
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    support: full
    details:
      - Nothing is claimed and no guard is started, but nodes that another run has claimed are reported.
  diff_mode:
    support: none
  platform:
    platforms: posix
requirements:
  - Python library C(requests) for the Python that runs C(ansible-playbook)
options:
  state:
    description:
      - V(started) claims the nodes and starts the guard.
      - V(note) tells the guard that O(step) begins or, with O(result), what has come of it.
      - V(released) ends the guard. What was not seen to be unlinked and stopped is undone first, for at
        most half a minute.
    type: str
    choices: [started, note, released]
    required: true
  record:
    description: The record of the run.
    type: dict
    required: true
  step:
    description: The step that is noted.
    type: str
    choices: [link, serve, client, unlink, stop]
  result:
    description: What the task of O(step) registered, as a loop.
    type: dict
  claimed:
    description:
      - What happens when another run has claimed one of the nodes. With V(refuse) the task fails, and names
        nodes, holder and since when; with V(skip) these nodes are left out.
    type: str
    choices: [refuse, skip]
    default: refuse
"""

EXAMPLES = r"""
- name: Claim the nodes
  orbit.imaging.run_guard:
    state: started
    record: "{{ orbit_run }}"
  run_once: true

- name: Say what comes next
  orbit.imaging.run_guard:
    state: note
    step: link
    record: "{{ orbit_run }}"
  run_once: true

- name: Let the guard go
  orbit.imaging.run_guard:
    state: released
    record: "{{ orbit_run }}"
  run_once: true
"""

RETURN = r"""
record:
  description: The record of the run, without the nodes that were left out.
  returned: for O(state=started)
  type: dict
skipped:
  description: Who holds the nodes that were left out, by host name.
  returned: for O(state=started)
  type: dict
streams_in_use:
  description: Streams that runs of this control host use, each with C(url), C(domain) and C(image).
  returned: for O(state=started)
  type: list
  elements: dict
undone:
  description: What the guard had to undo, in words.
  returned: for O(state=released)
  type: list
  elements: str
left:
  description: What could not be undone, in words.
  returned: for O(state=released)
  type: list
  elements: str
"""
