# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Replies of the services, as recorded from OMF 4.4 to 5.4 and as documented for 2006."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

DOMAIN = "grid.orbit-lab.org"

#: Methods and arguments each service describes; ``[x]`` is optional.
METHODS: dict[str, dict[str, str]] = {
    "A": {
        "pxe": "setBootImage([img], [node], [ip]); allSetBootImage([img])",
        "frisbee": "getAddress(img); status(); stop(img)",
        "cmc": "on(x, y, [domain]); off(x, y, [domain]); reset(x, y, [domain]); allOff(); status()",
    },
    "B": {
        "pxe": "clearBootImageAll(domain); clearBootImageNS(ns, domain); setBootImageAll(domain); "
        "setBootImageNS(ns, domain)",
        "frisbee": "checkImage([img]); getAddress([img], [domain]); status([img], [domain]); stop([img], "
        "[domain])",
        "cmc": "allOffHard(); allOffSoft(); allStatus([domain]); getAllNodes(); nodeSetOn(nodes); "
        "offHard(x, y); "
        "offSoft(x, y); on(x, y); reset(x, y)",
    },
    "C": {
        "pxe": "clearBootImageAll(domain); clearBootImageNS(ns, domain); setBootImageAll(domain, [imgName]); "
        "setBootImageNS(ns, domain, [imgName])",
        "frisbee": "checkImage([img]); getAddress([img], [domain]); status([img], [domain]); stop([img], "
        "[domain])",
        "cmc": "allOffHard(); allOffSoft([domain]); allStatus([domain]); getAllNodes([domain]); "
        "nodeSetOn(nodes); "
        "offHard(x, y, domain); offSoft(x, y, domain); on(x, y); reset(x, y, domain)",
    },
    "D": {
        "pxe": "clearBootImageAll(domain); clearBootImageNS(ns, domain); setBootImageAll(domain, [imgName]); "
        "setBootImageNS(ns, domain, [imgName])",
        "frisbee": "checkImage([img]); getAddress([img], [domain]); status([img], [domain]); stop([img], "
        "[domain])",
        "cmc": "allOffHard(); allOffSoft([domain]); allStatus([domain]); getAllNodes([domain]); "
        "nodeSetOn(nodes); "
        "offHard(name, domain); offSoft(name, domain); on(name); reset(name, domain)",
    },
    "E1": {
        "pxe": "clearBootImageNS(domain, ns); setBootImageNS(domain, ns, [imgName])",
        "frisbee": "checkImage([domain], [img]); getAddress([domain], [img]); status([domain], [img]); "
        "stop([domain], [img])",
        "cmc": "offHard(hrn, domain); offSoft(hrn, domain); on(hrn, domain); reboot(hrn, domain); "
        "reset(hrn, domain); status(hrn, domain)",
    },
    "E2": {
        "pxe": "clearBootImageNS(domain, ns); setBootImageNS(domain, ns, [imgName])",
        "frisbee": "checkImage([domain], [img], [user]); getAddress([domain], [img], [user]); "
        "status([domain], [img]); stop([domain], [img])",
        "cmc": "offHard(hrn, domain); offSoft(hrn, domain); on(hrn, domain); reboot(hrn, domain); "
        "reset(hrn, domain); status(hrn, domain)",
    },
}

#: The cmc that came with all of B to E: a skeleton that takes coordinates.
CMC_SKELETON = (
    "allOffHard(); allOffSoft(); allOn(); allStatus([domain]); getAllNodes(); nodeSetOn(ns, [domain]); "
    "offHard(x, y); offSoft(x, y); on(x, y, [domain]); reset(x, y)"
)

SERVICE_LIST = (
    "<?xml version='1.0'?>\n<serviceGroups><serviceGroup name='cmc' path='cmc'><info>Information on "
    "available "
    "testbed resources and simple control functionality</info></serviceGroup><serviceGroup name='frisbee' "
    "path='frisbee'><info>Service to control frisbee daemons</info></serviceGroup><serviceGroup name='pxe' "
    "path='pxe'><info>Service to facilitate PXE</info></serviceGroup></serviceGroups>"
)
#: B and C: the paths begin with a slash.
OLD_SERVICE_LIST = SERVICE_LIST.replace("path='", "path='/")


def description(service: str, methods: str, *, pretty: bool = False, old_root: bool = False) -> str:
    """Return the self-description of a service with these methods."""
    parts = []
    for method in methods.split("; "):
        name, _bracket, rest = method.partition("(")
        arguments = "".join(
            f"<arg isRequired='{str(not arg.startswith('[')).lower()}' name={quoteattr(arg.strip('[]'))} "
            f"value={quoteattr(arg)}><info>about it.</info></arg>"
            for arg in rest.rstrip(")").split(", ")
            if arg
        )
        parts.append(f"<service name='{name}'><info>What it does</info><args>{arguments}</args></service>")
    start = f"<serviceGroup name='{service}' prefix='/{service}'><info>About</info>"
    group = f"{start}{''.join(parts)}</serviceGroup>"
    text = group if old_root else f"<services>{group}</services>"
    if pretty:
        text = text.replace("><", ">\n  <")
    return f"<?xml version='1.0'?>\n{text}"


def describe(dialect: str, service: str) -> str:
    """Return the self-description of a service of a dialect."""
    return description(service, METHODS[dialect][service], pretty=dialect == "B")


def service_list(dialect: str) -> str:
    """Return the list of services of a dialect."""
    return OLD_SERVICE_LIST if dialect in ("B", "C") else SERVICE_LIST


def linked(*nodes: str, action: str = "setBootImage") -> str:
    """Return the reply to a set or clear call; each node is its attributes as text."""
    inner = f"<nodes>{''.join(f'<node {node}/>' for node in nodes)}</nodes>" if nodes else "<nodes/>"
    return f"<response status='OK'><action name='{action}' service='pxe'>{inner}</action></response>"


def linked_hrn(*places: tuple[int, int], image: str = "omf-5.4", domain: str = DOMAIN) -> str:
    """Return the reply of D and E to a set call."""
    return linked(
        *(
            f"hex='0A0A{x:02X}{y:02X}' hrn='node{x}-{y}.{domain}' img='{image}' ip='10.10.{x}.{y}'"
            for x, y in places
        )
    )


def linked_xy(*places: tuple[int, int], image: str = "omf-5.4") -> str:
    """Return the reply of B and C to a set call."""
    return linked(
        *(f"hex='0A0A{x:02X}{y:02X}' img='{image}' ip='10.10.{x}.{y}' x='{x}' y='{y}'" for x, y in places)
    )


CLEARED = linked(action="clearBootImage")

#: The error page of B and C; texts are escaped.
HTML_ERROR = """<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.0//EN">
<HTML>
  <HEAD><TITLE>Bad Request</TITLE></HEAD>
  <BODY>
    <H1>Bad Request</H1>
    {message}
    <HR>
    <ADDRESS>
     WEBrick/1.8.1 (Ruby/3.1.2/2022-04-12) at
     127.0.0.52:5052
    </ADDRESS>
  </BODY>
</HTML>
"""

NOT_STOPPED = (
    "<ERROR>Did not stop the frisbeed serving &apos;{image}&apos;.Either it is not running or some "
    "clients are still "
    "receiving data from it.</ERROR>"
)


def status(*daemons: tuple[str, int], address: str = "224.0.0.5", bandwidth: str = "50.0") -> str:
    """Return the list of streams."""
    inner = "".join(
        f"<daemon img='{image}' port='{port}' timeLeft='3594.866836'/>" for image, port in daemons
    )
    head = f"<bandwidth>{bandwidth}</bandwidth><mc_address>{address}</mc_address>"
    return f"<frisbee_status>{head}{inner}</frisbee_status>"


NOT_SERVING = "<OK>No frisbee daemons are currently serving &apos;{image}&apos;</OK>"
NO_STREAMS = "<OK>No frisbee daemons are running</OK>"


def node_status(hrn: str, state: str) -> str:
    """Return the state of one node (E)."""
    return f"<NODE_STATUS><detail><node hrn='{hrn}' state='{state}'/></detail></NODE_STATUS>"


def testbed_status(*nodes: str) -> str:
    """Return the state of all nodes (B to D); each node is its attributes as text."""
    return f"<TESTBED_STATUS><detail>{''.join(f'<node {node}/>' for node in nodes)}</detail></TESTBED_STATUS>"


# A name that begins with "test" is no test here.
testbed_status.__test__ = False  # type: ignore[attr-defined]
