from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.encoder import Encoder
from pipelines.inference import infer_features
from pipelines.preprocessing import NumericEncoding, PreprocessingState, Scaling, fit_preprocessing
from pipelines.raw_columns import raw_columns
from pipelines.schema import DatasetSchema, FeatureKind, FeatureSpec, RawType, TargetSpec, Task

NUM_ROWS = 1_000


def _schema() -> DatasetSchema:
    number, text = RawType.FLOAT32, RawType.STRING
    features = (
        FeatureSpec("height", kind=FeatureKind.NUMERIC, raw_type=number, reason=""),
        FeatureSpec("income", kind=FeatureKind.NUMERIC, raw_type=number, reason=""),
        FeatureSpec("debt", kind=FeatureKind.NUMERIC, raw_type=number, reason=""),
        FeatureSpec("owner", kind=FeatureKind.BOOLEAN, raw_type=number, reason="", integer=True),
        FeatureSpec("job", kind=FeatureKind.CATEGORICAL, raw_type=text, reason=""),
        FeatureSpec("zone", kind=FeatureKind.CATEGORICAL, raw_type=number, reason="", integer=True),
        FeatureSpec("seen", kind=FeatureKind.DATETIME, raw_type=text, reason="", datetime_format="%d/%m/%Y"),
        FeatureSpec("born", kind=FeatureKind.DATETIME, raw_type=text, reason=""),
    )
    return DatasetSchema(features=features, target=TargetSpec("y", task=Task.REGRESSION))


def _table() -> pa.Table:
    rng = np.random.default_rng(0)
    height = rng.normal(170, 10, NUM_ROWS)
    income = rng.lognormal(8, 1.5, NUM_ROWS)
    debt = np.where(rng.random(NUM_ROWS) < 0.6, 0.0, rng.exponential(1e4, NUM_ROWS))
    jobs = rng.choice(["clerk", "smith", "baker", "año"], NUM_ROWS, p=[0.5, 0.3, 0.15, 0.05]).tolist()
    jobs[:3] = ["", "only once", "clerk"]
    days = rng.integers(0, 5_000, NUM_ROWS)
    seen = [f"{d % 28 + 1:02d}/{d % 12 + 1}/{2000 + d % 20} {d % 24}:05" for d in days]
    seen[0] = "soon"
    return pa.table(
        {
            "height": pa.array(height, mask=rng.random(NUM_ROWS) < 0.1),
            "income": income,
            "debt": debt,
            "owner": rng.random(NUM_ROWS) < 0.3,
            "job": pa.array(jobs),
            "zone": rng.integers(-2, 5, NUM_ROWS),
            "seen": pa.array(seen),
            "born": pa.array(days.astype("datetime64[D]")).cast(pa.timestamp("us")),
        }
    )


@pytest.fixture(scope="module")
def raw() -> dict[str, NDArray[np.generic]]:
    return raw_columns(_table(), _schema())


@pytest.fixture(scope="module")
def state() -> PreprocessingState:
    return fit_preprocessing(_table(), _schema(), rows=np.ones(NUM_ROWS, bool))


@pytest.fixture(scope="module")
def encoder(state: PreprocessingState) -> Encoder:
    return Encoder(state)


@pytest.fixture(scope="module")
def encoded(encoder: Encoder, raw: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[Any]]:
    return encoder.encode_in_batches(raw)


def _tensors(raw: Mapping[str, NDArray[np.generic]]) -> dict[str, Any]:
    return {name: tf.constant(values) for name, values in raw.items()}


def _scaled(values: NDArray[np.generic], column: NumericEncoding) -> NDArray[np.float64]:
    x = values.astype(np.float64)
    x = np.where(np.isnan(x), column.fill, x)
    if column.scaling is not Scaling.STANDARD:
        return np.interp(x, column.knots, column.heights)
    return np.clip((x - column.mean) * column.inverse_scale, -10, 10)


def test_numbers_agree_with_numpy(
    encoded: dict[str, NDArray[Any]], state: PreprocessingState, raw: dict[str, NDArray[np.generic]]
) -> None:
    numeric = encoded["numeric"]
    assert [column.scaling.value for column in state.numeric] == ["standard", "log", "quantile", "standard"]
    for index, column in enumerate(state.numeric):
        np.testing.assert_allclose(numeric[:, index], _scaled(raw[column.name], column), atol=1e-6, rtol=1e-6)


def test_missing_numbers_have_an_indicator(
    encoded: dict[str, NDArray[Any]], state: PreprocessingState, raw: dict[str, NDArray[np.generic]]
) -> None:
    numeric = encoded["numeric"]
    indicator = numeric[:, state.numeric_names.index("height: missing")]
    np.testing.assert_array_equal(indicator, np.isnan(raw["height"].astype(float)))
    assert "income: missing" not in state.numeric_names
    assert numeric.shape == (NUM_ROWS, len(state.numeric_names))


def test_encoded_numbers_are_of_the_order_of_one(encoded: dict[str, NDArray[Any]], state: PreprocessingState) -> None:
    numeric = encoded["numeric"]
    for name in ("height", "income", "born: year", "born: days", "seen: days"):
        column = numeric[:, state.numeric_names.index(name)]
        assert abs(column.mean()) < 0.05
        assert 0.9 < column.std() < 1.1


def test_a_row_gets_the_same_bits_alone_and_in_a_batch(encoder: Encoder, raw: dict[str, NDArray[np.generic]]) -> None:
    together = encoder(_tensors(raw))
    for row in (0, 1, 2, 7, 500, NUM_ROWS - 1):
        alone = encoder(_tensors({name: values[row : row + 1] for name, values in raw.items()}))
        for key in ("numeric", "categorical"):
            np.testing.assert_array_equal(alone[key].numpy()[0], together[key].numpy()[row])


def test_batches_do_not_change_the_result(
    encoder: Encoder, encoded: dict[str, NDArray[Any]], raw: dict[str, NDArray[np.generic]]
) -> None:
    parts = encoder.encode_in_batches(raw, batch_size=77)
    np.testing.assert_array_equal(encoded["numeric"], parts["numeric"])
    np.testing.assert_array_equal(encoded["categorical"], parts["categorical"])


def test_every_batch_is_a_sign_of_life(
    encoder: Encoder, raw: dict[str, NDArray[np.generic]], monkeypatch: pytest.MonkeyPatch
) -> None:
    signs: list[int] = []
    monkeypatch.setattr(encoder, "alive", lambda: signs.append(1))
    encoder.encode_in_batches(raw, batch_size=100)
    assert len(signs) == -(-len(next(iter(raw.values()))) // 100) > 1


def test_no_rows_give_no_rows(encoder: Encoder, raw: dict[str, NDArray[np.generic]]) -> None:
    empty = encoder.encode_in_batches({name: values[:0] for name, values in raw.items()})
    assert empty["numeric"].shape == (0, len(encoder.state.numeric_names))
    assert empty["categorical"].shape == (0, 2)


def test_categories_get_reserved_ids_for_missing_and_other(encoder: Encoder, state: PreprocessingState) -> None:
    job = next(column for column in state.categorical if column.name == "job")
    assert job.vocabulary == ("clerk", "smith", "baker", "año")
    assert job.num_rare == 1
    batch = _one_row(6) | {
        "job": tf.constant(["", "pilot", " clerk ", "año", "only once", "smith"]),
        "zone": tf.constant([np.nan, 99.0, 2.5, np.inf, -1e30, float(state.categorical[1].vocabulary[0])]),
    }
    ids = encoder(batch)["categorical"].numpy()
    assert ids[:, 0].tolist() == [0, 1, 2, 5, 1, 3]
    assert ids[:, 1].tolist() == [0, 1, 1, 1, 1, 2]
    assert ids.max() < max(state.cardinalities)


def test_truths_as_categories_are_known_in_any_spelling() -> None:
    truths = pa.array([True, True, None, False] * 5)
    target = TargetSpec("y", task=Task.REGRESSION)
    found = []
    for values in (truths, pa.array(["True", "True", None, "False"] * 5)):
        table = pa.table({"x": values, "y": np.arange(20.0)})
        schema = infer_features(table, target, overrides={"x": FeatureKind.CATEGORICAL})
        found.append((schema.to_json()["features"], fit_preprocessing(table, schema, rows=np.ones(20, bool))))
    assert found[0] == found[1]
    _, state = found[0]
    assert state.categorical[0].vocabulary == ("true", "false")
    words = tf.constant(["true", "True", "FALSE", "", "maybe"])
    assert Encoder(state)({"x": words})["categorical"].numpy()[:, 0].tolist() == [2, 2, 3, 0, 1]


@pytest.mark.parametrize("raw_type", [RawType.STRING, RawType.FLOAT32])
def test_categories_beyond_the_vocabulary_are_hashed(raw_type: RawType) -> None:
    values: Any = [min(i % 1_600, 1_500) for i in range(8_000)]
    values = values if raw_type is RawType.FLOAT32 else list(map(str, values))
    feature = FeatureSpec("zip", kind=FeatureKind.CATEGORICAL, raw_type=raw_type, reason="")
    schema = DatasetSchema(features=(feature,), target=TargetSpec("y", task=Task.REGRESSION))
    table = pa.table({"zip": values})
    state = fit_preprocessing(table, schema, rows=np.ones(8_000, bool))
    (column,) = state.categorical
    ids = Encoder(state).encode_in_batches(raw_columns(table, schema))["categorical"][:, 0]
    first = 2 + len(column.vocabulary)
    known = np.isin(np.array(values).astype(str), column.vocabulary)
    assert (ids[known] < first).all()
    assert (ids[~known] >= first).all()
    assert ids.max() < column.cardinality
    assert np.unique(ids[~known]).size > 0.9 * column.num_buckets
    unseen = tf.constant([1e6, float("nan"), 2.5]) if raw_type is RawType.FLOAT32 else tf.constant(["new", "", " "])
    found = Encoder(state)({"zip": unseen})["categorical"].numpy()[:, 0]
    assert found[0] >= first
    assert found[1] == 0


def test_a_table_of_skewed_numbers_alone_is_encoded() -> None:
    feature = FeatureSpec("size", kind=FeatureKind.NUMERIC, raw_type=RawType.FLOAT32, reason="")
    schema = DatasetSchema(features=(feature,), target=TargetSpec("y", task=Task.REGRESSION))
    table = pa.table({"size": np.random.default_rng(0).lognormal(0.0, 1.0, 500)})
    state = fit_preprocessing(table, schema, rows=np.ones(500, bool))
    assert state.numeric[0].scaling is Scaling.LOG
    encoded = Encoder(state).encode_in_batches(raw_columns(table, schema))["numeric"]
    assert encoded.std() == pytest.approx(1.0, abs=0.02)


def test_hostile_numbers_give_finite_outputs(encoder: Encoder) -> None:
    hostile = np.array([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 0.0], np.float32)
    batch = _one_row(len(hostile)) | {
        name: tf.constant(hostile) for name in ("height", "income", "debt", "owner", "zone")
    }
    for encode in (encoder, tf.function(encoder.__call__)):
        encoded = encode(batch)
        assert np.isfinite(encoded["numeric"].numpy()).all()
        assert np.abs(encoded["numeric"].numpy()).max() <= 10


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("31/12/2019", datetime(2019, 12, 31)),
        ("1/2/2016 23:59", datetime(2016, 2, 1, 23)),
        ("2016-02-29T10:11:12.123Z", datetime(2016, 2, 29, 10)),
        (" 2016-02-29 10:11 +02:00 ", datetime(2016, 2, 29, 10)),
        ("1900-03-01", datetime(1900, 3, 1)),
    ],
)
def test_dates_are_taken_apart_inside_the_graph(
    encoder: Encoder, state: PreprocessingState, text: str, moment: datetime
) -> None:
    numeric = encoder(_one_row(1) | {"seen": tf.constant([text])})["numeric"].numpy()[0]
    found = dict(zip(state.numeric_names, numeric.tolist(), strict=True))
    column = next(column for column in state.datetimes if column.name == "seen")
    days = (moment - datetime(1970, 1, 1)).days
    expected_days = (days - column.days_mean) * column.days_inverse_scale
    assert found["seen: days"] == pytest.approx(np.clip(expected_days, -10, 10), abs=1e-4)
    assert found["seen: month sin"] == pytest.approx(np.sin(2 * np.pi * (moment.month - 1) / 12), abs=1e-6)
    assert found["seen: weekday cos"] == pytest.approx(np.cos(2 * np.pi * moment.weekday() / 7), abs=1e-6)
    assert found["seen: hour cos"] == pytest.approx(np.cos(2 * np.pi * moment.hour / 24), abs=1e-6)
    assert found["seen: weekend"] == (moment.weekday() >= 5)
    assert found["seen: day sin"] == pytest.approx(np.sin(2 * np.pi * (moment.day - 1) / 31), abs=1e-6)
    year_day = (moment - datetime(moment.year, 1, 1)).days
    assert found["seen: year day cos"] == pytest.approx(np.cos(2 * np.pi * year_day / 366), abs=1e-6)
    assert found["seen: month end"] == ((moment + timedelta(days=1)).day == 1)
    assert found["seen: missing"] == 0


@pytest.mark.parametrize(
    "text", ["", "soon", "30/02/2020", "2019-02-29", "2020-13-01", "01/01/2020 25:00", "12/31/2019"]
)
def test_what_is_no_date_counts_as_missing(encoder: Encoder, state: PreprocessingState, text: str) -> None:
    numeric = encoder(_one_row(1) | {"seen": tf.constant([text])})["numeric"].numpy()[0]
    assert numeric[state.numeric_names.index("seen: missing")] == 1
    assert np.isfinite(numeric).all()


def test_the_time_of_day_is_read_to_the_minute_where_minutes_vary() -> None:
    feature = FeatureSpec("at", kind=FeatureKind.DATETIME, raw_type=RawType.STRING, reason="")
    target = TargetSpec("y", task=Task.REGRESSION)
    texts = [f"2021-03-{day:02d} {day % 24:02d}:{day % 60:02d}" for day in range(1, 29)]
    table = pa.table({"at": texts, "y": np.arange(28.0)})
    state = fit_preprocessing(table, DatasetSchema(features=(feature,), target=target), rows=np.ones(28, bool))
    numeric = Encoder(state)({"at": tf.constant(["2021-03-05 18:45"])})["numeric"].numpy()[0]
    found = dict(zip(state.numeric_names, numeric.tolist(), strict=True))
    assert "at: hour sin" not in found
    assert found["at: time sin"] == pytest.approx(np.sin(2 * np.pi * (18 * 60 + 45) / 1_440), abs=1e-6)


def test_absent_raw_column_is_named(encoder: Encoder) -> None:
    batch = _one_row(1)
    del batch["job"]
    with pytest.raises(ValueError, match=r"Expected the raw columns \['job'\], received"):
        encoder(batch)


def test_no_features_of_a_kind_give_a_matrix_of_width_zero() -> None:
    empty = PreprocessingState(numeric=(), categorical=(), datetimes=(), num_rows=1, rows_sha256="")
    encoded = Encoder(empty)({"x": tf.constant([1.0, 2.0])})
    assert encoded["numeric"].shape == (2, 0)
    assert encoded["categorical"].shape == (2, 0)


def test_state_from_json_encodes_to_the_same_bits(
    encoded: dict[str, NDArray[Any]], state: PreprocessingState, raw: dict[str, NDArray[np.generic]]
) -> None:
    again = Encoder(PreprocessingState.from_json(json.loads(json.dumps(state.to_json()))))
    for key, values in again(_tensors(raw)).items():
        np.testing.assert_array_equal(values.numpy(), encoded[key])


def test_encoder_survives_a_saved_model(encoder: Encoder, raw: dict[str, NDArray[np.generic]], tmp_path: Path) -> None:
    module = tf.Module()
    module.encoder = encoder
    specs = {name: tf.TensorSpec([None], value.dtype, name=name) for name, value in _tensors(raw).items()}
    module.serve = tf.function(lambda batch: encoder(batch), input_signature=[specs])
    tf.saved_model.save(module, str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    for key, values in loaded.serve(_tensors(raw)).items():
        np.testing.assert_array_equal(values.numpy(), encoder(_tensors(raw))[key].numpy())


def _one_row(num_rows: int) -> dict[str, Any]:
    number = dict.fromkeys(("height", "income", "debt", "owner", "zone"), 1.0)
    text = {"job": "clerk", "seen": "01/01/2010", "born": "2001-01-01T00:00:00"}
    return {name: tf.fill([num_rows], tf.constant(value)) for name, value in (number | text).items()}


def test_images_are_decoded_with_the_other_columns_or_left_to_others() -> None:
    from pipelines.image_encoding import ImageEncoding, Resize

    image = ImageEncoding(name="photo", height=2, width=3, channels=1, resize=Resize.STRETCH, reason="")
    price_column = FeatureSpec("price", kind=FeatureKind.NUMERIC, raw_type=RawType.FLOAT32, reason="")
    schema = DatasetSchema(features=(price_column,), target=TargetSpec("y", task=Task.REGRESSION))
    learned = fit_preprocessing(pa.table({"price": [1.0, 2.0, 3.0]}), schema, rows=np.ones(3, bool))
    state = dataclasses.replace(learned, images=(image,))
    encode = Encoder(state)
    png = tf.io.encode_png(np.full((2, 3, 1), 7, np.uint8)).numpy()
    price = np.array([1.0, 2.0], np.float32)
    without = encode.encode_in_batches({"price": price})
    both = encode.encode_in_batches({"price": price, "photo": np.array([png, png], object)})
    assert set(without) == {"numeric", "categorical"}
    np.testing.assert_array_equal(both["numeric"], without["numeric"])
    np.testing.assert_array_equal(both["image"], np.full((2, 2, 3, 1), 7, np.uint8))
