"""Requests per second, CPU a request and latency of the server, beside the in-process call and peers.

    python benchmarks/serving.py                         # in-process limit, REST, gRPC, FastAPI: about 4 minutes
    python benchmarks/serving.py --quick                 # 2 seconds a measurement instead of 8: about 90 seconds
    python benchmarks/serving.py --peers fastapi,mlflow,bentoml,ray     # each in a virtual environment of its own
    python benchmarks/serving.py --memory --minutes 10   # resident memory under load and over 50 hot reloads

Needs wrk and h2load (Debian: ``apt-get install wrk nghttp2-client``). Every server is pinned to core 0, the load
generator to core 1, and the generator's own CPU is printed: near 100 % it is what is measured. Servers are measured
in turn, two rounds, the better one counts. Prints for a small tabular model (20-64-64-3) and a small CNN (32 x 32 x 3):
requests and rows per second, the server's CPU a request, the model's part of it, and whether the targets are reached.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from measurement import machine_line, verdict
from serving_peers import PEERS, peer_command

MODELS = Path(__file__).with_name("serving_models.py")
ROOT = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
ROWS = (1, 64)
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Rate:
    """One measurement.

    Attributes:
        requests: Per second.
        cpu: Of the server, seconds a request.
        generator: CPU of the load generator, share of a core.
    """

    requests: float
    cpu: float
    generator: float


def main() -> None:
    """Measure what the arguments say and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers", default="fastapi", help=f"comma list of {', '.join(PEERS)}, or none")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    for tool in ("wrk", "h2load"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing: apt-get install wrk nghttp2-client")
    print(machine_line())
    with tempfile.TemporaryDirectory() as folder:
        _run(["make", folder])
        if arguments.memory:
            measure_memory(Path(folder), arguments.minutes)
            return
        peers = [name for name in arguments.peers.split(",") if name in PEERS]
        seconds = 2 if arguments.quick else 8
        for model in ("tabular", "cnn"):
            compare(Path(folder), model, peers, seconds)


def compare(folder: Path, model: str, peers: list[str], seconds: int) -> None:
    """Print everything about one model."""
    print(f"\n{model}")
    limit = json.loads(_run(["limit", str(folder / model / "1"), str(seconds / 4)], core=0))
    for rows in ROWS:
        calls = limit[str(rows)]
        print(f"  in process, signatures[...]  {rows:3d} rows   {calls:9.0f} calls/s {calls * rows:10.0f} rows/s")
    best: dict[tuple[str, int], Rate] = {}
    for _ in range(ROUNDS):
        for batching in (False, True):
            with our_server(folder, model, enable_batching=batching) as server:
                suffix = " batching" if batching else ""
                for rows in ROWS:
                    path = f"/v1/models/{model}:predict"
                    _keep(best, (f"REST{suffix}", rows), wrk(server, path, folder / f"{model}-{rows}.json", seconds))
                    _keep(best, (f"gRPC{suffix}", rows), h2load(server, folder / f"{model}-{rows}.grpc", seconds))
                if not batching:
                    model_seconds = server.model_seconds()
                    latencies(server, model, folder, best["REST", 1].requests, seconds)
        for name in peers:
            with peer(folder, model, name) as server:
                for rows in ROWS:
                    body = folder / f"{model}-{rows}.json"
                    _keep(best, (name, rows), wrk(server, PEERS[name].path, body, seconds))
    for (name, rows), rate in best.items():
        print(
            f"  {name:<14} {rows:3d} rows   {rate.requests:9.0f} requests/s {rate.requests * rows:10.0f} rows/s   "
            f"{rate.cpu * 1e6:7.0f} us CPU a request   generator {rate.generator:4.0%}"
        )
    judge(best, limit, peers, model_seconds)


def judge(best: dict[tuple[str, int], Rate], limit: dict[str, float], peers: list[str], model_seconds: float) -> None:
    """Print the targets."""
    for name, most in (("REST", 150), ("gRPC", 400)):
        own = (best[name, 1].cpu - model_seconds) * 1e6
        print(f"  {name} own share of a request: {own:.0f} us, at most {most}: {verdict(reached=own <= most)}")
        ratio = best[name, 64].requests / limit["64"]
        print(f"  {name} at 64 rows / in-process call: {ratio:.2f}, at least 1: {verdict(reached=ratio >= 1)}")
    if peers:
        fastest = max(peers, key=lambda name: best[name, 1].requests)
        for name, least in (("REST", 2.0), ("gRPC", 1.0)):
            ratio = best[name, 1].requests / best[fastest, 1].requests
            print(
                f"  {name} single rows / {fastest}: {ratio:.2f}, at least {least:g}: {verdict(reached=ratio >= least)}"
            )


def latencies(server: Running, model: str, folder: Path, most: float, seconds: int) -> None:
    """Print percentiles at half the highest rate, open loop, from the time a request was due."""
    from tf_serving.client_transport import Connection
    from tf_serving.load_test.callers import RestCaller
    from tf_serving.load_test.open_loop import run_load

    connection = Connection(host="127.0.0.1", port=server.rest, secure=False, ca_certificate=None, headers={})
    body = (folder / f"{model}-1.json").read_bytes()
    caller = RestCaller(connection, path=f"/v1/models/{model}:predict", body=body)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {1})
    try:
        result = asyncio.run(run_load(caller, rate=most / 2, seconds=seconds, connections=64))
    finally:
        os.sched_setaffinity(0, before)
    p50, p99 = result.latency_ms[50], result.latency_ms[99]
    print(
        f"  REST at half load ({result.rate:.0f}/s): p50 {p50:.2f} ms, p99 {p99:.2f} ms, generator "
        f"{result.generator_share:.0%}; p99 / p50 {p99 / p50:.1f}, at most 4: {verdict(reached=p99 < 4 * p50)}"
    )


def measure_memory(folder: Path, minutes: float) -> None:
    """Print resident memory before and after load, and before and after 50 hot reloads."""
    base = folder / "tabular"
    with our_server(folder, "tabular", file_system_poll_wait_seconds=0.2) as server:
        body = folder / "tabular-1.json"
        wrk(server, "/v1/models/tabular:predict", body, 5)
        for name in ("load", "reloads"):
            start = server.resident()
            if name == "load":
                wrk(server, "/v1/models/tabular:predict", body, int(minutes * 60))
            else:
                for number in range(2, 52):
                    hidden = base / f".{number}"
                    shutil.copytree(base / "1", hidden)
                    hidden.rename(base / str(number))
                    server.wait_for(f"/v1/models/tabular/versions/{number}", b"AVAILABLE")
            ratio = server.resident() / start
            print(f"resident memory over {name}: ratio {ratio:.3f}, at most 1.1: {verdict(reached=ratio <= 1.1)}")


@dataclass(frozen=True, slots=True)
class Running:
    """A server process.

    Attributes:
        process: The process that answers.
        rest: Port.
        grpc: Port; 0 for none.
    """

    process: subprocess.Popen[bytes]
    rest: int
    grpc: int

    def get(self, path: str) -> bytes:
        """Return a page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def wait_for(self, path: str, content: bytes = b"") -> None:
        """Wait until a page holds something."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"A server ended with code {self.process.returncode}.")
            try:
                if content in self.get(path):
                    return
            except OSError:
                pass  # not there yet
            time.sleep(0.1)
        raise TimeoutError(path)

    def cpu(self) -> float:
        """Return the CPU time of the process and its children so far, in seconds."""
        total = 0
        for process in (self.process.pid, *_children(self.process.pid)):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def resident(self) -> int:
        """Return resident bytes."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def model_seconds(self) -> float:
        """Return the mean wall time of a call of the model in the last run with one row, in seconds."""
        return _MODEL_SECONDS[self.process.pid]


_MODEL_SECONDS: dict[int, float] = {}
"""By process: the server's page holds sums, and a run with one row is a difference of two."""


@contextmanager
def our_server(folder: Path, model: str, **flags: object) -> Iterator[Running]:
    """The server of this repository on core 0."""
    rest, grpc = _free_port(), _free_port()
    command = [
        sys.executable, "-m", "tf_serving.server", f"--model_name={model}", f"--model_base_path={folder / model}",
        f"--rest_api_port={rest}", f"--port={grpc}", "--allow_unverified", "--enable_preflight=false",
        "--tensorflow_intra_op_parallelism=1", *[f"--{name}={value}" for name, value in flags.items()],
    ]  # fmt: skip
    with _process(command, rest, grpc, "/readyz") as server:
        yield server


@contextmanager
def peer(folder: Path, model: str, name: str) -> Iterator[Running]:
    """A peer on core 0, in an environment of its own."""
    port = _free_port()
    command = peer_command(name, folder, folder / model / "1", port)
    with _process(command, port, 0, PEERS[name].ready) as server:
        yield server


@contextmanager
def _process(command: list[str], rest: int, grpc: int, ready: str) -> Iterator[Running]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        ["taskset", "-c", "0", *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    server = Running(process, rest, grpc)
    try:
        server.wait_for(ready)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wrk(server: Running, path: str, body: Path, seconds: int) -> Rate:
    """Closed loop over HTTP, 16 connections."""
    script = body.with_suffix(".lua")
    script.write_text(
        f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        f'wrk.body = io.open("{body}"):read("*a")\n'
    )
    url = f"http://127.0.0.1:{server.rest}{path}"
    command = ["taskset", "-c", "1", "wrk", "-t1", "-c16", "-s", str(script)]
    subprocess.run([*command, "-d1s", url], check=True, capture_output=True)
    runs_before = server_runs(server)
    started, cpu = os.times(), server.cpu()
    text = subprocess.run([*command, f"-d{seconds}s", url], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"{url} does not answer as it should:\n{text}")
    count = int(re.search(r"(\d+) requests in", text)[1])  # type: ignore[index]
    rate = _rate(server, count, float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]), started, cpu, seconds)  # type: ignore[index]
    if runs_before is not None and body.stem.endswith("-1"):
        calls, micros = server_runs(server) or (0.0, 0.0)
        _MODEL_SECONDS[server.process.pid] = (micros - runs_before[1]) / max(calls - runs_before[0], 1) / 1e6
    return rate


def h2load(server: Running, body: Path, seconds: int) -> Rate:
    """Closed loop over gRPC, 4 connections of 8 streams."""
    url = f"http://127.0.0.1:{server.grpc}/tensorflow.serving.PredictionService/Predict"
    command = [
        "taskset", "-c", "1", "h2load", "-c4", "-m8", "-t1", "-d", str(body),
        "-H", "content-type: application/grpc", "-H", "te: trailers",
    ]  # fmt: skip
    subprocess.run([*command, "-n200", url], check=True, capture_output=True)
    started, cpu = os.times(), server.cpu()
    text = subprocess.run([*command, f"-D{seconds}", url], check=True, capture_output=True, text=True).stdout
    count = int(re.search(r"(\d+) succeeded", text)[1])  # type: ignore[index]
    return _rate(server, count, count / seconds, started, cpu, seconds)


def server_runs(server: Running) -> tuple[float, float] | None:
    """Return the calls of the model so far and their microseconds; None for peers."""
    if not server.grpc:
        return None
    page = server.get("/monitoring/prometheus/metrics").decode()
    found = {
        kind: sum(map(float, re.findall(rf"runtime_latency_{kind}\{{[^}}]*}} ([\d.e+]+)", page)))
        for kind in ("count", "sum")
    }
    return found["count"], found["sum"]


def _rate(server: Running, count: int, per_second: float, started: os.times_result, cpu: float, seconds: int) -> Rate:
    ended = os.times()
    used = ended.children_user + ended.children_system - started.children_user - started.children_system
    return Rate(per_second, (server.cpu() - cpu) / max(count, 1), used / seconds)


def _keep(best: dict[tuple[str, int], Rate], key: tuple[str, int], rate: Rate) -> None:
    if key not in best or rate.requests > best[key].requests:
        best[key] = rate


def _children(process: int) -> list[int]:
    try:
        listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in listed] + [grand for child in listed for grand in _children(int(child))]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(arguments: list[str], *, core: int | None = None) -> str:
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [*pinned, sys.executable, str(MODELS), *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ).stdout


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
