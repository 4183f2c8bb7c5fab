from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.numeric_encoding import MAX_KNOTS, Scaling
from pipelines.preprocessing import MAX_VOCABULARY, PreprocessingState, fit_preprocessing
from pipelines.schema import DatasetSchema, FeatureKind, FeatureSpec, RawType, TargetSpec, Task


def _fit(
    values: object,
    kind: FeatureKind = FeatureKind.NUMERIC,
    *,
    raw_type: RawType = RawType.FLOAT32,
    rows: np.ndarray | None = None,
    datetime_format: str | None = None,
) -> PreprocessingState:
    table = pa.table({"x": values})
    feature = FeatureSpec("x", kind=kind, raw_type=raw_type, reason="", datetime_format=datetime_format)
    schema = DatasetSchema(features=(feature,), target=TargetSpec("y", task=Task.REGRESSION))
    return fit_preprocessing(table, schema, rows=np.ones(table.num_rows, bool) if rows is None else rows)


def test_bell_shaped_numbers_are_standardised() -> None:
    values = np.random.default_rng(0).normal(5, 2, 1_000)
    column = _fit(values).numeric[0]
    assert column.scaling is Scaling.STANDARD
    assert column.mean == pytest.approx(values.mean(), rel=1e-6)
    assert 1 / column.inverse_scale == pytest.approx(values.std(), rel=1e-6)
    assert column.fill == pytest.approx(np.median(values), rel=1e-6)
    assert not column.has_indicator
    assert "skewness" in column.reason


@pytest.mark.parametrize("name", ["skewed", "outlier", "spike"])
def test_skewed_numbers_and_outliers_are_mapped_by_quantiles(name: str) -> None:
    rng = np.random.default_rng(0)
    values = {
        "skewed": -rng.lognormal(0, 2, 5_000),
        "outlier": np.r_[rng.normal(size=5_000), 1e6],
        "spike": np.where(rng.random(5_000) < 0.7, 0.0, rng.exponential(1, 5_000)),
    }[name]
    column = _fit(values).numeric[0]
    assert column.scaling is Scaling.QUANTILE
    assert 2 <= len(column.knots) == len(column.heights) <= MAX_KNOTS
    assert (np.diff(column.knots) > 0).all()
    assert (np.diff(column.heights) > 0).all()
    if name != "spike":
        mapped = np.interp(values, column.knots, column.heights)
        assert abs(mapped.mean()) < 0.05
        assert 0.9 < mapped.std() < 1.1


def test_counts_are_standardised_after_their_logarithm() -> None:
    counts = np.random.default_rng(0).lognormal(3.0, 1.0, 5_000).astype(int)
    column = _fit(counts).numeric[0]
    assert column.scaling is Scaling.LOG
    assert column.reason.startswith("standardised after log(1 + x / 1), as counts are: skewness")
    small = np.arange(0, 30)
    known = np.isin(small, column.knots)
    assert known[:4].all()
    logged = np.log1p(counts)
    expected = (np.log1p(small) - logged.mean()) / logged.std()
    np.testing.assert_allclose(np.interp(small, column.knots, column.heights), expected, atol=5e-3)
    assert column.knots[-1] == pytest.approx(10 * counts.max(), rel=0.01)  # growth is followed past the training rows


def test_sizes_are_standardised_after_their_logarithm() -> None:
    values = np.where(np.arange(5_000) % 50 == 0, 0.0, np.random.default_rng(0).lognormal(-7.0, 1.0, 5_000))
    column = _fit(values).numeric[0]
    assert column.scaling is Scaling.LOG
    assert "as sizes are" in column.reason
    mapped = np.interp(values, column.knots, column.heights)
    assert (abs(mapped.mean()), mapped.std()) == pytest.approx((0.0, 1.0), abs=0.01)


def test_the_largest_numbers_have_finite_logarithms() -> None:
    values = np.exp(np.linspace(0.0, 69.0, 3_000))
    column = _fit(values**0.3).numeric[0]
    assert np.isfinite(column.knots).all()
    assert np.isfinite(column.heights).all()


def test_few_distinct_values_are_standardised_however_skewed() -> None:
    column = _fit([0] * 990 + [1000] * 10).numeric[0]
    assert (column.scaling, column.reason) == (Scaling.STANDARD, "standardised: 2 distinct values")


def test_nearly_constant_numbers_are_standardised() -> None:
    column = _fit([0.0] * 9_990 + list(range(1, 11))).numeric[0]
    assert column.scaling is Scaling.STANDARD
    assert column.reason == "standardised: nearly all rows hold one value, 0"


def test_missing_training_values_bring_an_indicator() -> None:
    state = _fit([1.0, 2.0, 9.0, None])
    assert state.numeric[0].has_indicator
    assert state.numeric[0].fill == 2.0
    assert state.numeric_names == ("x", "x: missing")


def test_true_and_false_are_centred() -> None:
    column = _fit([True, True, True, False], FeatureKind.BOOLEAN).numeric[0]
    assert (column.mean, column.inverse_scale, column.fill) == (0.75, 1.0, 0.75)


def test_only_training_rows_are_read() -> None:
    rows = np.arange(200) < 100
    values = np.random.default_rng(0).normal(size=200)
    other = np.where(rows, values, 1e9)
    assert _fit(values, rows=rows) == _fit(other, rows=rows)
    assert _fit(values, rows=rows).num_rows == 100
    assert _fit(values, rows=rows).rows_sha256 != _fit(values, rows=~rows).rows_sha256


def test_categories_are_ordered_by_frequency_then_text() -> None:
    values = ["b"] * 5 + ["a"] * 5 + ["c"] * 9 + ["once", "  "] + [None] * 3
    state = _fit(values, FeatureKind.CATEGORICAL, raw_type=RawType.STRING)
    assert state.categorical[0].vocabulary == ("c", "a", "b")
    assert state.categorical[0].num_rare == 1
    assert state.cardinalities == (5,)
    assert state.categorical_names == ("x",)


def test_large_tables_ask_for_more_rows_a_category() -> None:
    values = ["a"] * 6_000 + ["b"] * 6 + ["c"] * 5
    column = _fit(values, FeatureKind.CATEGORICAL, raw_type=RawType.STRING).categorical[0]
    assert column.vocabulary == ("a", "b")
    assert column.reason.startswith("2 of 3 categories kept: at least 6 rows each")


def test_vocabulary_is_capped() -> None:
    values = [str(i % 1_500) for i in range(15_000)]
    column = _fit(values, FeatureKind.CATEGORICAL, raw_type=RawType.STRING).categorical[0]
    assert len(column.vocabulary) == MAX_VOCABULARY
    assert column.num_rare == 500
    assert column.num_buckets == 128
    assert column.cardinality == 2 + MAX_VOCABULARY + 128
    assert column.reason.endswith("at most 1,000; the others share 128 hashed buckets")


def test_rare_categories_alone_need_no_buckets() -> None:
    values = ["a", "b"] * 200 + [f"once {number}" for number in range(300)]
    column = _fit(values, FeatureKind.CATEGORICAL, raw_type=RawType.STRING).categorical[0]
    assert (column.vocabulary, column.num_rare, column.num_buckets) == (("a", "b"), 300, 0)


def test_whole_numbers_as_categories_are_kept_as_text() -> None:
    column = _fit([3, 3, -1, -1, -1, None], FeatureKind.CATEGORICAL).categorical[0]
    assert column.vocabulary == ("-1", "3")


def test_dates_have_parts_and_the_hour_only_when_it_varies() -> None:
    days = ["31/12/2019", "01/02/2020", "15/08/2020", "soon"]
    state = _fit(days, FeatureKind.DATETIME, raw_type=RawType.STRING, datetime_format="%d/%m/%Y")
    assert not state.datetimes[0].has_hour
    assert state.datetimes[0].has_indicator
    assert state.datetimes[0].fill == (np.datetime64("2020-02-01") - np.datetime64("1970-01-01")).astype(int)
    assert state.numeric_names[0] == "x: year"
    assert state.numeric_names[-1] == "x: missing"
    hours = [day + " 10:00" for day in days[:2]] + ["15/08/2020 11:00"]
    timed = _fit(hours, FeatureKind.DATETIME, raw_type=RawType.STRING, datetime_format="%d/%m/%Y")
    assert timed.datetimes[0].has_hour
    assert timed.numeric_names[-2:] == ("x: hour sin", "x: hour cos")
    minutes = [day + " 10:00" for day in days[:2]] + ["15/08/2020 11:20"]
    by_minute = _fit(minutes, FeatureKind.DATETIME, raw_type=RawType.STRING, datetime_format="%d/%m/%Y")
    assert by_minute.numeric_names[-2:] == ("x: time sin", "x: time cos")


def test_parts_of_a_date_that_never_vary_are_left_out() -> None:
    def names(days: list[str]) -> list[str]:
        state = _fit(days, FeatureKind.DATETIME, raw_type=RawType.STRING)
        return [name.removeprefix("x: ") for name in state.numeric_names]

    always = ["year", "days"]
    assert names(["2020-01-01", "2020-01-01"]) == always
    assert names(["2018-01-01", "2019-01-01"]) == [*always, "weekday sin", "weekday cos", "weekend"]
    months = [*always, "month sin", "month cos", "year day sin", "year day cos"]
    assert names(["2021-02-01", "2021-03-01"]) == months
    everything = names(["2020-01-31", "2021-02-01", "2021-07-09"])
    assert {"day sin", "day cos", "month end", "weekday sin", "weekend", *months} <= set(everything)


def test_a_state_of_before_parts_were_chosen_keeps_its_columns() -> None:
    days = ["2020-01-01", "2020-01-01", "2020-01-01"]
    state = _fit(days, FeatureKind.DATETIME, raw_type=RawType.STRING)
    record = state.to_json()
    del record["datetimes"][0]["parts"]
    former = PreprocessingState.from_json(record)
    assert former.numeric_names == (
        "x: year", "x: days", "x: month sin", "x: month cos", "x: weekday sin", "x: weekday cos", "x: weekend",
    )  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(width=32, allow_nan=True) | st.none(), min_size=1, max_size=60))
def test_state_round_trips_through_json_and_stays_finite(values: list[float | None]) -> None:
    state = _fit(pa.array(values, pa.float64()))
    assert PreprocessingState.from_json(json.loads(json.dumps(state.to_json(), allow_nan=False))) == state


def test_state_of_all_kinds_round_trips_through_json() -> None:
    for kind in (FeatureKind.CATEGORICAL, FeatureKind.DATETIME):
        state = _fit(["2020-01-01", "b", "b", None], kind, raw_type=RawType.STRING)
        assert PreprocessingState.from_json(json.loads(json.dumps(state.to_json()))) == state


# Bad input


def test_no_training_row_is_refused() -> None:
    with pytest.raises(DataError, match="Expected at least one training row to learn the preprocessing from"):
        _fit([1.0, 2.0], rows=np.zeros(2, bool))


def test_kind_that_tables_do_not_encode_is_refused() -> None:
    with pytest.raises(DataError, match="Column 'x' is audio, which tables cannot encode; drop it"):
        _fit(["a", "b"], FeatureKind.AUDIO, raw_type=RawType.STRING)


def test_state_with_an_unknown_field_is_refused() -> None:
    record = _fit([1.0, 2.0]).to_json()
    record["numeric"][0]["meen"] = 1.0
    with pytest.raises(DataError, match=r"NumericEncoding has no field 'meen'\. Did you mean 'mean'\?"):
        PreprocessingState.from_json(record)
