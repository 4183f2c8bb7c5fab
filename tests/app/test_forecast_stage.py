"""Time series to rows of an experiment: splits in time, what was left out, kinds, and the season to beat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app.config import DataConfig, ExperimentConfig, ForecastConfig, SearchConfig
from app.data_contract import profile_data, validate_data
from app.data_files import write_data
from app.data_source import read_options, read_source
from app.data_stage import PreparedData, prepare_data, protocol
from app.errors import ConfigError, RunDirectoryError
from app.evaluation.baselines import EncodedRows, repeated_season, seasonal_values
from app.forecast_answers import LAST_KNOWN, latest_rows, wants_past
from app.forecast_config import embargo_parts
from app.run_directory import RunDirectory
from pipelines.errors import DataError
from pipelines.schema import DatasetSchema, FeatureKind, Task
from pipelines.splits import Split
from pipelines.windows import WindowSpec


def sales(shops: int = 2, days: int = 150) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    steps = np.arange(days)
    frames = [
        pd.DataFrame(
            {
                "day": pd.date_range("2023-01-01", periods=days).astype(str),
                "shop": f"00{shop}",
                "holiday": (steps % 11 == 0).astype(int),
                "weather": np.where(rng.random(days) < 0.5, "sun", "rain"),
                "size": shop,
                "sold": 20 + 5 * shop + 8 * np.sin(2 * np.pi * steps / 7) + rng.normal(0, 1, days),
            }
        )
        for shop in range(shops)
    ]
    return pd.concat(frames).sample(frac=1.0, random_state=1)


def settings(forecast: ForecastConfig | None = None, **data: Any) -> ExperimentConfig:
    forecast = forecast or ForecastConfig(
        horizon=3, context=7, series_id="shop", known_future=("holiday",), static=("size",)
    )
    return ExperimentConfig(data=DataConfig(target="sold", time_column="day", **data), forecast=forecast)


def prepared(frame: pd.DataFrame, config: ExperimentConfig) -> PreparedData:
    return prepare_data(read_source(frame, config), config)


def test_series_become_windows_with_columns_of_their_kinds() -> None:
    config = settings(features={"shop": "categorical"})
    data = prepared(sales(), config)
    target = data.schema.target
    assert (target.task, target.columns) == (Task.REGRESSION, ("sold_ahead_1", "sold_ahead_2", "sold_ahead_3"))
    kinds = {feature.name: feature.kind for feature in data.schema.used_features}
    assert kinds["shop"] is FeatureKind.CATEGORICAL
    assert {kinds[f"sold_lag_{lag}"] for lag in range(1, 8)} == {FeatureKind.NUMERIC}
    assert {kinds[f"weather_lag_{lag}"] for lag in range(1, 8)} == {FeatureKind.CATEGORICAL}
    assert {kinds[f"holiday_ahead_{step}"] for step in (1, 2, 3)} == {FeatureKind.BOOLEAN}
    reasons = {feature.name: feature.reason for feature in data.schema.features}
    assert reasons["sold_lag_2"] == "sold, lag of 2 steps"
    assert reasons["holiday_ahead_1"] == "holiday, known 1 step ahead"
    assert DatasetSchema.from_json(data.schema.to_json()) == data.schema
    assert WindowSpec.from_json(data.schema.windows or {}).period == 7
    assert protocol(data.schema, config).startswith("Ordered by day: windows that forecast the earliest steps train")


def test_windows_tell_each_other_no_mean_targets_of_their_series() -> None:
    frame = sales(shops=32, days=40)
    features = prepared(frame, settings(ForecastConfig(horizon=1, context=3, series_id="shop"))).schema.used_features
    assert {feature.name for feature in features} > {"shop", "sold_lag_3"}
    assert not any(feature.target_encoded for feature in features)


def test_what_was_left_out_is_counted_and_the_season_is_judged() -> None:
    messages = [finding.message for finding in prepared(sales(), settings(embargo="2d")).profile.findings]
    assert "2 series of 150 rows in steps of 1 day." in messages
    assert "8 rows between the splits are in none of them (embargo 2d)." in messages
    assert any(message.endswith("windows would forecast over a boundary between splits and were left out.") for
               message in messages)  # fmt: skip
    assert any("validation windows seasonal-naive (period 7) errs by" in message for message in messages)


def test_the_season_that_is_repeated_is_that_of_the_window() -> None:
    data = prepared(sales(), settings())
    spec = WindowSpec.from_json(data.schema.windows or {})
    name, values = seasonal_values(data.table, spec)
    lags = data.table.to_pandas()[["sold_lag_7", "sold_lag_6", "sold_lag_5"]].to_numpy()
    assert name == "seasonal-naive"
    np.testing.assert_array_equal(values, lags)
    y = data.table.to_pandas()[list(spec.targets)].to_numpy()
    rows = EncodedRows(numeric=np.zeros((len(y), 0)), categorical=np.zeros((len(y), 0), int), y=y)
    values[0] = np.nan
    answered = repeated_season(rows, rows, values).values
    assert answered is not None
    np.testing.assert_allclose(answered[0], y.mean(axis=0))
    short = prepared(sales(), settings(ForecastConfig(horizon=1, context=3, series_id="shop")))
    assert seasonal_values(short.table, WindowSpec.from_json(short.schema.windows or {}))[0] == "naive"
    assert short.schema.target.columns == ()


def test_an_embargo_leaves_rows_between_splits_out() -> None:
    frame = sales(shops=1)
    config = ExperimentConfig(data=DataConfig(target="sold", time_column="day", embargo="5d"))
    data = prepared(frame, config)
    day = pd.to_datetime(pd.Series(data.table["day"].to_pandas()))
    train, validation, test = (day[data.splits == split] for split in Split)
    assert (validation.min() - train.max()).days == 6
    assert (test.min() - validation.max()).days == 6
    found = [finding.message for finding in data.profile.findings]
    assert "10 of 150 rows lie between the splits and are in none of them (embargo 5d)." in found


def test_a_profile_tells_of_steps_gaps_and_the_season() -> None:
    frame = sales()[lambda rows: ~((rows["shop"] == "001") & rows["day"].between("2023-02-01", "2023-02-02"))]
    forecast = ForecastConfig(series_id="shop", horizon=3)
    data = DataConfig(target="sold", time_column="day")
    profiled = profile_data(frame, ExperimentConfig(data=data, forecast=forecast))
    found = {finding.code: finding.message for finding in profiled.profile.findings}
    assert found["series-steps"] == "2 series of 148 to 150 rows in steps of 1 day."
    assert found["series-gaps"].startswith("1 gap: 2 steps are missing, most of them after 2023-01-31T00:00:00")
    assert "seasonal-naive (period 7) errs by" in found["seasonal-naive"]
    assert {column.name for column in profiled.profile.columns} >= {"weather", "sold"}
    data = DataConfig(time_column="day")
    untargeted = profile_data(frame, ExperimentConfig(data=data, forecast=ForecastConfig(series_id="shop")))
    assert [finding.code for finding in untargeted.profile.findings][:2] == ["series-steps", "series-gaps"]
    with pytest.raises(ConfigError, match="series need the order of their steps"):
        profile_data(frame, ExperimentConfig(forecast=ForecastConfig(series_id="shop")))


def test_rows_ahead_of_the_clock_are_warned_of() -> None:
    frame = sales(shops=1)
    frame.iloc[5, frame.columns.get_loc("day")] = "2999-01-01"
    data = prepared(frame, ExperimentConfig(data=DataConfig(target="sold", time_column="day")))
    (warning,) = [finding for finding in data.profile.findings if finding.code == "clock-ahead"]
    assert "a day ahead of this machine's clock, the first 2999-01-01T00:00:00 in row 6" in warning.message


def test_the_past_of_series_becomes_what_the_model_asks_for() -> None:
    config = settings(features={"shop": "categorical"})
    schema = prepared(sales(), config).schema
    assert {"shop", "weather"} <= set(read_options(config, schema=schema).text_columns)
    past = sales()
    past.loc[past.day > "2023-05-20", "sold"] = np.nan
    table = read_source(past, config, schema=schema).table
    assert wants_past(table.column_names, schema)
    rows, whose = latest_rows(table, schema.windows or {})
    assert sorted(whose["shop"]) == ["000", "001"]
    assert set(whose[LAST_KNOWN]) == {"2023-05-20T00:00:00"}
    assert {feature.name for feature in schema.used_features} <= set(rows.column_names)


def test_a_forecast_is_no_contract_for_the_rows_of_its_series(tmp_path: Path) -> None:
    config = settings()
    with RunDirectory(tmp_path / "run").staged() as staged:
        write_data(prepared(sales(), config), config, directory=staged)
    with pytest.raises(RunDirectoryError, match="is that of a forecast, whose columns are windows of series: expected"):
        validate_data(sales(), ExperimentConfig(), schema=tmp_path / "run")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ForecastConfig(horizon=101), "horizon is 101: expected 1 to 100 steps"),
        (lambda: ForecastConfig(context=-1), "context is -1: expected 1 to 1000 steps"),
        (lambda: ForecastConfig(stride=0), "stride is 0 and season 0: expected a stride of at least 1"),
        (lambda: ForecastConfig(known_future=("a",), static=("a",)), "'a' is both known ahead and static"),
        (lambda: embargo_parts("soon"), "embargo is 'soon': expected a duration such as 7d or 12h, or a"),
        (lambda: DataConfig(embargo="7d"), "embargo is '7d' and there is no time column"),
        (lambda: ExperimentConfig(data=DataConfig(task="forecast")), "the task is forecast and there is no horizon"),
        (lambda: ExperimentConfig(forecast=ForecastConfig(context=9)), "context is given and there is no horizon"),
        (lambda: ExperimentConfig(forecast=ForecastConfig(horizon=9)), "a forecast needs the order of its steps"),
        (lambda: settings(task="binary"), "task is 'binary' and a horizon is given"),
        (lambda: settings(group="shop"), "group is 'shop': a forecast has none"),
        (
            lambda: ExperimentConfig(
                data=DataConfig(time_column="t", embargo="3"), search=SearchConfig(folds=5)
            ),
            "an embargo keeps one validation part apart: leave out --embargo or --folds 5",
        ),
    ],
)
def test_settings_that_lack_or_exclude_another_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_series_that_cannot_be_forecast_are_refused() -> None:
    with pytest.raises(DataError, match=r"Expected at least 20 train windows of 98 steps known and 3 ahead, received"):
        prepared(sales(), settings(ForecastConfig(horizon=3, context=98, series_id="shop")))
    with pytest.raises(DataError, match=r"Expected each time once in a series, but 150 rows repeat one"):
        prepared(sales(), settings(ForecastConfig(horizon=3)))
    words = sales().assign(sold=["many", *["3"] * 299])
    with pytest.raises(DataError, match="received 'many' in row 1"):
        prepared(words, settings())
    with pytest.raises(ConfigError, match="'day' is the target, the time or the series"):
        prepared(sales(), settings(ForecastConfig(horizon=3, series_id="shop", known_future=("day",))))
