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
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pytest

# Debian's own comes first: /usr/bin/chromium is a script around it that reads settings of the machine.
NAMES = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions", "--hide-scrollbars"),
)
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor google-chrome is installed")
BROWSER = [pytest.mark.process, NEEDS_CHROMIUM]
SHIFT = 8  # of `modifiers` in the protocol
# Text whose contrast with what is behind it is below 4.5 (WCAG AA), of elements that are enabled and can be seen.
FAINT = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = rgb(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const own = (element) => element.matches("input[type=number], select")
    || [...element.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  return [...document.querySelectorAll("body *")].filter((e) => own(e) && e.checkVisibility() && e.tagName !== "OPTION")
    .map((e) => [e, light(rgb(getComputedStyle(e).color)), light(ground(e))])
    .map(([e, a, b]) => [e.outerHTML.slice(0, 80), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)])
    .filter(([, ratio]) => ratio < 4.5);
})()"""
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
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)

    def resize(self, width: int, height: int) -> None:
        """Gives the window a size in pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

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

    def press(self, key: str, shift: bool = False) -> None:
        """Presses and releases a key."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        modifiers = SHIFT if shift else 0
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, modifiers=modifiers, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, modifiers=modifiers)
        frame(self)

    def drag(self, *places: tuple[float, float]) -> None:
        """Presses the mouse at the first place, moves it over the others, and releases it at the last one."""
        self.mouse("mousePressed", places[0])
        for place in places[1:]:
            self.mouse("mouseMoved", place, buttons=1)
        self.mouse("mouseReleased", places[-1])
        frame(self)

    def wheel(self, place: tuple[float, float], turn: float) -> None:
        """Turns the wheel of the mouse by pixels, upwards if negative."""
        self.mouse("mouseWheel", place, deltaX=0, deltaY=turn)
        frame(self)

    def mouse(self, kind: str, place: tuple[float, float], **arguments: Any) -> None:
        """Sends an event of the left button or of the wheel."""
        extra = {"button": "left", "clickCount": 1} if kind in ("mousePressed", "mouseReleased") else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], **extra | arguments)

    def picture(self) -> bytes:
        """A PNG of the page."""
        import base64

        return base64.b64decode(self.call("Page.captureScreenshot")["data"])


def frame(page: Browser) -> None:
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


class Box(NamedTuple):
    """A rectangle in pixels of the window."""

    left: float
    top: float
    width: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        return self.left + self.width / 2, self.top + self.height / 2

    def part(self, place: tuple[float, float]) -> np.ndarray:
        """Where a place is, as a share of width and height."""
        return np.array([(place[0] - self.left) / self.width, (place[1] - self.top) / self.height])


def box(page: Browser, name: str) -> Box:
    rectangle = f"document.getElementById('{name}').getBoundingClientRect()"
    return Box(*page.run(f"(({{left, top, width, height}}) => [left, top, width, height])({rectangle})"))


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
