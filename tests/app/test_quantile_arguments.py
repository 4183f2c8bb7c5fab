from __future__ import annotations

from typing import Any

import pytest

from app.arguments import SearchArguments, experiment_config
from app.config import ExperimentConfig
from app.errors import ConfigError
from app.goals import read_goals
from pipelines.errors import DataError
from pipelines.schema import TargetSpec, Task
from pipelines.target_inference import with_quantiles


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        ({"interval": 0.9}, (0.05, 0.5, 0.95)),
        ({"quantiles": "0.95, 0.05"}, (0.05, 0.5, 0.95)),
        ({"quantiles": "0.1,0.25,0.5,0.9"}, (0.1, 0.25, 0.5, 0.9)),
    ],
)
def test_intervals_and_quantiles_are_levels_with_the_median(given: dict[str, Any], levels: tuple[float, ...]) -> None:
    config = experiment_config(SearchArguments(target="y", **given))
    assert config.data.quantiles == levels
    assert ExperimentConfig.from_toml(config.to_toml()) == config


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"interval": 1.5}, r"interval is 1\.5: expected a share of the rows between 0 and 1, such as 0\.9"),
        ({"quantiles": "low,high"}, r"quantiles are 'low,high': expected levels such as 0\.05,0\.5,0\.95"),
        ({"quantiles": "0.1,0.2"}, r"quantiles are 0\.1, 0\.2, 0\.5: expected rising levels .* one below 0\.5, 0\.5"),
        ({"quantiles": "0.1,0.9", "interval": 0.9}, "give --quantiles or --interval, not both"),
    ],
)
def test_levels_that_are_none_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment_config(SearchArguments(target="y", **given))


def test_quantiles_of_classes_are_refused() -> None:
    target = TargetSpec("cut", task=Task.MULTICLASS, classes=("a", "b", "c"), reason="text with 3 distinct values")
    with pytest.raises(DataError, match=r"but the target 'cut' is that of a multiclass task \(text with 3"):
        with_quantiles(target, (0.1, 0.5, 0.9))
    number = TargetSpec("price", task=Task.REGRESSION)
    found = with_quantiles(number, (0.1, 0.5, 0.9))
    assert found.quantiles == (0.1, 0.5, 0.9)
    assert TargetSpec.from_json(found.to_json()) == found
    assert with_quantiles(target, ()) == target


def test_a_search_of_quantiles_follows_the_pinball_loss() -> None:
    assert read_goals("auto", task=Task.REGRESSION, quantiles=True).objective.metric.name == "pinball"
    goals = read_goals("interval_score", limits=["coverage>=0.9"], task=Task.REGRESSION, quantiles=True)
    assert (goals.objective.metric.name, goals.limits[0].measure) == ("interval_score", "coverage")


@pytest.mark.parametrize(
    ("objective", "quantiles", "message"),
    [
        ("pinball", False, r"pinball is of quantiles: ask for them with --interval 0\.9 or --quantiles"),
        ("coverage", True, "'coverage' is met by any interval that is wide or narrow enough; name pinball"),
        ("interval_width", True, "name pinball or interval_score first, and interval_width as a limit"),
    ],
)
def test_objectives_that_select_no_interval_are_refused(objective: str, quantiles: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_goals(objective, task=Task.REGRESSION, quantiles=quantiles)
