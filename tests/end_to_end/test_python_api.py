"""`tamiz.search` on a DataFrame: regression, Hyperband, a space of one's own, settings from a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tamiz
from app.search_progress import read_progress

SETTINGS = """
name = "mass"
[search]
space = "penguin_spaces:number"
seed = 3
[training]
max_epochs = 9
"""


@pytest.fixture(scope="module")
def experiment(
    penguins: pd.DataFrame, space_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tamiz.Experiment]:
    folder = tmp_path_factory.mktemp("api")
    (folder / "my.toml").write_text(SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(space_folder)
        found = tamiz.search(
            penguins.dropna(subset=["body_mass_g"]),
            target="body_mass_g",
            trials=4,
            algorithm="hyperband+random",
            features={"year": "ignore"},
            run=folder / "mass",
            config=folder / "my.toml",
            verbose=False,
        )
        with found:
            yield found


def test_search_returns_an_experiment(experiment: tamiz.Experiment) -> None:
    assert isinstance(experiment, tamiz.Experiment)
    assert repr(experiment).endswith("mass')")
    assert experiment.schema.target.task is tamiz.Task.REGRESSION
    assert "year" not in {feature.name for feature in experiment.schema.used_features}


def test_the_file_holds_where_no_argument_is_given(experiment: tamiz.Experiment) -> None:
    config = experiment.config
    assert (config.name, config.search.space, config.search.seed) == ("mass", "penguin_spaces:number", 3)
    assert (config.search.algorithm, config.search.trials) == ("hyperband+random", 4)


def test_hyperband_resumed_paused_trials(experiment: tamiz.Experiment) -> None:
    history = read_progress(experiment.directory).history
    assert len(history) == 4
    assert any(trial.start_epoch > 0 for trial in history.values())
    for trial in history.values():
        assert [epoch for epoch, _ in trial.curve] == list(range(1, trial.epochs + 1))


def test_the_test_is_in_the_users_units(experiment: tamiz.Experiment, penguins: pd.DataFrame) -> None:
    metrics = experiment.test_metrics
    assert {"rmse", "mae", "r2", "mape"} <= set(metrics)
    assert 50 < metrics["rmse"] < 5 * penguins["body_mass_g"].std()


def test_predictions_are_in_the_users_units_and_keep_the_index(
    experiment: tamiz.Experiment, penguins: pd.DataFrame
) -> None:
    new = penguins.drop(columns="body_mass_g").sample(20, random_state=1)
    answers = experiment.predict(new)
    assert list(answers.columns) == ["prediction"]
    assert list(answers.index) == list(new.index)
    assert np.isfinite(answers["prediction"]).all()
    assert 2000 < answers["prediction"].median() < 7000
