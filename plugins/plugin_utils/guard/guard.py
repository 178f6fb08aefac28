# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The run guard: a process that holds the claims of a run and cleans up when ansible-playbook dies.

Neither Ansible's ``always`` nor Python's ``finally`` is executed when ansible-playbook is ended by a
signal. So a process of its own session watches it (pidfd: no polling, no mistaken identity), hears over a
socket in the run's folder what the run is about to do, and undoes that when the run is gone. It ends with
its work, and the claims end with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils import private
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims

if t.TYPE_CHECKING:
    from ansible_collections.orbit.imaging.plugins.plugin_utils.guard.rollback import Work

#: Variable in the environment of the run's modules, by which those that outlive ansible-playbook are found.
MARK = "ORBIT_IMAGING_RUN"
#: Seconds for which services that fail are asked again: after the death of the run, and while it waits.
PATIENCE = 300.0
PATIENCE_AT_RELEASE = 30.0
# Seconds that a module has to end by itself when it may be starting or stopping a stream.
_MODULE = 3.0
_MODULE_STEPS = ("serve", "stop")
# Seconds for the guard to start, and to take one message.
_START = 30.0
_MESSAGE = 10.0
_LARGEST_MESSAGE = 16 * 1024 * 1024
_SOCKET = "guard.sock"
_LOG = "guard.log"
# Modules of a dead run are looked for until none was there for so many seconds, each so many seconds.
_QUIET = 0.5
_SCAN = 0.05
# Where there is no pidfd, the seconds between two looks.
_LOOK = 0.5
_PR_SET_PDEATHSIG = 1

Message = dict[str, t.Any]


class GuardError(Exception):
    """The guard cannot be started or does not answer; the text names place and remedy."""


# -- in a worker of ansible-playbook


def start(config: t.Mapping[str, t.Any]) -> Message:
    """Start the guard of a run and return its first words.

    :param config: ``run``, ``dir`` (folder of the run), ``user``, ``since``, ``claims`` (path to node name),
        ``skip`` (leave out nodes that are claimed), ``links`` (batches) and ``claim_dir``.
    :return: ``skipped``, the holders of the nodes left out; or ``held``, when nodes are claimed by others.
    :raises GuardError: when it cannot be started.
    """
    pid = _playbook()
    descriptor = -1
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            # A kernel before 5.3, or a sandbox: the guard looks now and then.
            descriptor = -1
    if os.getppid() != pid:
        raise GuardError("ansible-playbook has ended.")
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guard_main.py")
    text = json.dumps({**config, "pid": pid, "pidfd": descriptor, "command": _command("self")})
    try:
        process = subprocess.Popen(
            [sys.executable, program, str(config["run"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            start_new_session=True,
            pass_fds=[descriptor] if descriptor >= 0 else [],
        )
        try:
            answer, errors = process.communicate(text, timeout=_START)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise GuardError(f"the run guard did not start within {_START:.0f} s.") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    try:
        said = t.cast(Message, json.loads(answer))
    except ValueError:
        last = (errors.strip().splitlines() or ["no reason given"])[-1]
        raise GuardError(f"the run guard ({program}) ended at once: {last}") from None
    if "error" in said:
        raise GuardError(said["error"])
    return said


def _playbook() -> int:
    """Return the process of ansible-playbook, of which this worker is a fork.

    A fork has the same command line. Anything else means that this is not run by a worker, and the wrong
    process would be watched.
    """
    pid = os.getppid()
    # Without /proc (not Linux) both are empty, and the parent is taken at its word.
    if pid <= 1 or _command("self") != _command(pid):
        raise GuardError(
            f"process {pid}, the parent of this task, is not its ansible-playbook, so it cannot be guarded. "
            "Use a strategy plugin of ansible-core."
        )
    return pid


def tell(folder: str, message: t.Mapping[str, t.Any], timeout: float = _MESSAGE) -> Message:
    """Say something to the guard of the run in ``folder`` and return its answer.

    :raises GuardError: when there is no guard or it does not understand.
    """
    try:
        with _reachable(folder) as address, socket.socket(socket.AF_UNIX) as line:
            line.settimeout(timeout)
            line.connect(address)
            line.sendall(json.dumps(message).encode() + b"\n")
            answer = t.cast(Message, json.loads(_read_line(line)))
    except (OSError, ValueError) as error:
        raise GuardError(
            f"the run guard does not answer ({os.path.join(folder, _SOCKET)}: {error}). "
            f"See {os.path.join(folder, _LOG)}."
        ) from error
    if "error" in answer:
        raise GuardError(f"the run guard: {answer['error']}")
    return answer


@contextlib.contextmanager
def _reachable(folder: str) -> t.Iterator[str]:
    """Give an address for the socket that is short enough; folders may have longer names than sockets."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        short = f"/proc/self/fd/{descriptor}"
        yield os.path.join(short if os.path.isdir(short) else folder, _SOCKET)
    finally:
        os.close(descriptor)


def _read_line(line: socket.socket) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        part = line.recv(65536)
        if not part:
            raise ValueError("the connection was closed")
        data += part
        if len(data) > _LARGEST_MESSAGE:
            raise ValueError("the message is too long")
    return bytes(data)


def end_with_parent() -> None:
    """Let this process, a worker, end when ansible-playbook does.

    Workers are not told of a SIGKILL or SIGHUP and would go on to start clients whose stream is gone. Linux
    only; elsewhere nothing is done.
    """
    parent = os.getppid()
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


# -- in the guard


def run() -> None:
    """Be the guard: read what to guard from the standard input, answer, guard, end."""
    config = json.load(sys.stdin)
    mine = claims.Claims(claims.Holder(config["run"], config["user"], config["pid"], config["since"]))
    try:
        _check_watched(config)
        claims.make_folder(config["claim_dir"])
        skipped: dict[str, claims.Holder] = {}
        if config["skip"]:
            skipped = mine.take_free(config["claims"])
        else:
            mine.take(config["claims"])
        guard = Guard(config, mine)
    except claims.Overlap as overlap:
        _answer({"held": str(overlap)})
        return
    except (claims.ClaimError, GuardError, OSError, ImportError) as error:
        _answer({"error": str(error)})
        return
    _answer({"skipped": {name: str(holder) for name, holder in skipped.items()}})
    try:
        guard.watch()
    except BaseException:
        guard.log(f"the guard itself failed:\n{traceback.format_exc()}")
        raise
    finally:
        guard.close()
        mine.release()


def _check_watched(config: Message) -> None:
    """See that the descriptor to be watched is that of ansible-playbook."""
    if config["pidfd"] < 0:
        return
    try:
        with open(f"/proc/self/fdinfo/{config['pidfd']}", encoding="ascii") as stream:
            pids = [line.split()[1] for line in stream if line.startswith("Pid:")]
    except OSError:
        return
    if pids not in ([str(config["pid"])], ["-1"]):
        raise GuardError("the process to be guarded is another one than ansible-playbook.")


def _answer(message: Message) -> None:
    """Say the one thing that is said to who started the guard, and let go of his pipes."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    if nothing > 2:
        os.close(nothing)


class Guard:
    """Listens to the run and waits for its end."""

    def __init__(self, config: Message, mine: claims.Claims) -> None:
        # Here, not above: what only starts a guard needs no HTTP client.
        from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import rollback

        self._config = config
        private.make_folder(config["dir"])
        self._log = private.open_to_append(os.path.join(config["dir"], _LOG))
        self.work: Work = rollback.Work(config["links"], mine, config["claim_dir"], self.log)
        self._told: Message = {}
        self._listener = socket.socket(socket.AF_UNIX)
        with _reachable(config["dir"]) as address:
            self._listener.bind(address)
            os.chmod(address, 0o600)
        self._listener.listen(8)
        self._listener.setblocking(False)
        self._over = False

    def log(self, text: str) -> None:
        """Write a line with the time to the log in the run's folder."""
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n"
        os.write(self._log, line.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Give up socket and log."""
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._config["dir"], _SOCKET))
        os.close(self._log)

    def watch(self) -> None:
        """Serve the run until it releases the guard or dies."""
        pid, pidfd = self._config["pid"], self._config["pidfd"]
        self.log(
            f"guarding run {self._config['run']} of {self._config['user']}, process {pid}: "
            f"{len(self._config['claims'])} nodes"
        )
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            if pidfd >= 0:
                selector.register(pidfd, selectors.EVENT_READ)
            while not self._over:
                ready = {key.fd for key, _events in selector.select(None if pidfd >= 0 else _LOOK)}
                # What the run said before it died is heard first.
                self._listen()
                if not self._over and (pidfd in ready if pidfd >= 0 else not _is_alive(pid)):
                    self._listen()
                    if not self._over:
                        self._clean_up()

    def _listen(self) -> None:
        while not self._over:
            try:
                line, _address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            with line:
                line.settimeout(_MESSAGE)
                try:
                    if not _is_mine(line):
                        continue
                    answer = self._hear(json.loads(_read_line(line)))
                except Exception as error:
                    # Whatever it was, the guard stays; the run is told, and fails.
                    self.log(f"not understood: {error!r}")
                    answer = {"error": f"not understood: {error}"}
                with contextlib.suppress(OSError):
                    line.sendall(json.dumps(answer).encode() + b"\n")

    def _hear(self, message: Message) -> Message:
        if message["say"] == "note":
            if "record" in message:
                self._told = message
            self.work.note(message["step"], message)
            self.log(f"{message['step']}: {_words(message)}")
            return {}
        if message["say"] == "release":
            return self._release()
        raise ValueError(f"unknown word {message['say']!r}")

    def _release(self) -> Message:
        undone: list[str] = []
        left: list[str] = []
        if not self.work.is_done:
            undone = [f"link of {name}" for name in self.work.links]
            undone += [f"use of {use}" for use in self.work.uses]
            self.log("the run ends, but not all of it is seen to be gone")
            left = self.work.undo(PATIENCE_AT_RELEASE)
        self.log("released by the run" + (", something is left" if left else ": nothing of it is left"))
        self._over = True
        return {"undone": undone, "left": left}

    def _clean_up(self) -> None:
        """The run is dead: end what is left of it here, undo what it has done there."""
        self._over = True
        step = self.work.step
        self.log(f"ansible-playbook has ended without a word, after it began: {step or 'nothing'}")
        patience = _MODULE if step in _MODULE_STEPS else 0.0
        ended = end_modules(self._config["run"], self._config["command"], patience)
        if ended:
            self.log(f"ended what it left running: {', '.join(ended)}")
        left: list[str] = []
        if self.work.is_done:
            self.log("nothing was left to undo")
        else:
            left = self._undo(step)
        self._report(left)

    def _undo(self, step: str) -> list[str]:
        if self.work.clients and step == "client":
            # A client that has all its data writes on; half a disk is worse than a node that is busy.
            self.log(
                f"clients may be writing on {', '.join(self.work.clients)}: they are left to finish. One "
                "that still lacks data waits in the memory image; the node's next reset boots its disk."
            )
        left = self.work.undo(PATIENCE, killed=True)
        self.log(f"done; left: {'; '.join(left)}" if left else "done: nothing of the run is left")
        return left

    def _report(self, left: list[str]) -> None:
        """Write the result that the run can no longer write: what it had seen, all else was interrupted."""
        if not self._told:
            return
        from ansible_collections.orbit.imaging.plugins.plugin_utils.report import table
        from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records

        try:
            concluded = records.conclude(self._told["record"], left, time.time())
            paths = table.write(concluded, self._told["playbooks"])
        except Exception:
            # The links are gone and the claims go now, whatever the disk of the control host says.
            self.log(f"the result was not written:\n{traceback.format_exc()}")
            return
        self.log(f"result of the interrupted run: {paths['result']}")


def _words(message: Message) -> str:
    """Say in a few words what a note says."""
    if "results" not in message:
        return "begins"
    good = [said.get("name") or said.get("image") for said in message["results"] if said["ok"]]
    bad = [said.get("name") or said.get("image") for said in message["results"] if not said["ok"]]
    return f"done for {', '.join(good) or 'nothing'}" + (f", failed for {', '.join(bad)}" if bad else "")


def _is_mine(line: socket.socket) -> bool:
    """Whether the other end is of the same user; the folder's mode says so already."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    said = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", said)[1]) in (0, os.getuid())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end_modules(run_id: str, command: str, patience: float) -> list[str]:
    """End the modules of a run that are still at work on this host; return what was ended, in words.

    After SIGKILL and SIGHUP they go on: what is undone would be done again, or nodes be reset for nobody. The
    worker that started a module goes first, as it would start the next one.

    :param command: command line of ansible-playbook, which is that of its workers too.
    :param patience: seconds that a module has to end by itself.
    """
    ended: dict[int, str] = {}
    deadline = time.monotonic() + patience
    quiet = time.monotonic() + _QUIET
    while time.monotonic() < quiet:
        modules = _marked(f"{MARK}={run_id}".encode())
        for pid in modules:
            for worker in _ancestors(pid):
                if _command(worker) == command and _end(worker):
                    ended[worker] = f"worker {worker}"
            if time.monotonic() >= deadline and _end(pid):
                ended[pid] = f"module {pid}"
        if modules:
            quiet = time.monotonic() + _QUIET
        time.sleep(_SCAN)
    return list(ended.values())


def _end(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _marked(mark: bytes) -> list[int]:
    """Return the processes of this host whose environment has ``mark``, of those we may look into."""
    found = []
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for name in names:
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as stream:
            if mark in stream.read().split(b"\0"):
                found.append(int(name))
    return found


def _ancestors(pid: int) -> t.Iterator[int]:
    while True:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
                # The name, in brackets, may have brackets and spaces in it.
                pid = int(stream.read().rpartition(")")[2].split()[1])
        except OSError:
            return
        if pid <= 1:
            return
        yield pid


def _command(pid: int | str) -> str:
    """Return the command line of a process; an empty text when there is none to be seen."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except OSError:
        return ""
