"""A headless Chromium, driven by its own protocol: enough to click, to type, to upload and to look."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_S = 60


class Page:
    """One tab. What its scripts complain about is in `complaints`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._ids = socket, itertools.count(1)
        self.complaints: list[str] = []
        self.asked: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=WAIT_S))
            if message.get("id") == number:
                assert "error" not in message, message
                found: dict[str, Any] = message["result"]
                return found
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:500])
        if message.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(params["args"])[:500])
        if message.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"] + " " + params["entry"].get("url", "")[:200])
        if message.get("method") == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])

    def open(self, url: str) -> None:
        """Go to a page."""
        self.send("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression on the page."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = WAIT_S) -> float:
        """Wait until an expression holds; returns the seconds that took."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            if self.run(f"Boolean({script})"):
                return time.monotonic() - started
            time.sleep(0.05)
        shown = self.run("document.body.innerText")
        raise AssertionError(f"still not true after {seconds} s: {script}; complaints: {self.complaints}; the page says: {shown[:1_000]}")

    def resize(self, width: int, height: int) -> None:
        """A window, or a phone's."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700)

    def upload(self, selector: str, path: Path) -> None:
        """Choose a file."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write a PNG of what is to be seen, or of the whole page."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]))


@contextmanager
def open_page(folder: Path) -> Iterator[Page]:
    """A tab of a fresh Chromium whose profile lies in `folder`."""
    assert PROGRAM is not None
    options = ["headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run", "disable-background-networking"]
    options += ["disable-component-update", "remote-debugging-port=0", f"user-data-dir={folder}"]
    command = [PROGRAM, *(f"--{option}" for option in options), "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            said = folder / "DevToolsActivePort"
            deadline = time.monotonic() + WAIT_S
            while not said.exists() or len(said.read_text().split()) < 2:
                assert time.monotonic() < deadline, "Chromium did not start"
                time.sleep(0.05)
            port, path = said.read_text().split()
            with connect(f"ws://127.0.0.1:{port}{path}", max_size=2**27, open_timeout=WAIT_S) as root:
                root.send(json.dumps({"id": 0, "method": "Target.getTargets"}))
                while "id" not in (message := json.loads(root.recv(timeout=WAIT_S))):
                    pass
                (target,) = [found["targetId"] for found in message["result"]["targetInfos"] if found["type"] == "page"]
            with connect(f"ws://127.0.0.1:{port}/devtools/page/{target}", max_size=2**27, open_timeout=WAIT_S) as socket:
                yield Page(socket)
        finally:
            browser.terminate()
