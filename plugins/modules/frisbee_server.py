#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: frisbee_server
short_description: Start or stop the multicast streams of images
version_added: 0.1.0
description:
  - Asks the frisbee service of a testbed to send images by multicast, each at its own address and port, or
    takes a use of these streams back.
  - A stream that runs already is joined. Services of OMF 5.3 and later count the uses of a stream and end it
    with the last one; every start therefore needs one stop. Older services end it at the first stop, for all
    who receive it.
  - Starts are made one after another, also by several processes on one host, because services give two images
    that are asked for at the same time one address. An address that another image has too is refused and
    given back. For hosts that start streams at the same moment a start that failed so is made again, after a
    pause and where that cannot count a use twice.
  - Streams of other domains of the same service are left out of account.
author:
  - The orbit.imaging authors (@orbit-imaging)
extends_documentation_fragment:
  - orbit.imaging.attributes
  - orbit.imaging.services
attributes:
  check_mode:
    support: full
    details:
      - Asks whether the images exist and which are being sent. A service of 2006 tells the former only by
        starting a stream, so that is left out.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - Where the service counts the uses of a stream, each start counts.
options:
  images:
    description:
      - File names of the images, each once.
    type: list
    elements: str
    required: true
  state:
    description:
      - V(started) starts or joins the stream of each image, V(stopped) takes back one use of each.
    type: str
    choices: [started, stopped]
    default: started
seealso:
  - module: orbit.imaging.frisbee_info
"""

EXAMPLES = r"""
- name: Send two images
  orbit.imaging.frisbee_server:
    url: http://frisbee:5012
    domain: sb1.orbit-lab.org
    images: [baseline.ndz, other.ndz]
  register: serve

- name: Take the uses back
  orbit.imaging.frisbee_server:
    url: http://frisbee:5012
    domain: sb1.orbit-lab.org
    images: [baseline.ndz, other.ndz]
    state: stopped
"""

RETURN = r"""
streams:
  description: What became of each image, in the order given.
  returned: when the images could be tried
  type: list
  elements: dict
  contains:
    image:
      description: Name of the image.
      type: str
      sample: baseline.ndz
    ok:
      description: Whether it is as asked.
      type: bool
    state:
      description:
        - What became of it, for programs.
        - V(started) or V(joined); V(served) when the service's list could not be read to tell which.
        - V(stopped), the stream has ended; V(still_used), it goes on for others; V(not_sending), it was not
          being sent in this domain; V(unknown), the use is taken back, but the list could not be read to see
          more.
        - V(would_start), V(would_join) or V(would_stop) in check mode.
        - V(failed), with the reason in RV(streams[].code).
      type: str
      sample: started
    code:
      description:
        - The reason of a failure for programs, empty when there is none.
        - V(address_taken), another image has the address; V(not_sending), the service does not list the
          stream that it has given; V(no_such_image); V(busy), another process of this host starts streams;
          or a code of RV(error).
      type: str
    changed:
      description: Whether a stream was started or ended, or its uses counted.
      type: bool
    address:
      description: Multicast group of the stream; empty when stopped.
      type: str
      sample: 224.0.0.5
    port:
      description: UDP port of the stream; 0 when stopped.
      type: int
      sample: 7000
    server:
      description: Address from which the stream is sent, where the service tells it.
      type: str
      sample: 10.0.0.200
    blocks_sent:
      description: Of a stop, blocks of 1024 bytes that the stream had sent, where the service tells them.
      type: int
      sample: 7147
    blocks_repeated:
      description: How many of them had been sent before, where the service tells it.
      type: int
      sample: 2027
    bandwidth:
      description: Of a stop, the stream's rate in Mbit/s, headers included, where the service tells it.
      type: float
      sample: 80.0
    joined:
      description: Whether the stream ran already; null when that could not be told.
      type: bool
    msg:
      description: The reason of a failure, or a remark.
      type: str
failed_images:
  description: Names of the images that are not as asked.
  returned: when the images could be tried
  type: list
  elements: str
dialect:
  description: The dialect spoken.
  returned: when the images could be tried
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

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.orbit.imaging.plugins.module_utils.dialects import Request
from ansible_collections.orbit.imaging.plugins.module_utils.frisbee import (
    NOT_SENDING,
    FrisbeeClient,
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
    """Start or stop the streams and return the results of the module."""
    images = images_of(module.params["images"])
    started = module.params["state"] == "started"
    client = FrisbeeClient(
        connection, module.params["dialect"], module.params["domain"] or "", user_of(module)
    )
    dialect = client.speaker.dialect.name
    do = _DO[module.params["state"], module.check_mode]
    streams = []
    for image in images:
        try:
            streams.append({**_stream(image), **do(client, image)})
        except ServiceError as error:
            streams.append(
                {**_stream(image), "ok": False, "state": "failed", "code": error.code, "msg": error.brief}
            )
    _refuse_shared_address(client, streams)
    failed = [stream for stream in streams if not stream["ok"]]
    results = {
        "changed": any(stream["changed"] for stream in streams),
        "streams": streams,
        "failed_images": [stream["image"] for stream in failed],
        "dialect": dialect,
        "diff": _diff(streams, started),
    }
    if failed:
        reasons = [(stream["image"], stream["msg"]) for stream in failed]
        verb = "served" if started else "stopped"
        raise Failed(describe_failures(f"frisbee at {connection.url}", verb, reasons, len(streams)), results)
    results["msg"] = "; ".join(f"{stream['image']}: {stream['msg']}" for stream in streams)
    return results


def images_of(names: t.Sequence[str]) -> t.List[str]:
    """Return the names when they are names of images, each once.

    :raises ServiceError: naming the bad one.
    """
    if not names:
        raise ServiceError("no image is chosen", remedy="Name at least one image")
    for name in names:
        check_image_name(name)
        if list(names).count(name) > 1:
            raise ServiceError(f"the image '{name}' is named twice", remedy="Name each image once")
    return list(names)


def _stream(image: str) -> Results:
    return {
        "image": image,
        "ok": True,
        "changed": False,
        "state": "",
        "code": "",
        "address": "",
        "port": 0,
        "joined": False,
        "msg": "",
    }


def _start(client: FrisbeeClient, image: str) -> Results:
    started = client.start(image)
    address, port = started.stream.address, started.stream.port
    where = f"{started.state} at {address}:{port}"
    if not started.verified:
        where += "; the service's list could not be read to check that no other image is sent there"
    return {
        "changed": not started.joined or client.speaker.dialect.counts_uses,
        "state": started.state,
        "address": address,
        "port": port,
        "joined": started.joined,
        **({"server": started.stream.server} if started.stream.server else {}),
        "msg": where,
    }


def _stop(client: FrisbeeClient, image: str) -> Results:
    # The stop is sent whatever is listed: the list may have lost a stream that the count has not.
    stopped = client.stop(image)
    changed = stopped.state != NOT_SENDING
    return {"changed": changed, "state": stopped.state, "msg": stopped.words, **stopped.sent}


def _would_start(client: FrisbeeClient, image: str) -> Results:
    exists, reason = client.check(image, may_start=False)
    if exists is False:
        return {"ok": False, "state": "failed", "code": "no_such_image", "msg": reason}
    serving = client.serving(image)
    return {
        "changed": not serving or client.speaker.dialect.counts_uses,
        "state": "would_join" if serving else "would_start",
        "joined": serving,
        "msg": f"would be {'joined' if serving else 'started'}" + (f" ({reason})" if reason else ""),
    }


def _would_stop(client: FrisbeeClient, image: str) -> Results:
    client.speaker.request("stop", Request((), image))  # refused where there is no method for it
    if client.serving(image):
        return {"changed": True, "state": "would_stop", "msg": "one use would be taken back"}
    return {"state": NOT_SENDING, "msg": "is not being sent"}


#: (state, check mode) -> what is done for one image; returns what differs from :func:`_stream`.
_DO: t.Dict[t.Tuple[str, bool], t.Callable[[FrisbeeClient, str], Results]] = {
    ("started", False): _start,
    ("started", True): _would_start,
    ("stopped", False): _stop,
    ("stopped", True): _would_stop,
}


def _refuse_shared_address(client: FrisbeeClient, streams: t.Sequence[Results]) -> None:
    """Mark streams that were given one address, and give them back: who receives there gets either image."""
    seen: t.Dict[t.Tuple[str, int], Results] = {}
    for stream in streams:
        key = (stream["address"], stream["port"])
        if not stream["port"]:
            continue
        other = seen.setdefault(key, stream)
        if other is not stream:
            for one, two in ((stream, other), (other, stream)):
                one.update(
                    ok=False,
                    state="failed",
                    code="address_taken",
                    msg=f"has the same address {key[0]}:{key[1]} as '{two['image']}'",
                )
    for stream in streams:
        if stream["port"] and not stream["ok"] and client.speaker.dialect.counts_uses:
            try:
                client.give_back(stream["image"])
            except ServiceError as error:
                # Its address stays in the result: that tells who cleans up that there is something to give
                # back.
                stream["msg"] += f"; its use could not be given back: {error.brief}"
            else:
                stream.update(changed=False, address="", port=0)


def _diff(streams: t.Sequence[Results], started: bool) -> t.Dict[str, str]:
    before, after = "", ""
    for stream in streams:
        was = stream["joined"] if started else stream["changed"]
        before += f"{stream['image']}: {'sent' if was else 'not sent'}\n"
        now = stream["ok"] if started else False
        after += f"{stream['image']}: {'sent' if now else ('not sent' if started else 'one use less')}\n"
    return {"before_header": "streams", "after_header": "streams", "before": before, "after": after}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=argument_spec(
            images={"type": "list", "elements": "str", "required": True},
            state={"type": "str", "choices": ["started", "stopped"], "default": "started"},
        ),
        supports_check_mode=True,
    )
    run(module, work)


if __name__ == "__main__":
    main()
