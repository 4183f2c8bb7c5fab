from __future__ import annotations

import numpy as np
import pytest

from tf_serving.hostile_rows import HOSTILE_NUMBERS, HOSTILE_TEXTS, UNSEEN_CATEGORY, hostile_rows

RAW = {
    "age": np.array([39.0, 5.0], np.float32),
    "job": np.array([b"clerk", b""], dtype=object),
    "pay": np.array([1.5, np.nan], np.float32),
    "town": np.array([b"Lima", b"Cusco"], dtype=object),
}


def rows() -> list[tuple[object, ...]]:
    return list(zip(*(values.tolist() for values in hostile_rows(RAW).values()), strict=True))


def test_the_columns_keep_their_names_and_types() -> None:
    hostile = hostile_rows(RAW)
    assert list(hostile) == list(RAW)
    assert {name: values.dtype for name, values in hostile.items()} == {
        name: values.dtype for name, values in RAW.items()
    }
    assert len({len(values) for values in hostile.values()}) == 1
    assert all(isinstance(value, bytes) for value in hostile["job"])


def test_there_is_a_row_with_everything_missing() -> None:
    assert any(
        np.isnan(age) and job == b"" and np.isnan(pay) and town == b""  # type: ignore[call-overload]
        for age, job, pay, town in rows()
    )


def test_each_column_is_missing_alone() -> None:
    assert (39.0, b"", 1.5, b"Lima") in rows()
    assert (39.0, b"clerk", 1.5, b"") in rows()
    assert any(np.isnan(age) and rest == [b"clerk", 1.5, b"Lima"] for age, *rest in rows())  # type: ignore[call-overload]


def test_each_text_column_meets_an_unseen_category_alone() -> None:
    assert (39.0, UNSEEN_CATEGORY, 1.5, b"Lima") in rows()
    assert (39.0, b"clerk", 1.5, UNSEEN_CATEGORY) in rows()


def test_every_hostile_value_reaches_every_column_of_its_type() -> None:
    hostile = hostile_rows(RAW)
    for name in ("age", "pay"):
        assert set(np.array(HOSTILE_NUMBERS, np.float32).tolist()) <= set(hostile[name].tolist())
    for name in ("job", "town"):
        assert set(HOSTILE_TEXTS) <= set(hostile[name])


def test_the_numbers_stay_hostile_as_float32() -> None:
    values = hostile_rows({"x": np.zeros(1, np.float32)})["x"]
    assert np.isinf(values).sum() == 2
    assert (np.abs(values) == np.finfo(np.float32).max).sum() == 2
    assert ((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)).sum() == 2


@pytest.mark.parametrize("raw", [{}, {"age": np.array([], np.float32)}])
def test_no_row_to_start_from_is_refused(raw: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="Expected at least one column and one row"):
        hostile_rows(raw)
