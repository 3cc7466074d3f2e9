"""Headless Chromium by its DevTools protocol: as much of it as the tests of pages need.

Debian's ``chromium`` package, or any Chromium or Chrome on the path.
"""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from base64 import b64decode
from pathlib import Path
from urllib.request import urlopen

import pytest
import websocket

NEEDED = "BIRDLIB_NEEDS_BROWSER"  # set: a test without a browser fails, as it should where nobody reads why it skipped
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio", "--no-first-run"),
    *("--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0", "--remote-allow-origins=*"),
)


@contextlib.contextmanager
def opened():
    """A browser's one `Tab`; the test skips, or fails where `NEEDED` is set, without a browser."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if not program:
        (pytest.fail if os.environ.get(NEEDED) else pytest.skip)(f"no browser: none of {', '.join(_NAMES)} is here")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *_ARGUMENTS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield Tab(_address(Path(profile) / "DevToolsActivePort", process))
        finally:
            process.terminate()
            process.wait(30)


def _address(port_file, process, seconds=60):
    """Where the first tab listens."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if port_file.exists() and (port := port_file.read_text().split("\n")[0]):
            with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=seconds) as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return tabs[0]["webSocketDebuggerUrl"]
        time.sleep(0.1)
    raise TimeoutError(f"the browser did not start within {seconds} s, or ended: {process.poll()}")


class Tab:
    """A tab; `complaints` are what the console and the network have said since the last `go`."""

    def __init__(self, address):
        self.socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self.numbers, self.complaints, self.loaded = itertools.count(1), [], False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """What a method of the protocol answers; what happens meanwhile is noted."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self.socket.recv())).get("id") != number:
            self._note(message)
        assert "error" not in message, (method, message["error"])
        return message["result"]

    def _note(self, message):
        method, said = message.get("method"), message.get("params", {})
        self.loaded |= method == "Page.loadEventFired"
        if method == "Network.requestWillBeSent" and not said["request"]["url"].startswith(("file:", "data:")):
            self.complaints.append(f"asks for {said['request']['url']}")
        if method in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(said))
        if method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(said))
        if method == "Page.javascriptDialogOpening":
            self.complaints.append(f"opens a dialog: {said['message']}")

    def go(self, path, width, height=900):
        """Opens a file in a window of this size."""
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.complaints, self.loaded = [], False
        self.call("Page.navigate", url=Path(path).as_uri())
        while not self.loaded:
            self._note(json.loads(self.socket.recv()))

    def tell(self, script):
        """What an expression comes to, promises waited for."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key):
        """A key: "Tab", "Enter"."""
        more = {"text": "\r"} if key == "Enter" else {}
        code = {"Enter": 13, "Tab": 9}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def picture(self, path):
        """What the window shows as a PNG."""
        path.write_bytes(b64decode(self.call("Page.captureScreenshot")["data"]))
