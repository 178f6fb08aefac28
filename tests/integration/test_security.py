# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services that want a token and speak TLS: whole runs work, and the token is seen nowhere."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import ssl
import threading
import urllib.request

import pytest
import trustme

from .kit import IMAGE, Testbed, Watched, play
from .leftovers import all_gone_soon, last_log
from .test_image import all_imaged

# Looked for byte by byte: nothing else looks like it.
TOKEN = "tOken-5f0c1e7b9a4d2c86-never-to-be-seen"
WRONG = "wr0ng-93bd40c61f7e25a8-never-to-be-seen"
SOON = 120.0


def make_certificate(folder: pathlib.Path, address: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Make a certificate for one address; return it, together with that of its authority, and its key."""
    authority = trustme.CA()
    issued = authority.issue_cert(address)
    certificate, secret = folder / "service.crt", folder / "service.key"
    certificate.write_bytes(issued.cert_chain_pems[0].bytes() + authority.cert_pem.bytes())
    secret.touch(0o600)
    secret.write_bytes(issued.private_key_pem.bytes())
    return certificate, secret


class Guarded(Testbed):
    """A testbed whose services want a token and speak TLS."""

    __test__ = False

    def __init__(self, folder: pathlib.Path, secrets: pathlib.Path) -> None:
        super().__init__(folder, "2x1")
        token = secrets / "token"
        token.touch(0o600)
        token.write_text(f"{TOKEN}\n")
        self.certificate, key = make_certificate(secrets, f"127.{self.number}.0.1")
        options = ("--token-file", token, "--tls-cert", self.certificate, "--tls-key", key)
        self._up = (*self._up, *map(str, options))

    @property
    def arguments(self) -> tuple[str, ...]:
        """The inventory that the testbed has written itself, and folders of our own."""
        return (
            "-i", str(self.folder / "state" / "testbed.orbit.yml"),
            "-e", f"orbit_run_dir={self.folder}/runs",
            "-e", f"orbit_claim_dir={self.folder}/claims",
        )  # fmt: skip

    def state(self) -> dict:
        """Links, streams and power as the services see them."""
        request = urllib.request.Request(
            f"https://127.{self.number}.0.1:5012/orbit/state", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        trusting = ssl.create_default_context(cafile=str(self.certificate))
        with urllib.request.urlopen(request, timeout=180, context=trusting) as reply:
            return json.load(reply)


class Onlooker:
    """Looks at arguments and environments of all processes of this host, as ``ps`` does."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            for name in filter(str.isdigit, os.listdir("/proc")):
                for kind in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):
                        data = pathlib.Path("/proc", name, kind).read_bytes()
                        if TOKEN.encode() in data or WRONG.encode() in data:
                            self.seen.append(f"{kind} of process {name}: {data[:300]!r}")

    def __enter__(self) -> Onlooker:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    secrets = tmp_path_factory.mktemp("secrets")
    with Guarded(tmp_path_factory.mktemp("guarded"), secrets) as testbed:
        yield testbed


@pytest.fixture(autouse=True)
def ansible_folders(guarded, monkeypatch):
    """Let Ansible put its own temporary files where they are looked through."""
    for name in ("ANSIBLE_LOCAL_TEMP", "ANSIBLE_REMOTE_TEMP", "ANSIBLE_HOME"):
        monkeypatch.setenv(name, str(guarded.folder / "ansible" / name.lower()))
    monkeypatch.setenv("ANSIBLE_LOG_PATH", str(guarded.folder / "ansible.log"))


def places_of(secret: str, folder: pathlib.Path) -> list[str]:
    """Return the files in ``folder`` in which ``secret`` stands."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 8 << 20:
            with contextlib.suppress(OSError):
                if secret.encode() in path.read_bytes():
                    found.append(str(path))
    return found


def test_whole_runs_with_token_and_tls_show_the_token_nowhere(guarded):
    with Onlooker() as onlooker:
        played = play(*guarded.arguments, IMAGE, "-vvv")
        all_imaged(played, dict.fromkeys(["node1-1", "node2-1"], "sender.ndz"))
        outputs = [played.output]
        for playbook, *more in (
            ("status.yml",),
            ("power.yml", "-e", "power=off", "--limit", "node1-1"),
            ("clean.yml", "-e", "stop_streams=true"),
        ):
            other = play(*guarded.arguments, f"playbooks/{playbook}", "-vvv", *more)
            assert other.status == 0, other.output
            outputs.append(other.output)
    assert onlooker.seen == []
    assert not any(TOKEN in output for output in outputs)
    assert places_of(TOKEN, guarded.folder) == []
    # What was looked through is what was written.
    assert places_of("module_args", guarded.folder)
    assert "guarding run" in (played.folder / "guard.log").read_text()
    assert (guarded.links(), guarded.state()["streams"]) == ([], [])


def test_the_guard_cleans_up_with_the_token(guarded):
    with Watched(*guarded.arguments, IMAGE, "-vvv") as run:
        run.wait_for(": Reset the nodes into their memory image]")
        assert run.end(signal.SIGKILL) != 0
        all_gone_soon(guarded, SOON)
    log = last_log(guarded)
    assert "took back a use of sender.ndz" in log
    assert "unlinked node1-1, node2-1" in log
    assert "NOT" not in log
    assert TOKEN not in "".join(run.lines)
    # A module that was killed cannot remove the file it was started from, which only its owner may read.
    assert [path for path in places_of(TOKEN, guarded.folder) if "/ansible/" not in path] == []


@pytest.mark.parametrize("playbook", ["image", "power", "status"])
def test_a_wrong_token_is_refused_before_a_node_is_touched(guarded, tmp_path, playbook):
    before = guarded.boots()
    secrets = tmp_path / "secrets.yml"
    secrets.write_text(f"orbit_service_token: {WRONG}\npower: reset\n")
    with Onlooker() as onlooker:
        played = play(*guarded.arguments, f"playbooks/{playbook}.yml", "-vvv", "-e", f"@{secrets}")
    assert played.status == 2, played.output
    assert "refused: this service wants a token, and the request has a wrong one" in played.output
    assert "orbit_service_token" in played.output
    assert onlooker.seen == []
    assert WRONG not in played.output
    assert places_of(WRONG, guarded.folder) == []
    assert guarded.boots() == before


def test_a_certificate_that_nobody_vouches_for_is_refused(guarded, tmp_path):
    before = guarded.boots()
    other, _key = make_certificate(tmp_path, "127.0.0.1")
    played = play(*guarded.arguments, IMAGE, "-e", f"orbit_service_ca={other}")
    assert played.status == 2, played.output
    assert "CERTIFICATE_VERIFY_FAILED" in played.output
    assert TOKEN not in played.output
    assert guarded.boots() == before
