# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import stat

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils.guard import claims

LIMIT = 180.0
FORK = multiprocessing.get_context("fork")


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


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_file_of_another_user_can_be_claimed(tmp_path):
    for folder in (*reversed(tmp_path.parents), tmp_path):
        if folder.stat().st_uid == os.getuid() and str(folder).startswith("/tmp/pytest"):
            folder.chmod(0o755)
    folder = tmp_path / "claims"
    claims.make_folder(str(folder))
    paths = files(folder, 1)
    first = claims.Claims(holder())
    first.take(paths)
    first.release()

    def as_nobody(connection):
        os.setgid(65534)
        os.setuid(65534)
        _hold(connection, paths, holder("run-2"))

    with child(as_nobody) as (connection, _process):
        assert heard(connection) is None
        assert claims.holders(paths) == {"node1-1": holder("run-2")}


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "hard link"])
def test_what_is_no_file_of_its_own_is_refused_and_left_as_it_was(tmp_path, kind):
    victim = tmp_path / "victim"
    victim.write_text("keep")
    ((path, _name),) = files(tmp_path, 1).items()
    if kind == "link":
        os.symlink(victim, path)
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        os.link(victim, path)
    with pytest.raises(claims.ClaimError, match=r"cannot be used|not a file of its own"):
        claims.Claims(holder()).take({path: "node1-1"})
    assert victim.read_text() == "keep"


@pytest.mark.parametrize(
    "text", ["", "{", '{"run": 1}', "[]", "x" * 9000, '{"run":"a","user":"b","pid":"c","since":0}']
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
