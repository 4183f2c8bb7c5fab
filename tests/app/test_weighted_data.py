"""A column of weights from the table to what is written of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from app.config import DataConfig, ExperimentConfig
from app.data_source import read_source
from app.data_stage import PreparedData, prepare_data
from app.errors import ConfigError
from pipelines.errors import DataError


def prepared(frame: pd.DataFrame, *, weight: str) -> PreparedData:
    config = ExperimentConfig(data=DataConfig(target="species", weight=weight))
    return prepare_data(read_source(frame, config), config)


def test_the_column_of_weights_is_no_feature(penguins: pd.DataFrame) -> None:
    data = prepared(penguins.assign(count=2.0), weight="count")
    assert data.schema.weight == "count"
    feature = next(feature for feature in data.schema.features if feature.name == "count")
    assert not feature.used
    assert feature.reason == "not a feature: says how much a row counts"
    assert data.schema.from_json(data.schema.to_json()) == data.schema


def test_the_target_cannot_weigh_the_rows(penguins: pd.DataFrame) -> None:
    with pytest.raises(ConfigError, match="weight is 'species', which is the target: expected another column"):
        prepared(penguins, weight="species")


def test_negative_weights_are_refused_with_their_row(penguins: pd.DataFrame) -> None:
    weights = np.ones(len(penguins))
    weights[4] = -1.0
    with pytest.raises(DataError, match=r"1 of 344 below 0, the first -1\.0 in row 5"):
        prepared(penguins.assign(count=weights), weight="count")
