"""A headless Chromium to open pages with, driven by the DevTools protocol over a pair of pipes."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import PATIENCE

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--no-first-run", "--remote-debugging-pipe"),
    *("--disable-dev-shm-usage", "--disable-background-networking", "--mute-audio"),
    # WebGL without a graphics card.
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)
_KEY_CODES = {"Enter": 13, "Escape": 27, "End": 35, "Home": 36}
# The protocol wants the descriptors 3 and 4, which Popen cannot give by itself.
_LAUNCH = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
os.dup2(pipes[0], 3)
os.dup2(pipes[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """One page of the browser. `problems` are the errors it reported and `requests` the addresses
    it asked for, other than data and blob ones, since it was opened."""

    def __init__(self, process: subprocess.Popen[bytes], read: int, write: int) -> None:
        self._process, self._write = process, write
        self._reader = os.fdopen(read, "rb")
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its answer."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        _write_all(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def open(self, address: str) -> None:
        """Loads a page and waits until it is there; forgets earlier problems and requests."""
        self.problems.clear()
        self.requests.clear()
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Waits until a JavaScript expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < end, f"never true: {condition}; problems: {self.problems}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """A key, as "ArrowDown", "Escape", "Enter" or "t"."""
        about: dict[str, Any] = {"key": key, "code": key}
        if key in _KEY_CODES:
            about["windowsVirtualKeyCode"] = _KEY_CODES[key]
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, x: float, y: float) -> None:
        """The main button at a place, in CSS pixels."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def resize(self, width: int, height: int, scale: float = 1, dark: bool = False) -> None:
        """The window's size in CSS pixels; narrow ones are phones."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = self._reader.read1(1 << 20)
            assert part, f"the browser is gone (exit code {self._process.poll()})"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, about: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.problems.append(about["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            self.problems.append(str(about["args"]))
        elif method == "Network.requestWillBeSent":
            address = about["request"]["url"]
            if not address.startswith(("data:", "blob:")):
                self.requests.append(address)


@contextmanager
def open_browser() -> Iterator[Page]:
    """A page of a fresh browser; skips the test where there is no Chromium."""
    binary = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if binary is None:
        pytest.skip("no Chromium to open the page with")
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()
    folder = Path(tempfile.mkdtemp(prefix="brats-browser-"))
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", _LAUNCH, str(to_browser), str(from_browser)),
            *(binary, *_FLAGS, f"--user-data-dir={folder}", "about:blank"),
        ],
        pass_fds=(to_browser, from_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Page(process, read, write)
    finally:
        process.terminate()
        process.wait(PATIENCE)
        os.close(write)
        shutil.rmtree(folder, ignore_errors=True)


def check_looks(page: Page, address: str, width: int, *, dark: bool) -> None:
    """Opens a page: nothing of it goes beyond the window, no figure or table need be moved
    sideways, and figures are as dark or white as the page they stand on."""
    page.resize(width, 844, dark=dark)
    page.open(address)
    assert page.run("document.documentElement.scrollWidth") <= width
    beyond = page.run(
        "[...document.querySelectorAll('figure img, table')].filter((one) =>"
        f" one.getBoundingClientRect().right > {width}"
        " || one.parentElement.scrollWidth > one.parentElement.clientWidth)"
        ".map((one) => one.alt ?? one.className)"
    )
    assert beyond == []
    text, back = page.run(
        "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
    )
    assert contrast(text, back) > 7  # WCAG AAA
    corners = page.run(
        "Promise.all([...document.images].map(async (image) => { await image.decode();"
        "const pen = document.createElement('canvas').getContext('2d');"
        "pen.drawImage(image, 0, 0); return [...pen.getImageData(1, 1, 1, 1).data]; }))"
    )
    paper = [int(part) for part in re.findall(r"\d+", back)[:3]]
    for corner in corners:
        assert corner[:3] == pytest.approx(paper, abs=4), corners  # WebP is a little off
    assert (max(paper) < 60) if dark else (min(paper) > 220)


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two CSS colours, rgb(r, g, b)."""

    def luminance(color: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
