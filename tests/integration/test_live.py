# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees of a run, on a terminal, in a pipe, with other callbacks; and what programs hear."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import socket
import struct
import subprocess
import termios
import threading

import pytest

from .kit import IMAGE, LIMIT, ROOT, TWO_GROUPS, program
from .leftovers import all_gone_soon, newest_run

LEGEND = "· waiting"
_CODES = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+|\x1b")


def environment(**more):
    kept = {
        name: text for name, text in os.environ.items() if name not in ("CI", "COLUMNS", "LINES", "NO_COLOR")
    }
    return {**kept, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "TERM": "xterm-256color", **more}


def command(testbed, *arguments):
    # Who runs the tests in the background has signals ignored, also by what they start.
    inventory = ("-i", testbed.inventory(TWO_GROUPS))
    return ["env", "--default-signal=INT,HUP", program("ansible-playbook"), *inventory, IMAGE, *arguments]


class Terminal:
    """A terminal with a program in it; all that was written, and what is to be seen of it."""

    def __init__(self, arguments, columns=80, rows=24, **more):
        self.columns = columns
        self.written = ""
        self._news = threading.Condition()
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=environment(**more),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        data = b"."
        whole = b""
        while data:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                # Nobody has the other end open any more.
                data = b""
            whole += data
            with self._news:
                self.written = whole.decode(errors="replace")
                self._news.notify_all()

    def wait_for(self, words):
        with self._news:
            there = self._news.wait_for(lambda: words in self.written or not self._reader.is_alive(), LIMIT)
        assert there, self.written
        assert words in self.written, self.written

    def type(self, data):
        os.write(self._master, data)

    def end(self):
        """Wait for the end of the program; return its status."""
        status = self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(LIMIT)
        os.close(self._master)

    @property
    def seen(self):
        """The text on the terminal, and what has scrolled off its top."""
        lines, row, column = [""], 0, 0
        for match in _CODES.finditer(self.written):
            if match[0] == "\r":
                column = 0
            elif match[0] == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif match[2] == "A":
                row = max(0, row - int(match[1] or 1))
            elif match[2] == "K":
                lines[row] = "" if match[1] == "2" else lines[row][:column]
            elif match[2] is None and match[0] != "\x1b":
                for character in match[0]:
                    if column == self.columns:
                        row, column = row + 1, 0
                        lines += [""] * (row + 1 - len(lines))
                    line = lines[row].ljust(column)
                    lines[row] = line[:column] + character + line[column + 1 :]
                    column += 1
        return "\n".join(line.rstrip() for line in lines)


def events_of(testbed):
    text = (newest_run(testbed) / "events.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


_TYPES = {"integer": int, "number": (int, float), "text": str, "truth": bool, "list": list, "mapping": dict}


def assert_documented(found):
    """Each event has the fields that docs/events.md gives it, and no other, each of the type given there."""
    text = (ROOT / "docs" / "events.md").read_text()
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    fields = {cells[0].strip(" `"): set(re.findall(r"`(\w+)`", cells[2])) for cells in rows[:8]}
    types = {cells[0].strip(" `"): _TYPES[cells[1].strip()] for cells in rows[8:]}
    for event in found:
        assert set(event) <= fields[event["event"]] | {"v", "at", "run", "event"}, event
        for name, value in event.items():
            assert isinstance(value, types[name]), (name, event)
            assert not isinstance(value, bool) or types[name] is bool, (name, event)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50)])
def test_a_table_on_a_terminal_and_the_report_at_the_end(testbed, columns, rows):
    with Terminal(command(testbed), columns, rows) as terminal:
        assert terminal.end() == 0, terminal.written
        seen = terminal.seen
    for words in ("TASK [", "PLAY", "ok:", "changed:", "skipping:", LEGEND, "Traceback", "WARNING"):
        assert words not in seen
    assert "6 of 6 nodes imaged" in seen
    assert seen.rstrip().splitlines()[-1].endswith("report.html")
    # The cursor is not hidden, so nobody has to bring it back.
    assert "\x1b[?25" not in terminal.written
    for words in ("Write the images", "See every node run its new disk", "senders", "━", "✔", LEGEND):
        assert words in terminal.written


def test_programs_hear_what_happens(testbed):
    done = subprocess.run(
        command(testbed), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = events_of(testbed)
    assert_documented(found)
    assert {event["run"] for event in found} == {newest_run(testbed).name}
    first, last = found[0], found[-1]
    assert first["event"] == "run"
    assert {group["group"] for group in first["groups"]} == {"senders", "receivers"}
    assert {(node["node"], node["x"], node["y"]) for node in first["nodes"]} == {
        (f"node{x}-{y}", x, y) for x in (1, 2, 3) for y in (1, 2)
    }
    assert last["event"] == "report"
    assert set(last["outcomes"].values()) == {"imaged"}
    assert found[-2]["event"] == "released"
    assert found[-2]["left"] == []
    begun = [event["step"] for event in found if event["event"] == "step" and event["state"] == "began"]
    assert begun == [
        *(
            "images",
            "known",
            "linkable",
            "link",
            "serve",
            "reset",
            "client",
            "unlink",
            "stop",
            "boot",
            "proof",
        )
    ]
    assert {event["group"] for event in found if event["event"] == "stream"} == {"senders", "receivers"}
    for node in last["outcomes"]:
        states = [event["state"] for event in found if event["event"] == "node" and event["node"] == node]
        assert states == ["ready", "imaging", "imaged", "up"]
    percents = [event for event in found if event["event"] == "progress"]
    assert {event["node"] for event in percents} == set(last["outcomes"])
    assert all(0 <= event.get("percent", 0) <= 100 for event in percents)


def test_a_pipe_gets_lines(testbed, order):
    order("node1-1", "never-boot")
    quick = ("-e", "orbit_boot_timeout=6", "-e", "orbit_retries=0", "--limit", "senders")
    done = subprocess.run(
        command(testbed, *quick), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    assert re.search(r"^\[ *[0-9.]+ s\]  senders  sender.ndz: Write the images: ", done.stdout, re.MULTILINE)
    assert re.search(r"^\[ *[0-9.]+ s\]  node1-1: failed: no_boot: ", done.stdout, re.MULTILINE)
    # The failure of the node is Ansible's to show, with what stands above it; nothing else is.
    assert re.findall(r"^TASK \[(.*)\]", done.stdout, re.MULTILINE) == [
        "orbit.imaging.image : Fail the nodes of groups that missed their quorum"
    ]
    assert "fatal: [node1-1]: FAILED!" in done.stdout
    # The report counts the nodes, so nobody needs a recap of each of them.
    assert "PLAY RECAP" not in done.stdout
    assert done.stdout.index("fatal: ") < done.stdout.index("2 of 3 nodes imaged")
    assert done.stdout.count("2 of 3 nodes imaged") == 1


@pytest.mark.parametrize(
    "more", [{"TERM": "dumb"}, {"CI": "true"}, {"AWX_ISOLATED_DATA_DIR": "/nonexistent"}]
)
def test_a_terminal_that_is_none_gets_lines(testbed, more):
    with Terminal(command(testbed, "--limit", "node1-1"), **more) as terminal:
        assert terminal.end() == 0, terminal.written
    assert LEGEND not in terminal.written
    assert not re.search(r"\x1b\[[0-9;?]*[A-LN-Za-ln-z]", terminal.written)
    assert "sender.ndz: Write the images: " in terminal.written
    assert "1 of 1 nodes imaged" in terminal.written


def test_verbose_brings_all_back_beside_the_table(testbed):
    with Terminal(command(testbed, "-v", "--limit", "node1-1")) as terminal:
        assert terminal.end() == 0, terminal.written
        seen = terminal.seen
    for words in ("TASK [orbit.imaging.image : Write the images]", "PLAY RECAP", "changed: [node1-1"):
        assert words in seen
    assert LEGEND in terminal.written
    assert LEGEND not in seen
    # The result of the task has the lines, too.
    assert seen.index("PLAY RECAP") < seen.rindex("1 of 1 nodes imaged")


def test_failed_nodes_are_named_while_others_go_on(testbed, order):
    order("node1-1", "never-boot")
    quick = ("-e", "orbit_boot_timeout=6", "-e", "orbit_retries=1")
    with Terminal(command(testbed, *quick)) as terminal:
        assert terminal.end() == 2, terminal.written
        seen = terminal.seen
    drawn = re.sub(r"\x1b\[[0-9;]*m", "", terminal.written)
    assert "✘ node1-1: no_boot: " in drawn
    assert "○ node1-1: try 2 after no_boot" in drawn
    assert len(re.findall(r"^\[ *[0-9.]+ s\]  node1-1: failed: no_boot: ", seen, re.MULTILINE)) == 1
    assert "fatal: [node1-1]: FAILED!" in seen
    assert_documented(events_of(testbed))
    # Whatever was printed meanwhile, nothing is left of the table.
    assert LEGEND not in seen
    assert "━" not in seen
    assert "5 of 6 nodes imaged" in seen


def test_check_mode_shows_no_node_that_boots(testbed):
    done = subprocess.run(
        command(testbed, "--check"), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sender.ndz: Write the images (check mode): 3 waiting\n" in done.stdout
    assert "booting" not in done.stdout
    assert "Check mode: no node, link or stream was touched." in done.stdout
    assert_documented(events_of(testbed))


OWN = """\
- hosts: all
  gather_facts: false
  pre_tasks:
    - ansible.builtin.debug: {msg: before}
      run_once: true
  roles:
    - {role: orbit.imaging.image, when: inventory_hostname == 'node1-1'}
  tasks:
    - ansible.builtin.debug: {msg: after}
      run_once: true
"""


def test_in_a_playbook_of_ones_own_only_others_speak(testbed, tmp_path):
    (tmp_path / "own.yml").write_text(OWN)
    arguments = [*command(testbed, "--limit", "node1-1"), "-e", "orbit_image=sender.ndz"]
    arguments[arguments.index(IMAGE)] = str(tmp_path / "own.yml")
    with Terminal(arguments) as terminal:
        assert terminal.end() == 0, terminal.written
        seen = terminal.seen
    assert "Write the images" in terminal.written
    tasks = re.findall(r"^TASK \[(.*)\]", seen, re.MULTILINE)
    assert [task.rpartition(".")[2] for task in tasks] == ["debug"] * 2
    assert seen.index("before") < seen.index("after") < seen.index("PLAY RECAP") < seen.index("1 of 1 nodes")
    assert LEGEND not in seen


def test_ctrl_c_takes_the_table_away(testbed, order):
    order("node1-1", "never-boot")
    with Terminal(command(testbed, "-e", "orbit_gather=0")) as terminal:
        terminal.wait_for("▶")
        terminal.type(b"\x03")
        assert terminal.end() != 0
        seen = terminal.seen
    all_gone_soon(testbed)
    assert "nterrupt" in seen, seen
    assert LEGEND not in seen
    assert "━" not in seen
    assert "\x1b[?25" not in terminal.written
    assert "Traceback" not in seen


def test_the_reader_of_the_lines_goes_away(testbed, order):
    """As with ``| head``."""
    order("node1-1", "never-boot")
    with subprocess.Popen(
        command(testbed, "-e", "orbit_gather=0"),
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        line = process.stdout.readline()
        while line and "Write the images" not in line:
            line = process.stdout.readline()
        assert line
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(LIMIT) != 0
    assert "Traceback" not in errors
    all_gone_soon(testbed)


def test_without_rich_there_is_one_warning_and_the_default_output(testbed, tmp_path):
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ImportError('no rich here')\n")
    with Terminal(command(testbed, "--limit", "node1-1"), 200, PYTHONPATH=str(tmp_path)) as terminal:
        assert terminal.end() == 0, terminal.written
        seen = terminal.seen
    assert seen.count("rich is not installed") == 1
    assert LEGEND not in terminal.written
    for words in ("TASK [orbit.imaging.image : Write the images]", "node1-1: imaging", "PLAY RECAP"):
        assert words in seen
    assert seen.index("PLAY RECAP") < seen.index("1 of 1 nodes imaged")


JSON = """\
import json
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = '''
name: json
type: stdout
short_description: The recap as JSON
version_added: historical
description: As programs read it.
'''


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "json"

    def v2_playbook_on_stats(self, stats):
        self._display.display(json.dumps({host: stats.summarize(host) for host in stats.processed}))
"""


@pytest.mark.parametrize("callback", ["default", "minimal", "oneline", "json"])
def test_other_callbacks_keep_working(testbed, tmp_path, callback):
    (tmp_path / "json.py").write_text(JSON)
    done = subprocess.run(
        command(testbed, "--limit", "node1-1"),
        cwd=ROOT,
        env=environment(ANSIBLE_STDOUT_CALLBACK=callback, ANSIBLE_CALLBACK_PLUGINS=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    people = done.stderr if callback == "json" else done.stdout
    # Some of them show the results of tasks, in which it is once more.
    assert len(re.findall(r"^1 of 1 nodes imaged", people, re.MULTILINE)) == 1
    assert "node1-1: imaging" in people
    if callback == "json":
        assert json.loads(done.stdout)["node1-1"]["failures"] == 0
    else:
        assert people.rstrip().splitlines()[-1].startswith("Page of the run: ")


def test_somebody_else_listens_and_the_report_is_shown_all_the_same(testbed, tmp_path):
    heard = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(0.1)
        with subprocess.Popen(
            command(testbed, "--limit", "node1-1"),
            cwd=ROOT,
            env=environment(ORBIT_IMAGING_EVENTS=str(tmp_path / "socket")),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            while process.poll() is None:
                with contextlib.suppress(TimeoutError):
                    heard.append(json.loads(sock.recv(1 << 20)))
            said = process.stdout.read()
    assert process.returncode == 0, said
    assert said.count("1 of 1 nodes imaged") == 1
    assert [event["event"] for event in heard if event["event"] in ("run", "report")] == ["run", "report"]
