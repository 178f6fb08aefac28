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
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import typing as t

from ansible_collections.orbit.imaging.plugins.plugin_utils import private
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims, messages
from ansible_collections.orbit.imaging.plugins.plugin_utils.guard.messages import (
    Answer,
    Config,
    MoreConfig,
    Note,
)

if t.TYPE_CHECKING:
    from ansible_collections.orbit.imaging.plugins.plugin_utils.guard.rollback import Work

#: Variable in the environment of the run's modules, by which those that outlive ansible-playbook are found.
MARK = "ORBIT_IMAGING_RUN"
#: Seconds for which services that fail are asked again: after the death of the run, and while it waits.
PATIENCE = 300.0
PATIENCE_AT_RELEASE = 30.0
#: File in the folder of a run from which the guard writes the result, should the run not come to that.
RECORD = "record.json"
# Seconds that a module has to end when it may be starting or stopping a stream; and for all to be gone.
_MODULE = 3.0
_MODULE_STEPS = ("serve", "stop")
_MODULES_GONE = 15.0
# Seconds for the guard to start, and to take one message.
_START = 30.0
_MESSAGE = 10.0
_LARGEST_RECORD = 64 * 1024 * 1024
_SOCKET = "guard.sock"
_LOG = "guard.log"
# Bytes of the log that are kept while it cannot be written.
_UNWRITTEN = 64 * 1024
# Modules of a dead run are looked for until none was there for so many seconds, each so many seconds.
_QUIET = 0.5
_SCAN = 0.05
# Seconds between two looks after claims and socket and, where there is no pidfd, after ansible-playbook.
_LOOK = 1.0
# Seconds for a guard that was cut off from its folder to make socket and log anew.
_RESTORED = 5 * _LOOK
_PR_SET_PDEATHSIG = 1


class GuardError(Exception):
    """The guard cannot be started or does not answer; the text names place and remedy."""


class GuardGone(GuardError):
    """There is no guard any more, and with it no claims: the run must undo what it did by itself.

    See :func:`release_without_guard`, and ``resume`` of :func:`start`.
    """


class GuardSilent(GuardError):
    """There is a guard, but it does not answer in time. It may still hear what was said, later."""


# -- in a worker of ansible-playbook


def start(config: MoreConfig) -> Answer:
    """Start the guard of a run and return its first words.

    With ``resume`` it takes the place of one that was killed: it claims the nodes again, which others may
    have claimed since, and takes up the notes that the run has kept.

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
    text = json.dumps(
        {**config, "pid": pid, "pidfd": descriptor, "command": _command("self"), "born": _born(pid)}
    )
    try:
        answer, errors = _first_words([sys.executable, program, str(config["run"])], text, descriptor)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    try:
        said = t.cast(Answer, json.loads(answer))
    except ValueError:
        last = (errors.strip().splitlines() or ["no reason given"])[-1]
        raise GuardError(f"the run guard ({program}) ended at once: {last}") from None
    if "error" in said:
        raise GuardError(said["error"])
    return said


def _first_words(command: list[str], text: str, descriptor: int) -> tuple[str, str]:
    """Start the program of the guard and return what it says, and its errors."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        start_new_session=True,
        pass_fds=[descriptor] if descriptor >= 0 else [],
    )
    try:
        return process.communicate(text, timeout=_START)
    except subprocess.TimeoutExpired:
        # The guard is a child of that process, in its group; the process itself has ended long since.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.poll()
        # It may hang in a file system that does not answer, so its end is not waited for.
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                t.cast("t.IO[str]", stream).close()
        raise GuardError(
            f"the run guard did not start within {_START:.0f} s. Look whether the file systems of "
            "orbit_claim_dir and orbit_run_dir answer."
        ) from None


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


def tell(folder: str, message: t.Mapping[str, t.Any], timeout: float = _MESSAGE) -> Answer:
    """Say something to the guard of the run in ``folder`` and return its answer.

    A note that the guard heard but did not take is no error; the answer then says why it was ``refused``.
    Notes are also kept in the folder, should the guard be killed.

    :param timeout: seconds to wait for the answer of a guard that is there.
    :raises GuardGone: at once, when there is no guard.
    :raises GuardSilent: when it does not answer.
    :raises GuardError: when it is somebody else's, or did not do what was asked.
    """
    if message.get("say") != "note":
        answer = _ask(folder, messages.encode(message), timeout)
        if "error" in answer:
            raise GuardError(f"the run guard: {answer['error']}")
        return answer
    heard: Answer | None = None
    try:
        try:
            heard = _ask(folder, messages.encode(message), timeout)
        except ValueError as error:
            heard = {"error": str(error)}
        if "error" in heard:
            return {"refused": heard["error"]}
        return heard
    finally:
        try:
            messages.keep(folder, message, heard)
        except OSError as error:
            if heard is not None:
                words = f"the notes of the run cannot be kept in {folder}: {error.strerror}"
                heard.setdefault("warnings", []).append(words)


def _ask(folder: str, line_out: bytes, timeout: float) -> Answer:
    place = os.path.join(folder, _SOCKET)
    see = f"See {os.path.join(folder, _LOG)}."
    deadline = time.monotonic() + timeout
    try:
        with _connected(folder, timeout) as line:
            line.sendall(line_out)
            answer = t.cast(Answer, json.loads(_read_line(line, deadline)))
            if not isinstance(answer, dict):
                raise ValueError("that is no answer")
            return answer
    except (FileNotFoundError, NotADirectoryError, ConnectionError, EOFError) as error:
        raise GuardGone(
            f"the run guard has ended, and with it the claims of the run ({place}: {error}). {see}"
        ) from error
    except (TimeoutError, BlockingIOError) as error:
        raise GuardSilent(
            f"the run guard does not answer within {timeout:.0f} s ({place}). It may have been stopped: "
            f"look at the state of its process (guard_main.py), and send it SIGCONT. {see}"
        ) from error
    except (OSError, ValueError) as error:
        raise GuardError(f"the run guard does not answer ({place}: {error}). {see}") from error


@contextlib.contextmanager
def _connected(folder: str, timeout: float) -> t.Iterator[socket.socket]:
    with _reachable(folder) as address, socket.socket(socket.AF_UNIX) as line:
        line.settimeout(timeout)
        line.connect(address)
        if not _is_mine(line):
            raise PermissionError("the process that listens there is another user's")
        yield line


def is_alive(folder: str) -> bool:
    """Whether there is a guard of the run in ``folder``, also one that is stopped or busy.

    Claims live and end with it.
    """
    try:
        with _connected(folder, _MESSAGE):
            return True
    except BlockingIOError:
        # So many wait to be heard that no more are taken.
        return True
    except OSError:
        return False


def release_without_guard(
    config: Config, streams: t.Sequence[messages.Streams] = (), patience: float = PATIENCE_AT_RELEASE
) -> Answer:
    """Undo what a run has done when its guard was killed, in this process.

    The claims ended with the guard. Those that are still free are taken again for as long as this lasts;
    nodes that another run has claimed since are ``lost``, and their links left to that run.

    :param config: as for :func:`start`.
    :param streams: services that the run asked for streams, with their tokens.
    :param patience: seconds for which services that fail are asked again.
    :return: as of a release: ``undone``, ``left``, ``lost`` and ``warnings``. Should there be a guard after
        all, it is told to release, and this is its answer.
    :raises GuardSilent: when there is a guard that does not answer.
    """
    from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import rollback

    folder, run_id = config["dir"], config["run"]
    mine = claims.Claims(claims.Holder(run_id, config["user"], os.getppid(), config["since"]))
    deadline = time.monotonic() + _RESTORED
    try:
        while True:
            if is_alive(folder):
                return tell(folder, {"say": "release"}, timeout=release_timeout(patience))
            refused = _claim_again(mine, config["claims"])
            # A guard whose folder was removed still has the claims; it is about to make its socket anew.
            if all(holder.run != run_id for holder in refused.values()) or time.monotonic() >= deadline:
                break
            mine.release()
            time.sleep(_SCAN)
        log = Log(folder)
        try:
            work = rollback.Work(config["links"], mine, config["claim_dir"], log.say)
            log.say("there is no guard any more: the run undoes by itself what it has done")
            notes, trouble = messages.kept(folder)
            work.replay(notes, streams)
            work.leave_to(refused)
            answer = _undo_at_end(work, mine, log, patience, refused)
            if trouble:
                answer["left"].append(f"what was in notes that cannot be read ({trouble})")
            return answer
        finally:
            log.close()
    finally:
        mine.release()


def release_timeout(patience: float = PATIENCE_AT_RELEASE) -> float:
    """Return the seconds within which a guard that is well answers to ``release``."""
    from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import rollback

    return patience + rollback.GRACE + _MESSAGE + rollback.ASK


def _claim_again(mine: claims.Claims, nodes: t.Mapping[str, str]) -> dict[str, claims.Holder]:
    """Claim what is free; return the others by name, with their holders."""
    try:
        for folder in {os.path.dirname(path) for path in nodes}:
            claims.make_folder(folder)
        return mine.take_free(nodes)
    except claims.ClaimError as error:
        mine.release()
        return dict.fromkeys(nodes.values(), claims.Holder(unreadable=str(error)))


def _undo_at_end(
    work: Work,
    mine: claims.Claims,
    log: Log,
    patience: float,
    others: t.Mapping[str, claims.Holder] | None = None,
) -> Answer:
    """Undo what was not seen to be gone at the end of a run that is well, and say what that was."""
    answer: Answer = {"undone": [], "left": []}
    if not work.is_done:
        answer["undone"] = [f"link of {name}" for name in work.links] + [f"use of {use}" for use in work.uses]
        log.say("the run ends, but not all of it is seen to be gone")
        answer["left"] = work.undo(patience)
    lost = sorted({*mine.look_after(), *(others or ())})
    if lost:
        answer["lost"] = lost
        log.say(f"claims that were lost: {', '.join(lost)}")
    log.say("released by the run" + (", something is left" if answer["left"] else ": nothing of it is left"))
    if log.trouble:
        answer["warnings"] = [log.trouble]
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


def _read_line(line: socket.socket, deadline: float) -> bytes:
    """Read up to the end of a line, until ``deadline`` (monotonic seconds).

    :raises EOFError: when the other end has closed before.
    """
    data = bytearray()
    while not data.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time is over")
        line.settimeout(left)
        part = line.recv(65536)
        if not part:
            raise EOFError("the connection was closed")
        data += part
        if len(data) > messages.LARGEST:
            raise ValueError(f"the message is longer than {messages.LARGEST} bytes")
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
    config: messages.FullConfig = json.load(sys.stdin)
    mine = claims.Claims(claims.Holder(config["run"], config["user"], config["pid"], config["since"]))
    try:
        _check_watched(config)
        for folder in {config["claim_dir"], *(os.path.dirname(path) for path in config["claims"])}:
            claims.make_folder(folder)
        skipped: dict[str, claims.Holder] = {}
        if config["skip"]:
            skipped = mine.take_free(config["claims"])
        else:
            mine.take(config["claims"])
        # The links of others are none of ours.
        for batch in config["links"]:
            batch["nodes"] = [node for node in batch["nodes"] if node["name"] not in skipped]
        guard = Guard(config, mine)
    except claims.Overlap as overlap:
        _answer({"held": str(overlap)})
        return
    except (claims.ClaimError, GuardError, ImportError) as error:
        _answer({"error": str(error)})
        return
    except OSError as error:
        _answer(
            {
                "error": f"the run guard cannot work in {config['dir']}: {error}. Make room there, or set "
                "orbit_run_dir to a folder of this user on a disk of this host."
            }
        )
        return
    try:
        _answer({"skipped": {name: str(holder) for name, holder in skipped.items()}})
        guard.watch()
    except BaseException:
        guard.log.say(f"the guard itself failed:\n{traceback.format_exc()}")
        raise
    finally:
        guard.close()
        mine.release()


def _check_watched(config: messages.FullConfig) -> None:
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


def _answer(message: Answer) -> None:
    """Say the one thing that is said to who started the guard, and let go of his pipes."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    if nothing > 2:
        os.close(nothing)


class Log:
    """Lines with the time in a file of the run's folder. That it cannot be written ends nobody.

    What could not be written is tried again with the next line, up to some kilobytes; ``trouble`` says what
    is missing, "" when nothing is.

    :raises GuardError: when ``alone`` is asked for and another guard of the run is at work.
    """

    def __init__(self, folder: str, *, alone: bool = False) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._unwritten = b""
        self._dropped = 0
        self._reason = ""
        self._descriptor = -1
        if alone:
            self._descriptor = self._open()
            with contextlib.suppress(OSError):
                try:
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self.close()
                    raise GuardError(f"the run in {folder} has a guard already.") from None
        else:
            self.restore()

    def _open(self) -> int:
        private.make_folder(self._folder)
        return private.open_to_append(os.path.join(self._folder, _LOG))

    def restore(self) -> None:
        """See that the file is still in the folder, and make it anew when it is not."""
        try:
            there = os.lstat(os.path.join(self._folder, _LOG))
            if self._descriptor >= 0 and os.path.samestat(there, os.fstat(self._descriptor)):
                return
        except OSError:
            pass
        try:
            descriptor = self._open()
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._reason = str(error)
            return
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = descriptor

    def say(self, text: str) -> None:
        """Write a line with the time."""
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode("utf-8", "backslashreplace")
        with self._lock:
            if len(self._unwritten) + len(line) > _UNWRITTEN and self._unwritten:
                self._dropped += 1
            else:
                self._unwritten += line
            try:
                while self._unwritten:
                    self._unwritten = self._unwritten[os.write(self._descriptor, self._unwritten) :]
            except OSError as error:
                self._reason = error.strerror or str(error)

    @property
    def trouble(self) -> str:
        """What is not in the file, and why."""
        missing = self._dropped + self._unwritten.count(b"\n")
        if not missing:
            return ""
        return f"{missing} lines of {os.path.join(self._folder, _LOG)} could not be written: {self._reason}"

    def close(self) -> None:
        """Close the file; what is said later is lost."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1


class Guard:
    """Listens to the run and waits for its end.

    :raises GuardError: when the run has a guard already.
    :raises OSError: when log or socket cannot be made.
    """

    def __init__(self, config: messages.FullConfig, mine: claims.Claims) -> None:
        # Here, not above: what only starts a guard needs no HTTP client.
        from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import rollback

        self._config = config
        self._mine = mine
        self.log = Log(config["dir"], alone=True)
        self.work: Work = rollback.Work(config["links"], mine, config["claim_dir"], self.log.say)
        if config.get("resume"):
            notes, trouble = messages.kept(config["dir"])
            if trouble:
                self.log.say(f"notes that cannot be read: {trouble}")
            self.work.replay(notes, config.get("streams", []))
        self._begun = bool(config.get("resume"))
        self._record: t.Any = None
        self._playbooks: list[str] = list(config.get("playbooks", ()))
        self._told_lost = 0
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._at: os.stat_result | None = None
        try:
            self._listen_anew()
        except BaseException:
            self.log.close()
            raise
        self._over = False

    def _listen_anew(self) -> None:
        """Listen in the run's folder, in the place of whatever is there: no other guard is."""
        listener = socket.socket(socket.AF_UNIX)
        try:
            with _reachable(self._config["dir"]) as address:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(address)
                listener.bind(address)
                os.chmod(address, 0o600)
                self._at = os.lstat(address)
            listener.listen(128)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ)

    def close(self) -> None:
        """Give up socket and log."""
        if self._listener is not None:
            self._listener.close()
        self._selector.close()
        with contextlib.suppress(OSError):
            path = os.path.join(self._config["dir"], _SOCKET)
            # Not what somebody else has put there.
            if self._at is not None and os.path.samestat(os.lstat(path), self._at):
                os.unlink(path)
        self.log.close()

    def watch(self) -> None:
        """Serve the run until it releases the guard or dies."""
        pid, pidfd = self._config["pid"], self._config["pidfd"]
        self.log.say(
            f"guarding run {self._config['run']} of {self._config['user']}, process {pid}: "
            f"{len(self._config['claims'])} nodes" + (" (again)" if self._config.get("resume") else "")
        )
        if pidfd >= 0:
            self._selector.register(pidfd, selectors.EVENT_READ)
        while not self._over:
            ready = {key.fd for key, _events in self._selector.select(_LOOK)}
            # What the run said before it died is heard first.
            self._listen()
            if not self._over and (pidfd in ready if pidfd >= 0 else not _lives(pid, self._config["born"])):
                self._listen()
                if not self._over:
                    self._clean_up()
            if not self._over:
                self._look_after()

    def _look_after(self) -> None:
        """See that claims, log and socket are still where others look for them."""
        self._lost()
        self.log.restore()
        try:
            there = os.lstat(os.path.join(self._config["dir"], _SOCKET))
            if self._at is not None and os.path.samestat(there, self._at):
                return
        except OSError:
            pass
        with contextlib.suppress(OSError):
            self._listen_anew()
            self.log.say("the socket was not there any more; it was made anew")

    def _lost(self) -> list[str]:
        lost = self._mine.look_after()
        if len(lost) > self._told_lost:
            self.log.say(f"the files of claims were removed: {', '.join(lost[self._told_lost :])}")
            self._told_lost = len(lost)
        return lost

    def _listen(self) -> None:
        while not self._over and self._listener is not None:
            try:
                line, _address = self._listener.accept()
            except OSError:
                # Nobody is there any more; or no descriptor is free, and there will be one later.
                return
            with line:
                answer: Answer
                try:
                    if not _is_mine(line):
                        self.log.say("another user's message was not heard")
                        continue
                    answer = self._hear(json.loads(_read_line(line, time.monotonic() + _MESSAGE)))
                except EOFError:
                    # Somebody has seen whether there is a guard.
                    continue
                except Exception as error:
                    # Whatever it was, the guard stays; the run is told.
                    self.log.say(f"not understood: {error!r}")
                    answer = {"error": f"not understood: {error}"}
                with contextlib.suppress(OSError):
                    line.settimeout(_MESSAGE)
                    line.sendall(json.dumps(answer).encode() + b"\n")

    def _hear(self, message: t.Any) -> Answer:
        if message["say"] == "note":
            return self._note(message)
        if message["say"] == "release":
            answer = _undo_at_end(self.work, self._mine, self.log, PATIENCE_AT_RELEASE)
            self._over = True
            return answer
        raise ValueError(f"unknown word {message['say']!r}")

    def _note(self, note: Note) -> Answer:
        if "results" not in note:
            self._begun = True
            self._record = note.get("record") or self._record
            self._playbooks = note.get("playbooks") or self._playbooks
        answer = self.work.note(note["step"], note)
        self.log.say(f"{note['step']}: {_words(note)}")
        lost = self._lost()
        if lost:
            answer["lost"] = lost
        taken = self._mine.taken_by_others()
        if taken:
            answer["taken"] = {name: str(holder) for name, holder in taken.items() if not holder.unreadable}
        return answer

    def _clean_up(self) -> None:
        """The run is dead: end what is left of it here, undo what it has done there."""
        self._over = True
        step = self.work.step
        self.log.say(f"ansible-playbook has ended without a word, after it began: {step or 'nothing'}")
        patience = _MODULE if step in _MODULE_STEPS else 0.0
        left = [
            *self._whatever_happens(lambda: self._end_modules(patience)),
            *self._whatever_happens(lambda: self._undo(step)),
        ]
        self._whatever_happens(lambda: self._report(left))

    def _whatever_happens(self, work: t.Callable[[], list[str]]) -> list[str]:
        """Do one part of cleaning up; the next ones are done also when this one fails."""
        try:
            return work()
        except Exception as error:
            self.log.say(f"the guard itself failed:\n{traceback.format_exc()}")
            return [f"what the guard failed to undo: {error!r}"]

    def _end_modules(self, patience: float) -> list[str]:
        ended = end_modules(self._config["run"], self._config["command"], patience)
        if ended:
            self.log.say(f"ended what it left running: {', '.join(ended)}")
        return []

    def _undo(self, step: str) -> list[str]:
        if self.work.is_done:
            self.log.say("nothing was left to undo")
            return []
        if self.work.clients and step == "client":
            # A client that has all its data writes on; half a disk is worse than a node that is busy.
            self.log.say(
                f"clients may be writing on {', '.join(self.work.clients)}: they are left to finish. One "
                "that still lacks data waits in the memory image; the node's next reset boots its disk."
            )
        left = self.work.undo(PATIENCE, killed=True)
        self.log.say(f"done; left: {'; '.join(left)}" if left else "done: nothing of the run is left")
        return left

    def _report(self, left: list[str]) -> list[str]:
        """Write the result that the run can no longer write: what it had seen, all else was interrupted."""
        if not self._begun:
            return []
        from ansible_collections.orbit.imaging.plugins.plugin_utils.report import page, table
        from ansible_collections.orbit.imaging.plugins.plugin_utils.run import record as records
        from ansible_collections.orbit.imaging.plugins.plugin_utils.run.types import Record

        record, why_not = self._last_record()
        if record is None:
            if why_not:
                self.log.say(f"the result was not written: {why_not}")
            return []
        concluded = records.conclude(t.cast(Record, record), left, time.time())
        paths = table.write(concluded, self._playbooks or record.get("playbooks") or [])
        self.log.say(f"result of the interrupted run: {paths['result']}")
        page.write(concluded)
        return []

    def _last_record(self) -> tuple[dict[str, t.Any] | None, str]:
        """Return the run's record as it last said it or put it into its folder; else None, and why."""
        path = os.path.join(self._config["dir"], RECORD)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as stream:
                text = stream.read(_LARGEST_RECORD + 1)
            if len(text) > _LARGEST_RECORD:
                raise ValueError(f"it is larger than {_LARGEST_RECORD} bytes")
            record = json.loads(text)
            if not isinstance(record, dict):
                raise ValueError("it is no record")
        except (OSError, ValueError, RecursionError) as error:
            if self._record:
                return self._record, ""
            # A run that keeps no record has no result either.
            return None, "" if isinstance(error, FileNotFoundError) else f"{path}: {error}"
        return {**record, "dir": self._config["dir"]}, ""


def _words(note: Note) -> str:
    """Say in a few words what a note says."""
    if "results" not in note:
        return "begins"
    good, bad = (
        [_name(said) for said in note["results"] if bool(said.get("ok")) is ok] for ok in (True, False)
    )
    return f"done for {', '.join(good) or 'nothing'}" + (f", failed for {', '.join(bad)}" if bad else "")


def _name(said: messages.Result) -> str:
    return str(said.get("name") or said.get("image"))


def _is_mine(line: socket.socket) -> bool:
    """Whether the other end is of the same user; the folder's mode says so already."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    said = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", said)[1]) in (0, os.getuid())


def _lives(pid: int, born: str) -> bool:
    """Whether a process is still there, is no zombie, and is not another one of the same number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    state, now = _state_and_birth(pid)
    return state not in ("Z", "X") and (not born or not now or now == born)


def _born(pid: int) -> str:
    """Return when a process began, in ticks of this host; "" where that cannot be seen."""
    return _state_and_birth(pid)[1]


def _state_and_birth(pid: int) -> tuple[str, str]:
    words = _stat(pid)
    return (words[0], words[19]) if len(words) > 19 else ("", "")


def _stat(pid: int) -> list[str]:
    """Return what /proc says of a process after its name; nothing when nothing is to be seen."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            # The name, in brackets, may have brackets and spaces in it.
            return stream.read().rpartition(")")[2].split()
    except OSError:
        return []


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
    # A process that cannot be ended (another user's, or one that hangs in the kernel) is not waited for.
    limit = deadline + _MODULES_GONE
    while time.monotonic() < min(quiet, limit):
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
            if mark in stream.read().split(b"\0") and int(name) != os.getpid():
                found.append(int(name))
    return found


def _ancestors(pid: int) -> t.Iterator[int]:
    while words := _stat(pid):
        pid = int(words[1])
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
