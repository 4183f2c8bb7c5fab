"""Tables that are hard on a search: very wide ones, rare classes, columns without values, thousands of classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from app.config import DataConfig, ExperimentConfig
from app.data_source import read_source
from app.data_stage import PreparedData, prepare_data
from pipelines.errors import DataError
from pipelines.raw_columns import encode_target, raw_columns
from pipelines.splits import Split

RNG = np.random.default_rng(0)


def prepared(frame: pd.DataFrame, *, target: str = "y") -> PreparedData:
    config = ExperimentConfig(data=DataConfig(target=target))
    return prepare_data(read_source(frame, config), config)


def test_a_thousand_columns_become_one_matrix() -> None:
    from pipelines.encoder import Encoder

    num_rows = 120
    columns = {f"n{place}": RNG.normal(size=num_rows) for place in range(800)}
    columns |= {f"c{place}": RNG.choice(["a", "b", "c"], num_rows) for place in range(200)}
    data = prepared(pd.DataFrame(columns | {"y": RNG.normal(size=num_rows)}))
    assert len(data.schema.used_features) == 1_000
    encoded = Encoder(data.preprocessing).encode_in_batches(raw_columns(data.table, data.schema))
    assert (encoded["numeric"].shape, encoded["categorical"].shape) == ((num_rows, 800), (num_rows, 200))


def test_five_rows_of_a_class_are_in_every_part() -> None:
    labels = np.array(["often"] * 300 + ["rare"] * 5)
    data = prepared(pd.DataFrame({"x": RNG.normal(size=305), "z": RNG.normal(size=305), "y": labels}))
    ids = encode_target(data.table, data.schema.target)
    rare = data.schema.target.classes.index("rare")
    assert {int((ids[data.splits == split] == rare).sum()) >= 1 for split in Split} == {True}
    warning = next(finding for finding in data.profile.findings if finding.code == "imbalance")
    assert "class 'rare' only 5 (60 to 1)" in warning.message


def test_a_column_without_values_is_dropped_with_its_reason() -> None:
    frame = pd.DataFrame({"x": RNG.normal(size=100), "gone": [np.nan] * 100, "y": RNG.normal(size=100)})
    data = prepared(frame)
    gone = next(feature for feature in data.schema.features if feature.name == "gone")
    assert not gone.used
    assert gone.reason == "dropped: missing in all 70 training rows"
    assert any("'gone' is not used; dropped: missing in all" in finding.message for finding in data.profile.findings)


def test_a_table_of_columns_without_values_is_refused() -> None:
    with pytest.raises(DataError, match=r"No column can be used to predict 'y' \(gone: dropped: missing in all"):
        prepared(pd.DataFrame({"gone": [np.nan] * 100, "id": range(100), "y": RNG.normal(size=100)}))


def test_ten_thousand_classes_are_refused_with_the_reason() -> None:
    frame = pd.DataFrame({"x": RNG.normal(size=30_000), "y": [f"class {row % 10_000}" for row in range(30_000)]})
    with pytest.raises(
        DataError,
        match=r"at most 1,000 classes in the target 'y', received 10,000 distinct text values in 30,000 rows, too few "
        r"rows a class to learn from; give another target or merge classes",
    ):
        prepared(frame)
