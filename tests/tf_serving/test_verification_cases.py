from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tf_serving.verification_cases import write_cases
from tf_serving.verify_process import batches, read_cases


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.floats(width=32), st.binary(max_size=8), st.text(max_size=4)), min_size=1),
    names=st.lists(st.text(), min_size=3, max_size=3, unique=True),
)
def test_cases_come_back_as_they_went(tmp_path: Path, rows: list[tuple[float, bytes, str]], names: list[str]) -> None:
    numbers, binary, text = zip(*rows, strict=True)
    raw = {
        names[0]: np.array(numbers, np.float32),
        names[1]: np.array(binary, dtype=object),
        names[2]: np.array(text, dtype=object),
    }
    expected = {"probabilities": np.tile(np.array(numbers, np.float32)[:, None], 3), "label": raw[names[1]]}
    distances = {"label": np.abs(raw[names[0]])}
    write_cases(tmp_path / "cases.npz", raw, expected, distances=distances)
    raw_again, expected_again, distances_again = read_cases(str(tmp_path / "cases.npz"))
    np.testing.assert_array_equal(distances_again["label"], distances["label"])
    assert list(raw_again) == names
    np.testing.assert_array_equal(raw_again[names[0]], raw[names[0]])
    assert raw_again[names[1]].tolist() == list(binary)
    assert raw_again[names[2]].tolist() == [value.encode() for value in text]
    np.testing.assert_array_equal(expected_again["probabilities"], expected["probabilities"])
    assert expected_again["label"].tolist() == list(binary)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, {"prediction": np.zeros(2)}),
        ({"x": np.zeros(2)}, {}),
        ({"x": np.zeros(2)}, {"prediction": np.zeros(3)}),
        ({"x": np.zeros(0)}, {"prediction": np.zeros(0)}),
    ],
)
def test_columns_of_different_or_no_length_are_refused(
    tmp_path: Path,
    raw: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
) -> None:
    with pytest.raises(ValueError, match="Expected raw columns and outputs of one length of at least 1"):
        write_cases(tmp_path / "cases.npz", raw, expected)


def test_values_that_are_neither_float_nor_text_are_refused(tmp_path: Path) -> None:
    outputs = {"prediction": np.zeros(2)}
    with pytest.raises(ValueError, match=r"Expected floats, or text .* for 'x', received int64"):
        write_cases(tmp_path / "cases.npz", {"x": np.arange(2)}, outputs)
    with pytest.raises(ValueError, match=r"Expected text in 'x', received NoneType"):
        write_cases(tmp_path / "cases.npz", {"x": np.array([b"a", None], dtype=object)}, outputs)


@pytest.mark.parametrize("num_rows", [1, 6, 7, 500, 896])
@pytest.mark.parametrize("batch_size", [7, 1_000])
def test_batches_are_full_and_hold_every_row(num_rows: int, batch_size: int) -> None:
    found = list(batches(num_rows, batch_size))
    assert {len(rows) for rows in found} == {batch_size}
    assert set(np.concatenate(found).tolist()) == set(range(num_rows))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_many_small_batches_are_sampled_with_all_of_the_last_rows(batch_size: int) -> None:
    found = list(batches(10_000, batch_size))
    rows = np.concatenate(found).tolist()
    assert {len(batch) for batch in found} == {batch_size}
    assert len(found) == 128
    assert rows[0] == 0
    assert set(range(10_000 - 64 * batch_size, 10_000)) <= set(rows)
