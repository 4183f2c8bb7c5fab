"""Server processes under measurement: started on core 0, loaded from core 1, their CPU time read from /proc."""

from __future__ import annotations

import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Rate:
    """One measurement.

    Attributes:
        requests: A second of the clock.
        cpu: CPU of the server, seconds a request.
        share: CPU of the server, share of its core: well below 1 at full load, others used the core, too.
        generator: CPU of the load generator, share of its core.
    """

    requests: float
    cpu: float
    share: float
    generator: float

    @property
    def per_cpu_second(self) -> float:
        """Requests a second of the server's CPU: what a core of its own would do, on a busy machine as well."""
        return 1.0 / self.cpu


def median_rate(rates: Sequence[Rate]) -> Rate:
    """Return the medians of several measurements of the same thing."""
    return Rate(
        *(
            statistics.median(getattr(rate, name) for rate in rates)
            for name in ("requests", "cpu", "share", "generator")
        )
    )


@dataclass(frozen=True, slots=True)
class Running:
    """A server process.

    Attributes:
        process: The process that answers, or the parent of those that do.
        rest: Port.
        grpc: Port; 0 for none.
        log: What it writes.
    """

    process: subprocess.Popen[bytes]
    rest: int
    grpc: int
    log: IO[bytes]

    def get(self, path: str) -> bytes:
        """Return a page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def wait_for(self, path: str, content: bytes = b"") -> None:
        """Wait until a page holds something.

        Raises:
            RuntimeError: The process ended before, or took too long; with what it wrote last.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"it ended with code {self.process.returncode}: {self._last_words()}")
            try:
                if content in self.get(path):
                    return
            except OSError:
                pass  # not there yet
            time.sleep(0.1)
        raise RuntimeError(f"{path} did not come within {START_SECONDS:.0f} seconds: {self._last_words()}")

    def _last_words(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace").strip()[-600:]

    def cpu(self) -> float:
        """Return the CPU time of the process and its descendants so far, in seconds."""
        total = 0
        for process in (self.process.pid, *descendants(self.process.pid)):
            try:
                fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # ended meanwhile
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def resident(self) -> int:
        """Return resident bytes of the process that was started."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def our_server(base: Path, model: str, **flags: object) -> Iterator[Running]:
    """The server of this repository."""
    rest, grpc = free_port(), free_port()
    command = [
        sys.executable, "-m", "tf_serving.server", f"--model_name={model}", f"--model_base_path={base}",
        f"--rest_api_port={rest}", f"--port={grpc}", "--allow_unverified", "--enable_preflight=false",
        "--tensorflow_intra_op_parallelism=1", *[f"--{name}={value}" for name, value in flags.items()],
    ]  # fmt: skip
    with running(command, rest=rest, grpc=grpc, ready="/readyz") as server:
        yield server


@contextmanager
def running(command: Sequence[str], *, rest: int, ready: str, grpc: int = 0) -> Iterator[Running]:
    """A process on core 0, from when it is ready until it has ended with all its descendants."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(["taskset", "-c", "0", *command], env=environment, stdout=log, stderr=log)
        server = Running(process, rest, grpc, log)
        try:
            server.wait_for(ready)
            yield server
        finally:
            family = descendants(process.pid)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for orphan in family:
                try:
                    os.kill(orphan, 9)
                except OSError:
                    continue  # it has ended, as it should


def wrk(server: Running, path: str, body: Path, seconds: float, *, connections: int = 16) -> Rate:
    """Closed loop over HTTP.

    Raises:
        RuntimeError: Some answers were errors.
    """
    script = body.with_suffix(".lua")
    script.write_text(
        f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        f'wrk.body = io.open("{body}"):read("*a")\n'
    )
    url = f"http://127.0.0.1:{server.rest}{path}"
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", "--timeout", "20s", "-s", str(script)]
    subprocess.run([*command, "-d1s", url], check=True, capture_output=True)
    started, cpu = os.times(), server.cpu()
    text = subprocess.run([*command, f"-d{seconds:.0f}s", url], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"{url} does not answer as it should:\n{text}")
    return _rate(server, int(_found(r"(\d+) requests in", text)), started, cpu)


def h2load(server: Running, body: Path, seconds: float) -> Rate:
    """Closed loop over gRPC, 4 connections of 8 streams."""
    url = f"http://127.0.0.1:{server.grpc}/tensorflow.serving.PredictionService/Predict"
    command = [
        "taskset", "-c", "1", "h2load", "-c4", "-m8", "-t1", "-d", str(body),
        "-H", "content-type: application/grpc", "-H", "te: trailers",
    ]  # fmt: skip
    subprocess.run([*command, "-n200", url], check=True, capture_output=True)
    started, cpu = os.times(), server.cpu()
    text = subprocess.run([*command, f"-D{seconds:.0f}", url], check=True, capture_output=True, text=True).stdout
    return _rate(server, int(_found(r"(\d+) succeeded", text)), started, cpu)


def _rate(server: Running, count: int, started: os.times_result, cpu: float) -> Rate:
    if not count:
        raise RuntimeError("not one request was answered in time")
    ended = os.times()
    seconds = ended.elapsed - started.elapsed
    used = ended.children_user + ended.children_system - started.children_user - started.children_system
    spent = server.cpu() - cpu
    return Rate(count / seconds, spent / count, spent / seconds, used / seconds)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"no {pattern!r} in what the load generator says:\n{text}")
    return match[1]


def descendants(process: int) -> list[int]:
    """Return the ids of the children of a process, their children and so on."""
    found = []
    try:
        # Every thread has children of its own.
        for listed in Path(f"/proc/{process}/task").glob("*/children"):
            found += [int(child) for child in listed.read_text().split()]
    except OSError:
        return found  # it ended meanwhile
    return found + [grand for child in found for grand in descendants(child)]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
