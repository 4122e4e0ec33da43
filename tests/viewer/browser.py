"""A headless Chromium that tests tell what to do, over a pair of pipes: no driver and no port are needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

# Debian's own comes first: /usr/bin/chromium is a script around it that reads settings of the machine.
NAMES = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions", "--hide-scrollbars"),
)
PATIENCE = 60.0  # seconds, for machines that are busy


class Browser:
    """One page in Chromium."""

    def __init__(self, commands: RawIOBase, answers: BinaryIO) -> None:
        self._commands = commands
        self._answers = answers
        self._number = 0
        self._session = ""
        self.said = list[str]()  # errors of the page, and what it was refused
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Calls a method of the DevTools protocol, and returns what it answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.said.append(json.dumps(answer["params"]))

    def _read(self) -> bytes:
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "Chromium has gone"
            message += byte
        return bytes(message)

    def open(self, url: str, width: int = 1200, height: int = 800, dark: bool = False) -> None:
        """Opens an address."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str) -> Any:
        """Waits until an expression is true, and returns its value."""
        end = time.monotonic() + PATIENCE
        script = f"(() => {{ try {{ return {script} }} catch {{ return null }} }})()"  # of a page that is not there yet
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"{script}: never; {self.said}"
            time.sleep(0.05)
        return value

    def press(self, key: str) -> None:
        """Presses and releases a key."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def picture(self) -> bytes:
        """A PNG of the page."""
        import base64

        return base64.b64decode(self.call("Page.captureScreenshot")["data"])


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Starts Chromium with a profile in a folder, and ends it."""
    assert CHROMIUM
    theirs, commands = os.pipe()
    answers, ours = os.pipe()
    words = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"]
    shell = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'  # the numbers that Chromium expects
    process = subprocess.Popen(
        ["sh", "-c", shell, "sh", *words],
        stdin=theirs,
        stdout=ours,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(folder), "TMPDIR": "/tmp"},
    )
    os.close(theirs)
    os.close(ours)
    try:
        with os.fdopen(commands, "wb", buffering=0) as send, os.fdopen(answers, "rb") as receive:
            yield (browser := Browser(send, receive))
            with suppress(AssertionError, OSError):
                browser.call("Browser.close")
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
