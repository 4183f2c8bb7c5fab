"""Rows of several requests in one call of the model.

Work-conserving: a request that finds a free place runs at once, alone; while all places are taken requests queue, and
whoever finishes lets the first waiting one run with everybody who waits behind it. So nobody waits for a timer unless
``batch_timeout_micros`` says so, and batches grow with the load. There are no threads of its own: the threads of the
requests do the work.

Only calls of the same signature, outputs, types and shapes (but for the first dimension) go together. Where a call is
so short that handing it over costs more than it saves, requests run alone.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from math import inf
from time import monotonic, perf_counter
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from tf_serving.server.config_files import BatchingParameters
from tf_serving.server.metrics import Metrics
from tf_serving.server.signatures import ServedSignature, num_rows
from tf_serving.server.status import Code, ServingError, invalid

Arrays = dict[str, NDArray[Any]]

LEAST_SECONDS = 0.001
"""For a run whose requests' time is up: none would be no deadline."""
QUEUE_FULL = "The batch scheduling queue to which this task was submitted is full"


@final
class Batcher:
    """Batches calls of one version.

    Args:
        model: LoadedModel.
        name: Of the model, for metrics.
        parameters: Sizes and times.
        metrics: To tell sizes and waits.
    """

    def __init__(self, model: Any, *, name: str, parameters: BatchingParameters, metrics: Metrics) -> None:
        self._model = model
        self._name = name
        self.parameters = parameters
        self._metrics = metrics
        self._places = parameters.num_batch_threads or os.cpu_count() or 1
        self._queues: dict[Any, _Queue] = {}
        self._lock = threading.Lock()
        self._depth = metrics.queue_depth.labels(name)

    def run(
        self,
        signature: ServedSignature,
        inputs: Mapping[str, NDArray[Any]],
        outputs: tuple[str, ...],
        *,
        timeout: float,
    ) -> Arrays:
        """Return outputs by alias, as ``LoadedModel.run`` does.

        Raises:
            ServingError: INVALID_ARGUMENT for too many rows, UNAVAILABLE when the queue is full, DEADLINE_EXCEEDED
                when the time was up before the turn came.
        """
        rows = num_rows(inputs) if signature.can_batch else None
        self._metrics.wrapped_runs.add(self._name)
        if not rows:
            return self._run(signature, inputs, outputs, timeout=timeout)
        largest = self.parameters.max_batch_size
        if rows > largest:
            raise invalid(f"Task size {rows} is larger than maximum input batch size {largest}")
        limit = self._execution_limit()
        deadline = monotonic() + timeout if timeout else inf
        if rows > limit:
            return self._split(signature, inputs, outputs, rows, limit, deadline)
        if self._model.is_short(signature.name):
            self._count_batch(rows, rows, waits=(0.0,))
            return self._run(signature, inputs, outputs, timeout=timeout)
        # A deadline of its own: a request that waited too long is not run.
        task = _Task(inputs, rows, deadline=deadline)
        queue = self._queue(_key(signature, inputs, outputs))
        if not queue.enter(task, self._places, self.parameters.max_enqueued_batches * limit):
            raise ServingError(
                Code.UNAVAILABLE,
                f"{QUEUE_FULL}; currently {queue.num_rows} rows wait and max_enqueued_batches is "
                f"{self.parameters.max_enqueued_batches}",
                retry_after=1,
            )
        self._depth.inc()
        try:
            turn = task.turn.wait(None if task.deadline == inf else max(0.0, task.deadline - monotonic()))
            if not turn and queue.leave(task):
                raise ServingError(Code.DEADLINE_EXCEEDED, "The request's time was up before its batch ran")
            if not turn:
                task.turn.wait()
        finally:
            self._depth.dec()
        if task.leads:
            self._lead(queue, task, signature, tuple(outputs), limit)
        if task.error is not None:
            raise task.error
        return task.outputs

    def _execution_limit(self) -> int:
        parameters = self.parameters
        if parameters.split_large and parameters.max_execution_batch_size:
            return parameters.max_execution_batch_size
        return parameters.max_batch_size

    def _queue(self, key: Any) -> _Queue:
        queue = self._queues.get(key)
        if queue is None:
            with self._lock:
                if len(self._queues) > 1000:
                    # Shapes come from requests; idle queues of shapes nobody sends any more go.
                    self._queues = {other: kept for other, kept in self._queues.items() if not kept.is_idle}
                queue = self._queues.setdefault(key, _Queue())
        return queue

    def _lead(
        self,
        queue: _Queue,
        task: _Task,
        signature: ServedSignature,
        outputs: tuple[str, ...],
        limit: int,
    ) -> None:
        batch = queue.take(task, limit, wait=self.parameters.batch_timeout_micros / 1e6)
        try:
            self._run_batch(batch, signature, outputs)
        except ServingError as error:
            for member in batch:
                member.error = error
        except BaseException:
            for member in batch:
                member.error = ServingError(Code.INTERNAL, "The batch did not run")
            raise
        finally:
            queue.finish()
            for member in batch:
                if member is not task:
                    member.turn.set()

    def _run_batch(self, batch: list[_Task], signature: ServedSignature, outputs: tuple[str, ...]) -> None:
        now = perf_counter()
        rows = sum(member.rows for member in batch)
        size = next((size for size in self.parameters.allowed_batch_sizes if size >= rows), rows)
        self._count_batch(rows, size, waits=[now - member.entered for member in batch])
        if len(batch) == 1 and size == rows:
            only = batch[0]
            only.outputs = self._run(signature, only.inputs, outputs, timeout=_seconds_left(only.deadline))
            return
        try:
            self._run_together(batch, signature, outputs, rows, size)
        except ServingError:
            if len(batch) == 1:
                raise
            # One request's values must not fail those that came with it.
            for member in batch:
                left = _seconds_left(member.deadline)
                try:
                    member.outputs = self._run(signature, member.inputs, outputs, timeout=left)
                except ServingError as error:
                    member.error = error

    def _count_batch(self, rows: int, size: int, *, waits: Sequence[float]) -> None:
        metrics, pool = self._metrics, self.parameters.thread_pool_name
        for seconds in waits:
            metrics.queuing_latency.observe(seconds * 1e6, pool)
        metrics.input_batch_size.observe(rows, pool)
        metrics.processed_batch_size.observe(size, pool)
        if size != rows:
            metrics.padding_size.observe(size - rows, str(size))

    def _run_together(
        self,
        batch: list[_Task],
        signature: ServedSignature,
        outputs: tuple[str, ...],
        rows: int,
        size: int,
    ) -> None:
        inputs = {}
        for alias in signature.inputs:
            parts = [member.inputs[alias] for member in batch]
            if size != rows:
                # Padded with copies of the first row, as TensorFlow Serving does: zeros might not be valid values.
                parts.append(np.repeat(parts[0][:1], size - rows, axis=0))
            inputs[alias] = np.concatenate(parts)
        # The most patient request decides, as in TensorFlow Serving: a hasty one must not end what others wait for.
        latest = max(member.deadline for member in batch)
        answers = self._run(signature, inputs, outputs, timeout=_seconds_left(latest))
        for alias, answer in answers.items():
            if answer.ndim == 0 or len(answer) != size:
                raise invalid(
                    f"Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                    f"input tensors: {alias}"
                )
        start = 0
        for member in batch:
            member.outputs = {alias: answer[start : start + member.rows] for alias, answer in answers.items()}
            start += member.rows

    def _split(
        self,
        signature: ServedSignature,
        inputs: Mapping[str, NDArray[Any]],
        outputs: tuple[str, ...],
        rows: int,
        limit: int,
        deadline: float,
    ) -> Arrays:
        parts = [
            self._run(
                signature,
                {alias: array[start : start + limit] for alias, array in inputs.items()},
                outputs,
                timeout=_seconds_left(deadline),
            )
            for start in range(0, rows, limit)
        ]
        return {alias: np.concatenate([part[alias] for part in parts]) for alias in outputs}

    def _run(
        self,
        signature: ServedSignature,
        inputs: Mapping[str, NDArray[Any]],
        outputs: tuple[str, ...],
        *,
        timeout: float,
    ) -> Arrays:
        answer: Arrays = self._model.run(signature, inputs, outputs, timeout=timeout)
        return answer


class _Task:
    __slots__ = ("deadline", "entered", "error", "inputs", "leads", "outputs", "rows", "turn")

    def __init__(self, inputs: Mapping[str, NDArray[Any]], rows: int, *, deadline: float) -> None:
        self.inputs = inputs
        self.rows = rows
        self.deadline = deadline  # of the monotonic clock; infinite for none
        self.turn = threading.Event()
        self.leads = False
        self.outputs: Arrays = {}
        self.error: ServingError | None = None
        self.entered = perf_counter()


class _Queue:
    """Tasks that may run together, and how many batches of them run now."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: deque[_Task] = deque()
        self._running = 0
        self.num_rows = 0

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._running

    def enter(self, task: _Task, places: int, most_rows: int) -> bool:
        """Give the task a turn at once or let it wait; False when too many rows wait."""
        with self._condition:
            if self._running < places:
                self._running += 1
                task.leads = True
                task.turn.set()
                return True
            if self.num_rows + task.rows > most_rows:
                return False
            self._waiting.append(task)
            self.num_rows += task.rows
            self._condition.notify_all()
            return True

    def leave(self, task: _Task) -> bool:
        """Take a task out that has waited too long; False when its turn has come meanwhile."""
        with self._condition:
            if task not in self._waiting:
                return False
            self._waiting.remove(task)
            self.num_rows -= task.rows
            return True

    def take(self, task: _Task, limit: int, *, wait: float) -> list[_Task]:
        """Return the task and those behind it, up to a number of rows; wait for more, in seconds, where asked."""
        deadline = monotonic() + wait
        batch, rows = [task], task.rows
        with self._condition:
            while True:
                while self._waiting and rows + self._waiting[0].rows <= limit:
                    other = self._waiting.popleft()
                    self.num_rows -= other.rows
                    rows += other.rows
                    batch.append(other)
                left = deadline - monotonic()
                if self._waiting or rows >= limit or left <= 0:
                    return batch
                self._condition.wait(left)

    def finish(self) -> None:
        """Hand the place on to the first that waits."""
        with self._condition:
            if not self._waiting:
                self._running -= 1
                return
            task = self._waiting.popleft()
            self.num_rows -= task.rows
            task.leads = True
            task.turn.set()


def _seconds_left(deadline: float) -> float:
    """Return the time that a run may take; 0 for no deadline."""
    return 0.0 if deadline == inf else max(deadline - monotonic(), LEAST_SECONDS)


def _key(signature: ServedSignature, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...]) -> Any:
    shapes = tuple((inputs[alias].dtype.char, inputs[alias].shape[1:]) for alias in signature.inputs)
    return (signature.name, tuple(outputs), shapes)
