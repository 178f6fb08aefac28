# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run checks and tests: ``.venv/bin/python tools/check.py [PART or GROUP...]``; without arguments, all.

One part shows its output as it comes. Several run two at a time (one on a single-core machine), each into a
log of its own: a line tells how each ended, a failed one shows the end of its log; a table closes the run.
The last line counts tests; a part that has no tests of its own (a linter, say) counts as one.

A part may take as long as it comes further; tools/supervise.py gives it up when it does not, and sees that
nothing of it is left, however it ends.

Exit status: 0 when every part passed, 1 when one failed, 2 on wrong use, 3 when this machine can run none of
them, 130 when interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import supervise

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOGS = ROOT / ".work" / "logs"

#: Seconds without any progress after which a part is taken for hung.
PATIENCE = 300

#: Parts that run at a time, and processes of a part that runs by itself.
WORKERS = min(2, os.cpu_count() or 1)

#: Tests that boot virtual machines: they have a part of their own.
MACHINES = "testbed/tests/tiers/qemu/test_machines.py"
ON_MACHINES = "tests/integration/test_vm.py"
#: The tests take it themselves: two machines are what two cores boot well.
MACHINES_LOCK = f"/tmp/orbit-testbed-machines-{os.getuid()}.lock"

MOLECULE_LOCK = f"/tmp/orbit-imaging-molecule-{os.getuid()}.lock"

SHELL_SCRIPTS = [
    ".ci/run",
    *sorted(f"tools/{path.name}" for path in (ROOT / "tools").iterdir() if not path.suffix),
]


@dataclasses.dataclass(frozen=True)
class Part:
    """Something that passes or fails as a whole: commands run one after another, to the last in any case."""

    name: str
    group: str
    about: str
    commands: tuple[tuple[str, ...], ...]
    #: Level of tools/setup that it needs.
    level: str = "dev"
    #: It consists of tests that pytest counts; none at all is a failure.
    tests: bool = False
    #: It is sensitive to other load (or makes so much of it) that it runs by itself.
    alone: bool = False


def cores() -> list[str]:
    """Return the versions of ansible-core that requirements/ has, oldest first."""
    names = (path.stem.removeprefix("core-") for path in (ROOT / "requirements").glob("core-*.txt"))
    return sorted(names, key=lambda version: [int(number) for number in version.split(".")])


def main_core() -> str:
    """Return the version that is in .venv."""
    match = re.search(r"^-r core-(.*)\.txt$", (ROOT / "requirements" / "core.txt").read_text(), re.M)
    assert match, "requirements/core.txt refers to no core-VERSION.txt"
    return match[1]


def on_ansible() -> list[str]:
    """Return the unit tests of what touches Ansible: plugins of its own kinds, and what shares its work."""
    tests = pathlib.Path("tests/unit/plugins")
    shared = ("module_utils", "plugin_utils")
    kinds = (path.name for path in (ROOT / tests).iterdir() if any(path.glob("test_*.py")))
    names = [
        # ansible-test knows folders by their slash.
        *sorted(f"{kind}/" for kind in kinds if kind not in shared),
        "module_utils/test_module.py",
        "plugin_utils/run/",
        "plugin_utils/node/test_fleet.py",
    ]
    return [f"{tests}/{name}" for name in names]


def units(core: str) -> Part:
    """Return the part that runs unit tests on another ansible-core: all on the oldest and the newest."""
    ends = (cores()[0], cores()[-1])
    tests = "unit tests" if core in ends else "unit tests of what touches Ansible"
    venv = ("--venv", f".work/core-{core}")
    syntax = 'for playbook in playbooks/*.yml; do ansible-playbook --syntax-check "$playbook" || exit 1; done'
    return Part(
        f"units-{core}",
        "tests",
        f"{tests}, and syntax of the playbooks, on ansible-core {core}",
        (
            ("tools/ansible-test", *venv, "units", *AT_ONCE, *(() if core in ends else on_ansible())),
            ("tools/in-copy", *venv, "sh", "-c", syntax),
        ),
        level=f"core-{core}",
        tests=True,
    )


def whole(core: str) -> Part:
    """Return the part that does whole runs on another ansible-core."""
    return Part(
        f"whole-{core}",
        "tests",
        f"whole runs, good and bad ones, on ansible-core {core}",
        (
            (
                "env",
                f"ORBIT_ANSIBLE_PLAYBOOK={ROOT}/.work/core-{core}/bin/ansible-playbook",
                *("pytest", "-q"),
                "tests/integration/test_image.py",
                "tests/integration/test_failures.py",
                "tests/integration/test_results.py",
                *("-k", "two_groups or done_again or check_mode or never or outside"),
            ),
        ),
        level=f"core-{core}",
        tests=True,
    )


#: Tests wait more than they compute, for real sockets and processes, so that more of them go at a time than
#: there are cores: short ones, and those that have testbeds of their own.
AT_ONCE = ("--num-workers", "4")
SIDE_BY_SIDE = ("-n", "3")

OTHER_CORES = [core for core in cores() if core != main_core()]

# Longest first: with two workers this is what keeps both busy to the end.
PARTS = (
    Part(
        "integration",
        "tests",
        "the collection against the embedded testbed",
        (
            (
                *("pytest", "-q", *SIDE_BY_SIDE, "--durations=10", "tests/integration"),
                f"--ignore={ON_MACHINES}",
            ),
        ),
        tests=True,
    ),
    Part(
        "faults",
        "tests",
        "every fault of a node or a service, and a random run",
        (("pytest", "-q", *SIDE_BY_SIDE, "tests/faults"),),
        tests=True,
    ),
    Part(
        "unit",
        "tests",
        "tests of the testbed (pytest)",
        (
            (
                *("pytest", "-q", *SIDE_BY_SIDE, "--rootdir=testbed", "-c", "testbed/pyproject.toml"),
                *("testbed/tests", f"--ignore={MACHINES}"),
            ),
        ),
        tests=True,
    ),
    Part(
        "units",
        "tests",
        "unit tests of the collection",
        (("tools/ansible-test", "units", *AT_ONCE),),
        tests=True,
    ),
    *map(units, OTHER_CORES),
    Part("sanity", "tests", "ansible-test sanity", (("tools/ansible-test", "sanity"),)),
    Part(
        "tools",
        "tests",
        "tests of tools/: what is started is ended",
        (("pytest", "-q", *SIDE_BY_SIDE, "tests/tools"),),
        tests=True,
    ),
    *map(whole, (cores()[0], cores()[-1])),
    Part(
        "molecule",
        "tests",
        "the demo's playbook as a molecule scenario",
        # Its testbed has a fixed name and number: one run at a time, whatever the checkout.
        (("flock", MOLECULE_LOCK, "molecule", "test"),),
    ),
    Part(
        "lint",
        "check",
        "ruff, ansible-lint, shellcheck, REUSE, changelog",
        (
            ("ruff", "check", "--output-format=concise", "."),
            ("ruff", "format", "--check", "."),
            # With a home of its own, or it would read an older release that is installed in the user's.
            ("env", f"ANSIBLE_HOME={ROOT}/.work/ansible", "ansible-lint", "--offline", "--strict", "-q"),
            ("shellcheck", *SHELL_SCRIPTS),
            ("reuse", "lint", "--quiet"),
            ("antsibull-changelog", "lint"),
        ),
    ),
    Part(
        "docs",
        "check",
        "documentation of plugins and roles",
        (
            (
                "tools/in-copy",
                "antsibull-docs",
                "lint-collection-docs",
                "--plugin-docs",
                "--validate-collection-refs=all",
                "--disallow-unknown-collection-refs",
                ".",
            ),
        ),
    ),
    Part("build", "check", "collection tarball, installed and read back", (("tools/build", "--check"),)),
    Part(
        "types",
        "check",
        "mypy",
        (
            ("mypy", "--config-file", "testbed/pyproject.toml"),
            ("tools/in-copy", "mypy", "--config-file", "mypy.ini"),
        ),
    ),
    Part(
        "vm",
        "tests",
        "the same run on virtual machines that boot by PXE",
        (
            ("env", "ORBIT_TEST_VM=1", "pytest", "-q", "--durations=5", ON_MACHINES, MACHINES),
            ("flock", MACHINES_LOCK, "molecule", "test", "--scenario-name", "pxe"),
        ),
        level="vm",
        tests=True,
        alone=True,
    ),
    Part(
        "page",
        "tests",
        "the page of a run in a headless browser",
        (("pytest", "-q", "tests/page"),),
        level="page",
        tests=True,
    ),
)


@dataclasses.dataclass
class Result:
    """How a part ended."""

    part: Part
    verdict: str
    seconds: float
    #: Seconds of processor time: what it takes whatever else the machine has to do.
    processor: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""


class Runner:
    """Starts commands and stops what it started."""

    def __init__(self) -> None:
        #: Whether the output of parts is shown as it comes.
        self.stream = False
        #: Whether it was told to stop: what ends now did not end by itself.
        self.stopping = False
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def run(self, part: Part) -> Result:
        """Run one part to its end and judge it."""
        started = time.monotonic()
        log_path = log_of(part)
        failed_commands = []
        used = 0.0
        log_path.write_bytes(b"")
        for command in part.commands:
            with log_path.open("ab") as log:
                log.write(f"$ {' '.join(command)}\n".encode())
            options = ["--log", str(log_path), "--patience", str(PATIENCE)]
            show = () if self.stream else ("--quiet",)
            status, processor = self.command(command, *options, *show)
            used += processor
            if status != 0:
                failed_commands.append(f"{' '.join(command[:2])}: {describe(status)}")
            if self.stopping:
                break
        text = log_path.read_text(errors="replace")
        result = Result(part, "passed", time.monotonic() - started, used)
        for line in summary_lines(text):
            result.passed += count(line, "passed")
            result.failed += count(line, "failed") + count(line, "errors?")
            result.skipped += count(line, "skipped")
        if failed_commands:
            result.verdict, result.note = "failed", "; ".join(failed_commands)
            result.failed = max(result.failed, 1)
        elif part.tests and not result.passed:
            result.verdict, result.note, result.failed = "failed", "ran no test", 1
        elif not part.tests:
            result.passed = 1
        return result

    def command(
        self, command: Sequence[str], *options: str, environment: Mapping[str, str] | None = None
    ) -> tuple[int, float]:
        """Run a command below a supervisor of its own; return exit status and seconds of processor time."""
        with self._lock:
            if self.stopping:
                return 128 + signal.SIGINT, 0.0
            supervisor = subprocess.Popen(
                [sys.executable, supervise.__file__, "--parent", str(os.getpid()), *options, *command],
                cwd=ROOT,
                env=ENVIRONMENT if environment is None else environment,
                stdin=subprocess.DEVNULL,
                # Ctrl-C is for us: we pass it on, and wait.
                start_new_session=True,
            )
            self._children.add(supervisor)
        if self.stopping:
            # The signal came while we were starting this one.
            _terminate(supervisor)
        # Its supervisor has waited for all that there was, so that this is the processor time of all of it.
        _pid, status, usage = os.wait4(supervisor.pid, 0)
        supervisor.returncode = os.waitstatus_to_exitcode(status)
        with self._lock:
            self._children.discard(supervisor)
        return supervisor.returncode, usage.ru_utime + usage.ru_stime

    def stop(self) -> None:
        """Tell the supervisor of every command that is still running to end it, with all that it started."""
        # Without the lock: a handler of signals calls this, whatever the main thread holds at the moment.
        self.stopping = True
        for supervisor in list(self._children):
            _terminate(supervisor)


def _terminate(supervisor: subprocess.Popen[bytes]) -> None:
    # Not by a method of Popen: that would wait for it, and who does wait for it is not told how it ended.
    if supervisor.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor.pid, signal.SIGTERM)


def describe(status: int) -> str:
    """Put the exit status of a supervisor into words."""
    words = {
        supervise.GIVEN_UP: f"no progress for {PATIENCE} s",
        supervise.LEFT_BEHIND: "left processes running",
        127: "no such program",
    }
    if status in words:
        return words[status]
    return f"killed by signal {status - 128}" if 128 < status < 160 else f"exit status {status}"


def summary_lines(text: str) -> list[str]:
    """Return pytest's closing lines, as ``12 passed, 1 skipped in 3.45s``, without their frame."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return re.findall(r"^=* ?(\d+ [a-z]+(?:, \d+ [a-z]+)* in [\d.]+s[^=\n]*?) ?=*$", plain, re.M)


def count(line: str, word: str) -> int:
    """Return the number before a word in one of pytest's closing lines."""
    match = re.search(rf"(\d+) {word}\b", line)
    return int(match[1]) if match else 0


def log_of(part: Part) -> pathlib.Path:
    """Return where a part's output goes."""
    return LOGS / f"{part.name}.log"


def say(text: str = "") -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def tell(result: Result) -> None:
    """Tell how a part ended; what a failed one said last."""
    text = log_of(result.part).read_text(errors="replace")
    say(f"{result.verdict:8}{result.part.name:13}{result.seconds:6.1f} s  {result.note or result.part.about}")
    if result.verdict == "failed":
        for line in text.splitlines()[-60:]:
            say(f"    | {line}")
    for line in summary_lines(text):
        say(f"        {line}")


def table(results: list[Result], skipped: list[str], seconds: float) -> None:
    """Print one line for each part and the totals."""
    say()
    say(f"{'part':13}{'verdict':9}{'seconds':>8}{'processor':>11}{'tests':>8}  log")
    for result in results:
        tests = str(result.passed + result.failed) if result.part.tests else ""
        log = log_of(result.part).relative_to(ROOT)
        numbers = f"{result.seconds:8.1f}{result.processor:11.1f}{tests:>8}"
        say(f"{result.part.name:13}{result.verdict:9}{numbers}  {log}")
    say(f"{'':13}{'':9}{seconds:8.1f}{sum(result.processor for result in results):11.1f}")
    say()
    failed = [result.part.name for result in results if result.verdict == "failed"]
    (LOGS / "failed").write_text("".join(f"{name}\n" for name in failed))
    but = f" but those that were skipped: {', '.join(skipped)}" if skipped else ""
    say(f"Failed: {', '.join(failed)}" if failed else f"All parts passed{but}.")
    totals = [f"{sum(r.passed for r in results)} passed", f"{sum(r.failed for r in results)} failed"]
    skipped = sum(r.skipped for r in results)
    say(", ".join([*totals, f"{skipped} skipped"] if skipped else totals))


def prepare(parts: list[Part], runner: Runner) -> dict[str, str]:
    """Bring the environments up to date; return why a part cannot run here, by its level."""
    unusable = {}
    for level in sorted({"dev", *(part.level for part in parts)}, reverse=True):
        status, _processor = runner.command([str(ROOT / "tools" / "setup"), level], environment=os.environ)
        if status == 3:
            unusable[level] = "this machine cannot have what it needs, for the reason given above"
        elif status != 0:
            sys.exit(130 if runner.stopping else status)
    return unusable


def choose(names: list[str]) -> list[Part]:
    """Turn names of parts and groups into parts, in the order of PARTS."""
    known = {part.name for part in PARTS} | {part.group for part in PARTS}
    for name in names:
        if name not in known:
            error = f"check: no part or group named {name!r}; there are: {', '.join(sorted(known))}"
            print(error, file=sys.stderr)
            sys.exit(2)
    return [part for part in PARTS if not names or part.name in names or part.group in names]


def run_all(parts: list[Part], runner: Runner) -> list[Result]:
    """Run parts side by side, those that want to be alone after the others."""
    results: dict[str, Result] = {}
    waiting = [part for part in parts if not part.alone]
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not waiting or runner.stopping:
                    return
                part = waiting.pop(0)
            result = runner.run(part)
            with lock:
                if runner.stopping:
                    return
                results[part.name] = result
                tell(result)

    workers = [threading.Thread(target=work) for worker in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for part in parts:
        if part.alone and not runner.stopping:
            results[part.name] = runner.run(part)
            if not runner.stopping:
                tell(results[part.name])
    return [results[part.name] for part in parts if part.name in results]


ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    # What a surrounding make or Ansible session set up is none of the tests' business.
    if not name.startswith(("MAKE", "MFLAGS", "ANSIBLE_", "MOLECULE_", "PYTEST_"))
}
ENVIRONMENT.update(
    PATH=f"{ROOT}/.venv/bin:{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
    # Ansible refuses any other encoding.
    LC_ALL="C.UTF-8",
    ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".venv" / "collections"),
    NO_COLOR="1",
)


def main(names: list[str]) -> int:
    """Run what was asked for; return the exit status."""
    runner = Runner()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Who starts us by nohup wants us to survive a hang-up. But a shell starts all background jobs with
        # SIGINT ignored, and that must not make them endless.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: runner.stop())
    started = time.monotonic()
    parts = choose(names)
    unusable = prepare(parts, runner)
    for part in parts:
        if part.level in unusable:
            say(f"skipped {part.name:13}          {unusable[part.level]}")
    skipped = [part.name for part in parts if part.level in unusable]
    parts = [part for part in parts if part.level not in unusable]
    if not parts and not runner.stopping:
        return 3
    LOGS.mkdir(parents=True, exist_ok=True)
    if len(parts) == 1:
        runner.stream = True
        result = runner.run(parts[0])
        say(f"{result.verdict} {result.part.name} in {result.seconds:.1f} s  {result.note}".rstrip())
        results = [result]
    else:
        results = run_all(parts, runner)
        if not runner.stopping:
            table(results, skipped, time.monotonic() - started)
    if runner.stopping:
        say("interrupted")
        return 130
    return int(any(result.verdict == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
