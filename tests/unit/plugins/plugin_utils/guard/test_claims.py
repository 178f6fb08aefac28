# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import contextlib
import errno
import fcntl
import multiprocessing
import os
import pathlib
import resource
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims

LIMIT = 180.0
FORK = multiprocessing.get_context("fork")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can do this")


def holder(run="run-1"):
    return claims.Holder(run, "alice", 4711, 1_800_000_000.0)


def files(folder, count, first=1):
    nodes = [{"domain": "d", "x": x, "y": 1, "hrn": f"node{x}-1.d"} for x in range(first, first + count)]
    return {claims.node_path(str(folder), node): f"node{node['x']}-1" for node in nodes}


def _hold(connection, paths, who):
    """Claim, say how it went, and hold until the other end is closed."""
    mine = claims.Claims(who)
    try:
        mine.take(paths)
    except claims.Overlap as overlap:
        connection.send(overlap.held)
    else:
        connection.send(None)
    with contextlib.suppress(EOFError):
        connection.recv()


@contextlib.contextmanager
def child(work, *arguments):
    """Run ``work(connection, *arguments)`` in another process; gives its end of the connection."""
    here, there = FORK.Pipe()

    def run():
        # Or the pipe would never end for this process.
        here.close()
        work(there, *arguments)

    process = FORK.Process(target=run)
    process.start()
    there.close()
    try:
        yield here, process
    finally:
        here.close()
        process.join(LIMIT)
        if process.is_alive():
            process.kill()
            process.join()


def heard(connection):
    assert connection.poll(LIMIT)
    return connection.recv()


@contextlib.contextmanager
def other_process(paths, who):
    """Another process that claims; gives its answer and the process."""
    with child(_hold, paths, who) as (connection, process):
        yield heard(connection), process


def test_a_second_holder_is_refused_and_told_who_and_since_when(tmp_path):
    with other_process(files(tmp_path, 3), holder()) as (answer, _process):
        assert answer is None
        mine = claims.Claims(holder("run-2"))
        with pytest.raises(claims.Overlap) as refused:
            mine.take(files(tmp_path, 3, first=2))
        assert refused.value.held == {"node2-1": holder(), "node3-1": holder()}
        words = str(refused.value)
        assert words.startswith(
            "node2-1, node3-1: run run-1 of alice (ansible-playbook, process 4711) since 2027-"
        )
        # All or none: the node that was free is free again.
        assert claims.holders(files(tmp_path, 1, first=4)) == {}
        mine.take(files(tmp_path, 1, first=4))
        mine.release()


def test_disjoint_claims_stand_side_by_side(tmp_path):
    with other_process(files(tmp_path, 3), holder()) as (answer, _process):
        assert answer is None
        mine = claims.Claims(holder("run-2"))
        mine.take(files(tmp_path, 3, first=4))
        assert set(claims.holders(files(tmp_path, 6))) == {f"node{x}-1" for x in range(1, 7)}
        mine.release()


def test_the_claims_of_a_holder_that_is_killed_are_free(tmp_path):
    paths = files(tmp_path, 2)
    with other_process(paths, holder()) as (answer, process):
        assert answer is None
        os.kill(process.pid, signal.SIGKILL)
        process.join(LIMIT)
        assert claims.holders(paths) == {}
        mine = claims.Claims(holder("run-2"))
        mine.take(paths)
        assert claims.holders(paths) == dict.fromkeys(["node1-1", "node2-1"], holder("run-2"))
        mine.release()


def test_of_two_that_overlap_at_the_same_moment_one_gets_all(tmp_path):
    start = FORK.Event()

    def race(connection, paths, who):
        start.wait(LIMIT)
        _hold(connection, paths, who)

    low, high = files(tmp_path, 40), files(tmp_path, 40, first=20)
    with child(race, low, holder("low")) as (one, _one), child(race, high, holder("high")) as (other, _other):
        start.set()
        answers = [heard(one), heard(other)]
    assert answers.count(None) == 1
    (refused,) = [answer for answer in answers if answer is not None]
    assert "node20-1" in refused


def test_asking_claims_nothing(tmp_path):
    paths = files(tmp_path, 2)
    assert claims.holders(paths) == {}
    assert list(tmp_path.iterdir()) == []
    with other_process(paths, holder()) as (answer, _process):
        assert answer is None
        assert set(claims.holders(paths)) == {"node1-1", "node2-1"}


def test_what_is_free_is_taken_and_the_rest_named(tmp_path):
    with other_process(files(tmp_path, 2), holder()) as (answer, _process):
        assert answer is None
        mine = claims.Claims(holder("run-2"))
        assert mine.take_free(files(tmp_path, 4)) == dict.fromkeys(["node1-1", "node2-1"], holder())
        assert claims.holders(files(tmp_path, 2, first=3)) == dict.fromkeys(
            ["node3-1", "node4-1"], holder("run-2")
        )
        mine.release()


def test_more_nodes_than_the_soft_limit_of_open_files(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    paths = files(tmp_path, 400)

    def narrow(connection):
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        _hold(connection, paths, holder())

    with child(narrow) as (connection, _process):
        assert heard(connection) is None
        assert len(claims.holders(paths)) == 400


def test_too_low_a_hard_limit_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (64, 100))
    with pytest.raises(claims.ClaimError, match="ulimit -Hn"):
        claims.Claims(holder()).take(files(tmp_path, 200))


def test_the_folder_and_its_files_are_for_all_users(tmp_path):
    folder = tmp_path / "claims"
    old = os.umask(0o077)
    try:
        claims.make_folder(str(folder))
        claims.make_folder(str(folder))
        mine = claims.Claims(holder())
        mine.take(files(folder, 1))
    finally:
        os.umask(old)
    (path,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    mine.release()
    assert path.read_text() == ""


@needs_root
def test_a_file_of_another_user_can_be_claimed(tmp_path):
    opened_up(tmp_path)
    folder = tmp_path / "claims"
    claims.make_folder(str(folder))
    paths = files(folder, 1)
    first = claims.Claims(holder())
    first.take(paths)
    first.release()

    def hold(connection):
        os.setgid(65534)
        os.setuid(65534)
        _hold(connection, paths, holder("run-2"))

    with child(hold) as (connection, _process):
        assert heard(connection) is None
        assert claims.holders(paths) == {"node1-1": holder("run-2")}


def _socket(path):
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(path)


#: What other users may leave where a claim would be, and words of the reason that is given.
LEFTOVERS = {
    "link": (lambda path, victim: os.symlink(victim, path), "is a symbolic link"),
    "dangling link": (lambda path, victim: os.symlink("/nowhere/at/all", path), "is a symbolic link"),
    "folder": (lambda path, victim: os.mkdir(path), "not a file of its own"),
    "fifo": (lambda path, victim: os.mkfifo(path), "not a file of its own"),
    "hard link": (lambda path, victim: os.link(victim, path), "not a file of its own"),
    "socket": (lambda path, victim: _socket(path), "not a file of its own"),
}


@pytest.mark.parametrize("kind", LEFTOVERS)
def test_what_is_no_file_of_a_claim_holds_its_node_alone_and_is_left_as_it_was(short_path, kind):
    victim = short_path / "victim"
    victim.write_text("keep")
    paths = files(short_path, 3)
    leave, reason = LEFTOVERS[kind]
    leave(next(path for path, name in paths.items() if name == "node2-1"), victim)
    mine = claims.Claims(holder())
    with pytest.raises(claims.Overlap) as refused:
        mine.take(paths)
    words = str(refused.value)
    assert words.startswith("node2-1: an unreadable claim: ")
    assert reason in words
    assert "remove it" in words
    assert list(claims.holders(paths)) == ["node2-1"]
    assert list(mine.take_free(paths)) == ["node2-1"]
    assert set(claims.holders(paths)) == {"node1-1", "node2-1", "node3-1"}
    mine.release()
    assert victim.read_text() == "keep"


@pytest.fixture
def short_path():
    # A socket's name has at most 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)


def opened_up(tmp_path):
    """Let other users into the folder of a test."""
    for folder in (*reversed(tmp_path.parents), tmp_path):
        if folder.stat().st_uid == os.getuid() and str(folder).startswith("/tmp/pytest"):
            folder.chmod(0o755)


def as_nobody(work, *arguments):
    """Return what ``work`` returns, or the error it raises, for a user without rights."""

    def run(connection):
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            connection.send(work(*arguments))
        except Exception as error:
            connection.send((type(error).__name__, str(error)))

    with child(run) as (connection, _process):
        return heard(connection)


@needs_root
def test_an_unreadable_file_of_somebody_else_holds_its_node_alone(tmp_path):
    opened_up(tmp_path)
    folder = tmp_path / "claims"
    claims.make_folder(str(folder))
    paths = files(folder, 2)
    path = next(path for path, name in paths.items() if name == "node1-1")
    with open(path, "w", encoding="utf-8"):
        os.chmod(path, 0)

    def look():
        mine = claims.Claims(holder())
        found = {name: str(who) for name, who in claims.holders(paths).items()}
        return found, {name: str(who) for name, who in mine.take_free(paths).items()}

    found, refused = as_nobody(look)
    assert list(found) == list(refused) == ["node1-1"]
    assert "Permission denied" in found["node1-1"]


@needs_root
def test_a_file_that_cannot_be_changed_holds_its_node_alone(tmp_path):
    paths = files(tmp_path, 2)
    path = next(path for path, name in paths.items() if name == "node1-1")
    with open(path, "w", encoding="utf-8"):
        pass
    if subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        mine = claims.Claims(holder())
        assert list(mine.take_free(paths)) == ["node1-1"]
        mine.release()
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


def test_a_huge_file_is_a_claim_like_others(tmp_path):
    paths = files(tmp_path, 1)
    with other_process(paths, holder()) as (answer, _process):
        assert answer is None
        os.truncate(next(iter(paths)), 1 << 40)
        assert list(claims.holders(paths)) == ["node1-1"]


def test_many_files_that_somebody_keeps_locked_are_waited_for_together(tmp_path, monkeypatch):
    paths = files(tmp_path, 300)

    def lock(connection):
        kept = [open(path, "w", encoding="utf-8") for path in paths]  # noqa: SIM115
        for stream in kept:
            fcntl.flock(stream, fcntl.LOCK_EX)
        connection.send(None)
        with contextlib.suppress(EOFError):
            connection.recv()

    pauses = []
    real = time.sleep
    monkeypatch.setattr(claims.time, "sleep", lambda seconds: (pauses.append(seconds), real(seconds)))
    with child(lock) as (connection, _process):
        heard(connection)
        mine = claims.Claims(holder())
        assert len(claims.holders(paths)) == 300
        assert len(mine.take_free({**paths, **files(tmp_path, 1, first=301)})) == 300
        with pytest.raises(claims.Overlap) as refused:
            claims.Claims(holder("run-2")).take(paths)
        assert len(refused.value.held) == 300
        mine.release()
    # Three times the patience for one, not for each of 300.
    assert sum(pauses) < 5 * 0.3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder, other: os.symlink(other, folder), "symbolic link"),
        (lambda folder, other: (os.mkdir(folder), os.chmod(folder, 0o777)), "chmod +t"),
        (lambda folder, other: (os.mkdir(folder), os.chmod(folder, 0o775)), "chmod +t"),
        (lambda folder, other: open(folder, "w", encoding="utf-8").close(), "no folder"),
        (lambda folder, other: None, "cannot be used"),
    ],
)
def test_a_folder_in_which_claims_are_not_safe_is_refused(tmp_path, make, words):
    folder = tmp_path / "claims"
    other = tmp_path / "other"
    other.mkdir()
    make(folder, other)
    if words == "cannot be used":
        folder = tmp_path / "missing" / "claims"
    with pytest.raises(claims.ClaimError) as refused:
        claims.make_folder(f"{folder}/")
    assert words in str(refused.value)
    assert "orbit_claim_dir" in str(refused.value)


@needs_root
def test_a_folder_that_others_cannot_write_is_refused_to_them(tmp_path):
    opened_up(tmp_path)
    folder = tmp_path / "claims"
    folder.mkdir(mode=0o755)
    kind, words = as_nobody(claims.make_folder, str(folder))
    assert kind == "ClaimError"
    assert f"chmod 1777 {folder}" in words


def test_a_file_system_without_locks_is_refused_with_the_reason(tmp_path, monkeypatch):
    def no_locks(_descriptor, _kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(claims.fcntl, "flock", no_locks)
    for ask in (
        lambda: claims.Claims(holder()).take(files(tmp_path, 1)),
        lambda: claims.holders(files(tmp_path, 1)),
    ):
        with pytest.raises(claims.ClaimError, match=r"No locks available.*orbit_claim_dir"):
            ask()


def test_no_lock_is_asked_for_on_a_file_open_for_reading_only(tmp_path, monkeypatch):
    # NFS refuses that with EBADF.
    real = fcntl.flock

    def as_nfs(descriptor, kind):
        how = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        if kind & fcntl.LOCK_EX and how == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(descriptor, kind)

    monkeypatch.setattr(claims.fcntl, "flock", as_nfs)
    path = claims.stream_path(str(tmp_path), "http://frisbee", "d", "x")
    mine = claims.Claims(holder())
    mine.share(path)
    assert claims.holder_of(path, shared=True) == holder()
    assert mine.alone(path)
    mine.release()
    assert claims.holder_of(path, shared=True) is None


def test_a_claim_whose_file_is_removed_is_noticed_and_made_anew(tmp_path):
    paths = files(tmp_path, 2)
    mine = claims.Claims(holder())
    mine.take(paths)
    assert mine.look_after() == []
    first = next(path for path, name in paths.items() if name == "node1-1")
    os.unlink(first)
    assert mine.look_after() == ["node1-1"]
    assert mine.taken_by_others() == {}
    assert set(claims.holders(paths)) == {"node1-1", "node2-1"}
    # It was free to others for a time, and that stays so.
    assert mine.look_after() == ["node1-1"]
    mine.release()
    assert claims.holders(paths) == {}


@pytest.mark.parametrize("kind", ["another run", "folder"])
def test_a_claim_that_somebody_else_has_now_is_named(tmp_path, kind):
    paths = files(tmp_path, 2)
    mine = claims.Claims(holder())
    mine.take(paths)
    first = next(path for path, name in paths.items() if name == "node1-1")
    os.unlink(first)
    if kind == "folder":
        os.mkdir(first)
        assert mine.look_after() == ["node1-1"]
        assert mine.taken_by_others()["node1-1"].unreadable
    else:
        with other_process({first: "node1-1"}, holder("run-2")) as (answer, _process):
            assert answer is None
            assert mine.look_after() == ["node1-1"]
            assert mine.taken_by_others() == {"node1-1": holder("run-2")}
        assert mine.look_after() == ["node1-1"]
        assert mine.taken_by_others() == {}
    mine.release()


def test_a_folder_of_claims_that_is_removed_is_made_anew(tmp_path):
    folder = tmp_path / "claims"
    claims.make_folder(str(folder))
    paths = files(folder, 3)
    mine = claims.Claims(holder())
    mine.take(paths)
    shutil.rmtree(folder)
    assert sorted(mine.look_after()) == ["node1-1", "node2-1", "node3-1"]
    assert mine.taken_by_others() == {}
    assert set(claims.holders(paths)) == {"node1-1", "node2-1", "node3-1"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    mine.release()


def test_who_uses_a_stream_is_not_known_once_its_file_was_removed(tmp_path):
    path = claims.stream_path(str(tmp_path), "http://frisbee", "d", "x")
    mine = claims.Claims(holder())
    mine.share(path)
    os.unlink(path)
    assert not mine.alone(path)
    assert mine.look_after() == []
    assert claims.holder_of(path, shared=True) == holder()
    assert not mine.alone(path)
    mine.release()


def test_to_ask_whether_a_stream_is_used_alone_never_waits_for_who_has_locked_it(tmp_path, monkeypatch):
    path = claims.stream_path(str(tmp_path), "http://frisbee", "d", "x")
    mine = claims.Claims(holder())
    mine.share(path)
    real = fcntl.flock
    monkeypatch.setattr(claims, "_INSTANT", 0.0)

    def stolen(descriptor, kind):
        # Between the two halves of a change somebody else locks the file, for ever.
        assert kind & fcntl.LOCK_NB
        if not kind & fcntl.LOCK_SH:
            real(descriptor, fcntl.LOCK_UN)
            real(thief, fcntl.LOCK_EX)
        real(descriptor, kind)

    with open(path, "r+b") as stream:
        thief = stream.fileno()
        monkeypatch.setattr(claims.fcntl, "flock", stolen)
        assert not mine.alone(path)
    mine.release()


def test_streams_in_use_are_told_whatever_lies_beside_them(tmp_path):
    long = "x" * 180
    mine = claims.Claims(holder())
    for image in ("x.ndz", long):
        about = {"url": "http://frisbee:5012", "domain": "d", "image": image}
        mine.share(claims.stream_path(str(tmp_path), **about), **about)
    os.mkdir(claims.stream_path(str(tmp_path), "http://frisbee:5012", "d", "unreadable"))
    (tmp_path / "stream,").mkdir()
    (tmp_path / "stream,%ff,,").symlink_to("stream,")
    (tmp_path / "README").write_text("hello")
    (tmp_path / os.fsdecode(b"stream,\xff,a,b")).write_text("")
    used = {(found["url"], found["domain"], found["image"]) for found in claims.streams_in(str(tmp_path))}
    for image in ("x.ndz", long, "unreadable"):
        assert ("http://frisbee:5012", "d", image) in used
    mine.release()
    used = {found["image"] for found in claims.streams_in(str(tmp_path))}
    assert {"x.ndz", long} & used == set()
    with pytest.raises(claims.ClaimError, match="cannot be used"):
        claims.streams_in(str(tmp_path / "README"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"run": 1}',
        "[]",
        "x" * 9000,
        '{"run":"a","user":"b","pid":"c","since":0}',
        "[" * 4096,
        "null",
    ],
)
def test_a_file_with_anything_in_it_still_counts_as_claimed(tmp_path, text):
    paths = files(tmp_path, 1)
    with other_process(paths, holder()) as (answer, _process):
        assert answer is None
        (path,) = paths
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
        assert claims.holders(paths) == {"node1-1": claims.Holder()}
    assert "does not say who" in str(claims.Holder())


def test_a_holder_cannot_write_control_characters_onto_the_screen(tmp_path):
    paths = files(tmp_path, 1)
    with other_process(paths, claims.Holder("\x1b[2J\n", "a\nb", 1, 1.0)) as (answer, _process):
        assert answer is None
        assert claims.holders(paths)["node1-1"] == claims.Holder("?[2J?", "a?b", 1, 1.0)


@pytest.mark.parametrize("since", [float("inf"), float("nan"), -1e300, 1e300])
def test_a_holder_may_say_any_time(since):
    assert "since an unknown time" in str(claims.Holder("r", "u", 1, since))


@pytest.mark.parametrize("url", ["http://frisbee:5012/", "HTTP://Frisbee:5012", "http://frisbee:5012//"])
def test_a_stream_is_the_same_however_its_service_is_spelled(url):
    known = claims.stream_identity("http://frisbee:5012", "d", "x.ndz")
    assert claims.stream_identity(url, "D", "x.ndz") == known
    assert claims.stream_identity("http://f:80/", "d", "x") == claims.stream_identity("http://f", "d", "x")


@pytest.mark.parametrize(
    ("url", "domain", "image"),
    [
        ("http://frisbee:5013", "d", "x.ndz"),
        ("https://frisbee:5012", "d", "x.ndz"),
        ("http://frisbee:5012/below", "d", "x.ndz"),
        ("http://frisbee:5012", "e", "x.ndz"),
        ("http://frisbee:5012", "d", "X.ndz"),
    ],
)
def test_streams_of_other_services_domains_and_images_are_others(url, domain, image):
    assert claims.stream_path("/f", url, domain, image) != claims.stream_path(
        "/f", "http://frisbee:5012", "d", "x.ndz"
    )


def test_a_stream_is_shared_and_knows_when_it_is_used_by_one_only(tmp_path):
    path = claims.stream_path(str(tmp_path), "http://frisbee:5012/", "d", "x.ndz")
    assert path == claims.stream_path(str(tmp_path), "http://frisbee:5012", "D", "x.ndz")
    one, other = claims.Claims(holder()), claims.Claims(holder("run-2"))
    one.share(path)
    one.share(path)
    assert one.alone(path)
    other.share(path)
    assert not one.alone(path)
    assert claims.holder_of(path, shared=True) == holder("run-2")
    other.release()
    assert one.alone(path)
    one.release()
    assert claims.holder_of(path, shared=True) is None


def test_names_of_nodes_stay_apart_and_inside_the_folder():
    def name(**node):
        path = claims.node_path("/f", {"domain": "d", "x": None, "y": None, "hrn": "h", **node})
        assert os.path.dirname(path) == "/f"
        return path

    assert name(x=1, y=2, hrn="a") == name(x=1, y=2, hrn="b", domain="D")
    assert name(x=1, y=12) != name(x=11, y=2)
    assert name(hrn="../../etc/passwd") == "/f/node,d,..%2F..%2Fetc%2Fpasswd"
    assert name(hrn="a,b", domain="c") != name(hrn="b", domain="c,a")
    assert len(os.path.basename(name(hrn="x" * 500))) < 100
