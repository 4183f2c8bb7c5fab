from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from tf_serving.server.batching import Batcher
from tf_serving.server.config_files import BatchingParameters
from tf_serving.server.metrics import Metrics
from tf_serving.server.signatures import ServedSignature, TensorSpec
from tf_serving.server.status import Code, ServingError, invalid

SPEC = TensorSpec("x:0", 1, (None,))
SIGNATURE = ServedSignature("s", "", {"x": SPEC}, {"y": SPEC}, {}, None, {"x": 1}, can_batch=True)


class Gate:
    """A model that answers when it is let; negative rows make it fail."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.timeouts: list[float] = []
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)

    def is_short(self, _: str) -> bool:
        return False

    def run(self, _: Any, inputs: Any, outputs: Any, *, timeout: float) -> Any:
        self.sizes.append(len(inputs["x"]))
        self.timeouts.append(timeout)
        self.entered.release()
        self.open.wait(20)
        if (inputs["x"] < 0).any():
            raise invalid("negative")
        return dict.fromkeys(outputs, inputs["x"] * 2)


def start(batcher: Batcher, rows: list[float], answers: dict[int, Any], timeout: float = 0.0) -> threading.Thread:
    def ask() -> None:
        try:
            answers[id(rows)] = batcher.run(SIGNATURE, {"x": np.array(rows)}, ("y",), timeout=timeout)["y"].tolist()
        except ServingError as error:
            answers[id(rows)] = error

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def made(**values: Any) -> tuple[Gate, Batcher]:
    gate = Gate()
    parameters = BatchingParameters(**{"max_batch_size": 8, "num_batch_threads": 1, **values})
    return gate, Batcher(gate, name="m", parameters=parameters, metrics=Metrics())


def waiting(batcher: Batcher) -> int:
    return sum(queue.num_rows for queue in batcher._queues.values())


def wait_until_waiting(batcher: Batcher, rows: int) -> None:
    for _ in range(2000):
        if waiting(batcher) == rows:
            return
        time.sleep(0.005)
    raise TimeoutError


def test_requests_that_wait_go_together_and_each_gets_its_rows() -> None:
    gate, batcher = made()
    requests = [[1.0], [2.0, 3.0], [4.0], [5.0, 6.0, 7.0], [8.0, 9.0, 10.0]]
    answers: dict[int, Any] = {}
    threads = [start(batcher, requests[0], answers)]
    gate.entered.acquire()
    for count, request in enumerate(requests[1:], 1):
        threads.append(start(batcher, request, answers))
        wait_until_waiting(batcher, sum(map(len, requests[1 : count + 1])))
    gate.open.set()
    for thread in threads:
        thread.join()
    # 2 + 1 + 3 rows fit into 8, three more do not.
    assert gate.sizes == [1, 6, 3]
    assert [answers[id(rows)] for rows in requests] == [[2 * value for value in rows] for rows in requests]


def test_a_bad_row_fails_only_its_own_request() -> None:
    gate, batcher = made()
    requests = [[1.0], [2.0], [-1.0], [3.0]]
    answers: dict[int, Any] = {}
    threads = [start(batcher, requests[0], answers)]
    gate.entered.acquire()
    threads += [start(batcher, request, answers) for request in requests[1:]]
    wait_until_waiting(batcher, 3)
    gate.open.set()
    for thread in threads:
        thread.join()
    assert answers[id(requests[1])] == [4.0]
    assert answers[id(requests[3])] == [6.0]
    assert answers[id(requests[2])].message == "negative"


def test_batches_are_padded_to_allowed_sizes() -> None:
    gate, batcher = made(allowed_batch_sizes=(4, 8))
    gate.open.set()
    assert batcher.run(SIGNATURE, {"x": np.array([1.0, 2.0, 3.0])}, ("y",), timeout=0)["y"].tolist() == [2, 4, 6]
    assert gate.sizes == [4]


def test_a_full_queue_and_too_many_rows_are_refused() -> None:
    gate, batcher = made(max_batch_size=2, max_enqueued_batches=1)
    answers: dict[int, Any] = {}
    first, second = [1.0], [2.0, 2.0]
    threads = [start(batcher, first, answers)]
    gate.entered.acquire()
    threads.append(start(batcher, second, answers))
    wait_until_waiting(batcher, 2)
    with pytest.raises(
        ServingError, match="The batch scheduling queue to which this task was submitted is full"
    ) as full:
        batcher.run(SIGNATURE, {"x": np.array([3.0])}, ("y",), timeout=0)
    assert full.value.code is Code.UNAVAILABLE
    with pytest.raises(ServingError, match="Task size 3 is larger than maximum input batch size 2"):
        batcher.run(SIGNATURE, {"x": np.array([1.0, 2.0, 3.0])}, ("y",), timeout=0)
    gate.open.set()
    for thread in threads:
        thread.join()
    assert answers == {id(first): [2.0], id(second): [4.0, 4.0]}


def test_a_request_whose_time_is_up_leaves_the_queue() -> None:
    gate, batcher = made()
    answers: dict[int, Any] = {}
    first, late = [1.0], [2.0]
    threads = [start(batcher, first, answers)]
    gate.entered.acquire()
    threads.append(start(batcher, late, answers, timeout=0.05))
    threads[1].join()
    assert answers[id(late)].code is Code.DEADLINE_EXCEEDED
    gate.open.set()
    threads[0].join()
    assert gate.sizes == [1]


@pytest.mark.parametrize("patience", [600.0, 0.0])
def test_a_batch_has_the_time_of_its_most_patient_request(patience: float) -> None:
    gate, batcher = made()
    answers: dict[int, Any] = {}
    first, hasty, patient = [1.0], [-1.0], [2.0]
    threads = [start(batcher, first, answers)]
    gate.entered.acquire()
    threads.append(start(batcher, hasty, answers, timeout=60.0))
    wait_until_waiting(batcher, 1)
    threads.append(start(batcher, patient, answers, timeout=patience))
    wait_until_waiting(batcher, 2)
    gate.open.set()
    for thread in threads:
        thread.join()
    _, together, alone, last = gate.timeouts
    assert gate.sizes == [1, 2, 1, 1]
    assert 0 < alone <= 60.0
    # No deadline is 0.
    assert together == last == 0.0 if not patience else 60.0 < last <= together <= patience
    assert answers[id(patient)] == [4.0]


def test_large_requests_are_split_where_asked() -> None:
    gate, batcher = made(max_batch_size=100, split_large=True, max_execution_batch_size=2)
    gate.open.set()
    answer = batcher.run(SIGNATURE, {"x": np.arange(5.0)}, ("y",), timeout=60)["y"]
    assert answer.tolist() == [0, 2, 4, 6, 8]
    assert gate.sizes == [2, 2, 1]
    # All parts together have the time of the request.
    assert 60 >= gate.timeouts[0] >= gate.timeouts[1] >= gate.timeouts[2] > 0
    with pytest.raises(ServingError, match="Task size 101 is larger than maximum input batch size 100"):
        batcher.run(SIGNATURE, {"x": np.arange(101.0)}, ("y",), timeout=0)


def test_a_batch_waits_for_more_rows_where_asked() -> None:
    gate, batcher = made(batch_timeout_micros=10_000_000, max_batch_size=2)
    gate.open.set()
    answers: dict[int, Any] = {}
    requests = [[1.0], [2.0]]
    threads = [start(batcher, request, answers) for request in requests]
    for thread in threads:
        thread.join()
    assert gate.sizes == [2]
    assert [answers[id(request)] for request in requests] == [[2.0], [4.0]]


def test_a_real_model_answers_the_same_in_batches(run_server: Any, models: Any, tmp_path: Any) -> None:
    file = tmp_path / "batching"
    file.write_text("max_batch_size { value: 4 } num_batch_threads { value: 1 }")
    running = run_server(
        model_name="half",
        model_base_path=str(models / "half_plus_two"),
        enable_batching=True,
        batching_parameters_file=str(file),
    )
    answers: dict[int, Any] = {}

    def ask(value: int) -> None:
        answers[value] = running.http.predict("half", {"instances": [value]})

    threads = [threading.Thread(target=ask, args=(value,)) for value in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {value: (200, {"predictions": [value / 2 + 3]}) for value in range(24)}
    status, body = running.http.predict("half", {"instances": [1.0] * 5})
    assert (status, body) == (400, {"error": "Task size 5 is larger than maximum input batch size 4"})
    page = running.http("GET", "/monitoring/prometheus/metrics")[1].decode()
    assert ':tensorflow:serving:batching_session:wrapped_run_count{model_name="half"} 25' in page
    # Also where a call is so short that it runs alone.
    assert ':tensorflow:serving:batching_session:queuing_latency_count{thread_pool_name="batch_threads"} 24' in page
