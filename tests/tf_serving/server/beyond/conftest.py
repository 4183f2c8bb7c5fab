"""A server with everything on, over two versions of a model for tables, and a real browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

KEY = "open sesame"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Beyond:
    """The server, and where it writes."""

    running: Any
    log: Path
    model: Any

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.running.rest}"

    @property
    def grpc_address(self) -> str:
        return f"grpc://127.0.0.1:{self.running.grpc}"


@pytest.fixture(scope="session")
def birds(exported: Path, penguins: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base path with the versions 1 and 2; the second has other weights."""
    from tf_serving.export import export_saved_model

    base = tmp_path_factory.mktemp("beyond") / "penguins"
    shutil.copytree(exported, base / "1")

    def answer(raw: Any) -> Any:
        outputs = penguins.answer(raw)
        return {**outputs, "probabilities": outputs["probabilities"] ** 2}

    export_saved_model(
        answer, track=penguins.track, schema=penguins.schema, directory=base, sample=penguins.raw,
        extra_files={"profile.json": json.dumps(PROFILE).encode()},
    )  # fmt: skip
    return base


PROFILE = {
    "columns": [
        {"name": "island", "num_distinct": 3, "top_values": [["Biscoe", 9], ["Dream", 8], ["<b>Torgersen</b>", 7]]},
        {"name": "body_mass", "num_distinct": 90, "min": 0.0, "max": 89.0, "top_values": [["1", 1]]},
    ]
}


@pytest.fixture(scope="session")
def beyond(
    birds: Path, penguins: Any, run_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Beyond:
    from tf_serving.server.beyond.options import BeyondOptions, build_extensions

    folder = tmp_path_factory.mktemp("served")
    (folder / "keys").write_text(f"tester {sha256(KEY.encode()).hexdigest()}\n")
    (folder / "models.config").write_text(
        f'model_config_list {{ config {{ name: "penguins" base_path: "{birds}" model_platform: "tensorflow" '
        'model_version_policy { all {} } version_labels { key: "stable" value: 1 } } }'
    )
    options = BeyondOptions(
        route=("1:50,2:50",), shadow=("2",), cache_mb=1.0, api_keys=str(folder / "keys"), rate_limit=10_000.0,
        request_log=str(folder / "log"), request_log_omit=("island",), pages=True, table_bodies=True,
    )  # fmt: skip
    running = run_server(model_config_file=str(folder / "models.config"), extensions=build_extensions(options))
    return Beyond(running, folder / "log", penguins)


class Browser:
    """Chromium without a window, driven through its DevTools pipe; nothing else is needed for it."""

    def __init__(self, program: str, profile: Path) -> None:
        to_browser, commands = os.pipe()
        answers, from_browser = os.pipe()
        launcher = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
            "os.execvp(sys.argv[3], sys.argv[3:])"
        )
        flags = [
            "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={profile}",
        ]  # fmt: skip
        # Above 10, so that taking the places 3 and 4 cannot overwrite one of them.
        import fcntl

        there = [fcntl.fcntl(handle, fcntl.F_DUPFD, 10) for handle in (to_browser, from_browser)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", launcher, *map(str, there), program, *flags, "about:blank"],
            pass_fds=there, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for handle in (to_browser, from_browser, *there):
            os.close(handle)
        self._commands, self._answers, self._buffer = commands, answers, b""
        self._number = 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **parameters: Any) -> Any:
        """Sends a command and waits for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self) -> Any:
        while b"\0" not in self._buffer:
            block = os.read(self._answers, 65536)
            if not block:
                raise RuntimeError("the browser has gone")
            self._buffer += block
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def open(self, url: str) -> None:
        """Goes to a page."""
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """Returns what a JavaScript expression is."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Waits until a JavaScript expression is true, and returns it."""
        end = time.monotonic() + 30
        # Before the page is there, its body is not: what cannot be asked yet does not hold yet.
        asked = f"(() => {{ try {{ return {script}; }} catch {{ return false; }} }})()"
        while not (found := self.run(asked)):
            if time.monotonic() > end:
                raise TimeoutError(f"{script} never held; the page says {self.run('document.body.innerText')!r}")
            time.sleep(0.05)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    found = Browser(program, tmp_path_factory.mktemp("browser"))
    yield found
    found.close()
