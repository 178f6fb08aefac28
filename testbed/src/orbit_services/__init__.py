# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The testbed's pxe, frisbee and cmc services, as their clients of 2005 to 2013 know them.

``dialects`` is the table of what each generation understands and answers; ``web`` routes and shapes replies
by it; ``pxe``, ``frisbee`` and ``cmc`` do the work on ``links``, ``streams`` and a power back end; ``app``
puts them together on one shared state. ``python -m orbit_services`` serves them without nodes.

One historic reply is not made, in faithful mode neither: 5.2 and 5.3 answered a domain they had no section
for with a status line without a status, which no ASGI server can write. The same text comes with status
500 (5.3: ``internal error``).
"""
