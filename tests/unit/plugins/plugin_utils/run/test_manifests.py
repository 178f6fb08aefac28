# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import base64
import os
import zlib

import pytest

from ansible_collections.orbit.imaging.plugins.module_utils import manifest as texts
from ansible_collections.orbit.imaging.plugins.plugin_utils.run import manifests

from ...manifestkit import DIGEST, make


def packed(text):
    return base64.b64encode(zlib.compress(text)).decode()


def test_a_manifest_is_kept_once(tmp_path):
    folder = str(tmp_path / "run" / "manifests")
    text = make(count=2)
    path = manifests.store(folder, packed(text))
    assert manifests.store(folder, packed(text)) == path
    assert os.listdir(folder) == [os.path.basename(path)]
    assert manifests.read(path) == text
    assert os.stat(path).st_mode & 0o77 == 0


@pytest.mark.parametrize("text", ["%", packed(b"x"), base64.b64encode(b"x").decode(), packed(make()[:-5])])
def test_what_is_no_manifest_is_not_kept(tmp_path, text):
    with pytest.raises(manifests.ManifestError, match="no manifest"):
        manifests.store(str(tmp_path), text)
    assert os.listdir(tmp_path) == []


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "MAX_SIZE", 1000)
    with pytest.raises(manifests.ManifestError, match="larger than 1000 bytes"):
        manifests.store(str(tmp_path), packed(bytes(10**8)))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(manifests.ManifestError, match=r"cannot be kept in .*file/x.*orbit_run_dir"):
        manifests.store(str(tmp_path / "file" / "x"), packed(make()))
    with pytest.raises(manifests.ManifestError, match=r"gone.*No such file"):
        manifests.read(str(tmp_path / "gone"))


FOUND = {
    "state": "present",
    "msg": "",
    "digest": DIGEST,
    "size": 5,
    "chunks": 5,
    "disk_bytes": 512,
    "identity": "",
    "path": "/x",
}


def record(verify="auto", resume=False, identity=None):
    setting = {"orbit_verify": verify, "orbit_resume": resume, "orbit_identity": identity}
    return {"nodes": {f"n{i}": {"name": f"n{i}", "image": i, "settings": setting} for i in "abc"}}


def answers(**found):
    images = [{"image": name, "exists": True, "manifest": manifest} for name, manifest in found.items()]
    return [{"item": {"nodes": [{"name": f"n{i}"} for i in found]}, "images": images}]


def test_each_node_knows_the_manifest_of_its_image():
    damaged = {"state": "damaged", "msg": "does not belong"}
    nodes = manifests.learn(record(), answers(a=FOUND, b=damaged))["nodes"]
    assert nodes["na"]["manifest"] == {k: v for k, v in FOUND.items() if k != "identity"}
    assert nodes["nb"]["manifest"] == damaged
    assert nodes["nc"]["manifest"] == {"state": "absent", "msg": "the service was not asked"}


@pytest.mark.parametrize(
    ("verify", "resume", "state", "words"),
    [
        ("auto", False, "present", None),
        ("auto", False, "absent", None),
        ("auto", False, "damaged", "image 'a': because. Or go without: orbit_verify=never"),
        ("always", False, "present", None),
        (
            "always",
            False,
            "absent",
            "image 'a': orbit_verify is always, but it has no manifest: because. Make",
        ),
        ("always", False, "damaged", "because"),
        ("never", False, "absent", None),
        ("never", False, "damaged", None),
        ("never", True, "damaged", "because"),
        ("never", True, "absent", None),
    ],
)
def test_what_cannot_be_checked_as_asked_is_a_mistake(verify, resume, state, words):
    known = manifests.learn(record(verify, resume), answers(a={"state": state, "msg": "because"}))
    found = manifests.preflight_errors({"nodes": {"na": known["nodes"]["na"]}})
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_the_identity_that_is_expected():
    node = record()["nodes"]["na"]
    assert manifests.expected_identity(node) is None
    node["manifest"] = {**FOUND}
    assert manifests.expected_identity(node) is None
    node["manifest"]["identity"] = "baseline"
    assert manifests.expected_identity(node) == "baseline"
    node["settings"]["orbit_identity"] = "mine"
    assert manifests.expected_identity(node) == "mine"


def test_what_comes_with_an_answer_is_kept_or_damaged(tmp_path):
    images = [
        {"image": "good", "manifest": {"state": "present", "packed": packed(make())}},
        {"image": "bad", "manifest": {"state": "present", "packed": "%"}},
        {"image": "none", "manifest": {"state": "absent"}},
        {"image": "not asked"},
        {"image": "null", "manifest": None},
    ]
    (words,) = manifests.unpack({"images": images}, str(tmp_path))
    assert words.startswith("bad: what came from the console is no manifest")
    good, bad, *others = (image.get("manifest") for image in images)
    assert manifests.read(good["path"]) == make()
    assert (bad["state"], f"bad: {bad['msg']}") == ("damaged", words)
    assert others == [{"state": "absent"}, None, None]
    assert manifests.unpack({"failed": True}, str(tmp_path)) == []
