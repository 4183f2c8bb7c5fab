from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_serving.server.metrics import MOST_UNCOUNTED, Metrics

seconds = st.floats(0.0, 1e6)
answers = st.lists(st.tuples(seconds, seconds, st.none() | st.integers(0, 1_000_000)), max_size=40)


@settings(deadline=None, max_examples=60)
@given(answers=answers)
def test_answers_that_are_counted_together_come_to_the_same_as_one_by_one(
    answers: list[tuple[float, float, int | None]],
) -> None:
    together, one_by_one = Metrics(), Metrics()
    for whole, in_model, rows in answers:
        together.tally("m", "1", "predict", "REST").add(seconds=whole, in_model=in_model, rows=rows)
        one_by_one.request_count.add("m", "OK")
        one_by_one.requests.add("m", "1", "predict", "REST", "OK")
        one_by_one.request_latency.observe(whole * 1e6, "m", "predict", "REST")
        one_by_one.ran("m", "1", "predict", in_model)
        if rows is not None:
            one_by_one.read("m", rows)
    together.count_all()
    for name in ("request_count", "requests", "request_latency", "runtime_latency", "seconds", "example_counts"):
        found, expected = getattr(together, name).series(), getattr(one_by_one, name).series()
        for values, counts in expected.items():
            assert found[values] == pytest.approx(counts)


def test_whoever_reads_sees_every_answer() -> None:
    metrics = Metrics()
    for number in range(MOST_UNCOUNTED + 10):
        metrics.tally("m", "1", "predict", "gRPC").add(seconds=0.001, in_model=0.0005, rows=2)
        if number in (0, MOST_UNCOUNTED - 1):
            assert metrics.totals()["/tensorflow/serving/request_count"] == number + 1
    page = metrics.page().decode()
    assert f':tensorflow:serving:request_count{{model_name="m",status="OK"}} {MOST_UNCOUNTED + 10}' in page
    assert f':tensorflow:serving:request_example_count_total{{model="m"}} {2 * (MOST_UNCOUNTED + 10)}' in page
    assert f'tamiz_model_seconds_count{{model="m",version="1"}} {MOST_UNCOUNTED + 10}.0' in page
