"""A real browser for the tests of pages: headless Chromium, by the WebDriver protocol alone."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from base64 import b64decode
from contextlib import contextmanager

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """A headless Chromium, spoken to by the WebDriver protocol."""

    def __init__(self, driver, chromium, profile):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [driver, f"--port={self.port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--no-first-run",
            f"--user-data-dir={profile}",
            "--window-size=1200,900",
        ]
        capabilities = {
            "goog:chromeOptions": {"binary": chromium, "args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self.session = ""
        self._wait_until_up()
        body = {"capabilities": {"alwaysMatch": capabilities}}
        self.session = "/session/" + self._send("POST", "/session", body)["sessionId"]

    def _wait_until_up(self):
        for _ in range(200):
            try:
                if self._send("GET", "/status")["ready"]:
                    return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError("chromedriver does not answer")

    def _send(self, method, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{self.session}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, address):
        """Load a page, and forget what was logged before it."""
        self.log()
        self._send("POST", "/url", {"url": address})

    def run(self, script):
        return self._send("POST", "/execute/sync", {"script": script, "args": []})

    def wait(self, condition):
        """Until a JavaScript expression holds."""
        for _ in range(600):
            if self.run(f"return Boolean({condition})"):
                return
            time.sleep(0.05)
        raise TimeoutError(f"never came true: {condition}")

    def devtools(self, command, **parameters):
        """A command of Chromium's own protocol."""
        body = {"cmd": command, "params": parameters}
        return self._send("POST", "/goog/cdp/execute", body)

    def log(self):
        return self._send("POST", "/se/log", {"type": "browser"})

    def keys(self, selector, *keys):
        self.run(f"document.querySelector({selector!r}).focus()")
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._act({"type": "key", "id": "keys", "actions": actions})

    def drag(self, selector, start, end):
        """Press at one place and let go at another, both as shares of an element."""
        box = self._box(selector)
        places = [
            {"x": round(box[0] + x * box[2]), "y": round(box[1] + y * box[3])}
            for x, y in (start, end)
        ]
        self._act(
            {
                "type": "pointer",
                "id": "mouse",
                "parameters": {"pointerType": "mouse"},
                "actions": [
                    {"type": "pointerMove", "duration": 0, **places[0]},
                    {"type": "pointerDown", "button": 0},
                    {"type": "pointerMove", "duration": 50, **places[1]},
                    {"type": "pointerUp", "button": 0},
                ],
            }
        )

    def drop(self, selector, path):
        """Drop a file from the desktop on an element."""
        left, top, width, height = self._box(selector)
        place = {"x": left + width / 2, "y": top + height / 2}
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.devtools("Input.dispatchDragEvent", type=kind, data=data, **place)

    @contextmanager
    def phone(self):
        """A screen of 390 by 844 pixels while the block lasts."""
        screen = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        self.devtools("Emulation.setDeviceMetricsOverride", **screen)
        yield
        self.devtools("Emulation.clearDeviceMetricsOverride")

    def screenshot(self):
        return b64decode(self._send("GET", "/screenshot"))

    def close(self):
        if self.session:
            self._send("DELETE", "")
        self.process.terminate()
        self.process.wait(10)

    def _box(self, selector):
        return self.run(
            f"const e = document.querySelector({selector!r});"
            "e.scrollIntoView({block: 'center'});"
            "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
        )

    def _act(self, actions):
        self._send("POST", "/actions", {"actions": [actions]})


def find_chromium():
    """Where Chromium and its driver are, or None."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (driver, browser) if driver and browser else None
