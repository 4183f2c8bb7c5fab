"""A version on trial that answers nobody: its answers are compared with those that were given. No TensorFlow here."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import final

import numpy as np

from tf_serving.server.extensions import Arrays, Call, HttpRequest, HttpResponse, ModelsView, Route
from tf_serving.server.logs import LOGGER
from tf_serving.server.status import ConfigurationError, ServingError
from tf_serving.server.work_queue import WorkQueue

QUEUE_REQUESTS = 256
CLOSE_SECONDS = 5.0
_SHADOW = re.compile(r"(?:([A-Za-z0-9_-][A-Za-z0-9_.-]{0,127})=)?([0-9]{1,18})", re.ASCII)


def parse_shadow(text: str) -> tuple[str, int]:
    """Return model ("" for any) and version of ``2`` or ``MODEL=2``.

    Args:
        text: What a user gave.

    Raises:
        ConfigurationError: The text is not of this form.
    """
    match = _SHADOW.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f"--shadow is {text!r}: expected a version such as 2, or MODEL=2")
    return match[1] or "", int(match[2])


@dataclass(slots=True)
class ShadowCounts:
    """What became of the requests that the shadow was given.

    Attributes:
        agreed: Answers that are the same within the tolerance.
        differed: Answers that are not.
        failed: Requests that the shadow could not answer.
        dropped: Requests that found the queue full.
        largest_difference: Largest difference of a number.
        rows: Rows of the answers that were compared.
        rows_differed: Rows in which some output differs.
    """

    agreed: int = 0
    differed: int = 0
    failed: int = 0
    dropped: int = 0
    largest_difference: float = 0.0
    rows: int = 0
    rows_differed: int = 0


@final
class Shadow:
    """Runs requests again on another version, in a thread of its own; a hook and a background of the server.

    Args:
        versions: Version by model, "" for any.
        tolerance: Numbers that are closer are the same, relative and absolute.
    """

    def __init__(self, versions: Mapping[str, int], *, tolerance: float = 1e-3) -> None:
        self._versions = dict(versions)
        self._tolerance = tolerance
        self._queue: WorkQueue[tuple[Call, int, Arrays]] = WorkQueue(self._work, name="shadow", most=QUEUE_REQUESTS)
        self._models: ModelsView | None = None
        self._lock = threading.Lock()
        self._counts: dict[str, ShadowCounts] = {}

    def start(self, models: ModelsView) -> None:
        """Begin."""
        self._models = models
        self._queue.start()

    def close(self) -> None:
        """End after the requests that wait, or in a few seconds."""
        self._queue.close(seconds=CLOSE_SECONDS)

    def before(self, call: Call) -> Arrays | None:
        """Answer nothing: the shadow never does."""
        del call
        return None

    def after(self, call: Call, outputs: Arrays | None, *, error: ServingError | None, seconds: float) -> None:
        """Hand the request on if there is room."""
        del seconds
        version = self._versions.get(call.model, self._versions.get(""))
        if version is None or version == call.version or outputs is None or error is not None:
            return
        if not self._queue.offer((call, version, outputs)):
            with self._lock:
                self._of(call.model).dropped += 1

    def counts(self) -> dict[str, ShadowCounts]:
        """Return the counts by model."""
        with self._lock:
            return {model: ShadowCounts(**asdict(counts)) for model, counts in self._counts.items()}

    def routes(self) -> tuple[Route, ...]:
        """Return the page of the counts."""

        def answer(request: HttpRequest, groups: Mapping[str, str], models: ModelsView) -> HttpResponse:
            del request, groups, models
            found = {model: asdict(counts) for model, counts in self.counts().items()}
            return HttpResponse(200, json.dumps({"shadow": found}, indent=1).encode())

        return (Route("GET", "/v1/shadow", answer),)

    def _of(self, model: str) -> ShadowCounts:
        return self._counts.setdefault(model, ShadowCounts())

    def _work(self, entry: tuple[Call, int, Arrays]) -> None:
        call, version, outputs = entry
        try:
            self._compare(call, version, outputs)
        except Exception:
            LOGGER.exception("The shadow failed", extra={"request_id": call.request_id})
            with self._lock:
                self._of(call.model).failed += 1

    def _compare(self, call: Call, version: int, outputs: Arrays) -> None:
        if self._models is None:
            return
        try:
            shadow = self._models.predict(call.model, version, signature=call.signature, inputs=call.inputs)
        except ServingError:
            with self._lock:
                self._of(call.model).failed += 1
            return
        differing, largest = _differences(outputs, shadow, self._tolerance)
        with self._lock:
            counts = self._of(call.model)
            counts.agreed += not differing.any()
            counts.differed += bool(differing.any())
            counts.rows += len(differing)
            counts.rows_differed += int(differing.sum())
            counts.largest_difference = max(counts.largest_difference, largest)


def _differences(
    given: Arrays, shadow: Arrays, tolerance: float
) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], float]:
    """Return which rows differ, and the largest difference of a number."""
    num_rows = max((len(array) for array in given.values() if array.ndim), default=1)
    differing = np.zeros(num_rows, dtype=np.bool_)
    largest = 0.0
    for name, array in given.items():
        other = shadow.get(name)
        if other is None or other.shape != array.shape or other.dtype.kind != array.dtype.kind:
            return np.ones(num_rows, dtype=np.bool_), largest
        if array.dtype.kind == "f":
            same = np.isclose(array, other, rtol=tolerance, atol=tolerance, equal_nan=True)
            gaps = np.abs(array.astype(np.float64) - other)
            largest = max(largest, float(np.max(gaps[np.isfinite(gaps)], initial=0.0)))
        else:
            same = np.asarray(array == other)
        differing |= ~same.reshape(num_rows, -1).all(axis=1) if array.ndim else not bool(same)
    return differing, largest
