# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import base64
import getpass
import zlib

import pytest

from ansible_collections.orbit.imaging.plugins.modules import frisbee_info

from .. import recorded
from ..httpkit import URL, Call, expected_calls, run_module
from ..manifestkit import DIGEST, make
from ..recorded import DOMAIN, NO_STREAMS, status

OPTIONS = {"url": URL, "dialect": "E2", "domain": DOMAIN, "user": "alice"}
LISTING = Call("/frisbee/status", {"domain": DOMAIN}, status(("a.ndz", 7000), ("a.ndz", 7010)))
OWN = Call("/frisbee/status", {"domain": DOMAIN, "img": "a.ndz"}, status(("a.ndz", 7000)))


def check(image, body="<OK>Image found and readable</OK>", code=200, user="alice"):
    return Call("/frisbee/checkImage", {"img": image, "domain": DOMAIN, "user": user}, body, code)


@pytest.mark.parametrize("check_mode", [False, True])
def test_images_and_streams(check_mode):
    missing = (
        "<ERROR>Image file &apos;/i/b.ndz&apos; not found or not readable by user &apos;alice&apos;</ERROR>"
    )
    with expected_calls(check("a.ndz"), check("b.ndz", missing), LISTING, OWN):
        ended = run_module(frisbee_info.main, {**OPTIONS, "images": ["a.ndz", "b.ndz"]}, check=check_mode)
    assert not ended.failed
    assert ended.results["changed"] is False
    assert ended.results["images"] == [
        {"image": "a.ndz", "exists": True, "msg": "", "code": ""},
        {
            "image": "b.ndz",
            "exists": False,
            "msg": "Image file '/i/b.ndz' not found or not readable by user 'alice'",
            "code": "no_such_image",
        },
    ]
    assert ended.results["streams"] == [
        {"image": "a.ndz", "address": None, "port": port, "time_left": 3594.866836, "own": own}
        for port, own in ((7000, True), (7010, False))
    ]
    assert ended.results["bandwidth"] == 50.0
    assert ended.results["dialect"] == "E2"


def test_manifests_in_short():
    options = {**OPTIONS, "images": ["a.ndz", "b.ndz"], "manifests": True}
    manifest = make(count=3, end=4096, identity="baseline 5.4").decode()
    with expected_calls(
        check("a.ndz"),
        Call("/orbit/images/a.ndz/manifest", {}, manifest, 200, "application/x-ndjson"),
        check("b.ndz"),
        Call("/orbit/images/b.ndz/manifest", {}, recorded.SERVICE_LIST),
        LISTING,
        OWN,
    ):
        ended = run_module(frisbee_info.main, options)
    assert [image["manifest"] for image in ended.results["images"]] == [
        {
            "state": "present",
            "msg": "",
            "digest": DIGEST,
            "size": 3 << 20,
            "chunks": 3,
            "disk_bytes": 4096 * 512,
            "identity": "baseline 5.4",
        },
        {"state": "absent", "msg": "this service has no manifests"},
    ]


def test_a_manifest_comes_packed_when_it_is_to_be_kept(tmp_path):
    manifest = make(count=3)
    with expected_calls(
        check("a.ndz"), Call("/orbit/images/a.ndz/manifest", {}, manifest.decode()), LISTING, OWN
    ):
        ended = run_module(
            frisbee_info.main,
            {**OPTIONS, "images": ["a.ndz"], "manifests": True, "manifest_dir": str(tmp_path)},
        )
    packed = ended.results["images"][0]["manifest"]["packed"]
    assert zlib.decompress(base64.b64decode(packed)) == manifest


def test_no_manifest_of_an_image_that_is_not_there():
    with expected_calls(check("a.ndz", "<ERROR>no</ERROR>"), LISTING, OWN):
        ended = run_module(frisbee_info.main, {**OPTIONS, "images": ["a.ndz"], "manifests": True})
    assert "manifest" not in ended.results["images"][0]


def test_streams_alone():
    with expected_calls(LISTING._replace(body=NO_STREAMS)):
        ended = run_module(frisbee_info.main, OPTIONS)
    assert (ended.results["images"], ended.results["streams"], ended.results["bandwidth"]) == ([], [], None)


def test_the_user_is_who_asks():
    with expected_calls(check("a.ndz", user=getpass.getuser()), LISTING, OWN):
        options = {key: value for key, value in OPTIONS.items() if key != "user"}
        assert not run_module(frisbee_info.main, {**options, "images": ["a.ndz"]}).failed


def test_a_question_without_an_answer_fails_after_all_are_asked():
    with expected_calls(check("a.ndz", "internal error", 500), check("b.ndz")):
        ended = run_module(frisbee_info.main, {**OPTIONS, "images": ["a.ndz", "b.ndz"]})
    assert ended.failed
    assert [image["exists"] for image in ended.results["images"]] == [None, True]
    assert [image["code"] for image in ended.results["images"]] == ["http_error", ""]
    assert ended.results["msg"].startswith(
        f"frisbee at {URL}: 1 of 2 not asked for: a.ndz: frisbee/checkImage: refused"
    )


def test_check_mode_of_2006_starts_nothing():
    with expected_calls(
        Call("/frisbee", {}, recorded.describe("A", "frisbee")),
        Call("/", {}, recorded.SERVICE_LIST),
        LISTING,
        LISTING,
    ):
        ended = run_module(frisbee_info.main, {**OPTIONS, "dialect": "A", "images": ["b.ndz"]}, check=True)
    assert ended.results["images"][0]["exists"] is None


def test_bad_input():
    with expected_calls():
        ended = run_module(frisbee_info.main, {**OPTIONS, "images": ["a/b"]})
    assert ended.failed
    assert "'a/b' is not a name of an image" in ended.results["msg"]
