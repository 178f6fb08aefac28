# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a play says of its hosts, as Ansible itself would tell each of them.

A task that runs once sees the variables of one host. A run needs those of all hosts of the batch, with what
the play, the role, an include and the command line say, in Ansible's own precedence: so the same question is
asked that Ansible asks before it runs a task on a host. In the same way conditions are asked for every host,
as Ansible asks only the first one for a task that runs once.
"""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.template import Templar

from ansible_collections.orbit.imaging.plugins.plugin_utils.node import connection
from ansible_collections.orbit.imaging.plugins.plugin_utils.plain import plain
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import settings, tokens
from ansible_collections.orbit.imaging.plugins.plugin_utils.run.plan import Group, Host

# What the role's own tasks keep for each other; they could not if somebody else's value went before.
_KEPT = ("orbit_run", "orbit_report")

# What a variable comes to whose template says omit.
_OMITTED: t.Any = object()

#: Strategies under which a task that runs once runs once, and before the next one.
STRATEGIES = ("linear", "debug")


class PlayError(Exception):
    """The play cannot be used as it is written. One line per mistake: input, place, remedy."""


@dataclasses.dataclass
class Play:
    """The hosts that a run may be about, and what of the play chooses among them.

    :ivar hosts: hosts of this batch that the conditions of the play let take part.
    :ivar others: names of the play's hosts in other batches.
    :ivar elsewhere: whether any of those is chosen.
    :ivar left_out: names of this batch's hosts that a condition leaves out.
    :ivar chosen: whether the play says which hosts are meant: by ``hosts:``, ``--limit`` or a condition.
    :ivar nodes: the node set that restricts the run, None without one.
    :ivar groups: groups of the inventory, by name.
    """

    hosts: list[Host]
    others: list[str]
    elsewhere: bool
    left_out: list[str]
    chosen: bool
    nodes: t.Any
    groups: dict[str, Group]


def read(action: ActionBase, task_vars: dict[str, t.Any]) -> Play:
    """Return what the play of the task of ``action`` says of its hosts.

    :raises PlayError: when the play is of a kind in which a run cannot be.
    """
    return _Reader(action, task_vars).play()


class Tokens(dict[str, dict[str, t.Any]]):
    """The service token of each host, fetched from its variables when it is asked for.

    Ansible's own ``hostvars`` does not have what the play, a role or an include says; here all of it counts.
    """

    def __init__(self, action: ActionBase) -> None:
        super().__init__()
        self._task = action._task
        self._loader = action._loader

    def __missing__(self, name: str) -> dict[str, t.Any]:
        manager = self._task.get_variable_manager()
        host = manager._inventory.get_host(name)
        variables = manager.get_vars(play=self._task.play, host=host, task=self._task)
        token = Templar(loader=self._loader, variables=variables).template(variables[tokens.VARIABLE])
        self[name] = {tokens.VARIABLE: plain(token)}
        return self[name]


class _Reader:
    def __init__(self, action: ActionBase, task_vars: dict[str, t.Any]) -> None:
        self._task = action._task
        self._loader = action._loader
        self._task_vars = task_vars
        self._manager = self._task.get_variable_manager()
        self._inventory = self._manager._inventory
        self._play = self._task.play
        self._conditions = _conditions(self._task)
        # Without a host: what play, role, include, task and command line say, and nothing of the inventory.
        self._shared = self._manager.get_vars(play=self._play, task=self._task, include_hostvars=False)
        self._wanted = frozenset(settings.specification())
        self._ways = frozenset(connection.variables())
        self._keywords = connection.keywords(self._task)
        # The role's own tasks never become anybody; what the play says of that is about the nodes.
        self._keywords["become"] = getattr(self._play, "become", None)

    def play(self) -> Play:
        self._check_strategy()
        self._check_ignore_errors()
        self._check_kept()
        hosts, left_out = [], []
        batch = [str(name) for name in self._task_vars["ansible_play_batch"]]
        self._check_localhost(batch)
        for name in batch:
            host = self._host(name)
            if host is None:
                left_out.append(name)
            else:
                hosts.append(host)
        everybody = [str(name) for name in self._task_vars["ansible_play_hosts_all"]]
        chosen = (
            "ansible_limit" in self._task_vars
            or bool(left_out)
            or _pattern(self._play.hosts) not in ("all", "*")
        )
        others = [name for name in everybody if name not in set(batch)]
        given = self._of_inventory([*(host.name for host in hosts), *others]) if not chosen else set()
        for host in hosts:
            host.image_of_inventory = host.name in given
        return Play(
            hosts=hosts,
            others=others,
            elsewhere=bool(others) if chosen else any(name in given for name in others),
            left_out=left_out,
            chosen=chosen,
            nodes=self._nodes(hosts),
            groups=self._groups(),
        )

    def _check_strategy(self) -> None:
        strategy = str(self._play.strategy)
        if strategy.rpartition(".")[2] not in STRATEGIES:
            raise PlayError(
                f"the strategy of the play is {strategy}, under which every host would start a run of "
                "its own. Write 'strategy: linear' in the play."
            )

    def _check_ignore_errors(self) -> None:
        """Refuse what would go on with the next step after one that found that nothing can be done."""
        # Of what stands above the task, as the task itself says "false".
        said = self._task._parent._get_parent_attribute("ignore_errors") if self._task._parent else None
        try:
            if isinstance(said, str):
                said = Templar(loader=self._loader, variables=self._task_vars).template(said)
        except AnsibleError as error:
            raise PlayError(f"ignore_errors cannot be worked out: {' '.join(str(error).split())}") from error
        if isinstance(said, (str, bool)) and boolean(said, strict=False):
            raise PlayError(
                "ignore_errors is set for the steps of a run, by the play, a block or the role. A run that "
                "fails would pass for one that is done. Leave it out here ('ignore_errors: false'); to go on "
                "after a failed run, put the role into a block with 'rescue'."
            )

    def _check_kept(self) -> None:
        role = self._task._role
        before = {
            **(role.get_role_params() if role else {}),
            **self._task.get_vars(),
            **self._manager.extra_vars,
        }
        for name in _KEPT:
            if name in before:
                raise PlayError(
                    f"{name} is given a value by the command line, the role or a block. The role keeps what "
                    "it does under that name: leave it out, or call yours otherwise."
                )

    def _check_localhost(self, batch: t.Sequence[str]) -> None:
        hosts = [self._inventory.get_host(name) for name in batch]
        if hosts and all(getattr(host, "implicit", False) for host in hosts):
            raise PlayError(
                f"the play runs on {batch[0]}, which is no node of the inventory. Write the nodes or their "
                "groups in 'hosts:' of the play; neither a loop nor delegate_to chooses nodes."
            )

    def _host(self, name: str) -> Host | None:
        """Return what is said of a host; None when a condition leaves it out."""
        entry = self._inventory.get_host(name)
        variables = self._manager.get_vars(play=self._play, host=entry, task=self._task)
        templar = Templar(loader=self._loader, variables=variables)
        try:
            if not all(self._holds(condition, templar, variables) for condition in self._conditions):
                return None
        except AnsibleError as error:
            raise PlayError(f"host {name}: a condition of the play cannot be decided: {error}") from error
        host = Host(name, plain(variables.get("group_names", [])), {}, keywords=self._keywords)
        for key in variables:
            if key in self._wanted or key in self._ways:
                value = self._templated(host, key, variables, templar)
                if value is not _OMITTED:
                    host.variables[key] = value
            elif isinstance(key, str) and key.startswith("orbit_") and key not in settings.OTHERS:
                # Only its name matters: it may be a misspelt one of ours.
                host.variables[key] = None
        host.image = self._image(host, variables, templar)
        return host

    def _templated(self, host: Host, key: str, variables: dict[str, t.Any], templar: Templar) -> t.Any:
        try:
            value = plain(templar.template(variables[key]))
            # What is omitted is an error of its own since ansible-core 2.19, before that a text.
            return _OMITTED if value and value == variables.get("omit") else value
        except AnsibleError as error:
            if type(error).__name__ == "AnsibleValueOmittedError":
                return _OMITTED
            reason = " ".join(str(error).split())
            host.mistakes.append(f"host {host.name}: {key} cannot be worked out: {reason[:300]}")
            return None

    def _holds(self, condition: t.Any, templar: Templar, variables: dict[str, t.Any]) -> bool:
        if hasattr(templar, "evaluate_conditional"):
            return bool(templar.evaluate_conditional(condition))
        # ansible-core before 2.19
        from ansible.playbook.conditional import Conditional

        asked: t.Any = Conditional(loader=self._loader)
        asked.when = [condition]
        return bool(asked.evaluate_conditional(templar, variables))

    def _image(self, host: Host, variables: dict[str, t.Any], templar: Templar) -> t.Any:
        """Return what ``image`` says for the host; None when nobody says it or ``orbit_image`` counts."""
        short = self._short("image", host, variables, templar)
        if short is None or not self._is_said("orbit_image", host.name):
            return short
        long = host.variables.get("orbit_image")
        extra = self._manager.extra_vars
        if long == short or ("image" in extra and "orbit_image" not in extra):
            return short
        if "orbit_image" in extra and "image" not in extra:
            return None
        host.mistakes.append(
            f"host {host.name}: image is {short!r} and orbit_image is {long!r}, both said by the play or the "
            "command line. Leave one of them out."
        )
        return short

    def _short(self, name: str, host: Host, variables: dict[str, t.Any], templar: Templar) -> t.Any:
        if not self._is_said(name, host.name) or name not in variables:
            return None
        value = self._templated(host, name, variables, templar)
        return None if value is _OMITTED else value

    def _is_said(self, name: str, host: str) -> bool:
        """Whether play, role, command line or a task before (set_fact, include_vars) say the variable.

        The inventory is not asked: there, names such as ``image`` and ``nodes`` belong to anybody.
        """
        by_tasks = (self._manager._nonpersistent_fact_cache, self._manager._vars_cache)
        return name in self._shared or any(name in said.get(host, {}) for said in by_tasks)

    def _nodes(self, hosts: t.Sequence[Host]) -> t.Any:
        """Return the node set of the run, which all hosts must agree on."""
        said: dict[str, t.Any] = {}
        for host in hosts:
            value = host.variables.get("orbit_nodes")
            if self._is_said("nodes", host.name):
                variables = self._manager.get_vars(
                    play=self._play, host=self._inventory.get_host(host.name), task=self._task
                )
                templar = Templar(loader=self._loader, variables=variables)
                short = self._short("nodes", host, variables, templar)
                value = value if short is None else short
            said.setdefault(repr(value), value)
            if len(said) > 1:
                raise PlayError(
                    f"nodes (or orbit_nodes) differs between hosts: {', '.join(said)}. It chooses the nodes "
                    "of the whole run: say it once, with -e or in the play."
                )
        return next(iter(said.values()), None)

    def _of_inventory(self, names: t.Sequence[str]) -> set[str]:
        """Return which hosts the inventory itself gives an image; what is said for all does not count."""
        # Not copy.copy(), which before ansible-core 2.19 leaves half of it out.
        manager = object.__new__(type(self._manager))
        manager.__dict__.update(self._manager.__dict__)
        manager._extra_vars = {}
        manager._nonpersistent_fact_cache = collections.defaultdict(dict)
        found = set()
        for name in names:
            values = manager.get_vars(host=self._inventory.get_host(name), include_hostvars=False)
            if values.get("orbit_image") or values.get("orbit_chosen"):
                found.add(name)
        return found

    def _groups(self) -> dict[str, Group]:
        found = {}
        for name, members in self._task_vars["groups"].items():
            group = self._inventory.groups.get(name)
            image = group.vars.get("orbit_image") if group is not None else None
            found[str(name)] = Group(
                frozenset(map(str, members)), str(image) if isinstance(image, str) else None
            )
        return found


def _conditions(task: t.Any) -> list[t.Any]:
    """Return all conditions under which the task runs on a host.

    Those of the role and of blocks are the task's own; a dynamic include has asked its own already, for each
    host.
    """
    found = list(task.when)
    include = task.get_first_parent_include()
    while include is not None:
        if not getattr(include, "statically_loaded", True):
            found += include.when
        above = getattr(include, "_parent", None)
        include = above.get_first_parent_include() if above is not None else None
    return list({str(condition): condition for condition in found}.values())


def _pattern(hosts: t.Any) -> str:
    """Return the pattern of a play's hosts as one text."""
    if isinstance(hosts, (list, tuple)):
        return ",".join(str(part).strip() for part in hosts)
    return str(hosts).strip()
