# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import os
import pathlib
import resource
import stat

import pytest

from ansible_collections.orbit.imaging.plugins.plugin_utils import private
from ansible_collections.orbit.imaging.plugins.plugin_utils.node import boot_wait

PLUGINS = pathlib.Path(private.__file__).resolve().parents[1]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777])
def umask(request):
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


def test_folders_are_their_owners_alone_all_the_way(tmp_path, umask):
    private.make_folder(str(tmp_path / "state" / "run-1" / "manifests"))
    for folder in ("state", "state/run-1", "state/run-1/manifests"):
        assert mode(tmp_path / folder) == 0o700
    private.write(str(tmp_path / "state" / "x"), b"x")
    os.close(private.open_to_append(str(tmp_path / "state" / "y")))
    assert mode(tmp_path / "state" / "x") == mode(tmp_path / "state" / "y") == 0o600


def test_whatever_makes_the_folder_of_a_run_makes_it_private(tmp_path):
    old = os.umask(0o022)
    try:
        boot_wait.Logins(str(tmp_path / "a" / "run" / "known_hosts"))
    finally:
        os.umask(old)
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "run") == 0o700


def test_nothing_makes_folders_or_temporary_files_in_another_way():
    offenders = [
        f"{path.relative_to(PLUGINS)}: {word}"
        for path in PLUGINS.rglob("*.py")
        # Modules run where the plugins' code is not.
        if path.name not in ("private.py", "claims.py") and not {"module_utils", "modules"} & {*path.parts}
        for word in ("os.makedirs", "os.mkdir", "mkstemp", "mkdtemp", ".mkdir(")
        if word in path.read_text()
    ]
    assert offenders == []


def test_a_folder_that_was_open_to_others_is_closed_and_those_above_are_left(tmp_path):
    folder = tmp_path / "shared" / "run"
    folder.mkdir(parents=True)
    os.chmod(folder, 0o777)
    os.chmod(folder.parent, 0o755)
    private.make_folder(str(folder))
    assert mode(folder) == 0o700
    assert mode(folder.parent) == 0o755


def test_what_is_no_folder_of_ours_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("other")
    for name in ("file", "link"):
        with pytest.raises(NotADirectoryError, match="no folder"):
            private.make_folder(str(tmp_path / name))
    with pytest.raises(NotADirectoryError):
        private.make_folder(str(tmp_path / "file" / "run"))
    if os.getuid() == 0:
        os.chown(tmp_path / "other", 65534, 65534)
        with pytest.raises(PermissionError, match="another user"):
            private.make_folder(str(tmp_path / "other"))


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_rest(tmp_path):
    path = tmp_path / "result.json"
    private.write(str(path), b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            private.write(str(path), b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_log_is_not_written_through_a_link(tmp_path):
    (tmp_path / "log").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic links"):
        private.open_to_append(str(tmp_path / "log"))
    assert not (tmp_path / "victim").exists()
