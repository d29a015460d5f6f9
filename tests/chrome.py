"""A headless Chromium, driven over the pipe of its DevTools protocol: nothing of Selenium, and no port.

Whatever a page logs as an error or asks of another host is kept in `Browser.wrong`, all that it asks for in `asked`.
"""

from __future__ import annotations

import base64
import io
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from numpy.typing import NDArray

PATIENCE = 240.0  # s; machines that train beside the tests are slow
REST = 0.2  # s
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needed = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path: apt-get install chromium")


class Browser:
    """One tab."""

    def __init__(self, write: int, read: int, origin: str) -> None:
        self._write, self._read, self.origin = write, read, origin
        self._buffer, self._number, self._session = b"", 0, None
        self.wrong: list[str] = []
        self.asked: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while True:
            found = self._message(end)
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found['error']}"
                return found["result"]
            self._note(found)

    def open(self, path: str = "/") -> None:
        """Load a page of the service."""
        went = self.call("Page.navigate", url=self.origin + path)
        assert "errorText" not in went, went
        self.until(f"document.readyState === 'complete' && location.href.startsWith('{self.origin}')")

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str, seconds: float = PATIENCE) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            if time.monotonic() > end:
                told = self.run("document.body?.innerText")
                raise AssertionError(f"never: {script}; wrong={self.wrong}; the page says:\n{told}")
            time.sleep(0.2)

    def width(self, width: int, height: int, *, scale: float = 1, phone: bool = False) -> None:
        """Size of the window."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone, maxTouchPoints=5)

    def file(self, selector: str, path: Path) -> None:
        """Choose a file in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def drag(self, selector: str, *paths: Path, drop: bool = True) -> None:
        """Hold files over the middle of an element as it is in the window, and drop them there."""
        x, y = self.place(selector)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", *(["drop"] if drop else [])):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def press(self, key: str, code: int = 0, text: str = "", *, shift: bool = False) -> None:
        """Press a key, where the focus is."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def place(self, selector: str, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
        """Where a part of an element is in the window, scrolled into sight."""
        script = f"""(() => {{ const one = document.querySelector({json.dumps(selector)});
            one.scrollIntoView({{block: 'center'}}); const {{x, y, width, height}} = one.getBoundingClientRect();
            return [x + {across} * width, y + {down} * height]; }})()"""
        x, y = self.run(script)
        return x, y

    def click(self, x: float, y: float) -> None:
        """Move the mouse there and click."""
        at = {"x": x, "y": y}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **at)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def fingers(self, *paths: list[tuple[float, float]]) -> None:
        """Put fingers down, move each along its points, and lift them; one point is a tap.

        Fingers come to rest before they are lifted: one lifted in full swing would fling, and the browser takes a tap
        during a fling as the end of the fling alone.
        """
        for step in range(max(map(len, paths))):
            points = [path[min(step, len(path) - 1)] for path in paths]
            down = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
            self.call("Input.dispatchTouchEvent", type="touchMove" if step else "touchStart", touchPoints=down)
        if len(max(paths, key=len)) > 1:
            time.sleep(REST)
            self.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=down)
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def pixels(self, selector: str) -> NDArray[np.float32]:
        """What a canvas shows: (row, column, red green blue alpha), 0 to 1."""
        drawn = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        url = self.run(f"{drawn}.then(() => document.querySelector({json.dumps(selector)}).toDataURL())")
        return matplotlib.image.imread(io.BytesIO(base64.b64decode(url.partition(",")[2])))

    def downloads(self, folder: Path) -> None:
        """Where downloads go."""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def picture(self, path: Path, *, whole: bool = True, of: str = "body") -> None:
        """A picture of the page, or of what is in the window of it; or of an element, with a little around it."""
        more = {}
        if of != "body":
            x, y, width, height = self.run(f"""(({{x, y, width, height}}) => [x + scrollX, y + scrollY, width, height])
                (document.querySelector({json.dumps(of)}).getBoundingClientRect())""")
            more = {"clip": {"x": x - 8, "y": y - 8, "width": width + 16, "height": height + 16, "scale": 1}}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole, format="png", **more)["data"]
        path.write_bytes(base64.b64decode(data))

    def _message(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready = select.select([self._read], [], [], max(0.0, end - time.monotonic()))[0]
            assert ready, "Chromium does not answer"
            piece = os.read(self._read, 2**16)
            assert piece, "Chromium has ended"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.wrong.append(f"exception: {params['exceptionDetails']}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.wrong.append(f"console: {params['args']}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.wrong.append(f"log: {params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            self.asked.append(url)
            if not url.startswith((self.origin, "data:", f"blob:{self.origin}", "about:")):
                self.wrong.append(f"another host: {url}")


@contextmanager
def browser(origin: str, *, dark: bool = False) -> Iterator[Browser]:
    """A Chromium with a profile of its own, ended at the end."""
    assert CHROMIUM
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"]
        command += ["--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--hide-scrollbars"]
        command += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
        piped = f'exec "$@" 3<&{to_read} 4>&{from_write}'
        running = subprocess.Popen(
            ["bash", "-c", piped, "chromium", *command], pass_fds=(to_read, from_write), stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(from_write)
        try:
            tab = Browser(to_write, from_read, origin)
            scheme = "dark" if dark else "light"
            tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            yield tab
        finally:
            with suppress(OSError):
                os.write(to_write, b'{"id": 0, "method": "Browser.close"}\0')
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
            os.close(to_write)
            os.close(from_read)
