from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ElementTree
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from rich.console import Console

from tf_serving.client_transport import Connection
from tf_serving.errors import ExportError
from tf_serving.load_test.bench import BenchReport, BenchSettings, example_rows, run_bench
from tf_serving.load_test.callers import RestCaller
from tf_serving.load_test.chart import draw_chart, write_chart
from tf_serving.load_test.open_loop import (
    PERCENTILES,
    LoadResult,
    Search,
    arrival_times,
    highest_rate,
    run_load,
)
from tf_serving.tensor_values import Signature, Tensor

Handler = Callable[[int], Awaitable[bytes]]
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def load(
    answer: Handler, *, rate: float, seconds: float, connections: int, path: str = "/v1/models/m:predict"
) -> LoadResult:
    """A run against a socket server of this process that answers as a test says."""

    async def main() -> LoadResult:
        count = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            try:
                while head := await reader.readuntil(b"\r\n\r\n"):
                    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                    await reader.readexactly(length)
                    count += 1
                    writer.write(await answer(count))
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()
            place = Connection(host=host, port=port, secure=False, ca_certificate=None, headers={"x-a": "b"})
            caller = RestCaller(place, path=path, body=b'{"instances": [1]}')
            return await run_load(caller, rate=rate, seconds=seconds, connections=connections)

    return asyncio.run(main())


def test_arrivals_have_the_rate_and_the_gaps_of_a_poisson_process() -> None:
    times = arrival_times(1000, 20, np.random.default_rng(0))
    gaps = np.diff(times)
    assert (gaps > 0).all()
    assert times[-1] < 20
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


def test_all_requests_are_answered_at_the_rate() -> None:
    async def answer(_: int) -> bytes:
        return GOOD

    result = load(answer, rate=200, seconds=1.0, connections=8)
    assert result.sent == result.answered > 150
    assert not result.errors
    assert set(result.latency_ms) == set(PERCENTILES)
    assert result.latency_ms[50.0] <= result.latency_ms[95.0] <= result.latency_ms[99.9]
    assert 0 < result.generator_share < 3


def test_a_stall_counts_for_all_that_were_due_meanwhile() -> None:
    """The server stands still for half a second once; a client that waits for answers would note one slow request."""

    async def answer(count: int) -> bytes:
        if count == 50:
            await asyncio.sleep(0.5)
        return GOOD

    result = load(answer, rate=100, seconds=1.5, connections=1)
    slow = result.latency_ms[90.0]
    assert slow > 100
    assert result.service_ms[90.0] < slow / 2


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "UNAVAILABLE"),
        (b"HTTP/1.1 429 Too Many\r\ncontent-length: 1\r\nConnection: close\r\n\r\nx", "RESOURCE_EXHAUSTED"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "DISCONNECTED"),
        (b"nonsense\r\n\r\n", "DISCONNECTED"),
    ],
)
def test_what_goes_wrong_is_counted_by_its_name(reply: bytes, code: str) -> None:
    async def answer(count: int) -> bytes:
        return reply if count % 2 else GOOD

    result = load(answer, rate=100, seconds=0.4, connections=4)
    assert set(result.errors) == {code}
    assert result.answered + result.errors[code] == result.sent
    assert 0.2 < result.error_share < 0.8
    assert not result.holds(1000)


def test_requests_without_an_answer_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tf_serving.load_test.open_loop.DRAIN_SECONDS", 0.1)

    async def answer(count: int) -> bytes:
        if count > 3:
            await asyncio.sleep(60)
        return GOOD

    began = perf_counter()
    result = load(answer, rate=50, seconds=0.4, connections=2)
    assert perf_counter() - began < 10
    assert result.errors["NO ANSWER"] == result.sent - 3
    assert result.answered == 3


def test_a_server_that_falls_behind_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tf_serving.load_test.open_loop.MAX_BEHIND_SECONDS", 0.2)
    monkeypatch.setattr("tf_serving.load_test.open_loop.DRAIN_SECONDS", 0.1)

    async def answer(_: int) -> bytes:
        await asyncio.sleep(0.05)
        return GOOD

    result = load(answer, rate=400, seconds=30, connections=1)
    assert result.errors["NOT SENT"] > 10
    assert result.seconds < 10
    assert not result.holds(1000)


def found(rate: float, p95_ms: float, *, answered: int = 1000, share: float = 0.1) -> LoadResult:
    latency = {50.0: p95_ms / 2, 90.0: p95_ms, 95.0: p95_ms, 99.0: 2 * p95_ms, 99.9: 3 * p95_ms}
    return LoadResult(
        rate=rate, sent=1000, answered=answered, errors={} if answered == 1000 else {"UNAVAILABLE": 1000 - answered},
        seconds=1000 / rate, latency_ms=latency, service_ms=latency, generator_share=share,
    )  # fmt: skip


@pytest.mark.parametrize("capacity", [3.0, 100.0, 777.0, 20_000.0])
def test_the_highest_rate_is_found_to_a_tenth(capacity: float) -> None:
    async def run(rate: float) -> LoadResult:
        return found(rate, 10.0 if rate <= capacity else 1000.0)

    search = asyncio.run(highest_rate(run, p95_ms=50))
    assert search.best is not None
    assert capacity / 1.11 <= search.best.rate <= capacity
    assert len(search.results) < 25


def test_a_server_that_holds_no_rate_is_told_so() -> None:
    async def run(rate: float) -> LoadResult:
        return found(rate, 1000.0)

    search = asyncio.run(highest_rate(run, p95_ms=50))
    assert search == Search(search.results, None)
    report = BenchReport("host:1", BenchSettings(model="m"), search.results, None)
    assert report.notes() == ["No rate that was tried keeps a 95th percentile of 50 ms."]


def test_few_errors_and_a_full_generator_are_told() -> None:
    assert found(100, 10, answered=999).holds(50)
    assert not found(100, 10, answered=990).holds(50)
    report = BenchReport("host:1", BenchSettings(model="m"), (found(100, 10, share=0.97),), None)
    assert "The load generator was at its own limit (a whole core)" in report.notes()[1]


def report_of(*results: LoadResult) -> BenchReport:
    settings = BenchSettings(model="m", rows=3)
    best = max((r for r in results if r.holds(50)), key=lambda r: r.rate, default=None)
    return BenchReport("ho<st>:1", settings, results, best)


def test_the_table_shows_every_run() -> None:
    console = Console(record=True, width=120, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report_of(found(100, 10), found(200, 80, answered=900)))
    console.file.close()
    text = console.export_text()
    assert "3 rows a request" in text
    assert "100 UNAVAILABLE" in text
    assert "Highest rate tried that keeps a 95th percentile of 50 ms: 100 requests/s (300 rows/s)." in text


@pytest.mark.parametrize("rates", [(100,), (100, 200, 400)])
def test_the_picture_is_well_formed(tmp_path: Path, rates: tuple[float, ...]) -> None:
    report = report_of(*(found(rate, rate / 8) for rate in rates))
    write_chart(report, tmp_path / "load.svg")
    root = ElementTree.fromstring((tmp_path / "load.svg").read_text())
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 4
    for line in lines:
        points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        assert len(points) == len(rates)
        assert all(0 < x < 720 and 0 < y < 420 for x, y in points)
        assert points == sorted(points)
    names = [
        text for text in root.findall("{http://www.w3.org/2000/svg}text") if text.text in ("p50", "p95", "p99", "p99.9")
    ]
    heights = sorted(float(name.attrib["y"]) for name in names)
    assert len(heights) == 4
    assert min(np.diff(heights)) >= 14 - 0.1  # no name hides another
    assert "ho<st>:1" in "".join(root.itertext())
    assert draw_chart(report) == (tmp_path / "load.svg").read_text()


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"a name that ends in .svg for the picture, received 'load.png'"):
        write_chart(report_of(found(1, 1)), Path("load.png"))
    with pytest.raises(ExportError, match=r"Cannot write .*no/load.svg: the folder .*no does not exist"):
        write_chart(report_of(found(1, 1)), tmp_path / "no" / "load.svg")
    (tmp_path / "load.svg").mkdir()
    with pytest.raises(ExportError, match=r"Cannot write .*load.svg: Is a directory"):
        write_chart(report_of(found(1, 1)), tmp_path / "load.svg")


def test_made_up_rows_have_the_types_and_shapes_of_the_signature() -> None:
    inputs = {"a": Tensor("DT_INT32", (-1, 3)), "b": Tensor("DT_STRING", (-1,)), "c": Tensor("DT_FLOAT", None)}
    rows = example_rows(Signature(inputs, {}), 5)
    assert {name: (array.shape, array.dtype.name) for name, array in rows.items()} == {
        "a": ((5, 3), "int32"), "b": ((5,), "object"), "c": ((5,), "float32"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"p95_ms": 0}, "Expected p95 between 0.001 and 600000, received 0"),
        ({"seconds": 0}, "Expected seconds between 0.1 and 86400, received 0"),
        ({"rows": 0}, "Expected rows between 1 and 1e"),
        ({"connections": 0}, "Expected connections between 1 and 10000, received 0"),
        ({"rates": (1.0, -3.0)}, "Expected rate between 0.1 and 1e"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        BenchSettings(model="m", **settings)  # type: ignore[arg-type]


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(ExportError, match=r"127.0.0.1:1 cannot be put under load: .* cannot be reached"):
        run_bench("127.0.0.1:1", BenchSettings(model="m"))
