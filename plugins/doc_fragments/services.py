# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Options that all modules which speak to a service of a testbed have."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  url:
    description:
      - Address of the gateway that has the service, for example V(http://pxe:5012).
      - It may have a path, that of a gateway which has the services below a prefix, as V(https://am1/omf).
        The name of the service is not part of it, and neither are a user, a query or a fragment. Names in
        other letters are given in their C(xn--) form.
    type: str
    required: true
  dialect:
    description:
      - Which generation of the services is spoken to.
      - V(auto) asks the service to describe itself. V(A) is that of 2006, V(B) OMF 4.4, V(C) OMF 5.2, V(D)
        OMF 5.3, V(E1) OMF 5.4.1, V(E2) OMF 5.4 of 2013.
    type: str
    choices: [auto, A, B, C, D, E1, E2]
    default: auto
  domain:
    description:
      - The testbed, for example V(sb1.orbit-lab.org).
      - Where nodes are given with their domain, that is the default.
    type: str
  user:
    description:
      - Whom the images must be readable by. Services of OMF 5.4 ask for it.
      - By default the login name of the user the module runs as.
    type: str
  timeout:
    description:
      - Seconds one call to the service may take in all.
      - A call for many nodes is given a quarter of a second more for each.
    type: float
    default: 30
  parallel:
    description:
      - How many calls may run at the same time.
    type: int
    default: 16
  validate_certs:
    description:
      - Whether the certificate of the service is checked, with https.
    type: bool
    default: true
  ca_path:
    description:
      - File or folder of the certificates to trust instead of the system's.
    type: path
  token:
    description:
      - Sent to the service as a bearer token, for a gateway that asks for one.
    type: str
requirements:
  - requests
"""

    NODES = r"""
options:
  nodes:
    description:
      - The nodes, of one domain.
      - An element is a name (V(node1-1) or V(node1-1.sb1.orbit-lab.org)), coordinates (V(1,1)), a node set
        (V([[1,1],[1..5,2]])), or a record with any of the keys C(name), C(domain), C(x), C(y), C(hrn) and
        C(control_ip).
      - What a record leaves out follows from the rules of the domain. A node may be given once only.
    type: list
    elements: raw
    required: true
"""
