"""A headless browser through chromedriver's plain HTTP: pages at a width, light or dark, with what they log."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip


def is_there() -> bool:
    return bool(shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("google-chrome")))


class Browser:
    """One browser window. `run` evaluates the body of a JavaScript function and returns its value."""

    def __init__(self, profile: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.profile, self.session = profile, ""

    def __enter__(self) -> "Browser":
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.driver = subprocess.Popen(["chromedriver", f"--port={self.port}"], **quiet)
        binary = shutil.which("chromium") or shutil.which("google-chrome")
        options = {"binary": binary, "args": [*FLAGS, f"--user-data-dir={self.profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        for _ in range(100):
            try:
                self.session = self.post("session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
                return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        self.driver.kill()
        raise RuntimeError("chromedriver does not answer.")

    def __exit__(self, *error: Any) -> None:
        try:
            self.call("DELETE", f"session/{self.session}")
        finally:
            self.driver.terminate()
            self.driver.wait()

    def post(self, path: str, content: Any) -> Any:
        return self.call("POST", path, content)

    def call(self, method: str, path: str, content: Any = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}", data, {"Content-Type": "application/json"}
        )
        request.method = method
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def cdp(self, command: str, **parameters: Any) -> Any:
        return self.post(f"session/{self.session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, page: Path, width: int, scheme: str, height: int = 900) -> None:
        """The page at this width, light or dark, with all charts drawn."""
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.post(f"session/{self.session}/url", {"url": page.absolute().as_uri()})
        for _ in range(200):
            if self.run("return [...document.querySelectorAll('.chart')].every((chart) => chart.querySelector('svg'))"):
                return
            time.sleep(0.1)
        raise RuntimeError("The charts were not drawn.")

    def run(self, script: str) -> Any:
        return self.post(f"session/{self.session}/execute/sync", {"script": script, "args": []})

    def log(self) -> list[str]:
        """What the page logged since the last call."""
        return [entry["message"] for entry in self.post(f"session/{self.session}/se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        size = self.run("return [document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        shot = self.cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))
