"""Requests, CPU a request, latency and memory of the server, beside the in-process call and peers.

    python benchmarks/serving.py                       # in-process limit, REST, gRPC, FastAPI: about 8 minutes
    python benchmarks/serving.py --everything          # all peers, 50 hot reloads: about 22 minutes
    python benchmarks/serving.py --memory              # only memory: 10 minutes of load, 50 hot reloads
    python benchmarks/serving.py --quick               # 2 seconds a measurement, not 5; two rounds, not three
    python benchmarks/serving.py --peers fastapi,mlflow,bentoml,ray --model tabular

Needs wrk and h2load (Debian: ``apt-get install wrk nghttp2-client``). Every server runs on core 0, the load generator
on core 1; the generator's own CPU is printed: near 100 % it is what is measured. What is compared is measured in turn,
round by round, and medians count.

The figure to look at is requests per second of the server's CPU, from /proc: a server that has its core for itself
and is at its limit answers that many a second, and others on the machine hardly change it. Requests per second of the
clock stand beside it, with the share of the core that the server got; they and the latencies mean something only on a
quiet machine. The small tabular model is 20-64-64-3, the small CNN takes 32 x 32 x 3.

The server's own share of a request is its CPU beyond the model call as the server makes it, measured in a loop of its
own. That call runs with everything in the processor's caches; between requests it does not, and the difference counts
as the server's. What the transports cost with no model behind them is printed beside it, and how fast this machine is
beside the one where the targets were set.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from measurement import machine_line, verdict
from serving_load import ROOT, Rate, Running, free_port, h2load, median_rate, our_server, running, wrk
from serving_peers import PEERS, peer_command

MODELS = Path(__file__).with_name("serving_models.py")
ECHO = Path(__file__).with_name("serving_echo.py")
ROWS = (1, 64)
OWN_MICROSECONDS = {"REST": 150, "gRPC": 400}
REFERENCE_CALL = 315e-6
"""Seconds of ``loaded.signatures[...]`` with one row on the machine where the targets were set."""
LARGE_BODY = 100_000
TIMES_THE_PEER = {"REST": 2.0, "gRPC": 1.0}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, and with whom.

    Attributes:
        seconds: Of a measurement.
        rounds: Of measurements in turn.
        peers: Their names.
        environments: Folder of the peers' virtual environments, kept for the next time.
    """

    seconds: float
    rounds: int
    peers: tuple[str, ...]
    environments: Path


def main() -> None:
    """Measure what the arguments say and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("--peers", default="fastapi", help=f"comma list of {', '.join(PEERS)}, or none")
    parser.add_argument("--model", choices=("tabular", "cnn", "both"), default="both")
    parser.add_argument("--environments", type=Path, default=Path(tempfile.gettempdir(), "tamiz-serving-peers"))
    parser.add_argument("--memory", action="store_true", help="memory under load; nothing else without --everything")
    parser.add_argument("--minutes", type=float, default=10.0, help="of load for memory")
    parser.add_argument("--reloads", type=int, default=50)
    parser.add_argument("--seconds", type=float, help="of one measurement")
    parser.add_argument("--rounds", type=int, help="of measurements in turn")
    arguments = parser.parse_args()
    for tool in ("wrk", "h2load"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing: apt-get install wrk nghttp2-client")
    names = tuple(PEERS) if arguments.everything else tuple(filter(PEERS.get, arguments.peers.split(",")))
    quick = arguments.quick
    plan = Plan(
        arguments.seconds or (2.0 if quick else 5.0),
        arguments.rounds or (2 if quick else 3),
        names,
        arguments.environments.absolute(),
    )
    plan.environments.mkdir(parents=True, exist_ok=True)
    say(machine_line())
    with tempfile.TemporaryDirectory() as folder:
        run_models(["make", folder])
        if arguments.everything or not arguments.memory:
            for model in ("tabular", "cnn") if arguments.model == "both" else (arguments.model,):
                try:
                    measure_model(Path(folder), model, plan)
                except (RuntimeError, subprocess.CalledProcessError) as error:
                    say(f"  {model} cannot be measured to its end: {error}")
        if arguments.everything or arguments.memory:
            measure_memory(Path(folder), arguments.minutes if arguments.memory else 0.0, arguments.reloads)
    say(machine_line())


def say(text: str) -> None:
    """Print a line at once: somebody may be reading along."""
    print(text, flush=True)


def measure_model(folder: Path, model: str, plan: Plan) -> None:
    """Print everything about one model."""
    say(f"\n{model}")
    with our_server(folder / model, model) as plain:
        with our_server(folder / model, model, enable_batching=True) as batching:
            own = measure_ours(folder, model, plan, {"": plain, " batching": batching})
        measure_transports(folder, model, plan, own)
        measure_connections(plain, folder, model)
        for name in plan.peers:
            try:
                measure_peer(folder, model, name, plan, plain)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                say(f"  {name} cannot be measured: {error}")


def measure_ours(folder: Path, model: str, plan: Plan, servers: dict[str, Running]) -> dict[str, float]:
    """Compare with the in-process call, by rows and protocol; return the own share by protocol, in seconds."""
    limits: list[dict[str, dict[str, float]]] = []
    found: dict[tuple[str, int], list[Rate]] = {}
    for _ in range(plan.rounds):
        limits.append(json.loads(run_models(["limit", str(folder / model / "1"), str(plan.seconds / 4)], core=0)))
        for suffix, server in servers.items():
            for rows in ROWS:
                found.setdefault((f"REST{suffix}", rows), []).append(rest_rate(server, folder, model, rows, plan))
                body = folder / f"{model}-{rows}.grpc"
                found.setdefault((f"gRPC{suffix}", rows), []).append(h2load(server, body, plan.seconds))
    calls = {
        (kind, rows): statistics.median(limit[kind][str(rows)] for limit in limits)
        for kind in ("signature", "server")
        for rows in ROWS
    }
    for rows in ROWS:
        per_second = calls["signature", rows]
        say(f"  in process     {rows:3d} rows {per_second:9.0f} calls    {per_second * rows:10.0f} rows a CPU-s")
    rates = {key: median_rate(several) for key, several in found.items()}
    for (name, rows), rate in rates.items():
        say(rate_line(name, rows, rate))
    own: dict[str, float] = {}
    slower = 1.0 / calls["signature", 1] / REFERENCE_CALL
    if model == "tabular":
        say(
            f"  in process, a row takes {1e6 / calls['signature', 1]:.0f} us by loaded.signatures[...], "
            f"{1e6 / calls['server', 1]:.0f} us as the server calls it; the first took {REFERENCE_CALL * 1e6:.0f} us "
            f"where the targets were set: this machine takes {slower:.2f} times as long"
        )
    for name, most in OWN_MICROSECONDS.items():
        own[name] = rates[name, 1].cpu - 1.0 / calls["server", 1]
        share = own[name] * 1e6
        scaled = f" ({share / slower:.0f} us at that machine's speed)" if model == "tabular" else ""
        say(
            f"  {name} own share of a request: {share:.0f} us of CPU{scaled}, at most {most}: "
            f"{verdict(reached=share <= most)}"
        )
        best = max((f"{name}{suffix}" for suffix in servers), key=lambda key: rates[key, 64].per_cpu_second)
        ratio = rates[best, 64].per_cpu_second / calls["signature", 64]
        say(f"  {best} at 64 rows / in-process call: {ratio:.2f}, at least 1: {verdict(reached=ratio >= 1)}")
    latencies(servers[""], model, folder, rates["REST", 1].requests, plan.seconds)
    return own


def measure_transports(folder: Path, model: str, plan: Plan, own: dict[str, float]) -> None:
    """Print what HTTP and gRPC cost without a model, and the own share beyond that."""
    for kind, name in (("loop", "our loop"), ("library", "grpc.server")):
        rest, grpc = free_port(), free_port()
        command = [sys.executable, str(ECHO), str(rest), str(grpc), kind]
        with running(command, rest=rest, grpc=grpc, ready="/") as server:
            if kind == "loop":
                floor = wrk(server, "/", folder / f"{model}-1.json", plan.seconds).cpu
                beyond = (own["REST"] - floor) * 1e6
                say(f"  HTTP without a model: {floor * 1e6:.0f} us; own share beyond: {beyond:.0f} us")
            floor = h2load(server, folder / f"{model}-1.grpc", plan.seconds).cpu
            say(
                f"  gRPC without a model, {name}: {floor * 1e6:.0f} us; own share beyond: "
                f"{(own['gRPC'] - floor) * 1e6:.0f} us"
            )


def rate_line(name: str, rows: int, rate: Rate) -> str:
    """Return the figures of one measurement."""
    return (
        f"  {name:<14} {rows:3d} rows {rate.per_cpu_second:9.0f} requests {rate.per_cpu_second * rows:10.0f} rows a "
        f"CPU-s  {rate.cpu * 1e6:7.0f} us a request   (clock: {rate.requests:.0f} requests/s, {rate.share:.0%} of the "
        f"core, generator {rate.generator:.0%})"
    )


def rest_rate(server: Running, folder: Path, model: str, rows: int, plan: Plan) -> Rate:
    """Return our rate over REST."""
    return patient_wrk(server, f"/v1/models/{model}:predict", folder / f"{model}-{rows}.json", plan.seconds)


def measure_peer(folder: Path, model: str, name: str, plan: Plan, ours: Running) -> None:
    """Compare with one peer, single rows, round by round.

    Raises:
        RuntimeError: The peer does not start, or answers with errors.
    """
    port, command = peer_command(name, folder=folder, environments=plan.environments, version=folder / model / "1")
    # A peer may take seconds for the two megabytes of 64 images.
    sizes = ROWS if model == "tabular" else ROWS[:1]
    theirs: dict[int, list[Rate]] = {rows: [] for rows in sizes}
    own: dict[str, list[Rate]] = {"REST": [], "gRPC": []}
    with running(command, rest=port, ready=PEERS[name].ready) as server:
        for _ in range(plan.rounds):
            own["REST"].append(rest_rate(ours, folder, model, 1, plan))
            for rows in sizes:
                body = folder / f"{model}-{rows}.json"
                theirs[rows].append(patient_wrk(server, PEERS[name].path, body, plan.seconds))
            own["gRPC"].append(h2load(ours, folder / f"{model}-1.grpc", plan.seconds))
    for rows in sizes:
        say(rate_line(name, rows, median_rate(theirs[rows])))
    for protocol, least in TIMES_THE_PEER.items():
        ratio = statistics.median(
            mine.per_cpu_second / other.per_cpu_second for mine, other in zip(own[protocol], theirs[1], strict=True)
        )
        clock = statistics.median(
            mine.requests / other.requests for mine, other in zip(own[protocol], theirs[1], strict=True)
        )
        say(
            f"  {protocol} single rows / {name}: {ratio:.2f} by CPU ({clock:.2f} by the clock), at least {least:g}: "
            f"{verdict(reached=ratio >= least)}"
        )


def patient_wrk(server: Running, path: str, body: Path, seconds: float) -> Rate:
    """Closed loop over HTTP, longer where nothing was answered in the time; large bodies come from few clients."""
    connections = 16 if body.stat().st_size < LARGE_BODY else 4
    try:
        return wrk(server, path, body, seconds, connections=connections)
    except RuntimeError:
        return wrk(server, path, body, 4 * seconds, connections=connections)


def latencies(server: Running, model: str, folder: Path, most: float, seconds: float) -> None:
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
    say(
        f"  REST at half load ({result.rate:.0f}/s): p50 {p50:.2f} ms, p99 {p99:.2f} ms, generator "
        f"{result.generator_share:.0%}; p99 / p50 {p99 / p50:.1f}, at most 4: {verdict(reached=p99 < 4 * p50)}"
    )


def measure_connections(server: Running, folder: Path, model: str) -> None:
    """Print what becomes of 1,000 connections at once."""
    try:
        rate = wrk(server, f"/v1/models/{model}:predict", folder / f"{model}-1.json", 10, connections=1000)
    except RuntimeError as error:
        say(f"  1,000 connections: {verdict(reached=False)}: {error}")
        return
    say(f"  1,000 connections: no error, {rate.per_cpu_second:.0f} requests a CPU-s: {verdict(reached=True)}")


def measure_memory(folder: Path, minutes: float, reloads: int) -> None:
    """Print resident memory before and after load, and before and after hot reloads.

    Args:
        folder: With the models.
        minutes: Of load; 0 for none.
        reloads: Number of new versions.
    """
    base = folder / "tabular"
    path, body = "/v1/models/tabular:predict", folder / "tabular-1.json"
    with our_server(base, "tabular", file_system_poll_wait_seconds=0.2) as server:
        wrk(server, path, body, 5)
        if minutes:
            start = server.resident()
            wrk(server, path, body, minutes * 60)
            say(memory_line(f"{minutes:g} minutes of load", start, server.resident()))
        start = server.resident()
        for number in range(2, reloads + 2):
            hidden = base / f".{number}"
            shutil.copytree(base / "1", hidden)
            hidden.rename(base / str(number))
            server.wait_for(f"/v1/models/tabular/versions/{number}", b"AVAILABLE")
            ask_once(server, path, body)
        say(memory_line(f"{reloads} hot reloads", start, server.resident()))


def ask_once(server: Running, path: str, body: Path) -> None:
    """Ask once, so that every version has answered."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.rest}{path}", body.read_bytes())
    with urllib.request.urlopen(request, timeout=20) as answer:
        answer.read()


def memory_line(name: str, start: int, end: int) -> str:
    """Return how resident memory grew."""
    ratio = end / start
    told = f"resident memory over {name}: {start >> 20} to {end >> 20} MB, ratio {ratio:.3f}"
    return f"{told}, at most 1.1: {verdict(reached=ratio <= 1.1)}"


def run_models(arguments: list[str], *, core: int | None = None) -> str:
    """Run ``serving_models.py``."""
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
