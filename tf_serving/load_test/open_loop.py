"""Requests at a rate that does not ask how the server is doing (no TensorFlow here).

Users do not wait for each other: the time of every request is drawn beforehand (a Poisson process), and its latency
counts from that time, also where all connections were busy. A client that only sends when the last answer is there
would leave out the very requests that a stall would have hit (coordinated omission).
"""

from __future__ import annotations

import abc
import asyncio
import resource
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import final

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
OK = "OK"
DRAIN_SECONDS = 5.0
MAX_BEHIND_SECONDS = 10.0
"""So far behind its schedule, a run is ended: the server cannot hold the rate."""


class Caller(abc.ABC):
    """Sends one prepared request again and again, on several connections."""

    @abc.abstractmethod
    async def open(self, num_connections: int) -> None:
        """Connect."""

    @abc.abstractmethod
    async def call(self, connection: int) -> str:
        """Send the request on a connection; return ``OK``, or the name of what went wrong."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Disconnect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What one run found.

    Attributes:
        rate: Requests per second that were asked for.
        sent: Requests.
        answered: Requests with a right answer.
        errors: How often what went wrong.
        seconds: From the first request to the last answer.
        latency_ms: Percentile -> milliseconds from the time a request was due, right answers only.
        service_ms: Percentile -> milliseconds from the time it was sent.
        generator_share: CPU time of this process per second; near 1 the generator is what is measured.
    """

    rate: float
    sent: int
    answered: int
    errors: Mapping[str, int]
    seconds: float
    latency_ms: Mapping[float, float]
    service_ms: Mapping[float, float]
    generator_share: float

    @property
    def throughput(self) -> float:
        """Right answers per second."""
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def error_share(self) -> float:
        """Share of requests without a right answer, in [0, 1]."""
        return 1.0 - self.answered / self.sent if self.sent else 0.0

    def holds(self, p95_ms: float) -> bool:
        """Return whether the rate was kept: the 95th percentile, at most one error in a thousand, and no backlog.

        Args:
            p95_ms: Limit of the 95th percentile, in milliseconds.
        """
        # Poisson arrivals of a short run miss their rate by chance, by 1 / sqrt(sent).
        kept = self.throughput >= self.rate * (0.95 - 2 / max(self.sent, 1) ** 0.5)
        wrong = self.sent - self.answered
        return wrong * 1000 <= self.sent and kept and self.latency_ms[95.0] <= p95_ms


def arrival_times(rate: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the times at which requests are due, in seconds from the start, of shape ``(num_requests,)``.

    Args:
        rate: Requests per second.
        seconds: Length of the run.
        rng: For the gaps, which are exponential.
    """
    gaps = rng.exponential(1.0 / rate, size=int(rate * seconds * 1.2 + 6 * (rate * seconds) ** 0.5 + 20))
    times = np.cumsum(gaps)
    return times[times < seconds]


async def run_load(caller: Caller, *, rate: float, seconds: float, connections: int, seed: int = 0) -> LoadResult:
    """Send requests at a rate; return what came of it.

    Args:
        caller: Sends them; opened and closed here.
        rate: Requests per second.
        seconds: Length of the run.
        connections: Requests in flight at most.
        seed: Of the times.
    """
    due = arrival_times(rate, seconds, np.random.default_rng(seed))
    await caller.open(connections)
    run = _Run(caller, due, connections)
    cpu = _cpu_seconds()
    try:
        elapsed = await run.finish()
    finally:
        share = (_cpu_seconds() - cpu) / max(perf_counter() - run.started, 1e-9)
        await caller.close()
    latency, service = np.array(run.latencies), np.array(run.services)
    return LoadResult(
        rate=rate,
        sent=run.sent,
        answered=len(run.latencies),
        errors=dict(run.errors),
        seconds=elapsed,
        latency_ms=_percentiles(latency),
        service_ms=_percentiles(service),
        generator_share=share,
    )


@final
class _Run:
    """One run: a schedule, free connections, and requests that wait for one."""

    def __init__(self, caller: Caller, due: NDArray[np.float64], connections: int) -> None:
        self._caller, self._due = caller, due.tolist()
        self._free = list(range(connections))
        self._waiting: deque[float] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self.latencies: list[float] = []
        self.services: list[float] = []
        self.errors: Counter[str] = Counter()
        self.sent = 0
        self.started = perf_counter()
        self._last = self.started

    async def finish(self) -> float:
        """Send everything; return the seconds to the last answer."""
        self.started = self._last = perf_counter()
        for due in self._due:
            wait = self.started + due - perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            elif self.sent % 64 == 0:
                await asyncio.sleep(0)  # behind its time, it still has to hear answers
            self._start(self.started + due)
            if self._waiting and perf_counter() - self._waiting[0] > MAX_BEHIND_SECONDS:
                self.errors["NOT SENT"] += len(self._waiting)
                self._waiting.clear()
                break
        end = perf_counter() + DRAIN_SECONDS
        while (self._running or self._waiting) and perf_counter() < end:
            await asyncio.sleep(0.005)
        unanswered = len(self._running) + len(self._waiting)
        if unanswered:
            self.errors["NO ANSWER"] += unanswered
            self._last = perf_counter()
        self._waiting.clear()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        return self._last - self.started

    def _start(self, due: float) -> None:
        self.sent += 1
        if not self._free:
            self._waiting.append(due)
            return
        task = asyncio.get_running_loop().create_task(self._serve(self._free.pop(), due))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, connection: int, due: float) -> None:
        while True:
            sent = perf_counter()
            code = await self._caller.call(connection)
            self._last = perf_counter()
            if code == OK:
                self.latencies.append(self._last - due)
                self.services.append(self._last - sent)
            else:
                self.errors[code] += 1
            if not self._waiting:
                self._free.append(connection)
                return
            due = self._waiting.popleft()


def _percentiles(seconds: NDArray[np.float64]) -> dict[float, float]:
    if not len(seconds):
        return dict.fromkeys(PERCENTILES, float("inf"))
    return dict(zip(PERCENTILES, (np.percentile(seconds, PERCENTILES) * 1e3).tolist(), strict=True))


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@dataclass(frozen=True, slots=True)
class Search:
    """All runs of a search for the highest rate, and the run that holds it.

    Attributes:
        results: In the order in which they were run.
        best: The run at the highest rate that holds; None if none does.
    """

    results: tuple[LoadResult, ...]
    best: LoadResult | None


async def highest_rate(
    run: Callable[[float], Awaitable[LoadResult]],
    *,
    p95_ms: float,
    first_rate: float = 32.0,
    precision: float = 0.1,
    max_rate: float = 200_000.0,
) -> Search:
    """Return the highest rate whose run holds a limit: doubled until one does not, then halved in between.

    Args:
        run: Runs at a rate; an async function.
        p95_ms: Limit of the 95th percentile, in milliseconds.
        first_rate: Where to begin, in requests per second.
        precision: Relative distance to the next rate that does not hold.
        max_rate: Where to stop.
    """
    results: list[LoadResult] = []
    best: LoadResult | None = None
    low, high, rate = 0.0, float("inf"), first_rate
    while 1.0 <= rate <= max_rate:
        result = await run(rate)
        results.append(result)
        if result.holds(p95_ms):
            low, best = rate, result
        else:
            high = rate
        if high <= low * (1 + precision):
            break
        rate = low * 2 if high == float("inf") else (low * high) ** 0.5 if low else high / 4
    return Search(tuple(results), best)
