# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A headless Chromium that is driven through a pipe (the DevTools protocol); it asks nobody but loopback."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import time
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Seconds in which the browser must say something while something is waited for; far more than it needs.
_PATIENCE = 300.0


def program() -> str | None:
    """Return the path of a browser, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page in a browser of its own, with a profile of its own."""

    def __init__(self, folder: pathlib.Path) -> None:
        found = program()
        assert found, "no Chromium here"
        to_browser, ours_out = os.pipe()
        ours_in, from_browser = os.pipe()

        def give() -> None:
            # What DevTools reads is descriptor 3, what it writes 4; neither may be in the other's way.
            first, second = os.dup(to_browser), os.dup(from_browser)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self._process = subprocess.Popen(
            [
                found,
                *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"),
                *("--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--disable-extensions", "--disable-default-apps", "--disable-domain-reliability"),
                # Whoever is asked all the same is asked of a port where nobody is.
                *("--proxy-server=http://127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND"),
                f"--user-data-dir={folder / 'profile'}",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder), "TZ": "UTC"},
            pass_fds=(3, 4, to_browser, from_browser),
            preexec_fn=give,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._out, self._in = ours_out, ours_in
        self._number = 0
        self._rest = b""
        self._session = ""
        #: What the console and the log of the browser said, and which addresses the page asked for.
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self._events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        # As if its window were in front, whatever else the browser thinks of.
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def close(self) -> None:
        """End the browser and what it has started."""
        try:
            self._session = ""
            self.call("Browser.close")
        except (OSError, AssertionError):
            self._process.kill()
        self._process.wait(_PATIENCE)
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the protocol; return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        while b"\0" not in self._rest:
            ready, _none, _no = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser says nothing"
            data = os.read(self._in, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        text, _nul, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        said = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(said)[:2000])
            case "Log.entryAdded":
                self.complaints.append(said["entry"]["text"])
            case "Network.requestWillBeSent":
                self.asked.append(said["request"]["url"])
        self._events.append(message)
        return message

    def open(self, path: pathlib.Path, *, hash_: str = "") -> None:
        """Show a file, wait until it is loaded, and forget what was heard before."""
        self.complaints.clear()
        self.asked.clear()
        self._events.clear()
        self.call("Page.navigate", url="about:blank")
        self._events.clear()
        self.call("Page.navigate", url=path.as_uri() + hash_)
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._next()
        # The page before it has been loaded, too.
        while self.ask("document.readyState + location.protocol") != "completefile:":
            self._next()

    def ask(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page."""
        said = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait, from one picture of the page to the next, until an expression is true."""
        loop = f"const look = () => ({expression}) ? resolve() : requestAnimationFrame(look); look()"
        self.ask(f"new Promise((resolve) => {{ {loop} }})")

    def press(self, *keys: str) -> None:
        """Press keys one after the other; a single character is typed."""
        for key in keys:
            text = {"Enter": "\r", "Tab": ""}.get(key, key if len(key) == 1 else "")
            kind = "keyDown" if text else "rawKeyDown"
            code = {"Enter": 13, "Tab": 9, "Escape": 27, "End": 35, "Home": 36}.get(key, 0)
            code = code or {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}.get(key, 0)
            extra = {"text": text} if text else {}
            common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type=kind, **common, **extra)
            self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def look(self, width: int, *, dark: bool = False, height: int = 800) -> None:
        """Show the page in a window of this size, in the light or the dark of the user's system."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: pathlib.Path, *, whole: bool = False) -> None:
        """Write what is seen into a file, as PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
