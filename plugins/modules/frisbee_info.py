#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: frisbee_info
short_description: Ask which images exist and which are being sent
version_added: 0.1.0
description:
  - Asks the frisbee service of a testbed for its streams and, when images are named, whether they exist and
    may be read.
  - An image that does not exist is an answer and no failure.
  - Only the service of the embedded testbed has manifests, the digests by which an image is checked on its
    way to the disk and on the disk. With any other one, no image has a manifest.
  - A service of 2006 tells whether an image exists only by sending it. Such an image is started and stopped
    again, and in check mode its RV(images[].exists) is not told.
author:
  - The orbit.imaging authors (@orbit-imaging)
extends_documentation_fragment:
  - orbit.imaging.attributes
  - orbit.imaging.attributes.info
  - orbit.imaging.services
options:
  images:
    description:
      - File names of the images to ask for, each once.
    type: list
    elements: str
    default: []
  manifests:
    description:
      - Whether to ask for the manifest of each image that exists, too.
    type: bool
    default: false
  manifest_dir:
    description:
      - Folder on the control host into which the manifests are put, whichever host asks for them. It is made
        when it is not there. In check mode nothing is put there.
      - Without it the manifests are only described.
    type: path
seealso:
  - module: orbit.imaging.frisbee_server
"""

EXAMPLES = r"""
- name: Ask for two images
  orbit.imaging.frisbee_info:
    url: http://frisbee:5054
    dialect: E2
    domain: sb1.orbit-lab.org
    images: [baseline.ndz, other.ndz]
  register: asked

- name: Refuse a run whose images are not all there
  ansible.builtin.assert:
    that: asked.images | rejectattr('exists') | length == 0
"""

RETURN = r"""
images:
  description: The answer for each image named, in the order given.
  returned: always
  type: list
  elements: dict
  contains:
    image:
      description: Name of the image.
      type: str
      sample: baseline.ndz
    exists:
      description: Whether it exists and may be read by the user; null when that could not be told.
      type: bool
    msg:
      description: The service's reason when it is not, or why it could not be told.
      type: str
    code:
      description:
        - V(no_such_image) when it is not, a code of RV(error) when the service could not be asked; else
          empty.
      type: str
    manifest:
      description: The manifest of the image.
      returned: when O(manifests) is true and the image exists
      type: dict
      contains:
        state:
          description:
            - V(present); V(absent); or V(damaged), which includes one that belongs to another image.
          type: str
          sample: present
        msg:
          description: Why there is none that can be used.
          type: str
        digest:
          description: SHA-256 of the image file.
          returned: when it is present, as all below
          type: str
        size:
          description: Bytes of the image file.
          type: int
          sample: 5242880
        chunks:
          description: Number of its chunks.
          type: int
          sample: 5
        disk_bytes:
          description: Bytes that a disk must have so that all data of the image lies on it.
          type: int
          sample: 67108864
        identity:
          description: What the installed system calls itself; empty when the manifest does not say.
          type: str
          sample: baseline.ndz
        path:
          description: Where the manifest is on the control host.
          returned: when O(manifest_dir) is given
          type: str
streams:
  description: All streams of the service, those of other domains too.
  returned: success
  type: list
  elements: dict
  contains:
    image:
      description: Name of the image.
      type: str
      sample: baseline.ndz
    address:
      description: Multicast group; null where the service does not tell it for each stream, as all historic
        ones.
      type: str
      sample: 239.77.0.1
    port:
      description: UDP port.
      type: int
      sample: 7000
    server:
      description: Address from which the stream is sent, where the service tells it.
      type: str
      sample: 10.0.0.200
    blocks_sent:
      description: Blocks of 1024 bytes sent since the stream was started, where the service tells it.
      type: int
      sample: 7147
    blocks_repeated:
      description: How many of them had been sent before, where the service tells it.
      type: int
      sample: 2027
    bandwidth:
      description: Rate of this stream in Mbit/s, headers included, where the service tells it.
      type: float
      sample: 80.0
    time_left:
      description: Seconds until the service ends the stream by itself; null when it does not say.
      type: float
      sample: 3594.9
    own:
      description:
        - Whether the stream is of the domain that was asked for; only such a stream can be joined or stopped
          with that domain. Null where the service does not tell, as those of 2006.
      type: bool
bandwidth:
  description: Rate of the stream started last in Mbit/s; null before the first.
  returned: success
  type: float
  sample: 50.0
dialect:
  description: The dialect spoken.
  returned: success
  type: str
  sample: E2
error:
  description: Why the service could not be asked at all, or refused the whole.
  returned: when nothing could be tried
  type: dict
  contains:
    code:
      description:
        - The reason for programs.
        - V(bad_argument) or V(unsupported), nothing was ordered; V(not_sent), nothing can have reached the
          service; V(timeout) or V(no_reply), an order may have been carried out; V(http_error), V(refused) or
          V(unexpected_reply), this is what came back.
      type: str
      sample: not_sent
    message:
      description: What went wrong.
      type: str
    service:
      description: The service asked.
      type: str
      sample: frisbee
    method:
      description: Its method.
      type: str
    url:
      description: Address of the method.
      type: str
    asked:
      description: The arguments, shortened.
      type: dict
    reply:
      description: What came back, shortened; null when nothing did.
      type: str
    status:
      description: The HTTP status; null when there was none.
      type: int
    remedy:
      description: What a person can do about it.
      type: str
"""

import base64
import typing as t
import zlib

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.orbit.imaging.plugins.module_utils.frisbee import (
    SENT,
    FrisbeeClient,
    Sidecar,
    Stream,
    check_image_name,
)
from ansible_collections.orbit.imaging.plugins.module_utils.module import (
    Failed,
    Results,
    argument_spec,
    describe_failures,
    run,
    user_of,
)
from ansible_collections.orbit.imaging.plugins.module_utils.service import Connection, ServiceError


def work(module: AnsibleModule, connection: Connection) -> Results:
    """Ask and return the results of the module."""
    images: t.List[str] = module.params["images"]
    for image in images:
        check_image_name(image)
    client = FrisbeeClient(
        connection, module.params["dialect"], module.params["domain"] or "", user_of(module)
    )
    answers: t.List[Results] = []
    failed: t.List[t.Tuple[str, str]] = []
    for image in images:
        try:
            exists, reason = client.check(image, may_start=not module.check_mode)
            code = "no_such_image" if exists is False else ""
        except ServiceError as error:
            exists, reason, code = None, error.brief, error.code
            failed.append((image, reason))
        answer: Results = {"image": image, "exists": exists, "msg": reason, "code": code}
        if exists and module.params["manifests"]:
            answer["manifest"] = _describe(
                client.manifest(image), with_text=bool(module.params["manifest_dir"])
            )
        answers.append(answer)
    if failed:
        message = describe_failures(f"frisbee at {connection.url}", "asked for", failed, len(images))
        raise Failed(message, {"changed": False, "images": answers})
    status = client.streams()
    return {
        "changed": False,
        "images": answers,
        "streams": [_as_dict(stream) for stream in status.streams],
        "bandwidth": status.bandwidth,
        "dialect": client.speaker.dialect.name,
    }


def _describe(sidecar: Sidecar, with_text: bool) -> Results:
    """Return a manifest in short; the text, for the action on the control host, is packed."""
    if sidecar.manifest is None:
        return {"state": "damaged" if sidecar.damaged else "absent", "msg": sidecar.msg}
    described = {"state": "present", "msg": "", **sidecar.manifest._asdict()}
    if with_text:
        described["packed"] = base64.b64encode(zlib.compress(sidecar.text, 1)).decode("ascii")
    return described


def _as_dict(stream: Stream) -> t.Dict[str, t.Any]:
    """Return a stream as a result; what only later services tell is there only where it is told."""
    return {
        key: value
        for key, value in stream._asdict().items()
        if value is not None or key not in ("server", *SENT)
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=argument_spec(
            images={"type": "list", "elements": "str", "default": []},
            manifests={"type": "bool", "default": False},
            manifest_dir={"type": "path"},
        ),
        supports_check_mode=True,
    )
    run(module, work)


if __name__ == "__main__":
    main()
