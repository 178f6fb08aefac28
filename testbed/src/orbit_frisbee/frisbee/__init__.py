# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Frisbee: one image file to any number of disks by UDP multicast.

The datagrams are those of the programs in the field: the 2004 generation that ORBIT and OMF shipped, and
the Emulab generation of 2016. A server here feeds clients of both, a client here eats from servers of
both; what is better here happens beside the wire.

The pieces, lowest first:

``wire``
    datagrams to messages and back; the only place that knows byte offsets.
``net``
    sockets: one to hear the group, one to send from, segmentation offload both ways.
``pace``, ``adapt``, ``work``
    when the server may send, how fast when nobody says, and what.
``server``
    ``frisbeed``: one thread, one loop.
``assembly``, ``asking``
    what the client has of each chunk, and when it asks for the rest. Neither knows sockets or threads.
``client``
    ``frisbee``: one thread for the protocol, others that inflate and write.

The client's side (``wire``, ``net``, ``assembly``, ``asking``, ``client``) runs inside a memory image: it
needs the standard library alone and imports little of it.
"""
