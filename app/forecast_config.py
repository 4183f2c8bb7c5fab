"""The settings of a forecast, and how far splits in time are kept apart."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.errors import ConfigError
from app.quantities import parse_duration

MAX_HORIZON = 100
MAX_CONTEXT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastConfig:
    """What is known of one or several time series, and what of them is forecast.

    Attributes:
        series_id: Column that tells series apart; empty for one series.
        horizon: Steps to forecast; 0 for no forecast.
        context: Steps that a forecast looks back; 0 takes two seasons, or as many steps as are forecast.
        stride: Steps between the beginnings of two windows.
        season: Steps of a season; 0 finds it in the training rows.
        known_future: Columns whose values are known ahead, such as holidays.
        static: Columns that never change within a series.
    """

    series_id: str = ""
    horizon: int = 0
    context: int = 0
    stride: int = 1
    season: int = 0
    known_future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: A number is out of range.
        """
        if not 0 <= self.horizon <= MAX_HORIZON:
            raise ConfigError(f"horizon is {self.horizon}: expected 1 to {MAX_HORIZON} steps, or 0 for no forecast")
        if not 0 <= self.context <= MAX_CONTEXT:
            raise ConfigError(f"context is {self.context}: expected 1 to {MAX_CONTEXT} steps, or 0 (automatic)")
        if self.stride < 1 or self.season < 0:
            raise ConfigError(
                f"stride is {self.stride} and season {self.season}: expected a stride of at least 1 and a season of at "
                f"least 1, or 0 (found in the data)"
            )
        twice = set(self.known_future) & set(self.static)
        if twice:
            raise ConfigError(f"{min(twice)!r} is both known ahead and static: a column that never changes is static")


def embargo_parts(text: str) -> tuple[float, int]:
    """Returns the seconds and the steps that an embargo such as ``7d`` or ``100`` stands for; one of them is 0.

    Raises:
        ConfigError: It is neither a duration nor a number.
    """
    text = text.strip()
    if not text or text == "0":
        return 0.0, 0
    if re.fullmatch(r"\d{1,9}", text, re.ASCII):
        return 0.0, int(text)
    try:
        return parse_duration(text), 0
    except ConfigError:
        raise ConfigError(f"embargo is {text!r}: expected a duration such as 7d or 12h, or a number of rows") from None
