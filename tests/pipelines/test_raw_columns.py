from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import DataError
from pipelines.raw_columns import encode_target, raw_column, raw_columns, with_optional_columns
from pipelines.schema import DatasetSchema, FeatureKind, FeatureSpec, RawType, TargetSpec, Task

CLASSES = TargetSpec("y", task=Task.BINARY, classes=("no", "yes"))
NUMBER = TargetSpec("y", task=Task.REGRESSION)


def _schema(kind: FeatureKind, raw_type: RawType) -> DatasetSchema:
    dropped = FeatureSpec("z", kind=FeatureKind.TEXT, raw_type=RawType.STRING, reason="", used=False)
    return DatasetSchema(features=(FeatureSpec("x", kind=kind, raw_type=raw_type, reason=""), dropped), target=CLASSES)


def _raw(values: object, kind: FeatureKind, raw_type: RawType = RawType.FLOAT32) -> np.ndarray:
    raw = raw_columns(pa.table({"x": values, "more": pa.nulls(len(values))}), _schema(kind, raw_type))  # type: ignore[arg-type]
    assert list(raw) == ["x"]
    return raw["x"]


@pytest.mark.parametrize(
    "values",
    [[1, None, -2], [1.0, float("nan"), -2.0], ["1", None, "-2.0"], pa.array([1, None, -2]).dictionary_encode()],
)
def test_numbers_of_any_type_become_float32(values: object) -> None:
    raw = _raw(values, FeatureKind.NUMERIC)
    assert raw.dtype == np.float32
    np.testing.assert_array_equal(raw, np.array([1, np.nan, -2], np.float32))


def test_numbers_beyond_float32_become_infinite() -> None:
    np.testing.assert_array_equal(_raw([1e300, -1e300], FeatureKind.NUMERIC), [np.inf, -np.inf])


@pytest.mark.parametrize("values", [[True, None, False], [1, None, 0], ["yes", None, "No"], ["TRUE", None, "f"]])
def test_truth_of_any_type_becomes_one_and_zero(values: object) -> None:
    np.testing.assert_array_equal(_raw(values, FeatureKind.BOOLEAN), np.array([1, np.nan, 0], np.float32))


@pytest.mark.parametrize("values", [[True, None, False], [1, None, 0], [1.0, None, 0.0], ["True", None, "FALSE"]])
def test_truths_as_categories_are_words_of_one_spelling(values: object) -> None:
    text = {"kind": FeatureKind.CATEGORICAL, "raw_type": RawType.STRING, "reason": ""}
    feature = FeatureSpec("x", **text, truths=True)  # type: ignore[arg-type]
    assert raw_column(pa.table({"x": values}), feature).tolist() == [b"true", b"", b"false"]
    assert raw_column(pa.table({"x": ["maybe"]}), feature).tolist() == [b"maybe"]


def test_text_becomes_utf8_bytes_with_empty_for_missing() -> None:
    raw = _raw(["año", None, "b"], FeatureKind.CATEGORICAL, RawType.STRING)
    assert raw.dtype == object
    assert raw.tolist() == ["año".encode(), b"", b"b"]


def test_whole_numbers_as_categories_have_no_decimals() -> None:
    assert _raw([5, None, 7], FeatureKind.CATEGORICAL, RawType.STRING).tolist() == [b"5", b"", b"7"]
    assert _raw([5.0, None, 7.0], FeatureKind.CATEGORICAL, RawType.STRING).tolist() == [b"5", b"", b"7"]


def test_dates_become_iso_text_or_stay_as_written() -> None:
    moment = datetime.datetime(2020, 1, 2, 3, 4, 5, 6)
    assert _raw([moment, None], FeatureKind.DATETIME, RawType.STRING).tolist() == [b"2020-01-02T03:04:05", b""]
    assert _raw(["31/12/2020"], FeatureKind.DATETIME, RawType.STRING).tolist() == [b"31/12/2020"]


@pytest.mark.parametrize("raw_type", RawType)
def test_column_that_is_all_missing_is_read(raw_type: RawType) -> None:
    raw = _raw(pa.nulls(2), FeatureKind.CATEGORICAL, raw_type)
    if raw_type is RawType.STRING:
        assert raw.tolist() == [b"", b""]
    else:
        assert np.isnan(raw.astype(np.float32)).all()


def test_only_columns_that_may_be_left_out_are_filled_in() -> None:
    number = {"kind": FeatureKind.NUMERIC, "raw_type": RawType.FLOAT32, "reason": ""}
    features = tuple(FeatureSpec(name, **number, optional=name != "b") for name in "abc")  # type: ignore[arg-type]
    schema = DatasetSchema(features=features, target=CLASSES)
    filled = with_optional_columns(pa.table({"b": [1.0, 2.0], "c": [3.0, 4.0]}), schema)
    raw = raw_columns(filled, schema)
    assert np.isnan(np.asarray(raw["a"], np.float32)).all()
    assert raw["c"].tolist() == [3.0, 4.0]
    with pytest.raises(DataError, match="The data has no column 'b'"):
        raw_columns(with_optional_columns(pa.table({"a": [1.0]}), schema), schema)


def test_labels_become_class_ids() -> None:
    ids = encode_target(pa.table({"y": ["yes", "no", "yes"]}), CLASSES)
    assert ids.dtype == np.int32
    assert ids.tolist() == [1, 0, 1]


@pytest.mark.parametrize("values", [[2, 10], [2.0, 10.0], ["2", "10"], ["2.0", "10.0"]])
def test_labels_match_whatever_their_type(values: object) -> None:
    target = TargetSpec("y", task=Task.BINARY, classes=("2", "10"))
    assert encode_target(pa.table({"y": values}), target).tolist() == [0, 1]


def test_numbers_become_values() -> None:
    values = encode_target(pa.table({"y": ["1.5", "2"]}), NUMBER)
    assert values.dtype == np.float64
    assert values.tolist() == [1.5, 2.0]


# Bad input


def test_absent_column_is_refused_with_the_nearest_name() -> None:
    table = pa.table({"X": [1.0]})
    with pytest.raises(DataError, match=r"The data has no column 'x'\. Did you mean 'X'\?"):
        raw_columns(table, _schema(FeatureKind.NUMERIC, RawType.FLOAT32))
    with pytest.raises(DataError, match="The data has no target column 'y'"):
        encode_target(table, CLASSES)


def test_text_in_a_numeric_column_is_refused_with_its_row() -> None:
    with pytest.raises(DataError, match=r"Expected a number in column 'x', received 'abc' in row 2 \(2 such rows\)"):
        _raw(["1", "abc", None, "d"], FeatureKind.NUMERIC)


def test_what_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(DataError, match="Expected true or false in column 'x', received 2 in row 3"):
        _raw([0, 1, 2], FeatureKind.BOOLEAN)


def test_dates_in_a_numeric_column_are_refused() -> None:
    with pytest.raises(DataError, match=r"Expected numbers in column 'x', received timestamp\[us\]"):
        _raw([datetime.datetime(2020, 1, 1)], FeatureKind.NUMERIC)


def test_unknown_and_missing_targets_are_refused() -> None:
    with pytest.raises(DataError, match="one of the classes 'no', 'yes' in the target 'y', received 'maybe' in row 2"):
        encode_target(pa.table({"y": ["no", "maybe"]}), CLASSES)
    with pytest.raises(DataError, match="but 1 are missing, the first in row 2; drop these rows"):
        encode_target(pa.table({"y": ["no", None]}), CLASSES)
    with pytest.raises(DataError, match="a finite number in every row of the target 'y', received 'x' in row 2"):
        encode_target(pa.table({"y": ["1", "x"]}), NUMBER)
