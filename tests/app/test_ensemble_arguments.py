from __future__ import annotations

import pytest

from app.arguments import Changes, SearchArguments, experiment_config
from app.config import ExperimentConfig, SearchConfig
from app.errors import ConfigError


def test_the_number_of_members_is_automatic_unless_given() -> None:
    assert experiment_config(SearchArguments(target="y")).search.ensemble == 0
    assert experiment_config(SearchArguments(target="y", ensemble=5)).search.ensemble == 5
    base = ExperimentConfig(search=SearchConfig(ensemble=5))
    assert experiment_config(SearchArguments(target="y"), base=base).search.ensemble == 5
    assert experiment_config(SearchArguments(target="y", ensemble=0), base=base).search.ensemble == 0


def test_toml_has_it() -> None:
    config = ExperimentConfig.from_toml("[search]\nensemble = 1\n")
    assert config.search.ensemble == 1
    assert ExperimentConfig.from_toml(config.to_toml()) == config


def test_a_resumed_experiment_may_take_another_number() -> None:
    config = ExperimentConfig(search=SearchConfig(ensemble=5))
    assert Changes().applied(config).search.ensemble == 5
    assert Changes(ensemble=1).applied(config).search.ensemble == 1


@pytest.mark.parametrize("number", [-1, 33])
def test_a_number_out_of_range_is_refused(number: int) -> None:
    expected = rf"ensemble is {number}: expected 2 to 32 trials, 1 for the winner alone, or 0 \(automatic\)"
    with pytest.raises(ConfigError, match=expected):
        SearchConfig(ensemble=number)
