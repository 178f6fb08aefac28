# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services' descriptions of themselves, in the layout of each generation."""

from __future__ import annotations

from .dialects import Arg, Description, Dialect, Method, ServiceTable
from .xml import element, escape

_DECLARATION = "<?xml version='1.0'?>"


def service_list(dialect: Dialect) -> str:
    """Return the reply to ``GET /``, which is also the reply to every path that names no service."""
    slashed = dialect.description in (Description.PRETTY, Description.SLASHED)
    groups = []
    for service in dialect.services.values():
        info = element("info", escape(service.info))
        if slashed:
            attributes: dict[str, str | None] = {"path": f"/{service.name}", "name": service.name}
        else:
            attributes = {"name": service.name, "path": service.name}
        groups.append(element("serviceGroup", info, attributes))
    body = element("serviceGroups", "".join(groups))
    return _DECLARATION + ("" if slashed else "\n") + body


def service_description(dialect: Dialect, service: ServiceTable) -> str:
    """Return the reply to ``GET /<service>``, which is also the reply to every method it does not have."""
    if dialect.description is Description.BARE:
        return _bare(service)
    methods = sorted(service.methods, key=lambda method: method.name)
    ordered = dialect.description is Description.SORTED
    group = element(
        "serviceGroup",
        element("info", escape(service.info)) + "".join(_method(method, ordered) for method in methods),
        {"name": service.name, "prefix": f"/{service.name}"},
    )
    body = element("services", group)
    if dialect.description is Description.PRETTY:
        body = _pretty(body)
    return f"{_DECLARATION}\n{body}"


def _listed(method: Method) -> list[Arg]:
    return [arg for arg in method.args if arg.listed]


def _method(method: Method, ordered: bool) -> str:
    args = []
    for arg in _listed(method):
        required = "false" if arg.value.startswith("[") else "true"
        attributes: dict[str, str | None] = {"name": arg.name, "value": arg.value, "isRequired": required}
        if ordered:
            attributes = dict(sorted(attributes.items()))
        args.append(element("arg", element("info", escape(arg.info)), attributes))
    content = element("info", escape(method.info)) + element("args", "".join(args))
    return element("service", content, {"name": method.name})


def _bare(service: ServiceTable) -> str:
    """The form of 2005: the group is the root and every argument has an ``args`` of its own."""
    lines = [_DECLARATION, f'<serviceGroup name="{service.name}">', f"  <info>{escape(service.info)}</info>"]
    for method in service.methods:
        lines += [f'  <service name="{method.name}">', f"    <info>{escape(method.info)}</info>"]
        lines += [
            f'    <args><arg name="{arg.name}" value="{escape(arg.value)}"/></args>'
            for arg in _listed(method)
        ]
        lines.append("  </service>")
    return "\n".join([*lines, "</serviceGroup>", ""])


def _pretty(xml: str) -> str:
    """Break between all parts and indent, texts too, as the 4.4 service does."""
    lines: list[str] = []
    depth = 0
    for part in xml.replace("<", "\0<").replace(">", ">\0").split("\0"):
        if not part:
            continue
        if part.startswith("</"):
            depth -= 1
        lines.append("  " * depth + part)
        if part.startswith("<") and not part.startswith("</") and not part.endswith("/>"):
            depth += 1
    return "\n".join(lines)
