from __future__ import annotations

import pytest

from app.config import ExperimentConfig, SearchConfig
from app.errors import ConfigError
from app.one_shot_stage import check_one_shot, with_cells
from app.search_stage import check_settings
from app.shared_scores import ONE_SHOT


def config_of(**changes: str) -> ExperimentConfig:
    return ExperimentConfig(search=SearchConfig(**changes))  # type: ignore[arg-type]


def test_another_space_has_no_shared_weights() -> None:
    message = (
        r"the algorithm 'one-shot' shares weights between the networks of --space cell, and the space is 'cnn': give "
        r"--space cell, or another algorithm, such as --algorithm bayesian"
    )
    with pytest.raises(ConfigError, match=message):
        check_settings(config_of(algorithm=ONE_SHOT, space="cnn"))


def test_where_no_space_is_named_it_is_that_of_cells() -> None:
    config = config_of(algorithm=ONE_SHOT)
    check_one_shot(config)
    assert with_cells(config).search.space == "cell"


def test_other_algorithms_keep_their_space() -> None:
    config = config_of(algorithm="evolution")
    assert with_cells(config) is config
