"""Settings of time that only make sense together."""

from __future__ import annotations

from app.data_config import DataConfig
from app.errors import ConfigError
from app.forecast_config import ForecastConfig, embargo_parts


def check_time(data: DataConfig, forecast: ForecastConfig, *, folds: int) -> None:
    """Refuses settings of time that lack another one or exclude each other.

    Args:
        data: The data.
        forecast: What is forecast of it.
        folds: Folds that were asked for.

    Raises:
        ConfigError: Settings lack another one, or exclude each other.
    """
    if folds > 1 and any(embargo_parts(data.embargo)):
        raise ConfigError(f"an embargo keeps one validation part apart: leave out --embargo or --folds {folds}")
    if not forecast.horizon:
        given = [name for name in ("context", "season", "known_future", "static") if getattr(forecast, name)]
        if data.task == "forecast" or given:
            raise ConfigError(
                f"{f'{given[0]} is given' if given else 'the task is forecast'} and there is no horizon: say how many "
                f"steps to forecast with --horizon"
            )
        return
    if not data.time_column:
        raise ConfigError("a forecast needs the order of its steps: name the column of dates with --time-column")
    if data.task not in ("auto", "forecast"):
        raise ConfigError(f"task is {data.task!r} and a horizon is given: expected task forecast, or no horizon")
    for name in ("group", "weight"):
        if getattr(data, name):
            raise ConfigError(f"{name} is {getattr(data, name)!r}: a forecast has none; leave it out")
    if folds > 1:
        raise ConfigError(f"folds is {folds}: windows of a forecast are judged on one validation part; leave it out")
