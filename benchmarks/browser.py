"""A page in headless Chromium, driven through its debugging pipe: for the report's tests and
benchmark. Needs no package, only a Chromium or Chrome on the PATH.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from io import BytesIO
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)  # fmt: skip
_TIMEOUT_S = 60.0
_READ_BYTES = 2**16


def find_browser() -> str | None:
    """The first Chromium or Chrome on the PATH."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page. `requests` are the URLs it asked for, `complaints` what it wrote to the console as
    an error or a warning, threw, failed to load, or asked in a dialog.
    """

    def __init__(self, width: int = 1400, height: int = 1000) -> None:
        path = find_browser()
        if path is None:
            raise FileNotFoundError(f"expected one of {', '.join(_NAMES)} on the PATH")
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        child_in, self._out = os.pipe()
        self._in, child_out = os.pipe()

        def place() -> None:
            """The browser reads commands from descriptor 3 and answers on 4."""
            first, second = os.dup(child_in), os.dup(child_out)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self._process = subprocess.Popen(
            [path, *_FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"],
            preexec_fn=place,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_in)
        os.close(child_out)
        self._rest = b""
        self._ids = itertools.count(1)
        self._session = ""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._out)  # it ends when its pipe does
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        self._profile.cleanup()

    def open(self, url: str) -> None:
        """Load a page and wait until its `load` event."""
        self._ask("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """The size of the window in CSS pixels."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def prefer(self, **features: str) -> None:
        """Media features, such as prefers_color_scheme="dark"."""
        found = [{"name": n.replace("_", "-"), "value": v} for n, v in features.items()]
        self._ask("Emulation.setEmulatedMedia", features=found)

    def value(self, script: str) -> Any:
        """What a JavaScript expression gives (a promise is awaited), as JSON has it."""
        answer = self._ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise ValueError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, script: str, timeout_s: float = 20.0) -> None:
        """Wait until an expression is true; raises TimeoutError."""
        end = time.monotonic() + timeout_s
        while not self.value(f"Boolean({script})"):
            if time.monotonic() > end:
                raise TimeoutError(f"not true after {timeout_s} s: {script}")
            time.sleep(0.03)

    def press(self, key: str) -> None:
        """Press a key that has no character, such as ArrowLeft or Tab."""
        codes = {"ArrowLeft": 37, "ArrowRight": 39, "Tab": 9, "Enter": 13, "Escape": 27}
        for kind in ("keyDown", "keyUp"):
            self._ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
            )

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Move the mouse with its button down, between places in the window."""
        places = [("mouseMoved", start), ("mousePressed", start), ("mouseMoved", end),
                  ("mouseReleased", end)]  # fmt: skip
        for kind, (x, y) in places:
            self._ask(
                "Input.dispatchMouseEvent",
                type=kind, x=x, y=y, button="left", buttons=1, clickCount=1,
            )  # fmt: skip

    def picture(self, selector: str | None = None) -> npt.NDArray[np.uint8]:
        """What is drawn of the first element that a selector finds, or of the whole page, (H, W,
        3).
        """
        area = "document.documentElement"
        if selector is not None:
            area = f"document.querySelector({json.dumps(selector)})"
        box = self.value(
            f"(() => {{ const b = {area}.getBoundingClientRect();"
            " return {x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height}; })()"
        )
        answer = self._ask(
            "Page.captureScreenshot", clip=box | {"scale": 1}, captureBeyondViewport=True
        )
        data = base64.b64decode(answer["data"])
        return np.asarray(Image.open(BytesIO(data)).convert("RGB"))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") != number:
                self._note(answer)
            elif "error" in answer:
                raise ValueError(f"{method}: {answer['error']}")
            else:
                return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], _TIMEOUT_S)
            found = os.read(self._in, _READ_BYTES) if ready else b""
            if not found:
                raise TimeoutError("the browser does not answer")
            self._rest += found
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        method, about = event.get("method", ""), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(about["args"]))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(about["exceptionDetails"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(about["entry"]["text"])
        elif method == "Network.loadingFailed" and not about.get("canceled"):
            self.complaints.append(about["errorText"])
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {about['message']}")
