# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run checks and tests: ``.venv/bin/python tools/check.py [PART or GROUP...]``; without arguments, all.

One part shows its output as it comes. Several run two at a time (one on a single-core machine), each into a
log of its own: a line tells how each ended, a failed one shows the end of its log; a table closes the run.
The last line counts tests; a part that has no tests of its own (a linter, say) counts as one.

Exit status: 0 when every part passed, 1 when one failed, 2 on wrong use, 130 when interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOGS = ROOT / ".work" / "logs"

#: Seconds after which a part is taken for hung. The slowest takes a tenth of this on two cores.
LIMIT = 900

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
    #: Seconds after which it is taken for hung.
    limit: int = LIMIT


#: Why a part may not run here, by its level, when tools/setup says (exit status 3) that it cannot have that.
UNUSABLE = {
    "core-2.17": "no Python that this ansible-core runs on",
    "vm": "no virtual machines here, for the reason given above",
}

# Longest first: with two workers this is what keeps both busy to the end.
PARTS = (
    Part("sanity", "tests", "ansible-test sanity", (("tools/ansible-test", "sanity"),)),
    Part(
        "unit",
        "tests",
        "tests of the testbed (pytest)",
        (
            (
                *("pytest", "-q", "--rootdir=testbed", "-c", "testbed/pyproject.toml", "testbed/tests"),
                f"--ignore={MACHINES}",
            ),
        ),
        tests=True,
    ),
    Part(
        "molecule",
        "tests",
        "the demo's playbook as a molecule scenario",
        # Its testbed has a fixed name and number: one run at a time, whatever the checkout.
        (("flock", MOLECULE_LOCK, "molecule", "test"),),
    ),
    Part("units", "tests", "unit tests of the collection", (("tools/ansible-test", "units"),), tests=True),
    Part(
        "units-2.17",
        "tests",
        "unit tests and playbook syntax on the oldest ansible-core",
        (
            ("tools/ansible-test", "--venv", ".venv-2.17", "units"),
            (
                "tools/in-copy",
                "--venv",
                ".venv-2.17",
                "sh",
                "-c",
                "ansible-playbook --syntax-check playbooks/*.yml",
            ),
        ),
        level="core-2.17",
        tests=True,
    ),
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
    Part(
        "lint",
        "check",
        "ruff, ansible-lint, shellcheck, REUSE, changelog",
        (
            ("ruff", "check", "--output-format=concise", "."),
            ("ruff", "format", "--check", "."),
            ("ansible-lint", "--offline", "--strict", "-q"),
            ("shellcheck", *SHELL_SCRIPTS),
            ("reuse", "lint", "--quiet"),
            ("antsibull-changelog", "lint"),
        ),
    ),
    Part("build", "check", "collection tarball, installed and read back", (("tools/build", "--check"),)),
    Part(
        "integration",
        "tests",
        "the collection against the embedded testbed",
        (
            (
                *("pytest", "-q", "-n", str(WORKERS), "--durations=10", "tests/integration"),
                f"--ignore={ON_MACHINES}",
            ),
        ),
        tests=True,
        alone=True,
        limit=2 * LIMIT,
    ),
    Part(
        "faults",
        "tests",
        "every fault of a node or a service, one run each, and some random ones",
        (("pytest", "-q", "tests/faults"),),
        tests=True,
        alone=True,
        limit=2 * LIMIT,
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
        "whole-2.17",
        "tests",
        "whole runs, good and bad ones, on the oldest ansible-core",
        (
            (
                "env",
                f"ORBIT_ANSIBLE_PLAYBOOK={ROOT}/.venv-2.17/bin/ansible-playbook",
                "pytest",
                "-q",
                "tests/integration/test_image.py",
                "tests/integration/test_failures.py",
                "tests/integration/test_results.py",
                "-k",
                "two_groups or check_mode or never or outside or done_again",
            ),
        ),
        level="core-2.17",
        tests=True,
        alone=True,
    ),
)


@dataclasses.dataclass
class Result:
    """How a part ended."""

    part: Part
    verdict: str
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""


class Runner:
    """Starts commands and stops what it started."""

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def run(self, part: Part) -> Result:
        """Run one part to its end and judge it."""
        started = time.monotonic()
        log_path = log_of(part)
        failed_commands = []
        with log_path.open("wb") as log:
            for command in part.commands:
                status = self._command(command, log, started + part.limit)
                if status != 0:
                    failed_commands.append(f"{' '.join(command[:2])}: {describe(status)}")
                if self._stopping:
                    break
        text = log_path.read_text(errors="replace")
        result = Result(part, "passed", time.monotonic() - started)
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

    def stop(self) -> None:
        """End every command that is still running, with all that it started."""
        with self._lock:
            self._stopping = True
            children = list(self._children)
        for child in children:
            end(child)

    def _command(self, command: tuple[str, ...], log, deadline: float) -> int | str:
        log.write(f"$ {' '.join(command)}\n".encode())
        log.flush()
        if shutil.which(command[0], path=ENVIRONMENT["PATH"]) is None:
            log.write(f"{command[0]}: no such program\n".encode())
            return "no such program"
        with self._lock:
            if self._stopping:
                return "not run"
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._stream else log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._children.add(child)
        alarm = threading.Timer(max(1.0, deadline - time.monotonic()), end, [child])
        alarm.start()
        try:
            if child.stdout is not None:
                for line in child.stdout:
                    log.write(line)
                    sys.stdout.buffer.write(line)
                    sys.stdout.buffer.flush()
            status = child.wait()
        finally:
            alarm.cancel()
            with self._lock:
                self._children.discard(child)
        return "no end in its time" if time.monotonic() > deadline else status


def end(child: subprocess.Popen[bytes]) -> None:
    """Stop a child and its process group: like Ctrl-C, so that tests clean up; then for good."""
    for number, patience in ((signal.SIGINT, 30), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(child.pid, number)
            child.wait(patience)
            return


def describe(status: int | str) -> str:
    """Put an exit status into words."""
    if isinstance(status, str):
        return status
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


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


def table(results: list[Result], seconds: float) -> None:
    """Print one line for each part and the totals."""
    say()
    say(f"{'part':13}{'verdict':9}{'seconds':>8}{'tests':>8}  log")
    for result in results:
        tests = str(result.passed + result.failed) if result.part.tests else ""
        log = log_of(result.part).relative_to(ROOT)
        say(f"{result.part.name:13}{result.verdict:9}{result.seconds:8.1f}{tests:>8}  {log}")
    say(f"{'':13}{'':9}{seconds:8.1f}")
    say()
    failed = [result.part.name for result in results if result.verdict == "failed"]
    (LOGS / "failed").write_text("".join(f"{name}\n" for name in failed))
    say(f"Failed: {', '.join(failed)}" if failed else "All parts passed.")
    totals = [f"{sum(r.passed for r in results)} passed", f"{sum(r.failed for r in results)} failed"]
    skipped = sum(r.skipped for r in results)
    say(", ".join([*totals, f"{skipped} skipped"] if skipped else totals))


def prepare(parts: list[Part]) -> dict[str, str]:
    """Bring the environments up to date; return why a part cannot run here, by its level."""
    unusable = {}
    for level in sorted({part.level for part in parts}, reverse=True):
        status = subprocess.run(
            [ROOT / "tools" / "setup", level], check=False, stdin=subprocess.DEVNULL
        ).returncode
        if status == 3:
            unusable[level] = UNUSABLE[level]
        elif status != 0:
            sys.exit(status)
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
                if not waiting:
                    return
                part = waiting.pop(0)
            result = runner.run(part)
            with lock:
                results[part.name] = result
                tell(result)

    # Daemons, so that an interrupt does not wait for them.
    workers = [threading.Thread(target=work, daemon=True) for worker in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for part in parts:
        if part.alone:
            results[part.name] = runner.run(part)
            tell(results[part.name])
    return [results[part.name] for part in parts]


def interrupt(_signal: int, _frame: object) -> None:
    """End the run like Ctrl-C does."""
    raise KeyboardInterrupt


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
    # Both explicitly: a shell starts background jobs with SIGINT ignored, and their children inherit that.
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    started = time.monotonic()
    parts = choose(names)
    unusable = prepare(parts)
    for part in parts:
        if part.level in unusable:
            say(f"skipped {part.name:13}          {unusable[part.level]}")
    parts = [part for part in parts if part.level not in unusable]
    LOGS.mkdir(parents=True, exist_ok=True)
    runner = Runner(stream=len(parts) == 1)
    try:
        if len(parts) == 1:
            result = runner.run(parts[0])
            say(f"{result.verdict} {result.part.name} in {result.seconds:.1f} s  {result.note}".rstrip())
            results = [result]
        else:
            results = run_all(parts, runner)
            table(results, time.monotonic() - started)
    except KeyboardInterrupt:
        runner.stop()
        say("interrupted")
        return 130
    return int(any(result.verdict == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
