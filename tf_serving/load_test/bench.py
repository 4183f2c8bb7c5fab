"""``tamiz bench-serve``: what to send, at which rates, and what to show of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

from tf_serving.client import Client, ClientOptions, parse_address
from tf_serving.client_errors import ServingError
from tf_serving.client_transport import Connection
from tf_serving.errors import ExportError
from tf_serving.load_test.callers import GrpcCaller, RestCaller
from tf_serving.load_test.open_loop import Caller, LoadResult, Search, highest_rate, run_load
from tf_serving.tensor_values import STRING, Signature, Tensor, numpy_dtype

MAX_ROWS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """What to send and how often.

    Attributes:
        model: Name of the model.
        rates: Requests per second, each for one run; empty to search the highest rate that keeps `p95_ms`.
        p95_ms: Limit of the 95th percentile, in milliseconds.
        seconds: Length of a run.
        rows: Rows of a request.
        connections: Requests in flight at most.
        request: JSON body to send over REST instead of a made-up one.
        options: How to be let in.
    """

    model: str
    rates: tuple[float, ...] = ()
    p95_ms: float = 50.0
    seconds: float = 5.0
    rows: int = 1
    connections: int = 64
    request: Path | None = None
    options: ClientOptions = field(default_factory=ClientOptions)

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("p95", self.p95_ms, 0.001, 600_000.0),
            ("seconds", self.seconds, 0.1, 86_400.0),
            ("rows", self.rows, 1, MAX_ROWS),
            ("connections", self.connections, 1, 10_000),
            *(("rate", rate, 0.1, 1e6) for rate in self.rates),
        ):
            if not low <= value <= high:
                raise ExportError(f"Expected {name} between {low:g} and {high:g}, received {value:g}.")


@final
@dataclass(frozen=True, slots=True)
class BenchReport:
    """The runs, to be shown.

    Attributes:
        target: Address.
        settings: What was sent.
        results: One a rate, by rising rate.
        best: The run at the highest rate that kept the limit; None if none did.
    """

    target: str
    settings: BenchSettings
    results: tuple[LoadResult, ...]
    best: LoadResult | None

    def __rich__(self) -> Any:
        """Return a table with a line below it."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        rows = self.settings.rows
        title = f"{self.target}: {rows:,} row{'' if rows == 1 else 's'} a request, latency in ms from when it was due"
        table = Table(title=title, title_justify="left")
        for name in ("rate/s", "answers/s", "p50", "p95", "p99", "p99.9", "errors"):
            table.add_column(name, justify="right")
        for result in self.results:
            latency = [_number(result.latency_ms[percentile]) for percentile in (50.0, 95.0, 99.0, 99.9)]
            errors = ", ".join(f"{count} {code}" for code, count in result.errors.items()) or "0"
            table.add_row(f"{result.rate:,.0f}", f"{result.throughput:,.0f}", *latency, errors)
        return Group(table, *(Text(line) for line in self.notes()))

    def notes(self) -> list[str]:
        """Return what the numbers say, and how far they can be trusted."""
        limit = f"a 95th percentile of {self.settings.p95_ms:g} ms"
        if self.best is None:
            notes = [f"No rate that was tried keeps {limit}."]
        else:
            rows = self.best.rate * self.settings.rows
            notes = [f"Highest rate tried that keeps {limit}: {self.best.rate:,.0f} requests/s ({rows:,.0f} rows/s)."]
        if any(result.generator_share > 0.9 for result in self.results):
            notes.append("The load generator was at its own limit (a whole core): the server may be faster than this.")
        return notes


def run_bench(target: str, settings: BenchSettings) -> BenchReport:
    """Put load on a server; return what it showed.

    Args:
        target: Address as for ``Client``: host:port, http://, https://, grpc:// or grpcs://.
        settings: What to send.

    Raises:
        ExportError: The address cannot be read, the server cannot be reached or refuses the request, or the request
            cannot be made.
    """
    try:
        connection, is_grpc = parse_address(target, settings.options)
    except ValueError as error:
        raise ExportError(str(error)) from error
    try:
        with Client(target, options=settings.options) as client:
            signature = client.signatures(settings.model).get("serving_default")
        if signature is None:
            raise ExportError(f"The model {settings.model!r} has no signature serving_default to call.")
        arrays = example_rows(signature, settings.rows)
    except ServingError as error:
        raise ExportError(f"{target} cannot be put under load: {error}") from error
    caller = _caller(connection, settings, arrays, is_grpc=is_grpc)
    try:
        search = asyncio.run(_runs(caller, settings))
    except OSError as error:
        raise ExportError(f"{target} cannot be reached: {error}.") from error
    results = tuple(sorted(search.results, key=lambda result: result.rate))
    if not any(result.answered for result in results):
        code = max(results[0].errors, key=lambda name: results[0].errors[name], default="nothing sent")
        raise ExportError(f"{target} answered no request: {code}; try one by hand first.")
    return BenchReport(target, settings, results, search.best)


def example_rows(signature: Signature, num_rows: int) -> dict[str, Any]:
    """Return made-up rows for a signature: ones and short texts, axes of any size have one entry.

    Args:
        signature: What the model takes.
        num_rows: Length of the first axis.

    Raises:
        InvalidRequestError: A type is not known.
    """
    return {name: _example(tensor, num_rows) for name, tensor in signature.inputs.items()}


def _example(tensor: Tensor, num_rows: int) -> Any:
    shape = tensor.shape if tensor.shape is not None else (-1,)
    sizes = [num_rows if axis == 0 and size < 0 else max(size, 1) for axis, size in enumerate(shape)]
    if tensor.dtype == STRING:
        return np.full(sizes, b"a", dtype=object)
    return np.ones(sizes, dtype=numpy_dtype(tensor.dtype))


def _caller(connection: Connection, settings: BenchSettings, arrays: dict[str, Any], *, is_grpc: bool) -> Caller:
    if is_grpc:
        if settings.request is not None:
            raise ExportError("A request file is JSON, which is for REST; leave it out for gRPC.")
        return GrpcCaller(connection, body=_predict_request(settings.model, arrays))
    if settings.request is None:
        columns = {name: _texts(array) for name, array in arrays.items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        body = json.dumps({"instances": rows}).encode()
    else:
        try:
            body = settings.request.read_bytes()
            json.loads(body)
        except (OSError, ValueError) as error:
            raise ExportError(f"Cannot send {settings.request}: {error}.") from error
    return RestCaller(connection, path=f"/v1/models/{settings.model}:predict", body=body)


def _texts(array: Any) -> list[Any]:
    return array.astype(str).tolist() if array.dtype == object else array.tolist()  # type: ignore[no-any-return]


def _predict_request(model: str, arrays: dict[str, Any]) -> bytes:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    for name, array in arrays.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return bytes(request.SerializeToString())


async def _runs(caller: Caller, settings: BenchSettings) -> Search:
    async def run(rate: float) -> LoadResult:
        return await run_load(caller, rate=rate, seconds=settings.seconds, connections=settings.connections)

    await run_load(caller, rate=20, seconds=0.5, connections=settings.connections)  # nobody's first request counts
    if not settings.rates:
        return await highest_rate(run, p95_ms=settings.p95_ms)
    results = tuple([await run(rate) for rate in settings.rates])
    holding = [result for result in results if result.holds(settings.p95_ms)]
    return Search(results, max(holding, key=lambda result: result.rate, default=None))


def _number(milliseconds: float) -> str:
    return (
        "-"
        if milliseconds == float("inf")
        else f"{milliseconds:,.3g}"
        if milliseconds < 100
        else f"{milliseconds:,.0f}"
    )


def chart_points(results: Sequence[LoadResult], percentile: float) -> list[tuple[float, float]]:
    """Return (rate, milliseconds) of the runs that had answers.

    Args:
        results: The runs.
        percentile: One of ``PERCENTILES``.
    """
    return [
        (result.rate, result.latency_ms[percentile])
        for result in results
        if result.latency_ms[percentile] != float("inf")
    ]
